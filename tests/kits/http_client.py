"""A client of `/process` for tests: strict about the stream's form, and able to do what real clients do badly."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import aiohttp

from greenroom import AgentApp, AiohttpServer
from kits.transport_kit import Exchange, Refused

STATUS: dict[str, Literal["completed", "failed", "cancelled"]] = {
    "completed": "completed",
    "failed": "failed",
    "canceled": "cancelled",
}


def body(text: str, session: str | None = None, **fields: Any) -> dict[str, Any]:
    """A request body as the tutorial's curl sends it."""
    request: dict[str, Any] = {
        "input": [{"role": "user", "content": [{"type": "text", "text": text}]}],
        **fields,
    }
    if session is not None:
        request["session_id"] = session
    return request


def completed_text(response: dict[str, Any]) -> str:
    """All text of a response's messages."""
    return "".join(
        part["text"]
        for message in response["output"] or []
        if message["type"] == "message"
        for part in message["content"] or []
        if part["type"] == "text"
    )


async def next_chunk(response: aiohttp.ClientResponse) -> bytes:
    """The next HTTP chunk, whole; empty at the end."""
    chunk, end_of_chunk = b"", False
    while not end_of_chunk:
        piece, end_of_chunk = await response.content.readchunk()
        if not piece and not end_of_chunk:
            break
        chunk += piece
    return chunk


class HttpExchange:
    """A turn read off an open response, one chunk one event."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.id = ""
        self.events: list[dict[str, Any]] = []
        self.done = False

    def __repr__(self) -> str:
        return f"<HttpExchange {self.events}>"

    async def next_event(self) -> dict[str, Any] | None:
        """The next event; none after `[DONE]`. Comments are passed over."""
        while True:
            chunk = await next_chunk(self._response)
            if not chunk:
                assert self.done, "the stream ended without [DONE]"
                return None
            assert chunk.endswith(b"\n\n")
            assert chunk.count(b"\n\n") == 1, "several events in one chunk"
            if chunk.startswith(b":"):
                continue
            data = chunk.decode().rstrip("\n").split("data: ", 1)[1]
            if data == "[DONE]":
                self.done = True
                continue
            event: dict[str, Any] = json.loads(data)
            self.events.append(event)
            if event["object"] == "response":
                self.id = event["id"]
            return event

    async def next_text(self) -> str:
        while (event := await self.next_event()) is not None:
            if event["object"] == "content" and event["type"] == "text" and event["delta"]:
                text: str = event["text"]
                return text
        raise StopAsyncIteration

    async def rest(self) -> list[dict[str, Any]]:
        """Read to the end; all events there were."""
        while await self.next_event() is not None:
            pass
        return self.events

    async def ending(self) -> tuple[Literal["completed", "failed", "cancelled"], str]:
        last = (await self.rest())[-1]
        assert last["object"] == "response"
        return STATUS[last["status"]], completed_text(last)

    async def leave(self) -> None:
        self._response.close()


class HttpClient:
    """One client of a server."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.http = http
        self.opened: list[aiohttp.ClientResponse] = []

    async def ask(self, text: str, session: str | None = None, **options: Any) -> HttpExchange:
        return await self.post(body(text, session, **options))

    async def post(self, request: Any) -> HttpExchange:
        """Send a request and read its first event."""
        try:
            response = await self.http.post(f"{self.url}/process", json=request)
        except aiohttp.ClientConnectionError as error:
            raise ConnectionError(str(error)) from error
        return await self._exchange(response)

    async def rejoin(self, turn_id: str, last_event_id: str | None = None) -> Exchange:
        headers = {"Last-Event-ID": last_event_id} if last_event_id is not None else {}
        return await self._exchange(
            await self.http.get(f"{self.url}/process/{turn_id}/events", headers=headers)
        )

    async def cancel(self, turn_id: str) -> None:
        async with self.http.post(f"{self.url}/process/{turn_id}/cancel") as response:
            await _check(response)

    async def json(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
        """Any request; its status and JSON."""
        async with self.http.request(method, self.url + path, **options) as response:
            assert response.content_type == "application/json", await response.text()
            return response.status, await response.json()

    async def _exchange(self, response: aiohttp.ClientResponse) -> HttpExchange:
        self.opened.append(response)
        await _check(response)
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        exchange = HttpExchange(response)
        await exchange.next_event()
        return exchange


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        raise Refused((await response.json())["error"]["code"])


@asynccontextmanager
async def http_client(url: str, **options: Any) -> AsyncIterator[HttpClient]:
    """A client without limits of its own."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, **options) as http:
        client = HttpClient(url, http)
        yield client
        for response in client.opened:
            response.close()


@asynccontextmanager
async def served(app: AgentApp, **options: Any) -> AsyncIterator[HttpClient]:
    """Serve an application on a free port, with a client for it."""
    server = AiohttpServer(port=0, **options)
    await app.start(server)
    try:
        async with http_client(f"http://127.0.0.1:{server.port}") as client:
            yield client
    finally:
        await app.stop()
