"""Tools, reasoning, usage and models that fail, in a server process, at both levels of use."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import pairwise
from statistics import median
from typing import Any

import pytest

from kits.scripted_model_script import (
    Break,
    CallTool,
    Fail,
    Reply,
    Request,
    Say,
    Script,
    Think,
    Usage,
    last_user_text,
    rules,
    tool_results,
    user_texts,
)
from kits.stage import Stage, a_door, show
from kits.wire_grammar import check_stream, data, texts

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

HEALTH_SECONDS = 0.5
"""What `/health` may take while a tool blocks, on a machine that has other things to do; the tool blocks for ever."""


async def ending_of(stage: Stage, text: str, session: str, **options: Any) -> dict[str, Any]:
    """A turn's ending, after a stream of the right form."""
    return check_stream(await (await stage.client.ask(text, session, **options)).rest())


def output(call: dict[str, Any]) -> str:
    """The text of a tool's output."""
    return "".join(block["text"] for block in json.loads(call["output"]))


# -- tools -------------------------------------------------------------------------------------------------------------


async def test_a_tool_is_called_and_told(stage: Stage) -> None:
    stage.play(rules({"weather": CallTool("get_weather", {"city": "Paris"}, id="c1")}))
    exchange = await stage.client.ask("The weather?", "weather")
    ending = check_stream(await exchange.rest())
    assert [message["type"] for message in ending["output"]] == [
        "plugin_call",
        "plugin_call_output",
        "message",
    ]
    assert [message["role"] for message in ending["output"]] == ["assistant", "tool", "assistant"]
    call, told = data(ending, "plugin_call")[0], data(ending, "plugin_call_output")[0]
    assert (call["call_id"], call["name"]) == ("c1", "get_weather")
    assert json.loads(call["arguments"]) == {"city": "Paris"}
    assert (told["call_id"], told["name"], output(told)) == ("c1", "get_weather", "Sunny in Paris.")
    assert texts(ending) == ["get_weather says: Sunny in Paris."]

    call_id = ending["output"][0]["id"]
    snapshots = [
        event["data"]["arguments"]
        for event in exchange.events
        if event["object"] == "content" and event["msg_id"] == call_id
    ]
    assert snapshots[0] == ""
    assert all(after.startswith(before) for before, after in pairwise(snapshots))
    assert json.loads(snapshots[-1]) == {"city": "Paris"}


async def test_two_calls_at_once_each_have_their_output(stage: Stage) -> None:
    async with a_door() as door:
        calls = [
            CallTool("await_at_door", {"door": door.address}, id="c1"),
            CallTool("wait_at_door", {"door": door.address}, id="c2"),
            CallTool("get_weather", {"city": "Rome"}, id="c3"),
        ]
        stage.play(rules({"go": calls}))
        exchange = await stage.client.ask("go", "calls")
        await door.knocked(2)  # they run beside each other
        door.open("ding")
        ending = check_stream(await exchange.rest())
    assert sorted(call["call_id"] for call in data(ending, "plugin_call")) == ["c1", "c2", "c3"]
    told = {call["call_id"]: output(call) for call in data(ending, "plugin_call_output")}
    assert told == {"c1": "calls heard ding", "c2": "calls heard ding", "c3": "Sunny in Rome."}
    (answer,) = texts(ending)
    for heard in (
        "await_at_door says: calls heard ding",
        "wait_at_door says: calls heard ding",
        "Sunny in Rome.",
    ):
        assert heard in answer, "the model was told all of it"


async def test_a_tool_that_raises_does_not_fail_the_turn(stage: Stage) -> None:
    stage.play(rules({"break": CallTool("break_down", {})}))
    ending = await ending_of(stage, "break", "broken")
    assert ending["status"] == "completed"
    (told,) = data(ending, "plugin_call_output")
    assert "no luck today" in output(told)
    assert "no luck today" in texts(ending)[0], "the model was told"
    assert "Traceback" not in json.dumps(ending)


async def test_the_output_of_a_tool_that_raises_says_that_it_is_an_error(stage: Stage) -> None:
    stage.play(rules({"break": CallTool("break_down", {})}))
    (told,) = data(await ending_of(stage, "break", "error"), "plugin_call_output")
    assert output(told) == "Error: no luck today"


async def test_a_tool_that_is_not_there_does_not_fail_the_turn(stage: Stage) -> None:
    stage.play(rules({"fly": CallTool("fly", {})}))
    ending = await ending_of(stage, "fly", "unknown")
    assert ending["status"] == "completed"
    (told,) = data(ending, "plugin_call_output")
    assert "fly" in output(told)


async def test_a_synchronous_tool_does_not_hold_up_the_server(stage: Stage) -> None:
    async with a_door() as door:
        stage.play(rules({"knock": CallTool("wait_at_door", {"door": door.address}), "": "At once."}))
        exchange = await stage.client.ask("knock", "blocked")
        await door.knocked()
        seconds = []
        async with asyncio.timeout(20):  # on the loop, the tool would block it for ever
            for _ in range(20):
                started = time.perf_counter()
                assert (await stage.client.json("GET", "/health"))[0] == 200
                seconds.append(time.perf_counter() - started)
            assert texts(await ending_of(stage, "hello", "beside it")) == ["At once."]
        door.open()
        ending = check_stream(await exchange.rest())
    show(
        f"/health while a tool blocks: median {median(seconds) * 1000:.1f} ms, most {max(seconds) * 1000:.1f} ms"
    )
    assert median(seconds) < HEALTH_SECONDS
    (told,) = data(ending, "plugin_call_output")
    assert output(told) == "blocked heard come in", "context variables reach the thread"


@pytest.mark.parametrize("tool", ["wait_at_door", "await_at_door"])
async def test_a_turn_is_cancelled_while_its_tool_runs(stage: Stage, tool: str) -> None:
    async with a_door() as door:
        calls = [CallTool("get_weather", {"city": "Rome"}), CallTool(tool, {"door": door.address})]
        stage.play(rules({"knock": calls, "": lambda request: Say(", ".join(user_texts(request)))}))
        assert texts(await ending_of(stage, "one", tool)) == ["one"]
        exchange = await stage.client.ask("knock", tool)
        await door.knocked()
        await stage.client.cancel(exchange.id)
        ending = check_stream(await exchange.rest())
        assert ending["status"] == "canceled"
        assert len(data(ending, "plugin_call")) == 2
        # The model refuses calls without their outputs: the prompt has none of the cancelled turn.
        assert texts(await ending_of(stage, "three", tool)) == ["one, three"]
        if tool == "await_at_door":
            await door.left.wait()
    assert len(stage.prompts) == 3, "the agent did not go on"
    assert [status for status, _, _ in (await stage.kept(tool))["log"]] == [
        "completed",
        "cancelled",
        "completed",
    ]


async def test_a_turn_is_interrupted_while_its_tool_runs(stage: Stage) -> None:
    async with a_door() as door:
        stage.play(rules({"knock": CallTool("wait_at_door", {"door": door.address}), "": "Well."}))
        exchange = await stage.client.ask("knock", "interrupted")
        await door.knocked()
        ending = await ending_of(stage, "instead", "interrupted", overlap="interrupt")
        assert texts(ending) == ["Well."]
        assert (await exchange.ending())[0] == "cancelled"
    assert stage.prompts[-1] == ["instead"]


# -- reasoning and usage -----------------------------------------------------------------------------------------------


async def test_reasoning_is_complete_before_the_answer_opens(stage: Stage) -> None:
    stage.play([[Think("Let me think about it."), Say("Paris.")]])
    exchange = await stage.client.ask("The capital?", "reasoning")
    ending = check_stream(await exchange.rest())
    assert [message["type"] for message in ending["output"]] == ["reasoning", "message"]
    assert (texts(ending, "reasoning"), texts(ending)) == (["Let me think about it."], ["Paris."])
    told = [(event["type"], event["status"]) for event in exchange.events if event["object"] == "message"]
    assert told == [
        ("reasoning", "in_progress"),
        ("reasoning", "completed"),
        ("message", "in_progress"),
        ("message", "completed"),
    ]
    deltas = [event for event in exchange.events if event["object"] == "content" and event["delta"]]
    assert len(deltas) > 4, "it streams"


async def test_usage_is_on_the_message_and_summed_on_the_response(stage: Stage) -> None:
    first = [CallTool("get_weather", {"city": "Rome"}), Usage(100, 20, cached=64)]
    stage.play([first, [Say("Sunny."), Usage(130, 4, cached=100)]])
    ending = await ending_of(stage, "The weather?", "usage")
    usage, message = ending["usage"], ending["output"][-1]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (230, 24, 254)
    assert usage["input_tokens_details"]["cached_tokens"] == 164
    assert message["type"] == "message"
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (130, 4)


# -- models that fail --------------------------------------------------------------------------------------------------

SECRET = "the key of account 4711 is over its quota"


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (Fail(500, SECRET), []),
        (Fail(401, SECRET, code="invalid_api_key"), []),
        (Break(after=0), []),
        ([Say("half "), Break()], ["half "]),
        ([Say("half "), Fail(500, SECRET)], ["half "]),
    ],
    ids=["refused", "unauthorised", "dropped", "dropped midway", "error midway"],
)
async def test_a_model_that_fails_fails_the_turn_and_no_other(
    request: pytest.FixtureRequest, stage: Stage, failure: Reply, said: list[str]
) -> None:
    session = request.node.callspec.id
    stage.play(failing_at("two", failure))
    assert texts(await ending_of(stage, "one", session)) == ["one"]
    exchange = await stage.client.ask("two", session)
    ending = check_stream(await exchange.rest())
    assert (ending["status"], texts(ending)) == ("failed", said)
    error = ending["error"]
    assert error["code"]
    assert error["id"].startswith("err_")
    assert error["id"] in error["message"]
    for inside in (SECRET, "account 4711", "Traceback", "127.0.0.1", "site-packages", ".py"):
        assert inside not in json.dumps(exchange.events)
    await stage.logged(error["id"])
    assert texts(await ending_of(stage, "three", session)) == ["one, three"]
    kept = await stage.kept(session)
    assert kept["turns"] == 2
    assert kept["log"][1] == ["failed", "two", "".join(said)]


def failing_at(question: str, failure: Reply) -> Script:
    """Fails at that question, else tells what the user said so far."""

    def script(request: Request) -> Reply:
        if last_user_text(request) == question:
            return failure
        return Say(", ".join(user_texts(request)))

    return script


async def test_a_model_that_fails_after_a_tool_fails_the_turn(stage: Stage) -> None:
    def script(request: Request) -> Reply:
        if tool_results(request):
            return Fail(500, SECRET)
        if last_user_text(request) == "weather":
            return CallTool("get_weather", {"city": "Rome"})
        return Say(", ".join(user_texts(request)))

    stage.play(script)
    ending = await ending_of(stage, "weather", "half done")
    assert ending["status"] == "failed"
    assert output(data(ending, "plugin_call_output")[0]) == "Sunny in Rome."
    assert texts(await ending_of(stage, "again", "half done")) == ["again"]


async def test_broken_arguments_do_not_fail_the_turn(stage: Stage) -> None:
    stage.play(rules({"weather": CallTool("get_weather", '{"city": "Par')}))
    ending = await ending_of(stage, "weather", "arguments")
    assert ending["status"] == "completed"
    assert len(data(ending, "plugin_call_output")) == 1


async def test_one_failing_session_leaves_the_others_alone(stage: Stage) -> None:
    stage.play(failing_at("fail", Fail(500, SECRET)))
    asked = ["fail" if number % 3 == 0 else f"question {number}" for number in range(12)]
    endings = await asyncio.gather(
        *(ending_of(stage, text, f"beside {number}") for number, text in enumerate(asked))
    )
    expected = ["failed" if text == "fail" else "completed" for text in asked]
    assert [ending["status"] for ending in endings] == expected
