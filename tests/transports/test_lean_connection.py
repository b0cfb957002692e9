"""Connections that answer requests for turns themselves: in nothing but speed do they differ from aiohttp's."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from greenroom import AiohttpServer
from greenroom.transports import lean_connection
from kits.http_client import body, served
from kits.transport_kit import Script
from kits.until import until

PROCESS, RESPONSES = "/process", "/compatible-mode/v1/responses"
CHAT = "/compatible-mode/v1/chat/completions"


class Wire:
    """A connection of which every byte is the test's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)

    async def head(self) -> str:
        return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def answer(self) -> tuple[int, str]:
        """The next answer, whole: its status and body."""
        head = await self.head()
        status = int(head.split()[1])
        if length := re.search(r"content-length: (\d+)", head.lower()):
            return status, (await self.reader.readexactly(int(length[1]))).decode()
        return status, await self.chunks()

    async def chunks(self) -> str:
        whole = b""
        while size := int(await self.reader.readline(), 16):
            whole += await self.reader.readexactly(size)
            await self.reader.readline()
        await self.reader.readline()
        return whole.decode()

    async def closed(self) -> bool:
        """Wait for the server's end of the connection."""
        return await self.reader.read() == b""


@asynccontextmanager
async def wire(url: str) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


def head(path: str = PROCESS, length: int | None = None, more: str = "", method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Content-Type: application/json"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + f"\r\n{more}\r\n").encode()


def post(data: Any, path: str = PROCESS, more: str = "") -> bytes:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return head(path, len(raw), more) + raw


GET = head("/health", method="GET")


def tasks(name: str) -> int:
    """Tasks there are that run this coroutine of a connection."""
    return sum(getattr(task.get_coro(), "__qualname__", "").endswith(name) for task in asyncio.all_tasks())


async def until_tasks(number: int) -> None:
    """Wait until there are so many connections. Tasks are looked at where they run."""
    async with asyncio.timeout(20):
        while tasks("LeanConnection.start") != number:  # noqa: ASYNC110 - nothing tells of a connection
            await asyncio.sleep(0.005)


def quiet(caplog: pytest.LogCaptureFixture) -> bool:
    """Whether nothing was said that an operator would have to look at."""
    return not [record for record in caplog.records if record.levelno >= logging.WARNING]


# -- which requests --------------------------------------------------------------------------------------------------


async def test_an_open_stream_is_written_by_its_connections_one_task() -> None:
    script = Script()
    async with served(script.app) as client:
        exchange = await client.ask("wait", "s")
        assert (tasks("LeanConnection.start"), tasks("_handle_request")) == (1, 0)
        again = await client.rejoin(exchange.id)
        assert (tasks("LeanConnection.start"), tasks("_handle_request")) == (2, 1)
        script.gate.set()
        assert await exchange.ending() == await again.ending() == ("completed", "waiting no more")


async def test_a_connection_may_ask_for_turns_and_for_other_things() -> None:
    async with served(Script().app) as client, wire(client.url) as line:
        for request, status in (
            (post(body("x")), 200),
            (post(body("x", stream=False)), 200),
            (post({"input": "x"}, RESPONSES), 200),
            (GET, 200),
            (post(body("x")), 200),
            (head("/nothing", method="GET"), 404),
            (post(b"{"), 400),
            (post(body("x")), 200),
        ):
            line.send(request)
            assert (await line.answer())[0] == status


async def test_what_an_aiohttp_lacks_leads_to_its_usual_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "greenroom.http")
    monkeypatch.setattr(lean_connection, "RELIED_ON", (*lean_connection.RELIED_ON, "_of_another_version"))
    script = Script()
    async with served(script.app) as client:
        exchange = await client.ask("wait", "s")
        assert (tasks("LeanConnection.start"), tasks("_handle_request")) == (0, 1)
        script.gate.set()
        assert await exchange.ending() == ("completed", "waiting no more")
    assert [record.message for record in caplog.records if "_of_another_version" in record.message] == [
        "this aiohttp has no _of_another_version; turns are served its usual way"
    ]


# -- the same answers ------------------------------------------------------------------------------------------------

SAME = {
    "a stream": post(body("one two")),
    "whole": post(body("one two", stream=False)),
    "a response": post({"input": "one two"}, RESPONSES),
    "a response's stream": post({"input": "one two", "stream": True}, RESPONSES),
    "a completion": post({"messages": [{"role": "user", "content": "x"}], "model": "m"}, CHAT),
    "a failure": post(body("fail")),
    "no JSON": post(b"{"),
    "no JSON for a response": post(b"{", RESPONSES),
    "no JSON for a completion": post(b"{", CHAT),
    "nothing": post(b""),
    "no body": head(),
    "a form": post(body("x")).replace(b"application/json", b"text/plain"),
    "with a charset": post(body("x")).replace(b"/json", b"/json; charset=utf-8"),
    "a strange type": post(body("x")).replace(b"application/json", b"application/x-y"),
    "too large": post(body("x" * 5000)),
    "a query": post(body("x"), PROCESS + "?a=b"),
    "another method": head(length=0, method="PUT"),
    "chunked": head(more="Transfer-Encoding: chunked\r\n")
    + b"%x\r\n%b\r\n0\r\n\r\n" % (len(json.dumps(body("x"))), json.dumps(body("x")).encode()),
    "chunked wrongly": head(more="Transfer-Encoding: chunked\r\n") + b"zz\r\nx\r\n0\r\n\r\n",
    "no HTTP": b"hello\r\n\r\n",
    "no host": b"POST /process HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.0": post(body("x")).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "an expectation": post(body("x"), more="Expect: 100-continue\r\n"),
    "an upgrade": post(body("x"), more="Connection: upgrade\r\nUpgrade: websocket\r\n"),
    "a long header": post(body("x"), more=f"A: {'x' * 10_000}\r\n"),
    "compressed wrongly": post(body("x"), more="Content-Encoding: gzip\r\n"),
    "authenticate fails": post(body("x"), more="Fail: ValueError\r\n"),
    "authenticate fails for a response": post({"input": "x"}, RESPONSES, "Fail: ValueError\r\n"),
    "authenticate finds no database": post(body("x"), more="Fail: ConnectionError\r\n"),
    "authenticate turns away": post(body("x"), more="Fail: no\r\n"),
}


async def authenticate(headers: Any) -> str | None:
    failing = headers.get("Fail")
    if failing == "ValueError":
        raise ValueError("internal matter")
    if failing == "ConnectionError":
        raise ConnectionError("internal matter")
    return None if failing else "somebody"


@pytest.mark.parametrize("name", list(SAME))
async def test_a_request_is_answered_as_aiohttps_usual_way_answers_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lean = await answered(SAME[name])
    monkeypatch.setattr(lean_connection, "RELIED_ON", ("_of_another_version",))
    assert lean == await answered(SAME[name])


async def answered(request: bytes) -> tuple[str, bool]:
    """What comes back until the connection is asked for something else, with ids and times left out, and whether that
    is answered too."""
    options: dict[str, Any] = {"body_bytes": 2000, "compatible_body_bytes": 2000, "read_seconds": 0.05}
    async with served(Script(authenticate=authenticate).app, **options) as client, wire(client.url) as line:
        line.send(request)
        first = await line.reader.read(1)
        while not first.endswith((b"\r\n0\r\n\r\n", b"}")) and (piece := await line.reader.read(1 << 16)):
            first += piece
        line.send(head("/health", method="GET", more="Connection: close\r\n"))
        kept = b"HTTP/1.1 200" in await line.reader.read()
    text = re.sub(
        r"\b[a-z]*_?[0-9a-f]{8}[0-9a-f-]{8,}\b|\b1\d{9}(\.\d+)?\b|Date: [^\r]*", "#", first.decode()
    )
    return re.sub(r"\r\n[0-9a-f]+\r\ndata", "\r\ndata", text), kept


# -- bodies ----------------------------------------------------------------------------------------------------------


async def test_a_body_comes_in_pieces() -> None:
    data = json.dumps(body("x" * 300_000, stream=False)).encode()
    async with served(Script().app) as client, wire(client.url) as line:
        for _ in range(2):
            line.send(head(length=len(data)))
            for at in range(0, len(data), 50_000):
                await asyncio.sleep(0)
                line.send(data[at : at + 50_000])
            status, answer = await line.answer()
            assert (status, len(answer) > 300_000) == (200, True)
        assert tasks("_handle_request") == 0


async def test_after_a_body_that_was_not_wanted_the_connection_goes_on() -> None:
    data = b"x" * 300_000
    async with served(Script().app, body_bytes=1000) as client, wire(client.url) as line:
        line.send(head(length=len(data)), data[:1000])
        assert (await line.answer())[0] == 413
        line.send(data[1000:], post(body("x")))
        assert (await line.answer())[0] == 200


async def test_a_body_nobody_wants_is_not_taken_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean_connection, "LINGER_SECONDS", 0.02)
    async with served(Script().app, body_bytes=1000) as client, wire(client.url) as line:
        line.send(head(length=5000))
        assert (await line.answer())[0] == 413
        assert await line.closed()


@pytest.mark.parametrize("body_bytes", [1000, 10_000])  # it is not wanted; it is waited for
async def test_a_client_that_goes_within_its_body_is_let_go(
    body_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(Script().app, body_bytes=body_bytes) as client:
        async with wire(client.url) as line:
            line.send(head(length=5000), b"x")
            await until_tasks(1)
        await until_tasks(0)
    assert quiet(caplog)


# -- one after another -----------------------------------------------------------------------------------------------


async def test_requests_in_one_piece_are_answered_in_their_order() -> None:
    async with served(Script().app) as client, wire(client.url) as line:
        line.send(b"".join(post(body(f"say{number}")) for number in range(50)) + GET)
        for number in range(50):
            status, answer = await line.answer()
            assert (status, f"say{number}" in answer) == (200, True)
        assert (await line.answer())[0] == 200


async def test_requests_wait_for_a_stream_that_is_open() -> None:
    script = Script()
    async with served(script.app) as client, wire(client.url) as line:
        line.send(post(body("wait")))
        await line.head()
        line.send(post(body("next")), GET, post(body("last", stream=False)))
        await asyncio.sleep(0.02)
        assert script.asked == ["wait"]
        script.gate.set()
        assert "no more" in await line.chunks()
        assert "next" in (await line.answer())[1]
        assert (await line.answer())[0] == 200
        assert "last" in (await line.answer())[1]


async def test_a_websocket_is_opened_on_a_connection_that_asked_for_a_turn() -> None:
    upgrade = (
        f"GET {RESPONSES} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()
    async with served(Script().app) as client, wire(client.url) as line:
        line.send(post(body("x")))
        assert (await line.answer())[0] == 200
        line.send(upgrade)
        assert (await line.head()).startswith("HTTP/1.1 101 ")


async def test_what_an_authenticator_sets_is_not_the_next_requests() -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
    seen: list[str] = []

    async def by_tenant(headers: Any) -> str:
        seen.append(tenant.get())
        if "Tenant" in headers:
            tenant.set(headers["Tenant"])
        return "somebody"

    async with served(Script(authenticate=by_tenant).app) as client, wire(client.url) as line:
        for more in ("Tenant: a\r\n", "", "Tenant: b\r\n", ""):
            line.send(post(body("x"), more=more))
            assert (await line.answer())[0] == 200
        assert tasks("LeanConnection.start") == 1
    assert seen == ["nobody"] * 4


# -- how connections end ---------------------------------------------------------------------------------------------


async def test_a_connection_is_closed_when_its_client_says_so() -> None:
    async with served(Script().app) as client:
        for stream in (True, False):
            async with wire(client.url) as line:
                line.send(post(body("x", stream=stream), more="Connection: close\r\n"))
                assert (await line.answer())[0] == 200
                assert await line.closed()


async def test_an_idle_connection_is_closed_but_not_one_with_a_stream() -> None:
    script = Script()
    async with served(script.app, idle_seconds=0.05) as client, wire(client.url) as line:
        line.send(post(body("wait")))
        await line.head()
        await asyncio.sleep(0.15)
        script.gate.set()
        assert "no more" in await line.chunks()
        line.send(post(body("x")))
        assert (await line.answer())[0] == 200
        assert await line.closed()
        assert tasks("LeanConnection.start") == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_is_noticed_at_once(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    script = Script()
    async with served(script.app) as client:
        async with wire(client.url) as line:
            line.send(post(body("wait", "s", stream=stream, disconnect="cancel")))
            await until(lambda: script.asked)
        async with asyncio.timeout(0.9):  # sooner than a silent connection is looked at
            await script.ended.wait()
        await until_tasks(0)
    assert quiet(caplog)


async def test_a_stop_lets_streams_deliver_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(drain_seconds=5)
    server = AiohttpServer(port=0)
    await script.app.start(server)
    async with wire(f":{server.port}") as line, wire(f":{server.port}") as idle:
        idle.send(post(body("x")))
        assert (await idle.answer())[0] == 200
        line.send(post(body("wait")))
        await line.head()
        stopping = asyncio.create_task(script.app.stop())
        await asyncio.sleep(0.02)
        assert not stopping.done()
        script.gate.set()
        assert "no more" in await line.chunks()
        assert await line.closed()
        assert await idle.closed()
        await stopping
    assert tasks("LeanConnection.start") == 0
    assert quiet(caplog)


async def test_a_stop_does_not_wait_for_a_request_that_does_not_end() -> None:
    script = Script()
    server = AiohttpServer(port=0)
    await script.app.start(server)
    async with wire(f":{server.port}") as line:
        line.send(head(length=500))
        await asyncio.sleep(0.02)
        async with asyncio.timeout(20):
            await script.app.stop()
        assert await line.closed()
    assert tasks("LeanConnection.start") == 0
