"""AgentScope 1.x's model classes and formatters: each service gets settings and words in its own way. No network."""

from typing import Any

import pytest

from greenroom.actors.messages import AnswerFormat, TurnOptions
from kits.agentscope_line import require_line

require_line(1)

from agentscope import formatter as formatters
from agentscope import model as models
from agentscope.message import Msg

from greenroom.actors.frameworks.agentscope1_dialects import Wish, dialect_of
from greenroom.actors.frameworks.agentscope1_options import told

pytestmark = pytest.mark.agentscope1

ANSWER = AnswerFormat(kind="json_schema", schema={"type": "object"})
OPTIONS = TurnOptions(
    temperature=0.5, top_p=0.25, reasoning_effort="low", parallel_tool_calls=False, answer=ANSWER
)
SAMPLING = {"temperature": 0.5, "top_p": 0.25}


def made(name: str, **fields: Any) -> Any:
    """A model of AgentScope's, without the client of its service, which need not be installed."""
    kind = getattr(models, name)
    model = kind.__new__(kind)
    for field, value in {"generate_kwargs": {}, **fields}.items():
        setattr(model, field, value)
    return model


def settings(model: Any, *, left: int | None = 50, has_tools: bool = True) -> dict[str, Any]:
    return dialect_of(model).settings(model, Wish(OPTIONS, left, has_tools, answers=True))


def openai(base_url: str | None = None, **kwargs: Any) -> Any:
    return models.OpenAIChatModel(
        "m", api_key="any", client_kwargs={"base_url": base_url} if base_url else None, **kwargs
    )


def test_openai_and_services_like_it() -> None:
    found = settings(openai("http://127.0.0.1:1/v1"))
    assert found == {
        **SAMPLING,
        "max_tokens": 50,
        "reasoning_effort": "low",
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}},
        },
    }
    assert settings(openai("https://api.openai.com/v1"))["max_completion_tokens"] == 50


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(("own", "bound"), [(20, 20), (80, 50)])
def test_a_models_own_bound_counts_if_it_is_lower(name: str, own: int, bound: int) -> None:
    found = settings(openai("https://api.openai.com/v1", generate_kwargs={name: own}))
    assert {key: value for key, value in found.items() if "tokens" in key} == {name: bound}


def test_without_tools_nothing_is_said_of_them() -> None:
    assert "parallel_tool_calls" not in settings(openai("http://x/v1"), has_tools=False)


def test_nothing_asked_nothing_set() -> None:
    for name in ("OpenAIResponseModel", "GeminiChatModel", "DashScopeChatModel", "AnthropicChatModel"):
        model = made(name, max_tokens=4096)
        assert not dialect_of(model).settings(model, Wish(TurnOptions(), None, has_tools=True, answers=True))
    ollama = made("OllamaChatModel", options={"seed": 1})
    assert not dialect_of(ollama).settings(ollama, Wish(TurnOptions(), None, has_tools=True, answers=True))


def test_other_services() -> None:
    assert settings(made("OpenAIResponseModel", reasoning_summary="auto")) == {
        **SAMPLING,
        "max_output_tokens": 50,
        "reasoning": {"effort": "low", "summary": "auto"},
        "parallel_tool_calls": False,
        "text": {"format": {"type": "json_schema", "name": "answer", "schema": {"type": "object"}}},
    }
    assert settings(made("AnthropicChatModel", max_tokens=20)) == {**SAMPLING, "max_tokens": 20}
    assert settings(made("DashScopeChatModel")) == {
        **SAMPLING,
        "max_tokens": 50,
        "parallel_tool_calls": False,
    }
    assert settings(made("GeminiChatModel")) == {**SAMPLING, "max_output_tokens": 50}


def test_ollama_has_options() -> None:
    model = made("OllamaChatModel", options={"seed": 1, "num_predict": 20})
    assert settings(model) == {"options": {"seed": 1, "num_predict": 20, **SAMPLING}}
    assert settings(model, has_tools=False)["format"] == {"type": "object"}


FORMATTERS = [
    "OpenAIChatFormatter",
    "OpenAIMultiAgentFormatter",
    "OpenAIResponseChatFormatter",
    "DashScopeChatFormatter",
    "DashScopeMultiAgentFormatter",
    "AnthropicChatFormatter",
    "GeminiChatFormatter",
    "OllamaChatFormatter",
    "DeepSeekChatFormatter",
]


@pytest.mark.parametrize("name", FORMATTERS)
async def test_words_are_added_to_the_system_prompt_in_its_form(name: str) -> None:
    msgs = [Msg("system", "You help.", "system"), Msg("user", "hello", "user")]
    make = getattr(formatters, name)
    before = await make().format(msgs)
    after = told(before, "Whisper.")
    both = [msgs[0], Msg("user", "hello", "user")]
    both[0].content = [{"type": "text", "text": "You help."}, {"type": "text", "text": "Whisper."}]
    assert len(after) == len(before)
    assert after[1:] == before[1:]
    assert "Whisper." not in repr(before)
    expected = (await make().format(both))[0]
    assert _flat(after[0]) == _flat(expected)


def _flat(message: Any) -> Any:
    """A message, whose text may be one string or several blocks."""
    content = message.get("content")
    return {**message, "content": content.split()} if isinstance(content, str) else message


def test_words_without_a_system_prompt_come_first() -> None:
    prompt = [{"role": "user", "content": "hello"}]
    assert told(prompt, "Whisper.") == [{"role": "system", "content": "Whisper."}, *prompt]
    assert told([], "Whisper.") == [{"role": "system", "content": "Whisper."}]
