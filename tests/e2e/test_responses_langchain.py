"""LangChain's ChatOpenAI with `use_responses_api=True`, with an agent of ours in the model's place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from kits.scripted_model_script import (
    CallTool,
    Reply,
    Request,
    Say,
    Think,
    text_of,
    tool_names,
    tool_results,
    user_texts,
)
from kits.sdk_clients import BASE_PATH, Wire, heard_http
from kits.stage import Stage

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


class Capital(BaseModel):
    """The capital."""

    city: str


@tool
def clock(zone: str) -> str:
    """The time."""
    return f"noon in {zone}"


@pytest_asyncio.fixture(loop_scope="session")
async def make_chat(stage: Stage, wire: Wire) -> AsyncIterator[Any]:
    """Makes a chat model of LangChain's for the workshop."""
    async with heard_http(wire) as http:

        def make(**options: Any) -> Any:
            url: Any = stage.process.url + BASE_PATH
            return ChatOpenAI(
                model="any_name",
                base_url=url,
                api_key=SecretStr("any"),
                use_responses_api=True,
                http_async_client=http,
                **options,
            )

        yield make


@pytest.fixture
def chat(make_chat: Any) -> Any:
    return make_chat()


def tells_the_time(request: Request) -> Reply:
    """Asks the caller's clock for the time, and tells what it says; else all that the user said."""
    if tool_results(request):
        return Say("It is " + ", ".join(text for _, text in tool_results(request)))
    if "time" in user_texts(request)[-1] and "clock" in tool_names(request):
        return CallTool("clock", {"zone": "UTC"}, id="call_1")
    return Say(", ".join(user_texts(request)))


async def test_invoke(stage: Stage, chat: Any) -> None:
    message = await chat.ainvoke(QUESTION)
    assert message.text == ANSWER
    assert message.response_metadata["status"] == "completed"
    assert message.usage_metadata["total_tokens"] > 0
    assert message.tool_calls == []


async def test_messages_of_every_role(stage: Stage, chat: Any) -> None:
    stage.play(tells_the_time)
    said = [SystemMessage("Be brief."), HumanMessage("one"), AIMessage("Yes?"), HumanMessage("two")]
    assert (await chat.ainvoke(said)).text == "one, two"
    assert "Be brief." in [text_of(message) for message in stage.model.requests[-1]["messages"]]


async def test_stream(stage: Stage, chat: Any) -> None:
    chunks = [chunk async for chunk in chat.astream(QUESTION)]
    assert "".join(chunk.text for chunk in chunks) == ANSWER
    assert len([chunk for chunk in chunks if chunk.text]) > 3, "it streams"


async def test_our_agents_own_tools_are_no_calls_for_it(stage: Stage, chat: Any) -> None:
    stage.play(tells)
    message = await chat.ainvoke("The weather?")
    assert (message.text, message.tool_calls, message.invalid_tool_calls) == ("Sunny.", [], [])
    whole: Any = None
    async for chunk in chat.astream("The weather?"):
        whole = chunk if whole is None else whole + chunk
    assert (whole.text, whole.tool_calls) == ("Sunny.", [])
    again = await chat.ainvoke([HumanMessage("The weather?"), message, HumanMessage("Sure?")])
    assert again.text == "Sunny."


def tells(request: Request) -> Reply:
    """Thinks, looks the weather up, and tells it."""
    if tool_results(request):
        return Say("Sunny.")
    return [Think("Hm."), CallTool("get_weather", {"city": "Rome"})]


async def test_bind_tools(stage: Stage, chat: Any) -> None:
    stage.play(tells_the_time)
    bound = chat.bind_tools([clock])
    asked = HumanMessage("What time is it?")
    message = await bound.ainvoke([asked])
    (call,) = message.tool_calls
    assert (call["name"], call["args"]) == ("clock", {"zone": "UTC"})
    told = ToolMessage(clock.invoke(call["args"]), tool_call_id=call["id"])
    assert (await bound.ainvoke([asked, message, told])).text == "It is noon in UTC"
    whole: Any = None
    async for chunk in bound.astream([asked]):
        whole = chunk if whole is None else whole + chunk
    assert [call["args"] for call in whole.tool_calls] == [{"zone": "UTC"}]


async def test_bind_tools_and_continue_by_the_response_id(stage: Stage, chat: Any) -> None:
    stage.play(tells_the_time)
    bound = chat.bind_tools([clock])
    message = await bound.ainvoke("What time is it?")
    told = ToolMessage("noon", tool_call_id=message.tool_calls[0]["id"])
    answer = await bound.ainvoke([told], previous_response_id=message.response_metadata["id"])
    assert answer.text == "It is noon"


@pytest.mark.parametrize(
    "options", [{"method": "json_schema", "strict": True}, {"method": "function_calling"}]
)
async def test_with_structured_output(stage: Stage, chat: Any, options: dict[str, Any]) -> None:
    stage.play(
        lambda request: (
            CallTool("Capital", {"city": "Paris"})
            if "Capital" in tool_names(request)
            else Say('{"city": "Paris"}')
        )
    )
    assert await chat.with_structured_output(Capital, **options).ainvoke(QUESTION) == Capital(city="Paris")


async def test_previous_response_id(stage: Stage, chat: Any, make_chat: Any) -> None:
    stage.play(tells_the_time)
    first = await chat.ainvoke("one")
    second = await chat.ainvoke([HumanMessage("two")], previous_response_id=first.response_metadata["id"])
    assert second.text == "one, two"
    finding = make_chat(use_previous_response_id=True)
    third = await finding.ainvoke([HumanMessage("one"), first, HumanMessage("three")])
    assert third.text == "one, three"
    assert stage.prompts[-1] == ["one", "three"]


async def test_reasoning_is_shown(stage: Stage, make_chat: Any) -> None:
    stage.play([[Think("Let me see."), Say("Paris.")]] * 2)
    thinking = make_chat(reasoning={"effort": "low", "summary": "auto"}, output_version="v1")
    message = await thinking.ainvoke(QUESTION)
    assert [block["reasoning"] for block in message.content_blocks if block["type"] == "reasoning"] == [
        "Let me see."
    ]
    whole: Any = None
    async for chunk in thinking.astream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    assert whole.text == "Paris."
