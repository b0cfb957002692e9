"""The Responses API over a WebSocket, through real sockets."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from greenroom import Disconnect
from greenroom.actors.errors import ConfigurationError, StoreUnavailable
from greenroom.actors.messages import SessionKey
from greenroom.services.conversation_store import Change, Conversation, InMemoryConversations
from greenroom.services.sessions.memory_store import InMemoryStore
from greenroom.services.sessions.passing import KIND
from kits.memory_app import Memory
from kits.responses_http import ResponsesClient, output_text, responses_of
from kits.responses_rules import check_stream
from kits.transport_kit import Script

ENDINGS = ("response.completed", "response.failed", "response.incomplete", "error")


class Socket:
    """One connection's client."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, input: Any = None, **fields: Any) -> None:
        given = {"type": "response.create"} | ({} if input is None else {"input": input})
        await self.socket.send_json(given | fields)

    async def next(self) -> dict[str, Any]:
        message = await self.socket.receive()
        assert message.type is WSMsgType.TEXT, message
        event: dict[str, Any] = json.loads(message.data)
        return event

    async def until(self, kind: str) -> dict[str, Any]:
        while (event := await self.next())["type"] != kind:
            assert event["type"] not in ENDINGS, event
        return event

    async def rest(self) -> list[dict[str, Any]]:
        """All events up to an ending."""
        events = [await self.next()]
        while events[-1]["type"] not in ENDINGS:
            events.append(await self.next())
        return events

    async def ask(self, input: Any = None, **fields: Any) -> dict[str, Any]:
        """A response, whole."""
        await self.send(input, **fields)
        last = (await self.rest())[-1]
        assert last["type"] != "error", last
        response: dict[str, Any] = last["response"]
        return response

    async def refused(self, *input: Any, **fields: Any) -> dict[str, Any]:
        """The error a request is answered with."""
        await self.send(*input, **fields)
        return error_of(await self.next())


def error_of(event: dict[str, Any]) -> dict[str, Any]:
    """The error of an error's message, which has the form of the API."""
    assert set(event) == {"type", "status", "error"}
    assert event["type"] == "error"
    assert set(event["error"]) == {"type", "code", "message", "param"}
    error: dict[str, Any] = event["error"]
    return error | {"status": event["status"]}


@asynccontextmanager
async def connected(client: ResponsesClient, **options: Any) -> AsyncIterator[Socket]:
    async with client.http.ws_connect(f"{client.url}/responses", **options) as socket:
        yield Socket(socket)


# -- responses -----------------------------------------------------------------------------------------------------


async def test_the_events_are_those_of_a_stream() -> None:
    async with responses_of(Script().app) as client, connected(client) as socket:
        await socket.send("one two", metadata={"a": "b"})
        events = await socket.rest()
        check_stream(events)
        response = events[-1]["response"]
        assert output_text(response) == "onetwo"
        again = await client.rejoin(response["id"])
        assert await again.rest() == events


async def test_one_response_after_the_other_continues_the_one_it_names() -> None:
    async with responses_of(Memory().app) as client, connected(client) as socket:
        first = await socket.ask("one")
        second = await socket.ask("two", previous_response_id=first["id"])
        branch = await socket.ask("three", previous_response_id=first["id"])
        assert [output_text(one) for one in (first, second, branch)] == ["one", "one/two", "one/three"]
        assert (await client.create("four", previous_response_id=second["id"])).text == "one/two/four"
        assert output_text(await socket.ask("x", conversation="c")) == "x"
        assert (await client.create("y", conversation="c")).text == "x/y"


async def test_what_is_not_stored_is_continued_on_the_connection_and_nowhere_else() -> None:
    memory = Memory()
    async with responses_of(memory.app) as client:
        async with connected(client) as socket:
            first = await socket.ask("one", store=False)
            assert (await client.get(f"/responses/{first['id']}")).status == 404
            elsewhere = await client.create("x", previous_response_id=first["id"])
            assert elsewhere.error["code"] == "previous_response_not_found"
            second = await socket.ask("two", store=False, previous_response_id=first["id"])
            third = await socket.ask("three", store=False, previous_response_id=second["id"])
            assert output_text(third) == "one/two/three"
            older = await socket.refused("x", previous_response_id=first["id"])
            assert (older["status"], older["code"]) == (400, "previous_response_not_found")
            assert output_text(await socket.ask("four", previous_response_id=third["id"])) == (
                "one/two/three/four"
            )
        async with connected(client) as socket:
            gone = await socket.refused("x", previous_response_id=third["id"])
            assert gone["code"] == "previous_response_not_found"


class Forgetful(InMemoryStore):
    """Notes what is forgotten. `away`: so many times it cannot be."""

    def __init__(self, away: int = 0) -> None:
        super().__init__()
        self.forgotten: asyncio.Queue[SessionKey] = asyncio.Queue()
        self.away = away

    async def forget(self, key: SessionKey) -> None:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("away")
        await super().forget(key)
        self.forgotten.put_nowait(key)


async def test_sessions_of_nothing_stored_end_with_the_connection() -> None:
    store = Forgetful()
    async with responses_of(Memory(state=store).app) as client:
        async with connected(client) as socket:
            await socket.ask("one", store=False)
            assert store.forgotten.empty()
            second = await socket.ask("two", store=False)
            assert store.forgotten.qsize() == 1  # as nothing continues the first any more
            await socket.ask("three", previous_response_id=second["id"])
            assert "1 sessions" in repr(store)
            await socket.ask("four", store=False)
        await store.forgotten.get()
        await store.forgotten.get()
        assert "1 sessions" in repr(store)


async def test_sessions_of_nothing_stored_end_also_when_the_store_was_away() -> None:
    store = Forgetful(away=3)
    async with responses_of(Memory(state=store).app) as client:
        async with connected(client) as socket:
            await socket.ask("one", store=False)
            second = await socket.ask("two", store=False)
            await socket.ask("three", store=False, previous_response_id=second["id"])
        await store.forgotten.get()
        await store.forgotten.get()
        assert (store.away, "0 sessions" in repr(store)) == (0, True)


async def test_sessions_of_nothing_stored_are_marked_as_what_goes_until_something_is(tmp_path: Path) -> None:
    def marks() -> int:
        with sqlite3.connect(tmp_path / "s.db") as db:
            keys = [bytes(key) for (key,) in db.execute("SELECT key FROM folders")]
        return sum(key.startswith(KIND.encode()) for key in keys)

    app = Memory(state=f"sqlite:///{tmp_path}/s.db").app
    async with responses_of(app) as client, connected(client) as socket:
        first = await socket.ask("one", store=False)
        assert marks() == 1
        second = await socket.ask("two", store=False, previous_response_id=first["id"])
        assert marks() == 1
        third = await socket.ask("three", previous_response_id=second["id"])
        assert marks() == 0
        assert output_text(await socket.ask("four", previous_response_id=third["id"])) == "one/two/three/four"
        await socket.ask("five")
        assert marks() == 0


async def test_a_failed_response_ends_by_the_rules_and_the_connection_stays() -> None:
    async with responses_of(Script().app) as client, connected(client) as socket:
        await socket.send("fail")
        events = await socket.rest()
        check_stream(events)
        assert events[-1]["type"] == "response.failed"
        assert output_text(await socket.ask("one")) == "one"


async def test_a_cancelled_response_ends_in_an_error_as_no_event_says_so() -> None:
    script = Script()
    async with responses_of(script.app) as client, connected(client) as socket:
        await socket.send("wait")
        created = await socket.until("response.created")
        await socket.until("response.output_text.delta")
        await client.plain.cancel(created["response"]["id"])
        events = await socket.rest()
        assert error_of(events[-1])["code"] == "response_cancelled"
        assert output_text(await socket.ask("one")) == "one"


# -- one at a time -------------------------------------------------------------------------------------------------


async def test_one_response_runs_at_a_time_and_another_is_refused() -> None:
    script = Script()
    async with responses_of(script.app) as client, connected(client) as socket:
        await socket.send("wait")
        await socket.until("response.output_text.delta")
        assert (await socket.refused("now"))["code"] == "response_in_flight"
        script.gate.set()
        assert output_text((await socket.rest())[-1]["response"]) == "waiting no more"
        assert output_text(await socket.ask("now")) == "now"
    assert script.asked == ["wait", "now"]


class SlowToForget(InMemoryStore):
    """Waits for `gate` when a session is to be forgotten; `asked`: that one is."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.gate = asyncio.Event(), asyncio.Event()

    async def forget(self, key: SessionKey) -> None:
        self.asked.set()
        await self.gate.wait()
        await super().forget(key)


async def test_who_was_told_all_may_ask_on_while_the_server_tidies_up() -> None:
    store = SlowToForget()
    async with responses_of(Memory(state=store).app) as client, connected(client) as socket:
        await socket.ask("one", store=False)
        await socket.ask("two", store=False)  # the session of the first is of no use any more
        await store.asked.wait()
        await socket.send("three")
        await client.get("/models")  # by then the server has read it
        store.gate.set()
        assert output_text((await socket.rest())[-1]["response"]) == "three"


async def test_connections_do_not_wait_for_each_other() -> None:
    script = Script()
    async with responses_of(script.app) as client, connected(client) as one, connected(client) as other:
        await one.send("wait")
        await one.until("response.output_text.delta")
        assert output_text(await other.ask("now")) == "now"
        script.gate.set()
        assert output_text((await one.rest())[-1]["response"]) == "waiting no more"


# -- bad messages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ("", None),
        ("{", None),
        ("[]", None),
        ("3", None),
        ("{}", "type"),
        ('{"type": 3}', "type"),
        ('{"type": "response.steer"}', "type"),
        ('{"type": "response.create"}', "input"),
        ('{"type": "response.create", "input": 3}', "input"),
        ('{"type": "response.create", "input": "x", "temperature": 9}', "temperature"),
        ('{"type": "response.create", "input": "x", "background": true}', "background"),
        ('{"type": "response.create", "input": "x", "generate": false}', "generate"),
        ('{"type": "response.create", "input": "x", "stream_id": "a"}', "stream_id"),
        ("[" * 100_000, None),
    ],
)
async def test_a_bad_message_is_an_error_and_the_connection_stays(text: str, param: str | None) -> None:
    async with responses_of(Script().app) as client, connected(client) as socket:
        await socket.socket.send_str(text)
        error = error_of(await socket.next())
        assert (error["status"], error["type"]) == (400, "invalid_request_error")
        assert error["param"] == param
        assert output_text(await socket.ask("one")) == "one"


async def test_a_binary_message_is_an_error_and_the_connection_stays() -> None:
    async with responses_of(Script().app) as client, connected(client) as socket:
        await socket.socket.send_bytes(b'{"type": "response.create", "input": "x"}')
        assert error_of(await socket.next())["status"] == 400
        assert output_text(await socket.ask("one")) == "one"


class Unset(InMemoryConversations):
    """Somebody's own, which lacks a setting."""

    async def change(self, key: SessionKey, change: Change) -> Conversation | None:
        raise ConfigurationError("set the password of db.internal")

    async def get(self, key: SessionKey) -> Conversation | None:
        raise ConfigurationError("set the password of db.internal")


async def test_what_is_for_who_runs_the_server_is_in_its_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory(conversations=Unset())
    async with responses_of(memory.app) as client, connected(client) as socket:
        error = await socket.refused("one", conversation="conv_1")
        assert (error["status"], error["type"]) == (500, "server_error")
        assert "db.internal" not in error["message"]
        assert "db.internal" in caplog.text
        found = re.search(r"err_[\w-]+", error["message"])
        assert found is not None
        assert found[0] in caplog.text


async def test_a_message_over_the_limit_ends_the_connection_and_says_why() -> None:
    async with (
        responses_of(Script().app, compatible_body_bytes=1_000) as client,
        connected(client) as socket,
    ):
        await socket.send("x" * 2_000)
        message = await socket.socket.receive()
        assert message.type is WSMsgType.CLOSE
        assert socket.socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


# -- the connection ------------------------------------------------------------------------------------------------


async def test_who_leaves_does_not_stop_his_response() -> None:
    script = Script()
    async with responses_of(script.app) as client:
        async with connected(client) as socket:
            await socket.send("wait")
            created = await socket.until("response.created")
            await socket.until("response.output_text.delta")
        script.gate.set()
        stream = await client.rejoin(created["response"]["id"])
        assert await stream.text() == "waiting no more"


async def test_who_leaves_stops_his_response_if_that_is_the_setting() -> None:
    script = Script()
    async with responses_of(script.app, responses_disconnect=Disconnect("cancel")) as client:
        async with connected(client) as socket:
            await socket.send("wait")
            await socket.until("response.output_text.delta")
        await script.ended.wait()


async def test_a_ping_is_answered() -> None:
    async with (
        responses_of(Script().app) as client,
        connected(client, autoping=False) as socket,
    ):
        await socket.socket.ping(b"there?")
        message = await socket.socket.receive()
        assert (message.type, message.data) == (WSMsgType.PONG, b"there?")


async def test_silence_is_broken_by_pings_and_who_does_not_answer_them_stays() -> None:
    async with (
        responses_of(Script().app, keepalive_seconds=0.02) as client,
        connected(client, autoping=False) as socket,
    ):
        for _ in range(3):
            assert (await socket.socket.receive()).type is WSMsgType.PING
        await socket.send("one")
        kinds = set()
        while "response.completed" not in kinds:
            message = await socket.socket.receive()
            if message.type is not WSMsgType.PING:
                kinds.add(json.loads(message.data)["type"])


async def test_an_application_that_stops_closes_its_connections() -> None:
    script = Script(drain_seconds=30)
    async with responses_of(script.app) as client, connected(client) as idle, connected(client) as busy:
        await busy.send("wait")
        await busy.until("response.output_text.delta")
        stopping = asyncio.create_task(script.app.stop())
        assert (await idle.socket.receive()).type is WSMsgType.CLOSE
        assert idle.socket.close_code == aiohttp.WSCloseCode.GOING_AWAY
        script.gate.set()
        assert output_text((await busy.rest())[-1]["response"]) == "waiting no more"
        assert (await busy.socket.receive()).type is WSMsgType.CLOSE
        await stopping


async def test_without_an_upgrade_it_is_not_there() -> None:
    async with responses_of(Script().app) as client:
        answer = await client.get("/responses")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_nobody_connects_who_does_not_say_who_he_is() -> None:
    async def by_token(headers: Any) -> str | None:
        return headers.get("Authorization", "").removeprefix("Bearer ") or None

    async with responses_of(Script(authenticate=by_token).app) as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.http.ws_connect(f"{client.url}/responses")
        assert refused.value.status == 401
        async with connected(client, headers={"Authorization": "Bearer a"}) as socket:
            assert output_text(await socket.ask("one")) == "one"


@pytest.mark.parametrize("origins", [(), ("https://page.example",)])
async def test_pages_of_other_sites_connect_only_if_they_are_named(origins: tuple[str, ...]) -> None:
    async with responses_of(Script().app, cors_origins=origins) as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.http.ws_connect(f"{client.url}/responses", origin="https://other.example")
        assert refused.value.status == 403
        for origin in (client.plain.url, *origins):
            async with connected(client, origin=origin) as socket:
                assert output_text(await socket.ask("one")) == "one"
