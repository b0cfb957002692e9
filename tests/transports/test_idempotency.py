"""Requests that name themselves, over HTTP: `Idempotency-Key` and the `id` of `/process`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.errors import InvalidRequest
from greenroom.transports.idempotency import HEADER, KEY_CHARS, asked_key, fingerprint
from greenroom.transports.sse import ServerEvent, SSEParser
from kits.http_client import HttpClient, body, served
from kits.transport_kit import Script

BASE = "/compatible-mode/v1"


# -- the key -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ('"8e03978e"', "8e03978e"),
        (r'"a \"b\" \\ c"', r'a "b" \ c'),
        ("two words", "two words"),
        ("x" * KEY_CHARS, "x" * KEY_CHARS),
    ],
)
def test_keys_are_read_with_quotes_and_without(value: str, key: str) -> None:
    assert asked_key({HEADER: value}) == key


@pytest.mark.parametrize(
    "value", ["", '""', '"', '"a', 'a"b', "a\tb", "é", r'"\a"', r"a\b", "x" * (KEY_CHARS + 1)]
)
def test_what_is_no_key_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked_key({HEADER: value})
    assert refused.value.field == HEADER


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=KEY_CHARS))
def test_any_printable_text_can_be_a_key_in_quotes(key: str) -> None:
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    assert asked_key({HEADER: f'"{escaped}"'}) == key


def test_no_key_is_none() -> None:
    assert asked_key({}) is None


def test_a_fingerprint_tells_bodies_and_protocols_apart() -> None:
    prints = {fingerprint(body, word) for body in (b"a", b"b", b"") for word in (b"process", b"responses")}
    assert len(prints) == 6
    assert {len(one) for one in prints} == {16}


# -- the routes --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def script(**options: Any) -> AsyncIterator[tuple[Script, HttpClient]]:
    played = Script(**options)
    async with served(played.app) as client:
        yield played, client


async def whole(client: HttpClient, path: str, request: Any, **headers: str) -> tuple[int, bytes]:
    async with client.http.post(client.url + path, json=request, headers=headers) as response:
        return response.status, await response.read()


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


ROUTES = {
    "process": ("/process", body("hello", "s")),
    "process, whole": ("/process", body("hello", "s", stream=False)),
    "responses": (f"{BASE}/responses", {"input": "hello"}),
    "responses, streamed": (f"{BASE}/responses", {"input": "hello", "stream": True}),
    "responses, in full": (f"{BASE}/responses", {"input": "hello", "temperature": 1}),
    "chat": (f"{BASE}/chat/completions", chat("hello")),
    "chat, streamed": (f"{BASE}/chat/completions", chat("hello", stream=True)),
}


@pytest.mark.parametrize("route", ROUTES)
async def test_a_repeat_gets_the_same_answer_and_runs_nothing(route: str) -> None:
    path, request = ROUTES[route]
    async with script() as (played, client):
        first = await whole(client, path, request, **{HEADER: "k"})
        assert first[0] == 200
        assert await whole(client, path, request, **{HEADER: '"k"'}) == first
        assert await whole(client, path, request) != first  # a request without a key is a new one
    assert played.asked == ["hello", "hello"]


@pytest.mark.parametrize("route", ROUTES)
async def test_a_key_is_not_for_two_requests(route: str) -> None:
    path, request = ROUTES[route]
    async with script() as (played, client):
        await whole(client, path, request, **{HEADER: "k"})
        status, answer = await whole(client, path, {**request, "user": "another"}, **{HEADER: "k"})
        # OpenAI's clients would send a 409 again
        assert status == (409 if path == "/process" else 400)
        assert b"idempotency_key_reused" in answer
    assert played.asked == ["hello"]


@pytest.mark.parametrize("route", ROUTES)
async def test_a_key_that_is_none_begins_nothing(route: str) -> None:
    path, request = ROUTES[route]
    async with script() as (played, client):
        status, answer = await whole(client, path, request, **{HEADER: 'a"b'})
        assert status == 400
        assert HEADER.encode() in answer
    assert played.asked == []


async def test_one_key_on_two_protocols_is_two_requests() -> None:
    """The bodies can be the same: `input` may be a list of messages in both."""
    said = {"input": [{"role": "user", "content": "hello"}]}
    async with script() as (played, client):
        await whole(client, "/process", said, **{HEADER: "k"})
        status, _ = await whole(client, f"{BASE}/responses", said, **{HEADER: "k"})
        assert status == 400
    assert played.asked == ["hello"]


async def test_ten_at_once_are_one_turn() -> None:
    request = body("wait", "s")
    async with script() as (played, client):
        asking = [asyncio.create_task(whole(client, "/process", request, **{HEADER: "k"})) for _ in range(10)]
        first = await client.http.post(f"{client.url}/process", json=request, headers={HEADER: "k"})
        await first.content.readuntil(b"waiting")
        played.gate.set()
        streams = {stream for _, stream in await asyncio.gather(*asking)}
        first.close()
    assert len(streams) == 1
    assert played.asked == ["wait"]


async def test_the_clients_id_names_the_request_too() -> None:
    request = body("hello", "s", id="mine")
    async with script() as (played, client):
        first = await whole(client, "/process", request)
        assert await whole(client, "/process", request) == first
        status, answer = await whole(client, "/process", body("other", "s", id="mine"))
        assert (status, b"turn_exists" in answer) == (409, True)
    assert played.asked == ["hello"]


def by_header(headers: Any) -> str | None:
    name: str | None = headers.get("X-User")
    return name


async def test_keys_of_two_people_are_two_keys() -> None:
    async with script(authenticate=by_header) as (played, client):
        for name in ("ann", "bob", "ann"):
            status, _ = await whole(client, "/process", body("hello"), **{HEADER: "k", "X-User": name})
            assert status == 200
    assert played.asked == ["hello", "hello"]


async def test_a_keyed_request_that_was_given_up_is_joined_whatever_the_client_is() -> None:
    """What `retries` does for clients that send no key needs neither their count nor a lost connection."""
    path, request = f"{BASE}/responses", {"input": "wait"}
    async with script() as (played, client):
        first = asyncio.create_task(whole(client, path, request, **{HEADER: "k"}))
        while not played.asked:
            await client.json("GET", "/health")
        first.cancel()
        second = asyncio.create_task(
            whole(client, path, request, **{HEADER: "k", "x-stainless-retry-count": "1"})
        )
        await client.json("GET", "/health")
        played.gate.set()
        status, answer = await second
        assert (status, b"no more" in answer) == (200, True)
    assert played.asked == ["wait"]


async def test_a_key_says_which_turn_is_meant_and_not_what_was_given_up_before() -> None:
    path, request = f"{BASE}/responses", {"input": "wait"}
    async with script() as (played, client):
        first = asyncio.create_task(whole(client, path, request, **{"x-stainless-retry-count": "0"}))
        while not played.asked:
            await client.json("GET", "/health")
        first.cancel()
        await client.json("GET", "/health")  # by then the server has seen it
        played.gate.set()
        await whole(client, path, request, **{HEADER: "k", "x-stainless-retry-count": "1"})
    assert played.asked == ["wait", "wait"]


async def test_who_joins_a_turn_that_is_cancelled_without_him_keeps_it() -> None:
    request = body("wait", "s", disconnect="cancel")
    async with script() as (played, client):
        first = await client.http.post(f"{client.url}/process", json=request, headers={HEADER: "k"})
        await first.content.readuntil(b"waiting")
        second = await client.http.post(f"{client.url}/process", json=request, headers={HEADER: "k"})
        await second.content.readuntil(b"waiting")
        first.close()
        await client.json("GET", "/health")
        played.gate.set()
        assert b"waiting no more" in await second.read()


async def test_a_repeat_is_answered_by_a_server_that_drains() -> None:
    request = body("wait", "s")
    async with script(drain_seconds=30) as (played, client):
        first = await client.http.post(f"{client.url}/process", json=request, headers={HEADER: "k"})
        await first.content.readuntil(b"waiting")
        stopping = asyncio.create_task(played.app.stop())
        ready = 200
        while ready == 200:
            ready, _ = await client.json("GET", "/ready")
        again = await client.http.post(f"{client.url}/process", json=request, headers={HEADER: "k"})
        status, refused = await client.json("POST", "/process", json=body("new", "s"))
        assert (status, refused["error"]["code"]) == (503, "not_serving")
        played.gate.set()
        assert b"waiting no more" in await again.read()
        await stopping
        first.close()


# -- the rest of a stream ----------------------------------------------------------------------------------------------


def read(stream: bytes) -> list[ServerEvent]:
    return SSEParser().feed(stream)


async def test_frames_have_ids_for_those_who_know_what_they_are_for() -> None:
    request = body("one two", "s")
    async with script() as (_, client):
        _, plain = await whole(client, "/process", request)
        assert b"\nid:" not in plain
        assert plain.startswith(b"data: ")
        for headers in ({HEADER: "k"}, {"Accept": "text/event-stream"}):
            _, stream = await whole(client, "/process", request, **headers)
            *events, done = read(stream)
            assert [event.id for event in events] == [str(number) for number in range(len(events))]
            assert done.data == "[DONE]"
            assert all(f'"sequence_number":{event.id},' in event.data for event in events)
        _, named = await whole(client, "/process", body("one two", "s", id="mine"))
        assert [event.id for event in read(named)[:-1]] == [event.id for event in events]


async def test_a_repeat_goes_on_after_the_last_event_that_came() -> None:
    request = body("one two three", "s")
    async with script() as (played, client):
        _, stream = await whole(client, "/process", request, **{HEADER: "k"})
        events = read(stream)
        for last in range(len(events) - 1):
            _, rest = await whole(client, "/process", request, **{HEADER: "k", "Last-Event-ID": str(last)})
            assert read(rest) == events[last + 1 :] or (last == len(events) - 2 and len(read(rest)) == 1)
    assert played.asked == ["one two three"]


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Last-Event-ID": "3"}, b"does not say of which"),
        ({"Last-Event-ID": "x", HEADER: "new"}, b"sequence_number"),
        ({"Last-Event-ID": "99", HEADER: "k"}, b"the last event of turn"),
    ],
)
async def test_a_cursor_that_leads_nowhere_begins_nothing(headers: dict[str, str], words: bytes) -> None:
    request = body("hello", "s")
    async with script() as (played, client):
        await whole(client, "/process", request, **{HEADER: "k"})
        status, answer = await whole(client, "/process", request, **headers)
        assert status == 400
        assert words in answer
    assert played.asked == ["hello"]


async def test_a_turn_that_is_not_known_any_more_begins_at_its_beginning() -> None:
    async with script() as (played, client):
        _, stream = await whole(client, "/process", body("hello"), **{HEADER: "k", "Last-Event-ID": "3"})
        assert read(stream)[0].id == "0"
    assert played.asked == ["hello"]


async def test_a_live_stream_carries_ids_event_by_event() -> None:
    """The path that every token of a model takes: alone, to one reader."""
    async with script() as (played, client):
        headers = {HEADER: "k"}
        response = await client.http.post(f"{client.url}/process", json=body("wait", "s"), headers=headers)
        start = await response.content.readuntil(b"waiting")
        played.gate.set()
        events = read(start + await response.read())
        assert [event.id for event in events[:-1]] == [str(n) for n in range(len(events) - 1)]
        assert len(events) > 5
