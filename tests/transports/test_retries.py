"""Requests that are sent again: which turn they join, and when they begin one of their own."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any
from urllib.parse import urlsplit

import pytest

from greenroom import Disconnect
from greenroom.transports import retries
from kits.memory_app import Memory
from kits.responses_http import ResponsesClient, output_text, responses_of


async def ask(client: ResponsesClient, count: int, text: str = "wait", **headers: str) -> dict[str, Any]:
    """As SDKs do, which count how often they send a request again, but for one that says nothing of it."""
    headers = headers if "User-Agent" in headers else {"x-stainless-retry-count": str(count), **headers}
    async with client.http.post(f"{client.url}/responses", json={"input": text}, headers=headers) as response:
        answer: dict[str, Any] = await response.json()
        return answer


async def give_up(client: ResponsesClient, memory: Memory, **headers: str) -> None:
    """Ask, and go away while the turn runs."""
    memory.began.clear()
    asking = asyncio.create_task(ask(client, 0, **headers))
    await memory.began.wait()
    asking.cancel()
    await asyncio.wait([asking])
    await client.get("/models")  # by then the server has seen it


async def send_and_break_off(client: ResponsesClient, path: str, body: bytes) -> None:
    """Ask, and reset the connection at once."""
    url = urlsplit(client.url)
    _, writer = await asyncio.open_connection(url.hostname, url.port)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    head = f"POST {url.path}{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}x-stainless-retry-count: 0\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    writer.transport.abort()


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/responses", {"input": "wait", "stream": True}),
        ("/responses", {"input": "wait", "background": True}),
        ("/chat/completions", {"messages": [{"role": "user", "content": "wait"}], "stream": True}),
    ],
)
async def test_who_was_cut_off_before_the_headers_of_a_stream_or_of_a_job_joins_it(
    path: str, asked: dict[str, Any]
) -> None:
    memory = Memory()
    async with responses_of(memory.app) as client:
        body = json.dumps(asked).encode()
        await send_and_break_off(client, path, body)
        await memory.began.wait()
        await client.get("/models")  # by then the server has seen it
        memory.gate.set()
        headers = {"x-stainless-retry-count": "1", "Content-Type": "application/json"}
        async with client.http.post(f"{client.url}{path}", data=body, headers=headers) as response:
            assert response.status == 200
            await response.read()
        assert memory.runs == {"wait": 1}
        async with client.http.post(f"{client.url}{path}", data=body, headers=headers) as response:
            await response.read()  # the one before has been answered
        assert memory.runs == {"wait": 2}


async def test_a_turn_that_has_ended_meanwhile_is_answered() -> None:
    memory = Memory()
    async with responses_of(memory.app) as client:
        await give_up(client, memory)
        memory.gate.set()
        assert output_text(await ask(client, 1)) == "…wait"
        assert memory.runs == {"wait": 1}


@pytest.mark.parametrize(("agent", "runs"), [("ai/6.0.326 ai-sdk/openai/3.0.141", 1), ("curl/8", 2)])
async def test_who_never_says_that_he_asks_again(agent: str, runs: int) -> None:
    """The AI SDK does not, and gives up when there is no answer in five minutes."""
    memory = Memory()
    async with responses_of(memory.app) as client:
        await give_up(client, memory, **{"User-Agent": agent})
        memory.gate.set()
        assert output_text(await ask(client, 1, **{"User-Agent": agent})) == "…wait"
        assert memory.runs == {"wait": runs}


async def test_each_that_gave_up_is_joined_once() -> None:
    memory = Memory()
    async with responses_of(memory.app) as client:
        for _ in range(2):
            await give_up(client, memory)
        memory.gate.set()
        ids = {(await ask(client, 1))["id"] for _ in range(3)}
        assert len(ids) == 3
        assert memory.runs == {"wait": 3}


@pytest.mark.parametrize(
    ("text", "headers"), [("wait, wait", {}), ("wait", {"Authorization": "Bearer other"})]
)
async def test_another_request_or_another_s_joins_nothing(text: str, headers: dict[str, str]) -> None:
    memory = Memory()
    async with responses_of(memory.app) as client:
        await give_up(client, memory, Authorization="Bearer mine")
        memory.gate.set()
        await ask(client, 1, text, **headers)
        assert memory.runs.total() == 2


async def test_a_turn_that_was_cancelled_is_run_again() -> None:
    memory = Memory()
    async with responses_of(memory.app, responses_disconnect=Disconnect("cancel")) as client:
        await give_up(client, memory)
        memory.gate.set()
        assert output_text(await ask(client, 1)) == "…wait"
        assert memory.runs == {"wait": 2}


async def test_of_many_that_gave_up_the_oldest_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "UNANSWERED", 1)
    memory = Memory()
    async with responses_of(memory.app) as client:
        await give_up(client, memory, Authorization="Bearer first")
        await give_up(client, memory, Authorization="Bearer second")
        memory.gate.set()
        await ask(client, 1, Authorization="Bearer second")
        assert memory.runs == {"wait": 2}
        await ask(client, 1, Authorization="Bearer first")
        assert memory.runs == {"wait": 3}


async def test_what_is_asked_long_after_is_another_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "REMEMBERED_SECONDS", -1.0)
    memory = Memory()
    async with responses_of(memory.app) as client:
        await give_up(client, memory)
        memory.gate.set()
        await ask(client, 1)
        assert memory.runs == {"wait": 2}


async def test_of_one_request_so_many_turns_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "ALIKE", 2)
    memory = Memory()
    async with responses_of(memory.app) as client:
        for _ in range(3):
            await give_up(client, memory)
        memory.gate.set()
        for _ in range(2):
            await ask(client, 1)
        assert memory.runs == {"wait": 3}
        await ask(client, 1)
        assert memory.runs == {"wait": 4}
