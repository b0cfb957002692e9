"""Chat Completions, which many chat front ends speak only: openai-python and LangChain."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from kits.scripted_model_script import (
    CallTool,
    Fail,
    Finish,
    Reply,
    Request,
    Say,
    Think,
    Usage,
    tool_names,
    tool_results,
    user_texts,
)
from kits.sdk_clients import BASE_PATH, Wire, heard_http
from kits.stage import Stage

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."

CLOCK: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "clock",
        "description": "The time.",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"type": "string"}},
            "required": ["zone"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


class Capital(BaseModel):
    """The capital."""

    city: str


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def tells_the_time(request: Request) -> Reply:
    """Asks the caller's clock for the time, and tells what it says; else all that the user said."""
    if tool_results(request):
        return Say("It is " + ", ".join(text for _, text in tool_results(request)))
    if "time" in user_texts(request)[-1] and "clock" in tool_names(request):
        return CallTool("clock", {"zone": "UTC"}, id="call_1")
    return Say(", ".join(user_texts(request)))


async def test_one_completion(stage: Stage, client: Any) -> None:
    completion = await client.chat.completions.create(model="any_name", messages=[user(QUESTION)])
    (choice,) = completion.choices
    assert (choice.message.content, choice.finish_reason) == (ANSWER, "stop")
    assert (completion.object, completion.model) == ("chat.completion", "any_name")
    assert completion.usage.total_tokens > 0


async def test_a_stream_with_its_usage(stage: Stage, client: Any) -> None:
    stage.play([[Think("Hm."), Say("one two three"), Usage(4, 5)]])
    stream = await client.chat.completions.create(
        model="m", messages=[user("count")], stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert [delta.content for delta in deltas if delta.content] == ["one ", "two ", "three"]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 9)
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_without_usage_has_none(stage: Stage, client: Any) -> None:
    stream = await client.chat.completions.create(model="m", messages=[user(QUESTION)], stream=True)
    chunks = [chunk async for chunk in stream]
    assert all(chunk.choices for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER


async def test_a_whole_dialogue(stage: Stage, client: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        user("My name is Ada."),
        {"role": "assistant", "content": "Nice to meet you, Ada."},
        user("What is my name?"),
    ]
    completion = await client.chat.completions.create(model="m", messages=messages)
    assert completion.choices[0].message.content == "Your name is Ada."


async def test_a_tool_round_trip(stage: Stage, client: Any) -> None:
    stage.play(tells_the_time)
    messages: list[Any] = [user("What time is it?")]
    first = await client.chat.completions.create(model="m", messages=messages, tools=[CLOCK])
    (choice,) = first.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("clock", {"zone": "UTC"})
    messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "noon"}]
    second = await client.chat.completions.create(model="m", messages=messages, tools=[CLOCK])
    assert second.choices[0].message.content == "It is noon"


async def test_the_stream_helper_gathers_a_tool_call(stage: Stage, client: Any) -> None:
    stage.play(tells_the_time)
    async with client.chat.completions.stream(
        model="m", messages=[user("What time is it?")], tools=[CLOCK]
    ) as stream:
        async for _ in stream:
            pass
        completion = await stream.get_final_completion()
    (call,) = completion.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"zone": "UTC"}


async def test_parse(stage: Stage, client: Any) -> None:
    stage.play(['{"city": "Paris"}'])
    completion = await client.chat.completions.parse(
        model="m", messages=[user(QUESTION)], response_format=Capital
    )
    assert completion.choices[0].message.parsed == Capital(city="Paris")


async def test_our_agents_own_tools_stay_its_own(stage: Stage, client: Any) -> None:
    stage.play([[CallTool("get_weather", {"city": "Rome"})], Say("Sunny.")])
    completion = await client.chat.completions.create(model="m", messages=[user("The weather?")])
    (choice,) = completion.choices
    assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == (
        "Sunny.",
        None,
        "stop",
    )


async def test_the_bound_on_tokens(stage: Stage, client: Any) -> None:
    stage.play([[Say("one two"), Finish("length"), Usage(5, 16)]])
    completion = await client.chat.completions.create(model="m", messages=[user("count")], max_tokens=16)
    assert completion.choices[0].finish_reason == "length"


async def test_a_session_is_shared_with_the_responses(stage: Stage, client: Any) -> None:
    stage.play(tells_the_time)
    where = {"extra_body": {"session_id": "chatted"}}
    await client.responses.create(model="m", input="one", **where)
    completion = await client.chat.completions.create(model="m", messages=[user("two")], **where)
    assert completion.choices[0].message.content == "one, two"


async def test_bad_input(stage: Stage, client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="m", messages=[])
    assert caught.value.param == "messages"
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="m", messages=[user("x")], temperature=9)
    assert caught.value.param == "temperature"


async def test_a_model_that_fails_is_asked_once(stage: Stage, client: Any) -> None:
    stage.play(lambda request: Fail(500, "quota"))
    with pytest.raises(openai.APIStatusError):
        await client.chat.completions.create(model="m", messages=[user("hello")])
    assert len(stage.model.requests) == 1, "the SDK did not try again"


# -- LangChain ---------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="session")
async def chat(stage: Stage, wire: Wire) -> AsyncIterator[Any]:
    """A chat model of LangChain's that speaks Chat Completions."""
    url: Any = stage.process.url + BASE_PATH
    async with heard_http(wire) as http:
        yield ChatOpenAI(
            model="any_name",
            base_url=url,
            api_key=SecretStr("any"),
            use_responses_api=False,
            stream_usage=True,
            http_async_client=http,
        )


async def test_langchain_invokes_and_streams(stage: Stage, chat: Any) -> None:
    message = await chat.ainvoke(QUESTION)
    assert (message.text, message.tool_calls) == (ANSWER, [])
    whole: Any = None
    async for chunk in chat.astream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    assert whole.text == ANSWER
    assert whole.usage_metadata["total_tokens"] > 0


async def test_langchain_runs_its_tools(stage: Stage, chat: Any) -> None:
    stage.play(tells_the_time)
    bound, asked = chat.bind_tools([CLOCK]), HumanMessage("What time is it?")
    message = await bound.ainvoke([asked])
    told = ToolMessage("noon", tool_call_id=message.tool_calls[0]["id"])
    assert (await bound.ainvoke([asked, message, told])).text == "It is noon"


async def test_langchain_gets_structured_output(stage: Stage, chat: Any) -> None:
    stage.play(['{"city": "Paris"}'])
    assert await chat.with_structured_output(Capital, method="json_schema").ainvoke(QUESTION) == Capital(
        city="Paris"
    )
