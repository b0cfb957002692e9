"""Clients that come by the thousand and drop: nothing of them is left, and the server goes on as before."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from greenroom import AgentApp, AiohttpServer
from greenroom.transports.connection import Connection
from greenroom.transports.follow import Follower
from kits.http_client import body, http_client
from kits.until import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="needs Linux: counts open files in /proc"
    ),
]

STORM = 1000
AT_ONCE = 100
V1 = "/compatible-mode/v1"
RESET = struct.pack("ii", 1, 0)
"""Lets `close` break a connection off instead of ending it."""
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "


def post(path: str, fields: dict[str, Any], sent: float = 1) -> bytes:
    """A request, of whose body only a part is sent."""
    whole = json.dumps(fields).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(whole)}\r\n\r\n"
    return head.encode() + whole[: int(len(whole) * sent)]


def get(path: str, more: bytes = b"") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n".encode() + more + b"\r\n"


def kinds() -> list[tuple[bytes, bool]]:
    """What clients send before they drop, and whether they wait for the first of the answer."""
    gone = {"disconnect": "cancel"}
    return [
        (b"", False),
        (b"POST /process HTTP/1.1\r\nHos", False),
        (post("/process", body("stay", **gone)), True),
        (post("/process", body("stay", **gone)), False),
        (post("/process", body("stay", stream=False, **gone)), False),
        (post("/process", body("hi", "shared")), False),
        (post("/process", body("hi"), sent=0.5), False),
        (post(f"{V1}/responses", {"input": "stay", "stream": True, **gone}), True),
        (post(f"{V1}/responses", {"input": "stay", **gone}), False),
        (post(f"{V1}/chat/completions", {"messages": [{"role": "user", "content": "stay"}], **gone}), False),
        (get("/process/watched/events"), True),
        (get(f"{V1}/responses", UPGRADE + b"dGhlIHNhbXBsZSBub25jZQ==\r\n"), True),
        (get("/health"), False),
        (get("/count"), True),
        (b"\x16\x03\x01 no HTTP at all\r\n\r\n", True),
    ]


async def come_and_drop(port: int, number: int, at_once: asyncio.Semaphore) -> None:
    sent, waits = kinds()[number % len(kinds())]
    async with at_once:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(sent)
            if waits:
                await reader.read(1)
            if number % 2:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        except ConnectionError:
            pass  # what is no HTTP is answered and closed at once
        finally:
            writer.close()


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def left_over() -> Counter[str]:
    """Objects of connections and of those who follow turns."""
    gc.collect()
    kept = Connection, Follower
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, kept))


async def test_a_thousand_clients_that_drop_leave_nothing(caplog: pytest.LogCaptureFixture) -> None:
    app = AgentApp("Storm", drain_seconds=0)
    gate = asyncio.Event()

    @app.query()
    async def answer(self: AgentApp, msgs: Any, request: Any) -> AsyncIterator[str]:
        yield "a "
        if msgs[-1].content[0].text == "stay":
            await asyncio.Event().wait()
        if msgs[-1].content[0].text == "watch":
            await gate.wait()
        yield "word"

    @app.endpoint("/count", methods=["GET"])
    async def count() -> AsyncIterator[int]:
        for number in range(1_000_000_000):
            yield number
            await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    server = AiohttpServer(port=0)
    await app.start(server)
    async with http_client(f"http://127.0.0.1:{server.port}") as client:
        watched = await client.ask("watch", "w", id="watched")
        at_once = asyncio.Semaphore(AT_ONCE)
        for number in range(len(kinds())):  # what is made at the first use of all
            await come_and_drop(server.port, number, at_once)
        await until(lambda: app.statistics().open_turns == 1)
        await asyncio.sleep(0)
        tasks, files = len(asyncio.all_tasks()), open_files()
        async with asyncio.timeout(120):
            await asyncio.gather(*(come_and_drop(server.port, number, at_once) for number in range(STORM)))
            await until(
                lambda: app.statistics().open_turns == 1
            )  # the one that is watched by somebody who stays
            await until(lambda: open_files() <= files)
            await until(lambda: len(asyncio.all_tasks(loop)) <= tasks)
        gate.set()
        assert (await watched.ending())[0] == "completed"
        assert (await (await client.ask("hi", "after")).ending()) == ("completed", "a word")
        assert (await client.json("GET", "/health"))[0] == 200
    await until(lambda: left_over().total() <= 1)  # of the client's own last connection
    await app.stop()
    await until(lambda: not left_over())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR], caplog.text
