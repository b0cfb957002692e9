"""How AgentScope 1.x's model classes take the settings of a call: each passes on what its service's API has.

A class that is not known here gets what nearly all services call by the same name, if it takes such arguments at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec import Struct

from greenroom.actors.frameworks.model_options import response_format, tastes, text_format
from greenroom.actors.messages import TurnOptions

Settings: TypeAlias = dict[str, Any]


class Wish(Struct, frozen=True):
    """What is asked of one model call. `answers`: the call may give the turn's answer, and its form counts."""

    options: TurnOptions
    left: int | None
    has_tools: bool
    answers: bool


class Dialect(Struct, frozen=True):
    """A model class's way. `settings`: the keyword arguments of its call. `choices`: the tool choices it knows, besides
    a tool's name, which it may not know either (`named`)."""

    settings: Callable[[Any, Wish], Settings]
    choices: frozenset[str] = frozenset({"auto", "none", "required"})
    named: bool = True
    strict: bool = False


def dialect_of(model: object) -> Dialect:
    """The dialect of a model's class or the nearest that it derives from."""
    for base in type(model).__mro__:
        dialect = _DIALECTS.get(base.__name__)
        if dialect is not None:
            return dialect
    return _UNKNOWN


def _sampling(options: TurnOptions) -> Settings:
    found = {"temperature": options.temperature, "top_p": options.top_p}
    return {name: value for name, value in found.items() if value is not None}


def _bounded(model: Any, wish: Wish, name: str) -> Settings:
    """The bound of the call, by its name. The model's own counts if it is lower."""
    if wish.left is None:
        return {}
    own = (getattr(model, "generate_kwargs", None) or {}).get(name) or getattr(model, "max_tokens", None)
    return {name: min(wish.left, own) if isinstance(own, int) and own > 0 else wish.left}


def _chat_completions(model: Any, wish: Wish) -> Settings:
    options = wish.options
    bound = _bounded(model, wish, _bound_of_chat_completions(model))
    settings = {**_sampling(options), **tastes(options), **bound}
    if options.reasoning_effort is not None:
        settings["reasoning_effort"] = options.reasoning_effort
    if wish.has_tools and options.parallel_tool_calls is not None:
        settings["parallel_tool_calls"] = options.parallel_tool_calls
    if wish.answers and options.answer is not None:
        settings["response_format"] = response_format(options.answer)
    return settings


def _bound_of_chat_completions(model: Any) -> str:
    """The newer models of OpenAI refuse the old name, and services that are like OpenAI's may not know the new one."""
    own = getattr(model, "generate_kwargs", None) or {}
    for name in ("max_completion_tokens", "max_tokens"):
        if name in own:
            return name
    host = str(getattr(getattr(getattr(model, "client", None), "base_url", None), "host", ""))
    return "max_completion_tokens" if host.endswith(("openai.com", "azure.com")) else "max_tokens"


def _responses(model: Any, wish: Wish) -> Settings:
    options = wish.options
    settings = {**_sampling(options), **_bounded(model, wish, "max_output_tokens")}
    if options.reasoning_effort is not None:
        summary = getattr(model, "reasoning_summary", None)
        settings["reasoning"] = {
            "effort": options.reasoning_effort,
            **({"summary": summary} if summary else {}),
        }
    if wish.has_tools and options.parallel_tool_calls is not None:
        settings["parallel_tool_calls"] = options.parallel_tool_calls
    if wish.answers and options.answer is not None:
        settings["text"] = {"format": text_format(options.answer)}
    return settings


def _dashscope(model: Any, wish: Wish) -> Settings:
    """Its `response_format` knows no schema and does not go with thinking: the words of the instructions must do."""
    settings = {**_sampling(wish.options), **_bounded(model, wish, "max_tokens")}
    if wish.has_tools and wish.options.parallel_tool_calls is not None:
        settings["parallel_tool_calls"] = wish.options.parallel_tool_calls
    return settings


def _gemini(model: Any, wish: Wish) -> Settings:
    """Its JSON mode does not go with tools."""
    return {**_sampling(wish.options), **_bounded(model, wish, "max_output_tokens")}


def _ollama(model: Any, wish: Wish) -> Settings:
    """Its JSON mode keeps it from calling tools."""
    bound = {} if wish.left is None else {"num_predict": wish.left}
    own = model.options or {}
    if bound and isinstance(own.get("num_predict"), int) and own["num_predict"] > 0:
        bound["num_predict"] = min(wish.left or 0, own["num_predict"])
    asked = {**_sampling(wish.options), **bound}
    settings: Settings = {"options": {**own, **asked}} if asked else {}
    answer = wish.options.answer
    if wish.answers and answer is not None and not wish.has_tools:
        settings["format"] = answer.schema or "json"
    return settings


def _in_general(model: Any, wish: Wish) -> Settings:
    return {**_sampling(wish.options), **_bounded(model, wish, "max_tokens")}


_UNKNOWN = Dialect(_in_general)
_DIALECTS = {
    "OpenAIChatModel": Dialect(_chat_completions, strict=True),
    "OpenAIResponseModel": Dialect(_responses, strict=True),
    "AnthropicChatModel": Dialect(_in_general),
    "DashScopeChatModel": Dialect(_dashscope, frozenset({"auto", "none"})),
    "GeminiChatModel": Dialect(_gemini),
    "OllamaChatModel": Dialect(_ollama, frozenset(), named=False),
}
