"""The openai package of npm and the Vercel AI SDK, unmodified, on the machine's Node."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest

from kits.node_clients import Scripts
from kits.scripted_model_script import (
    CallTool,
    Fail,
    Reply,
    Request,
    Say,
    Think,
    text_of,
    tool_names,
    tool_results,
    user_texts,
)
from kits.sdk_clients import Wire
from kits.stage import Stage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="session"),
    # Each test starts a Node. What the two levels of use have between them, openai-python has shown.
    pytest.mark.parametrize("workshop", ["actor"], indirect=True, scope="session"),
]

Run: TypeAlias = Callable[..., Awaitable[Any]]

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
PARIS = '{"city": "Paris"}'


@pytest.fixture
def openai(stage: Stage, scripts: Scripts, wire: Wire) -> Run:
    """Plays a scenario of openai.mjs at the workshop."""
    return _player(stage, scripts, wire, "openai.mjs")


@pytest.fixture
def ai_sdk(stage: Stage, scripts: Scripts, wire: Wire) -> Run:
    """Plays a scenario of ai_sdk.mjs at the workshop."""
    return _player(stage, scripts, wire, "ai_sdk.mjs")


def _player(stage: Stage, scripts: Scripts, wire: Wire, script: str) -> Run:
    async def run(scenario: str, **arguments: Any) -> Any:
        printed = await scripts.run(script, url=stage.process.url, scenario=scenario, **arguments)
        wire.heard_elsewhere(printed["wire"])
        return printed["result"]

    return run


def tells_the_time(request: Request) -> Reply:
    """Asks the caller's clock for the time, and tells what it says; else all that the user said."""
    if tool_results(request):
        return Say("It is " + ", ".join(text for _, text in tool_results(request)))
    if "time" in user_texts(request)[-1] and "clock" in tool_names(request):
        return CallTool("clock", {"zone": "UTC"}, id=f"call_{len(request['messages'])}")
    return Say(", ".join(user_texts(request)))


def looks_the_weather_up(request: Request) -> Reply:
    """Thinks, asks a tool of our agent's, and tells."""
    if tool_results(request):
        return Say("It is sunny.")
    return [Think("Let me see."), CallTool("get_weather", {"city": "Rome"})]


# -- openai ------------------------------------------------------------------------------------------------------------


async def test_openai_creates(openai: Run) -> None:
    assert await openai("create", input=QUESTION) == {"text": ANSWER, "step7": ANSWER, "kinds": ["message"]}


async def test_openai_streams(stage: Stage, openai: Run) -> None:
    stage.play(looks_the_weather_up)
    told = await openai("stream", input="The weather?")
    assert told["text"] == "It is sunny."
    assert told["numbers"] == list(range(len(told["numbers"])))
    assert [item["type"] for item in told["output"]] == ["reasoning", "mcp_call", "message"]


async def test_openais_stream_helper(stage: Stage, openai: Run) -> None:
    stage.play(looks_the_weather_up)
    told = await openai("helper", input="The weather?")
    assert told["text"] == "".join(told["deltas"]) == "It is sunny."
    assert told["kinds"] == ["reasoning", "mcp_call", "message"]


async def test_openai_parses(stage: Stage, openai: Run) -> None:
    stage.play([PARIS, PARIS])
    assert await openai("parse", input=QUESTION) == {
        "parsed": {"city": "Paris"},
        "streamed": {"city": "Paris"},
    }


async def test_openai_runs_its_tools(stage: Stage, openai: Run) -> None:
    stage.play(tells_the_time)
    told = await openai("tools", input="What time is it?")
    assert (told["status"], json.loads(told["arguments"])) == ("completed", {"zone": "UTC"})
    assert told["text"] == "It is noon"


async def test_openai_keeps_the_dialogue_itself(stage: Stage, openai: Run) -> None:
    stage.play(tells_the_time)
    assert (await openai("stateless", input="What time is it?"))["text"] == "It is noon"


async def test_openai_continues_and_forks(stage: Stage, openai: Run) -> None:
    stage.play(tells_the_time)
    told = await openai("continued")
    assert told["texts"] == ["one, left", "one, right", "three, four"]
    assert told["items"] == ["message"] * 4


async def test_openai_asks_for_a_response_again(openai: Run) -> None:
    told = await openai("kept", input=QUESTION)
    assert told["same"]
    assert told["replay"] == list(range(3, 3 + len(told["replay"])))
    assert told["helped"] == told["replay"]
    assert told["items"] == [QUESTION]
    assert (told["gone"]["name"], told["gone"]["status"]) == ("NotFoundError", 404)


async def test_openai_in_the_background(openai: Run) -> None:
    told = await openai("background", input=QUESTION)
    assert told["first"] in ("queued", "in_progress")
    assert (told["last"], told["text"], told["cancelled"]) == ("completed", ANSWER, "completed")


async def test_openai_resumes_a_dropped_stream(openai: Run) -> None:
    told = await openai("dropped", input=QUESTION)
    assert told["numbers"] == list(range(len(told["numbers"])))
    assert told["text"] == ANSWER


async def test_openai_speaks_by_websocket(stage: Stage, openai: Run) -> None:
    stage.play(tells_the_time)
    told = await openai("socket")
    assert told["texts"] == ["one", "one, two"]
    assert told["numbers"] == list(range(len(told["numbers"])))
    assert told["error"] == "temperature"


async def test_openai_knows_our_errors(openai: Run) -> None:
    told = await openai("errors")
    assert (told["bad"]["name"], told["bad"]["param"]) == ("BadRequestError", "temperature")
    assert told["unknown"]["code"] == "previous_response_not_found"
    assert (told["model"]["name"], told["model"]["code"]) == ("NotFoundError", "model_not_found")
    assert told["route"]["name"] == "NotFoundError"


async def test_openai_sees_a_failed_response(stage: Stage, openai: Run) -> None:
    stage.play(lambda request: Fail(500, "quota"))
    told = await openai("failing", input="hello")
    assert told == {"status": "failed", "code": "server_error", "last": "response.failed"}
    assert len(stage.model.requests) == 2, "one for each that was asked for"


async def test_openai_chats(openai: Run) -> None:
    told = await openai("chat", input=QUESTION)
    assert (told["whole"], told["text"]) == (ANSWER, ANSWER)
    assert told["tokens"] > 0


async def test_openai_chats_with_tools(stage: Stage, openai: Run) -> None:
    stage.play(tells_the_time)
    assert (await openai("chatTools", input="What time is it?"))["text"] == "It is noon in UTC"


# -- the AI SDK --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chat", [False, True], ids=["responses", "chat"])
async def test_ai_sdk_generates(ai_sdk: Run, chat: bool) -> None:
    told = await ai_sdk("generate", prompt=QUESTION, chat=chat)
    assert (told["text"], told["finish"], told["calls"]) == (ANSWER, "stop", [])
    assert told["tokens"] > 0
    assert told["warnings"] == []


async def test_ai_sdk_streams(stage: Stage, ai_sdk: Run) -> None:
    stage.play([[Think("Let me see."), Say("It is Paris.")]])
    told = await ai_sdk("stream", prompt=QUESTION)
    assert (told["text"], told["finish"], told["reasoning"]) == ("It is Paris.", "stop", "Let me see.")
    assert told["kinds"].count("text-delta") == 3
    assert told["tokens"] > 0


async def test_ai_sdk_sees_our_agents_tool_run(stage: Stage, ai_sdk: Run) -> None:
    stage.play(looks_the_weather_up)
    whole = await ai_sdk("generate", prompt="The weather?")
    assert (whole["text"], whole["reasoning"]) == ("It is sunny.", "Let me see.")
    assert [call["ours"] for call in whole["calls"]] == [True]
    streamed = await ai_sdk("stream", prompt="The weather?")
    assert (streamed["text"], streamed["steps"]) == ("It is sunny.", 1)
    assert "tool-result" in streamed["kinds"]


async def test_ai_sdk_runs_its_tools(stage: Stage, ai_sdk: Run) -> None:
    stage.play(tells_the_time)
    told = await ai_sdk("tools", prompt="What time is it?")
    assert told == {"text": "It is noon in UTC", "steps": 2, "calls": [{"zone": "UTC"}]}
    assert (await ai_sdk("toolsStateless", prompt="What time is it?"))["text"] == "It is noon in UTC"


@pytest.mark.parametrize("chat", [False, True], ids=["responses", "chat"])
async def test_ai_sdk_runs_its_tools_in_a_stream(stage: Stage, ai_sdk: Run, chat: bool) -> None:
    stage.play(tells_the_time)
    told = await ai_sdk("toolsStreamed", prompt="What time is it?", chat=chat)
    assert (told["text"], told["steps"], told["finish"]) == ("It is noon in UTC", 2, "stop")


async def test_ai_sdk_gets_structured_output(stage: Stage, ai_sdk: Run) -> None:
    stage.play([PARIS, PARIS])
    assert await ai_sdk("structured", prompt=QUESTION) == {
        "whole": {"city": "Paris"},
        "last": {"city": "Paris"},
    }


@pytest.mark.parametrize("chat", [False, True], ids=["responses", "chat"])
async def test_ai_sdk_hands_a_dialogue_back(stage: Stage, ai_sdk: Run, chat: bool) -> None:
    stage.play(tells_the_time)
    prompts = ["one", "What time is it?", "two"]
    told = await ai_sdk("dialogue", prompts=prompts, chat=chat)
    assert told["texts"] == ["one", "It is noon in UTC", "one, What time is it?, two"]
    assert any("Be brief." in text_of(message) for message in stage.model.requests[-1]["messages"])


@pytest.mark.parametrize("model", ["any_name", "gpt-5"])
@pytest.mark.parametrize("store", [True, False])
async def test_ai_sdk_hands_our_agents_own_items_back(
    stage: Stage, ai_sdk: Run, model: str, store: bool
) -> None:
    """By reference what is stored, else whole, but, as it warns, without our agent's tools.

    A model whose name it knows is asked in another way: for thoughts in a form that can be handed back whole.
    """
    stage.play(looks_the_weather_up)
    told = await ai_sdk(
        "dialogue", prompts=["The weather?", "Sure?"], model=model, store=store, quiet=not store
    )
    assert told["texts"] == ["It is sunny.", "It is sunny."]
    thoughtless = any("reasoning" in warning for warning in told["warnings"])
    assert thoughtless == (not store and model != "gpt-5")


async def test_ai_sdk_streams_to_a_page(stage: Stage, ai_sdk: Run) -> None:
    stage.play(looks_the_weather_up)
    told = await ai_sdk("page", prompt="The weather?")
    assert told["text"] == "It is sunny."
    assert {"reasoning-delta", "tool-output-available", "text-delta", "finish"} <= set(told["kinds"])
    assert "error" not in told["kinds"]


async def test_ai_sdk_continues_by_previous_response_id(stage: Stage, ai_sdk: Run) -> None:
    stage.play(tells_the_time)
    assert (await ai_sdk("continued", prompts=["one", "two"]))["texts"] == ["one", "one, two"]


async def test_ai_sdk_continues_a_conversation(stage: Stage, ai_sdk: Run) -> None:
    stage.play(tells_the_time)
    told = await ai_sdk("conversation", prompts=["one", "two"], id="conv_of_the_ai_sdk")
    assert told["texts"] == ["one", "one, two"]


async def test_ai_sdks_settings(stage: Stage, ai_sdk: Run) -> None:
    stage.play(lambda request: Say("none" if request.get("tool_choice") in (None, "none") else "any"))
    told = await ai_sdk("settings", prompt="go")
    assert told == {"text": "none", "finish": "stop"}
    assert stage.model.requests[-1]["temperature"] == 0.5


async def test_ai_sdk_sees_a_failed_response(stage: Stage, ai_sdk: Run) -> None:
    stage.play(lambda request: [Say("half "), Fail(500, "quota")])
    told = await ai_sdk("failing", prompt="hello")
    assert told["generate"]
    assert (told["stream"], told["finish"]) != (None, "stop")
    assert len(stage.model.requests) == 2, "one for each that was asked for"
