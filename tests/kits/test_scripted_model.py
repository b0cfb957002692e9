"""The scripted model on the wire, read by a plain HTTP client."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kits.scripted_model import ScriptedModel
from kits.scripted_model_script import (
    Break,
    CallTool,
    Fail,
    Finish,
    Gate,
    Hang,
    Pause,
    Reply,
    Request,
    Say,
    Script,
    ScriptError,
    Think,
    Usage,
    counter,
    friday,
    in_order,
    rules,
    steady,
)

WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


def user(*texts: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text} for text in texts]


def asking(*texts: str, **fields: Any) -> Request:
    return {"model": "scripted", "messages": user(*(texts or ("Hi",))), **fields}


async def post(model: ScriptedModel, body: Request) -> tuple[int, Any]:
    """The status and the decoded JSON of an answer that is no stream."""
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{model.base_url}/chat/completions", json=body) as response,
    ):
        return response.status, await response.json()


async def events(model: ScriptedModel, body: Request) -> AsyncIterator[str]:
    """The data of each server-sent event of a streamed answer."""
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{model.base_url}/chat/completions", json={**body, "stream": True}) as response,
    ):
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        async for line in response.content:
            if line != b"\n":
                yield line.decode().removeprefix("data: ").removesuffix("\n")


async def chunks(model: ScriptedModel, body: Request) -> list[dict[str, Any]]:
    """The chunks of a whole stream, which `[DONE]` must end."""
    data = [event async for event in events(model, body)]
    assert data[-1] == "[DONE]"
    return [json.loads(event) for event in data[:-1]]


async def deltas(model: ScriptedModel, body: Request) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in await chunks(model, body) if chunk["choices"]]


async def answer(script: Script | Sequence[Reply], body: Request) -> Any:
    """The message a script answers a request with."""
    async with ScriptedModel(script) as model:
        status, completion = await post(model, body)
        assert status == 200, completion
        return completion["choices"][0]["message"]


# What is said


async def test_text_is_streamed_word_by_word() -> None:
    async with ScriptedModel([Say("Hello big world.")]) as model:
        got = await chunks(model, asking())
    assert [chunk["choices"][0]["delta"] for chunk in got] == [
        {"role": "assistant", "content": ""},
        {"content": "Hello "},
        {"content": "big "},
        {"content": "world."},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in got] == [None, None, None, None, "stop"]
    assert {(chunk["id"], chunk["object"], chunk["model"]) for chunk in got} == {
        ("chatcmpl-1", "chat.completion.chunk", "scripted")
    }
    assert not any("usage" in chunk for chunk in got)


@pytest.mark.parametrize(
    ("step", "pieces"),
    [
        (Say("abcde", chunk_size=2), ["ab", "cd", "e"]),
        (Say(chunks=("ab", "", "c")), ["ab", "", "c"]),
        (Say(" two  words\n"), [" ", "two  ", "words\n"]),
        (Say(""), []),
    ],
)
async def test_text_is_cut_as_asked(step: Say, pieces: list[str]) -> None:
    async with ScriptedModel([step]) as model:
        assert [delta["content"] for delta in (await deltas(model, asking()))[1:-1]] == pieces


@given(text=st.text(), chunk_size=st.integers(min_value=0, max_value=5))
def test_pieces_add_up_to_the_text(text: str, chunk_size: int) -> None:
    assert "".join(Say(text, chunk_size=chunk_size).pieces()) == text


def test_chunks_that_are_not_the_text_are_refused() -> None:
    with pytest.raises(ScriptError, match="do not add up"):
        Say("abc", chunks=("a", "b"))


async def test_a_plain_completion_says_what_the_stream_says() -> None:
    reply = [
        Think("Let me see."),
        Say("I look."),
        CallTool("clock"),
        CallTool("get_weather", {"city": "Paris"}, id="w"),
    ]
    async with ScriptedModel([reply]) as model:
        status, body = await post(model, asking())
    assert status == 200
    assert body["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "I look.",
                "reasoning_content": "Let me see.",
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
                    {
                        "id": "w",
                        "type": "function",
                        "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'},
                    },
                ],
            },
            "logprobs": None,
            "finish_reason": "tool_calls",
        }
    ]
    assert body["object"] == "chat.completion"


async def test_parallel_calls_are_streamed_name_first_then_fragments() -> None:
    async with ScriptedModel(
        [[CallTool("clock", "{broken"), CallTool("get_weather", {"city": "Paris"})]]
    ) as model:
        calls = [delta["tool_calls"][0] for delta in (await deltas(model, asking()))[1:-1]]
    assert calls == [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "clock", "arguments": ""}},
        {"index": 0, "function": {"arguments": "{broken"}},
        {
            "index": 1,
            "id": "call_2",
            "type": "function",
            "function": {"name": "get_weather", "arguments": ""},
        },
        {"index": 1, "function": {"arguments": '{"city":'}},
        {"index": 1, "function": {"arguments": '"Paris"}'}},
    ]


async def test_a_reply_of_tools_only_has_null_content() -> None:
    assert (await answer([CallTool("clock")], asking()))["content"] is None


async def test_usage_comes_in_a_chunk_of_its_own_when_asked_for() -> None:
    async with ScriptedModel([["Hi.", Usage(11, 7, cached=3, reasoning=2)]]) as model:
        got = await chunks(model, asking(stream_options={"include_usage": True}))
    assert [chunk["usage"] for chunk in got[:-1]] == [None, None, None]
    assert got[-1]["choices"] == []
    assert got[-1]["usage"] == {
        "prompt_tokens": 11,
        "completion_tokens": 7,
        "total_tokens": 18,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }


async def test_usage_is_counted_when_the_script_gives_none() -> None:
    async with ScriptedModel([[Think("Hm."), Say("one two")]]) as model:
        _, body = await post(model, asking("three words here"))
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (3, 3)
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": 1}


async def test_a_finish_reason_can_be_given() -> None:
    async with ScriptedModel([["cut off", Finish("length")]]) as model:
        _, body = await post(model, asking())
    assert body["choices"][0]["finish_reason"] == "length"


# When it is said


async def test_delays_go_through_the_injected_sleep() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with ScriptedModel(
        [[Pause(9), Say("a b c", delay=0.5), CallTool("clock", "{}", delay=2)]], sleep=sleep
    ) as model:
        await chunks(model, asking())
    assert slept == [9, 0.5, 0.5, 2]


async def test_the_injected_clock_dates_the_answer() -> None:
    async with ScriptedModel(["Hi."], clock=lambda: 1234.5) as model:
        assert (await post(model, asking()))[1]["created"] == 1234


async def test_a_gate_holds_the_stream_until_the_test_opens_it() -> None:
    async with ScriptedModel([["one ", Gate("mid"), "two"]]) as model:
        stream = events(model, asking())
        assert "assistant" in await anext(stream)
        assert "one " in await anext(stream)
        rest = asyncio.ensure_future(anext(stream))
        await model.wait_at("mid")
        assert (model.open_streams, rest.done()) == (1, False)
        model.open("mid")
        assert "two" in await rest
        assert [event async for event in stream][-1] == "[DONE]"
        await model.wait_idle()
        assert (model.completed, model.aborted) == (1, 0)


async def test_a_hang_sends_nothing_until_released() -> None:
    async with ScriptedModel([[Hang(), "at last"]]) as model:
        request = asyncio.ensure_future(post(model, asking()))
        await model.wait_at()
        model.release()
        assert (await request)[1]["choices"][0]["message"]["content"] == "at last"


# Clients that go, servers that break


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_is_counted_as_aborted(stream: bool) -> None:
    async with ScriptedModel([Hang()]) as model:
        request = asyncio.ensure_future(post(model, asking(stream=stream)))
        await model.wait_open()
        assert "open=1 completed=0 aborted=0" in repr(model)
        request.cancel()
        await model.wait_aborted()
        await model.wait_idle()
        assert (model.open_streams, model.completed, model.aborted) == (0, 0, 1)


async def test_a_client_that_goes_mid_stream_is_counted_as_aborted() -> None:
    async with ScriptedModel([["one ", Hang()]]) as model:
        stream = events(model, asking())
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        await model.wait_aborted()


async def test_leaving_the_context_ends_hanging_replies_and_aborts_none() -> None:
    async with ScriptedModel([Hang()]) as model:
        request = asyncio.ensure_future(post(model, asking()))
        await model.wait_open()
    with pytest.raises(aiohttp.ClientError):
        await request
    assert (model.open_streams, model.aborted) == (0, 0)
    assert repr(model).startswith("<ScriptedModel stopped")
    with pytest.raises(RuntimeError, match="not running"):
        _ = model.base_url


async def read_into(got: list[str], stream: AsyncIterator[str]) -> None:
    async for event in stream:
        got.append(event)  # noqa: PERF401 - what came before an error is kept


@pytest.mark.parametrize(("reply", "arrived"), [(["a b c", Break(after=2)], 2), (["a b c", Break(), "d"], 3)])
async def test_a_break_drops_the_stream_after_its_deltas(reply: Reply, arrived: int) -> None:
    got: list[str] = []
    async with ScriptedModel([reply]) as model:
        with pytest.raises(aiohttp.ClientPayloadError):
            await read_into(got, events(model, asking()))
        await model.wait_idle()
        assert (model.completed, model.aborted) == (0, 0)
    assert len(got) == 1 + arrived  # the role chunk comes first


@pytest.mark.parametrize("stream", [True, False])
async def test_a_break_after_nothing_drops_the_connection_unanswered(stream: bool) -> None:
    async with ScriptedModel([["a", Break(after=0)]]) as model:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await post(model, asking(stream=stream))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_fail_before_the_first_byte_is_an_http_error(stream: bool) -> None:
    async with ScriptedModel([Fail(429, "Slow down.", code="rate_limit_exceeded")]) as model:
        status, body = await post(model, asking(stream=stream))
    assert status == 429
    assert body["error"] == {
        "message": "Slow down.",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }


async def test_a_fail_carries_its_headers() -> None:
    async with (
        ScriptedModel([Fail(503, "Busy.", headers={"Retry-After": "7"})]) as model,
        aiohttp.ClientSession() as client,
        client.post(f"{model.base_url}/chat/completions", json=asking()) as response,
    ):
        assert (response.status, response.headers["Retry-After"]) == (503, "7")


async def test_a_fail_in_a_stream_is_an_error_event_and_no_done() -> None:
    async with ScriptedModel([["a", Fail(500, "Broke.")]]) as model:
        got = [json.loads(event) async for event in events(model, asking())]
    assert got[-1] == {"error": {"message": "Broke.", "type": "server_error", "param": None, "code": None}}


# Which reply


async def ask(script: Script | Sequence[Reply], got: list[tuple[int, Any]], *, times: int = 1) -> None:
    """Ask a model of its own, and leave it."""
    async with ScriptedModel(script) as model:
        for _ in range(times):
            got.append(await post(model, asking()))  # noqa: PERF401 - what came before an error is kept


async def test_replies_come_in_order_and_running_out_is_told_to_client_and_test() -> None:
    got: list[tuple[int, Any]] = []
    with pytest.raises(ScriptError, match="request 3 came and the script has 2 replies"):
        await ask(["one", ["tw", "o"]], got, times=3)
    assert [body["choices"][0]["message"]["content"] for _, body in got[:2]] == ["one", "two"]
    assert (got[2][0], got[2][1]["error"]["code"]) == (400, "script_error")


async def test_the_last_reply_can_be_repeated() -> None:
    async with ScriptedModel(in_order("one", "two", repeat_last=True)) as model:
        said = [(await post(model, asking()))[1]["choices"][0]["message"]["content"] for _ in range(4)]
    assert said == ["one", "two", "two", "two"]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (lambda _: 1 / 0, "ZeroDivisionError"),
        (lambda _: 42, "42 is no reply"),
        (lambda _: [None], "None is no step"),
    ],
)
async def test_a_broken_script_fails_the_test(script: Script, told: str) -> None:
    got: list[tuple[int, Any]] = []
    with pytest.raises(ScriptError, match=told):
        await ask(script, got)
    assert got[0][0] == 400


async def test_a_failing_body_is_not_hidden_by_a_broken_script() -> None:
    async def fail() -> None:
        async with ScriptedModel([]) as model:
            await post(model, asking())
            raise KeyError

    with pytest.raises(KeyError):
        await fail()


async def test_rules_look_at_the_last_user_text() -> None:
    script = rules(
        {"weather": CallTool("get_weather"), "hello|hi": lambda request: Say("Hello!")}, otherwise="What?"
    )
    assert (await answer(script, asking("the weather?", "HELLO")))["content"] == "Hello!"
    assert (await answer(script, asking("hm")))["content"] == "What?"
    called = await answer(script, asking("the Weather?"))
    result = {"role": "tool", "tool_call_id": "call_1", "content": "Sunny."}
    done = await answer(script, {"model": "m", "messages": [*user("the weather?"), called, result]})
    assert done["content"] == "get_weather says: Sunny."


async def test_counter_counts_what_the_user_said_and_no_note_of_a_framework() -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "three"}]}]
    messages = [*user("one", "two", "<system-reminder>It is late.</system-reminder>"), *parts]
    assert (await answer(counter(), {"model": "m", "messages": messages}))["content"] == "3"


async def test_steady_sends_deltas_of_one_size() -> None:
    async with ScriptedModel(steady(3, size=4)) as model:
        assert [delta["content"] for delta in (await deltas(model, asking()))[1:-1]] == ["xxx "] * 3


# Friday


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["What is the capital of France?"], "The capital of France is Paris."),
        (["Who are you?"], "I'm Friday, a helpful assistant."),
        (["My name is Alice."], "Nice to meet you, Alice."),
        (["My name is Alice.", "Who are you?", "What is my name?"], "Your name is Alice."),
        (["My name is Alice.", "No, my name is Bob.", "What's my name?"], "Your name is Bob."),
        (["What is my name?"], "You have not told me your name."),
        (["What is the capital of Atlantis?"], "You said: What is the capital of Atlantis?"),
        (['Call get_weather with {"city": "Paris"}'], 'You said: Call get_weather with {"city": "Paris"}'),
    ],
)
async def test_friday_answers(texts: list[str], said: str) -> None:
    assert await answer(friday(), asking(*texts)) == {"role": "assistant", "content": said}


async def test_friday_thinks_aloud_when_asked_to() -> None:
    message = await answer(friday(think=True), asking("Who are you?"))
    assert message["reasoning_content"] == "The user said: Who are you?"


async def test_friday_calls_a_tool_that_is_offered_and_tells_its_result() -> None:
    asked = user('Please call get_weather with {"city": "Paris"}.')
    async with ScriptedModel() as model:
        _, body = await post(model, {"model": "m", "messages": asked, "tools": [WEATHER]})
        call = body["choices"][0]["message"]
        assert call["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}
        result = {"role": "tool", "tool_call_id": call["tool_calls"][0]["id"], "content": "Sunny."}
        _, body = await post(model, {"model": "m", "messages": [*asked, call, result], "tools": [WEATHER]})
    assert body["choices"][0]["message"]["content"] == "get_weather says: Sunny."


# Requests


CALL = {
    "role": "assistant",
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}],
}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "done"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ("{", None),
        ("[]", None),
        ({"messages": user("Hi")}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": [{"role": 5, "content": ""}]}, "messages[0].role"),
        ({"model": "m", "messages": [{"role": "boss", "content": ""}]}, "messages[0].role"),
        ({"model": "m", "messages": [{"role": "user"}]}, "messages[0].content"),
        ({"model": "m", "messages": user("Hi"), "stream": "yes"}, "stream"),
        ({"model": "m", "messages": [*user("Hi"), RESULT]}, "messages[1].tool_call_id"),
        ({"model": "m", "messages": [*user("Hi"), CALL, *user("And?")]}, "messages[2]"),
        ({"model": "m", "messages": [*user("Hi"), CALL]}, "messages[2]"),
        ({"model": "m", "messages": [*user("Hi"), CALL, RESULT, RESULT]}, "messages[3].tool_call_id"),
    ],
)
async def test_a_bad_request_is_refused_in_the_error_envelope(body: Request | str, param: str | None) -> None:
    data = body if isinstance(body, str) else json.dumps(body)
    async with (
        ScriptedModel() as model,
        aiohttp.ClientSession() as client,
        client.post(f"{model.base_url}/chat/completions", data=data) as response,
    ):
        error = (await response.json())["error"]
        assert (response.status, error["type"], error["param"]) == (400, "invalid_request_error", param)
        assert error["message"]
        assert model.requests == []


async def test_good_requests_are_recorded_as_sent() -> None:
    first, second = asking("one", temperature=0.5, unknown={"kept": True}), asking("two", stream=False)
    async with ScriptedModel() as model:
        for body in (first, second):
            await post(model, body)
    assert model.requests == [first, second]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/nowhere", 404), ("GET", "/v1/chat/completions", 405)]
)
async def test_an_unknown_route_is_refused_in_the_error_envelope(method: str, path: str, status: int) -> None:
    async with (
        ScriptedModel() as model,
        aiohttp.ClientSession() as client,
        client.request(method, f"{model.url}{path}") as response,
    ):
        assert response.status == status
        assert path in (await response.json())["error"]["message"]


async def test_models_are_listed_to_those_with_the_key() -> None:
    async with (
        ScriptedModel(models=["small", "big"], api_key="right") as model,
        aiohttp.ClientSession() as client,
    ):
        async with client.get(
            f"{model.base_url}/models", headers={"Authorization": "Bearer right"}
        ) as response:
            assert [entry["id"] for entry in (await response.json())["data"]] == ["small", "big"]
        async with client.get(
            f"{model.base_url}/models", headers={"Authorization": "Bearer wrong"}
        ) as response:
            assert response.status == 401
            assert (await response.json())["error"]["code"] == "invalid_api_key"
        assert (await post(model, asking()))[0] == 401


async def test_many_streams_at_once_are_all_answered() -> None:
    async with ScriptedModel(lambda _: [Gate("go"), Say("a b c")]) as model:
        streams = [asyncio.ensure_future(chunks(model, asking())) for _ in range(50)]
        await model.wait_at("go", 50)
        assert model.open_streams == 50
        model.open("go")
        ids = {(await stream)[0]["id"] for stream in streams}
        await model.wait_idle()
    assert len(ids) == model.completed == 50


@pytest.mark.parametrize(("keep_alive", "header"), [(False, "close"), (True, None)])
@pytest.mark.parametrize("stream", [True, False])
async def test_connections_are_kept_only_when_asked_to(
    keep_alive: bool, header: str | None, stream: bool
) -> None:
    async with (
        ScriptedModel(keep_alive=keep_alive) as model,
        aiohttp.ClientSession() as client,
        client.post(f"{model.base_url}/chat/completions", json=asking(stream=stream)) as response,
    ):
        assert response.headers.get("Connection") == header
