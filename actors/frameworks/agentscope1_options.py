"""What a turn's options do to the model calls of AgentScope 1.x.

A turn that has options has one `TurnModels`, made with its translator. The wrapped models (`agentscope1_turns`) ask it
before each call and tell it what was said. Words and settings go into every call. Tools, a tool choice and the form of
the answer go only into those in which an agent that the handler called reasons (`agentscope1_loop`): nobody else could
do with a client's tool what must be done, and stop.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from greenroom.actors.frameworks.agentscope1_blocks import Block
from greenroom.actors.frameworks.agentscope1_dialects import Dialect, Wish, dialect_of
from greenroom.actors.frameworks.model_options import (
    check_choice,
    check_names,
    is_spent,
    spend,
    tokens_left,
    tool_schema,
    words_of,
)
from greenroom.actors.frameworks.tool_budget import ToolBudget
from greenroom.actors.frameworks.tool_demand import ToolDemand
from greenroom.actors.messages import TurnOptions
from greenroom.actors.scope import TurnScope, current_turn

HONOURED = frozenset(TurnOptions.__struct_fields__)
"""All of them. What the service behind a model has no setting for is asked for in words or seen to by what wraps it."""


class TurnModels:
    """The model calls of one turn: what its options make of them, and what came of them so far."""

    __slots__ = ("_calling", "budget", "client_tools", "demand", "options", "scope")

    def __init__(self, scope: TurnScope, options: TurnOptions) -> None:
        self.scope = scope
        self.options = options
        self.client_tools = frozenset(tool.name for tool in options.tools)
        self.demand = ToolDemand(scope, options)
        self.budget = ToolBudget(options)
        self._calling = 0
        """Of the budget, the calls in the response that is being heard."""

    def __repr__(self) -> str:
        return f"<TurnModels of {self.scope.turn_id}: {self.scope.output_tokens} tokens>"

    @property
    def spent(self) -> bool:
        """Whether no model may say more in this turn."""
        return is_spent(self.scope)

    # -- before a model call ---------------------------------------------------------------------------------------

    def fit(
        self, model: Any, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a model's call as the turn wants them.

        Raises `InvalidRequest` for a choice of tools that cannot be, and for a client's tool that is called like one of
        the agent's.
        """
        names, takes_more = _parameters(call)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if len(args) > len(names) or given.get("structured_model") is not None:
            # Arguments whose meaning is the model's own; an errand of the agent's, like a summary, where words stick.
            return args, kwargs
        self.demand.asked = True
        dialect = dialect_of(model)
        reasoning = is_reasoning(model)
        words = words_of(self.options)
        if reasoning:
            words = "\n\n".join(filter(None, (words, self._offer(dialect, given))))
        if words and names and isinstance(given.get(names[0]), list):
            given[names[0]] = told(given[names[0]], words)
        wish = Wish(self.options, tokens_left(self.scope), bool(given.get("tools")), reasoning)
        settings = dialect.settings(model, wish)
        given.update((name, value) for name, value in settings.items() if takes_more or name in names)
        leading = (given.pop(names[0]),) if args else ()
        return leading, given

    def _offer(self, dialect: Dialect, given: dict[str, Any]) -> str:
        """Put the tools and their choice into a call. Gives what is to be said of it in words."""
        options = self.options
        own = given.get("tools") or []
        check_names(options, [schema["function"]["name"] for schema in own])
        tools = [*own, *(_schema(tool_schema(tool), dialect) for tool in options.tools)]
        check_choice(options, [schema["function"]["name"] for schema in tools])
        self.demand.offered = True
        choice = given.get("tool_choice")
        words = ""
        if options.tool_choice == "none":
            finish = _finish_of(own) if choice == "required" else []
            if finish:  # the handler's own wish for structured output is no tool that the client knows of
                tools = finish
            else:
                choice = "none"
        elif self.demand.open is not None:
            choice = self.demand.open
        elif self.budget.spent:
            left = [*_finish_of(own), *tools[len(own) :]]
            tools, choice = (left, choice) if left else (tools, "none")
        if choice == "none" and "none" not in dialect.choices:
            tools = []
        elif choice is not None and not _knows(dialect, choice):
            words = "You must call a tool." if choice == "required" else f"You must call the tool {choice}."
            choice = "auto" if "auto" in dialect.choices else None
        if tools or "tools" in given:
            given["tools"] = tools
        if "tool_choice" in given or choice is not None:
            given["tool_choice"] = choice if tools else None
        return words

    # -- after a model call ----------------------------------------------------------------------------------------

    def trim(self, model: Any, response: Any) -> None:
        """Take calls out of a response that the turn forbids: some services are not told, some models do not listen."""
        if not is_reasoning(model):
            return
        none = self.options.tool_choice == "none"
        single = self.options.parallel_tool_calls is False
        if not none and not single and self.budget.most is None:
            return
        finish = reasoning_agent().finish_function_name
        kept: list[Block] = []
        called = False
        self._calling = 0
        for block in response.content:
            if block.get("type") == "tool_use":
                name = block.get("name")
                if (single and called) or (name != finish and not self._may_call(name)):
                    continue
                called = True
            kept.append(block)
        response.content = kept

    def _may_call(self, name: Any) -> bool:
        """Whether a tool may be called, which then counts."""
        if self.options.tool_choice == "none":
            return False
        if not self.budget.counts(name):
            return True
        allowed = self.budget.allows(self._calling)
        self._calling += allowed
        return allowed

    def spend(self, response: Any) -> None:
        """Count what a call's last response says, or else an estimate."""
        self.budget.made += self._calling
        self._calling = 0
        usage = getattr(response, "usage", None)
        reported = getattr(usage, "output_tokens", None) or 0
        spend(self.scope, reported, 0 if reported else _length(getattr(response, "content", ())))


_models: ContextVar[TurnModels | None] = ContextVar("greenroom_turn_models", default=None)
_reasoner: ContextVar[Any] = ContextVar("greenroom_reasoner", default=None)
"""The agent that is reasoning, if the handler itself called it."""


def begin_turn() -> TurnModels | None:
    """A turn begins in this context; none: it has no options, or there is no turn."""
    scope = current_turn.get()
    models = None if scope is None or scope.options is None else TurnModels(scope, scope.options)
    _models.set(models)
    return models


def models_of_turn() -> TurnModels | None:
    """What the options of the turn that this code runs in come to; none: it has none."""
    models = _models.get()
    return models if models is not None and models.scope is current_turn.get() else None


def reasoning_agent() -> Any:
    """The agent in whose reasoning this code runs; none: in no agent's, or in that of an agent that a tool called."""
    return _reasoner.get()


def set_reasoning_agent(agent: Any) -> Callable[[], None]:
    """This agent reasons from now on, until what is given back is called."""
    token = _reasoner.set(agent)
    return lambda: _reasoner.reset(token)


def is_reasoning(model: object) -> bool:
    """Whether a call of the model is an agent's reasoning, and not that of something the agent has about it."""
    agent = _reasoner.get()
    return agent is not None and agent.model is model


# ----------------------------------------------------------------------------------------------------------- the parts


def told(messages: list[Any], words: str) -> list[Any]:
    """The messages, formatted for whatever service, with more words in the system message, or in one of their own."""
    head = messages[0] if messages and isinstance(messages[0], dict) else {}
    if isinstance(head.get("parts"), list):  # Gemini's: there is no system message among them
        return [{**head, "parts": [*head["parts"], {"text": words}]}, *messages[1:]]
    content = head.get("content")
    if head.get("role") != "system" or not isinstance(content, str | list):
        return [{"role": "system", "content": words}, *messages]
    if isinstance(content, str):
        return [{**head, "content": f"{content}\n\n{words}" if content else words}, *messages[1:]]
    form = {name: content[-1][name] for name in ("type",) if content and name in content[-1]}
    return [{**head, "content": [*content, {**form, "text": words}]}, *messages[1:]]


@lru_cache(maxsize=256)
def _parameters(call: Callable[..., Any]) -> tuple[tuple[str, ...], bool]:
    """The names of a model call's parameters, and whether it takes others by name."""
    parameters = list(inspect.signature(call).parameters.values())[1:]
    named = tuple(
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    )
    return named, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _schema(schema: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    if not dialect.strict:
        schema["function"].pop("strict", None)
    return schema


def _finish_of(own: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    agent = reasoning_agent()
    return [schema for schema in own if schema["function"]["name"] == agent.finish_function_name]


def _knows(dialect: Dialect, choice: str) -> bool:
    return choice in dialect.choices or (dialect.named and choice not in {"auto", "none", "required"})


def _length(content: Iterable[Block]) -> int:
    return sum(
        len(str(block.get("text") or block.get("thinking") or block.get("raw_input") or ""))
        for block in content
    )
