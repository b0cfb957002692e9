"""Behind nginx, as examples/nginx.conf sets it up: nothing is held back, cut off or lost on the way."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from greenroom import AgentApp, AiohttpServer
from greenroom.transports.sse import SSEParser
from kits.http_client import HttpClient, body, http_client
from kits.nginx import nginx
from kits.transport_kit import Script

V1 = "/compatible-mode/v1"


class Front(NamedTuple):
    """A served script, and a client of it through nginx."""

    script: Script
    client: HttpClient

    def post(self, path: str, fields: dict[str, Any]) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self.client.http.post(self.client.url + path, json=fields)

    @property
    def app(self) -> AgentApp:
        return self.script.app


@asynccontextmanager
async def fronted(
    folder: Path, *, server: dict[str, Any] | None = None, **changes: str
) -> AsyncIterator[Front]:
    script = Script()
    transport = AiohttpServer(port=0, **(server or {}))
    await script.app.start(transport)
    try:
        async with (
            nginx(folder, transport.port, **changes) as url,
            http_client(url) as client,
        ):
            yield Front(script, client)
    finally:
        await script.app.stop()


class Stream:
    """The events of a response. nginx cuts chunks as it likes, so these say nothing."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        assert response.status == 200
        self._response = response
        self._parser = SSEParser()
        self._read: list[dict[str, Any]] = []

    async def until(self, **fields: Any) -> dict[str, Any]:
        """Read on to the event with these fields."""
        while True:
            while self._read:
                event = self._read.pop(0)
                if fields.items() <= event.items():
                    return event
            chunk, _ = await self._response.content.readchunk()
            assert chunk, "the stream ended"
            self._read += [
                json.loads(each.data) for each in self._parser.feed(chunk) if each.data != "[DONE]"
            ]


async def test_events_come_while_the_turn_runs(tmp_path: Path) -> None:
    async with fronted(tmp_path) as front, front.post("/process", body("wait", "s")) as response:
        stream = Stream(response)
        assert (await stream.until(object="content", delta=True))["text"]
        assert front.app.statistics().open_turns == 1  # it has said only this, and it is here
        front.script.gate.set()
        await stream.until(object="response", status="completed")


async def test_a_stream_is_taken_up_again(tmp_path: Path) -> None:
    async with fronted(tmp_path) as front:
        async with front.post("/process", body("one two three", "s", id="t")) as response:
            await Stream(response).until(object="response", status="completed")
        url, headers = f"{front.client.url}/process/t/events", {"Last-Event-ID": "3"}
        async with front.client.http.get(url, headers=headers) as response:
            assert (await Stream(response).until())["sequence_number"] == 4


async def test_a_long_silence_is_outlived_by_comments(tmp_path: Path) -> None:
    server = {"keepalive_seconds": 0.2}
    async with (
        fronted(tmp_path, server=server, proxy_read_timeout="1s") as front,
        front.post("/process", body("wait", "s")) as response,
    ):
        comments = 0
        while comments < 8:  # longer than nginx waits
            chunk, _ = await response.content.readchunk()
            assert chunk, "cut off"
            comments += chunk.count(b": keepalive")
        front.script.gate.set()
        await Stream(response).until(object="response", status="completed")


async def test_without_them_it_would_not_be(tmp_path: Path) -> None:
    server = {"keepalive_seconds": 60.0}
    async with (
        fronted(tmp_path, server=server, proxy_read_timeout="1s") as front,
        front.post("/process", body("wait", "s")) as response,
    ):
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_client_that_goes_is_missed_behind_it_too(tmp_path: Path) -> None:
    async with fronted(tmp_path) as front:
        async with front.post("/process", body("wait", "s", disconnect="cancel")) as response:
            await Stream(response).until(object="content", delta=True)
            response.close()
        async with asyncio.timeout(20):
            await front.script.ended.wait()


async def test_a_websocket_passes(tmp_path: Path) -> None:
    async with fronted(tmp_path) as front:
        headers = {"Origin": front.client.url}  # as a page that came from there
        async with front.client.http.ws_connect(
            f"{front.client.url}{V1}/responses", headers=headers
        ) as socket:
            await socket.send_json({"type": "response.create", "input": "one two"})
            kinds: list[str] = []
            while not kinds or kinds[-1] != "response.completed":
                kinds.append(json.loads((await socket.receive()).data)["type"])
        assert "response.output_text.delta" in kinds


async def test_large_bodies_are_answered_for_by_who_refuses_them(tmp_path: Path) -> None:
    async with fronted(tmp_path, server={"body_bytes": 1 << 20}) as front:
        large = io.BytesIO(json.dumps(body("x" * (2 << 20))).encode())
        headers = {"Content-Type": "application/json"}
        status, error = await front.client.json("POST", "/process", data=large, headers=headers)
        assert (status, error["error"]["code"]) == (413, "body_too_large")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(front.client.url.rsplit(":", 1)[1]))
        writer.write(b"POST /process HTTP/1.1\r\nHost: x\r\nContent-Length: 67108865\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 413")
        writer.close()


async def test_a_clients_bound_is_his_and_not_nginxs(tmp_path: Path) -> None:
    async with fronted(tmp_path, server={"client_connections": 1}) as front:

        async def ask(client: str, text: str) -> aiohttp.ClientResponse:
            # It comes from this machine, whose own addresses are those of proxies: the one before counts.
            return await front.client.http.post(
                f"{front.client.url}/process", json=body(text), headers={"X-Forwarded-For": client}
            )

        waiting = await ask("203.0.113.1", "wait")
        refused = await ask("203.0.113.1", "hi")
        assert (refused.status, int(refused.headers["Retry-After"]) > 0) == (429, True)
        other = await ask("203.0.113.2", "hi")
        assert b"[DONE]" in await other.read()
        front.script.gate.set()
        assert b"[DONE]" in await waiting.read()
