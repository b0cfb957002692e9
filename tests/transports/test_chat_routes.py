"""Chat Completions through real sockets, with OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from greenroom import (
    AgentApp,
    AgentRequest,
    Data,
    ItemDone,
    ItemStarted,
    Message,
    PartDone,
    Session,
    Text,
    ToolCall,
    Usage,
)
from greenroom.transports.chat_encode import ToolDisplay
from greenroom.transports.openai_fields import BASE_PATH
from kits.chat_rules import Said, check_completion, check_stream
from kits.http_client import served
from kits.system import asked

SIZE = 1 << 16
WEATHER: Any = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


class Chat:
    """Chat Completions as bytes."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def post(self, body: Any, **options: Any) -> tuple[int, bytes, Any]:
        """A request as it is; its status, body and headers."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **options}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self.url}/chat/completions", data=data, headers=headers) as response,
        ):
            return response.status, await response.read(), response.headers

    async def said(self, **body: Any) -> Said:
        """A stream, read and checked."""
        status, stream, headers = await self.post({**body, "stream": True})
        assert (status, headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        data = [line.removeprefix("data: ") for line in stream.decode().split("\n\n")[:-1]]
        return check_stream(data, counted=bool(body.get("stream_options")))


@asynccontextmanager
async def chatting(app: AgentApp, tools: ToolDisplay = "hidden") -> AsyncIterator[tuple[Chat, Any]]:
    """Serve an application; a client, and OpenAI's."""
    async with served(app, chat_tool_display=tools, compatible_body_bytes=SIZE) as server:
        chat = Chat(server.url + BASE_PATH)
        async with AsyncOpenAI(base_url=chat.url, api_key="any") as client:
            yield chat, client


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def echoing(**settings: Any) -> AgentApp:
    """It says word for word, with their roles, what the turn's messages were."""
    app = AgentApp("friday", **settings)

    @app.query()
    async def answer(msgs: list[Message]) -> AsyncIterator[Any]:
        if "fail" in asked(msgs[-1]):
            yield "Well"
            raise ValueError("a secret")
        for word in " ".join(f"{msg.role}:{asked(msg)}" for msg in msgs).split():
            yield f"{word} "
        yield Usage(3, 2)

    return app


async def test_one_completion() -> None:
    async with chatting(echoing()) as (chat, client):
        completion = await client.chat.completions.create(model="m", messages=[user("one two")])
        _, body, _ = await chat.post({"messages": [user("x")]})
    assert completion.choices[0].message.content == "user:one two "
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert (completion.model, completion.usage.total_tokens) == ("m", 5)
    assert check_completion(body)["model"] == "friday"


async def test_a_stream() -> None:
    async with chatting(echoing()) as (chat, client):
        stream = await client.chat.completions.create(
            model="m",
            messages=[user("one two")],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        said = await chat.said(messages=[user("one two")], stream_options={"include_usage": True})
    assert [chunk.choices[0].delta.content for chunk in chunks[1:-2]] == ["user:one ", "two "]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert (said.text(), said.finish_reason) == ("user:one two ", "stop")
    assert said.usage is not None
    assert said.usage["total_tokens"] == chunks[-1].usage.total_tokens == 5


async def test_each_event_is_a_chunk_of_its_own() -> None:
    async with (
        chatting(echoing()) as (chat, _),
        aiohttp.ClientSession() as http,
        http.post(
            f"{chat.url}/chat/completions", json={"messages": [user("one two")], "stream": True}
        ) as response,
    ):
        assert response.headers["Cache-Control"] == "no-cache"
        async for chunk, _whole in response.content.iter_chunks():
            assert chunk.startswith(b"data: ")
            assert chunk.count(b"\n\n") == 1


async def test_the_whole_dialogue_is_the_input_and_leaves_nothing() -> None:
    dialogue = [
        {"role": "system", "content": "brief"},
        user("one"),
        {"role": "assistant", "content": "two"},
        user("three"),
    ]
    app = echoing()
    async with chatting(app) as (_, client):
        for _again in range(2):
            completion = await client.chat.completions.create(model="m", messages=dialogue)
            assert completion.choices[0].message.content == "system:brief user:one assistant:two user:three "


async def test_a_session_remembers_and_gets_what_is_new() -> None:
    app = AgentApp("friday")

    @app.query()
    async def answer(msgs: list[Message], session: Session) -> str:
        before = [asked(message) for turn in await session.history() for message in turn.input]
        return f"{before} {[asked(msg) for msg in msgs]}"

    where = {"session_id": "s1"}
    async with chatting(app) as (_, client):

        async def ask(*messages: dict[str, Any], **extra: Any) -> str:
            completion = await client.chat.completions.create(
                model="m",
                messages=list(messages),
                extra_body=extra,
            )
            said: str = completion.choices[0].message.content
            return said

        assert await ask(user("one"), **where) == "[] ['one']"
        said = {"role": "assistant", "content": "whatever"}
        assert await ask(user("one"), said, user("two"), **where) == "['one'] ['two']"
        assert await ask(user("three"), **where) == "['one', 'two'] ['three']"
        assert await ask(user("four")) == "[] ['four']"


async def test_tools_that_the_client_runs() -> None:
    app = AgentApp("friday")

    @app.query(framework="events", honours={"tools"})
    async def answer(msgs: list[Message], request: AgentRequest) -> AsyncIterator[Any]:
        last = msgs[-1]
        if last.type == "function_call_output":
            [output] = last.content
            assert isinstance(output, Data)
            yield f"It is {output.data['output']}."
            return
        assert request.tools is not None
        name = request.tools[0]["function"]["name"]
        yield ItemStarted("a", "tool_call", call_id="c1", name=name)
        yield PartDone(ToolCall("c1", name, '{"city": "Paris"}'), "a")
        yield ItemDone("a")

    messages: list[Any] = [user("Weather?")]
    async with chatting(app) as (chat, client):
        first = await client.chat.completions.create(model="m", messages=messages, tools=[WEATHER])
        [choice] = first.choices
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        assert choice.message.tool_calls is not None
        [call] = choice.message.tool_calls
        assert call.type == "function"
        assert (call.id, call.function.name, call.function.arguments) == (
            "c1",
            "get_weather",
            '{"city": "Paris"}',
        )
        said = await chat.said(messages=messages, tools=[WEATHER])
        assert said.calls == [{"id": "c1", "name": "get_weather", "arguments": '{"city": "Paris"}'}]
        messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
        second = await client.chat.completions.create(model="m", messages=messages, tools=[WEATHER])
    assert second.choices[0].message.content == "It is sunny."


@pytest.mark.parametrize(("tools", "text"), [("hidden", "Found."), ("text", "> search {}\n\nFound.")])
async def test_tools_that_the_agent_runs(tools: ToolDisplay, text: str) -> None:
    app = AgentApp("friday")

    @app.query(framework="events")
    async def answer(msgs: list[Message]) -> AsyncIterator[Any]:
        yield ItemStarted("a", "tool_call", call_id="c1", name="search")
        yield PartDone(ToolCall("c1", "search", "{}"), "a")
        yield ItemDone("a")
        yield Text("Found.")

    async with chatting(app, tools) as (chat, client):
        completion = await client.chat.completions.create(model="m", messages=[user("x")])
        said = await chat.said(messages=[user("x")])
    [choice] = completion.choices
    assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == (text, None, "stop")
    assert (said.text(), said.calls) == (text, [])


# -- what goes wrong -----------------------------------------------------------------------------------------------


async def test_a_run_that_failed_is_not_run_again() -> None:
    runs = 0
    app = AgentApp("friday")

    @app.query()
    async def answer(msgs: list[Message]) -> str:
        nonlocal runs
        runs += 1
        raise ValueError("a secret")

    async with chatting(app) as (chat, client):
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(model="m", messages=[user("x")])
        assert runs == 1
        status, body, _ = await chat.post({"messages": [user("x")]})
    assert "secret" not in caught.value.message
    assert status == 424, "on no 5xx do all clients leave it at that"
    assert json.loads(body)["error"].keys() == {"message", "type", "param", "code"}


async def test_a_stream_that_fails_says_so() -> None:
    async with chatting(echoing()) as (chat, client):
        stream = await client.chat.completions.create(
            model="m",
            messages=[user("fail")],
            stream=True,
        )
        heard = [(await anext(stream)).choices[0].delta.content for _ in range(2)]
        with pytest.raises(openai.APIError, match="ValueError"):
            await anext(stream)
        said = await chat.said(messages=[user("fail")])
    assert heard == ["", "Well"]
    assert said.error is not None
    assert (said.error["type"], said.error["code"]) == ("server_error", "424")


async def test_a_cancelled_run_is_no_completion() -> None:
    app, at_work = AgentApp("friday"), asyncio.Event()
    ids: list[str] = []

    @app.query()
    async def answer(msgs: list[Message], request: AgentRequest) -> AsyncIterator[str]:
        ids.append(request.id or "")
        yield "Well"
        at_work.set()
        await asyncio.Event().wait()

    async with chatting(app) as (chat, _):
        for body in ({"messages": [user("x")]}, {"messages": [user("x")], "stream": True}):
            at_work.clear()
            asking = asyncio.create_task(chat.post(body))
            await at_work.wait()
            await app.cancel(ids[-1])
            status, answered, _ = await asking
            if body.get("stream"):
                assert status == 200
                assert b'"code":"424"' in answered
                assert answered.endswith(b"data: [DONE]\n\n")
            else:
                assert status == 424
                assert json.loads(answered)["error"]["code"] == "cancelled"


async def test_a_client_that_goes_may_end_its_turn() -> None:
    app, at_work, ended = AgentApp("friday"), asyncio.Event(), asyncio.Event()

    @app.query()
    async def answer(msgs: list[Message]) -> AsyncIterator[str]:
        try:
            yield "Well"
            at_work.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with chatting(app) as (_, client):
        stream = await client.chat.completions.create(
            model="m",
            messages=[user("x")],
            stream=True,
            extra_body={"disconnect": "cancel"},
        )
        await at_work.wait()
        await stream.close()
        await asyncio.wait_for(ended.wait(), 10)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"\xff\xfe", None),
        (b"[]", None),
        ({}, "messages"),
        ({"messages": [user("x")], "n": 2}, "n"),
        ({"messages": [user("x")], "tools": [WEATHER]}, "tools"),
        ({"messages": [user("x")], "tool_choice": "none"}, "tool_choice"),
        ({"messages": [user("x")], "functions": [{"name": "f"}]}, "functions"),
        ({"messages": [user("x")], "max_tokens": 5, "stream": True}, "max_tokens"),
    ],
)
async def test_bad_bodies(body: Any, param: str | None) -> None:
    async with chatting(echoing()) as (chat, _):
        status, answered, _ = await chat.post(body)
    error = json.loads(answered)["error"]
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)


async def test_a_body_that_is_too_large() -> None:
    async with chatting(echoing()) as (chat, _):
        status, answered, _ = await chat.post({"messages": [user("x" * SIZE)]})
    assert (status, json.loads(answered)["error"]["code"]) == (413, "body_too_large")


async def test_who_is_not_known_is_turned_away() -> None:
    async with chatting(echoing(authenticate=lambda headers: None)) as (_, client):
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="m", messages=[user("x")])


async def test_an_answer_in_the_form_asked_for() -> None:
    app = AgentApp("friday")

    @app.query()
    async def answer(msgs: list[Message]) -> str:
        return asked(msgs[-1])

    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    async with chatting(app) as (_, client):
        completion = await client.chat.completions.create(
            model="m",
            messages=[user('{"a":1}')],
            response_format=form,
        )
        assert completion.choices[0].message.content == '{"a":1}'
        with pytest.raises(openai.APIStatusError, match="form"):
            await client.chat.completions.create(
                model="m",
                messages=[user('{"a":"b"}')],
                response_format=form,
            )
