"""A client of the Responses API for tests, by plain HTTP: strict about the stream's form."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy

from greenroom import AgentApp
from kits.http_client import HttpClient, next_chunk, served

BASE_PATH = "/compatible-mode/v1"


class Answer:
    """One JSON answer."""

    def __init__(self, status: int, headers: CIMultiDictProxy[str], body: Any) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"<Answer {self.status} {self.body}>"

    def __getitem__(self, name: str) -> Any:
        return self.body[name]

    @property
    def error(self) -> dict[str, Any]:
        """The error, which has the four fields and no others."""
        assert self.status >= 400, self
        assert set(self.body) == {"error"}
        error: dict[str, Any] = self.body["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert error["type"]
        return error

    @property
    def text(self) -> str:
        """All text of a response's messages."""
        assert self.status == 200, self
        return output_text(self.body)


def output_text(response: dict[str, Any]) -> str:
    """All text of a response's messages, as the SDK's `output_text`."""
    return "".join(
        part["text"]
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
        if part["type"] == "output_text"
    )


class Stream:
    """A stream of events, one HTTP chunk an event."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.events: list[dict[str, Any]] = []
        self.done = False

    def __repr__(self) -> str:
        return f"<Stream {[event['type'] for event in self.events]}>"

    @property
    def id(self) -> str:
        """The response's id."""
        identity: str = self.events[0]["response"]["id"]
        return identity

    async def next(self) -> dict[str, Any] | None:
        """The next event; none after `[DONE]`. Comments are passed over."""
        while True:
            chunk = await next_chunk(self._response)
            if not chunk:
                assert self.done, f"the stream ended without [DONE]: {self}"
                return None
            assert chunk.endswith(b"\n\n")
            assert chunk.count(b"\n\n") == 1, "several events in one chunk"
            if chunk.startswith(b":"):
                continue
            assert not self.done, "something came after [DONE]"
            if chunk == b"data: [DONE]\n\n":
                self.done = True
                continue
            named, data = chunk.decode().removesuffix("\n\n").split("\n")
            event: dict[str, Any] = json.loads(data.removeprefix("data: "))
            assert named == f"event: {event['type']}"
            self.events.append(event)
            return event

    async def until(self, kind: str) -> dict[str, Any]:
        """The next event of this type."""
        while (event := await self.next()) is not None:
            if event["type"] == kind:
                return event
        raise AssertionError(f"no {kind} came: {self}")

    async def rest(self) -> list[dict[str, Any]]:
        """Read to the end; all events there were."""
        while await self.next() is not None:
            pass
        return self.events

    async def text(self) -> str:
        """Read to the end; the text of the last event's response."""
        return output_text((await self.rest())[-1]["response"])

    def leave(self) -> None:
        """Hang up."""
        self._response.close()


class ResponsesClient:
    """One client of a server."""

    def __init__(self, client: HttpClient) -> None:
        self.plain = client
        """The same for `/process`."""
        self.url = client.url + BASE_PATH
        self.http = client.http

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        """Any request."""
        async with self.http.request(method, self.url + path, **options) as response:
            assert response.content_type == "application/json", await response.text()
            return Answer(response.status, response.headers, await response.json())

    async def create(self, input: Any = None, **fields: Any) -> Answer:
        """A response, whole."""
        given = {} if input is None else {"input": input}
        return await self.ask("POST", "/responses", json=given | fields)

    async def stream(self, input: Any = None, **fields: Any) -> Stream:
        """A response as a stream, with its first event."""
        given = {"stream": True} | ({} if input is None else {"input": input})
        return await self._stream(await self.http.post(f"{self.url}/responses", json=given | fields))

    async def get(self, path: str, **query: Any) -> Answer:
        return await self.ask("GET", path, params=query)

    async def rejoin(self, response_id: str, **query: Any) -> Stream:
        """A response's stream once more."""
        query = {"stream": "true"} | query
        return await self._stream(await self.http.get(f"{self.url}/responses/{response_id}", params=query))

    async def _stream(self, response: aiohttp.ClientResponse) -> Stream:
        self.plain.opened.append(response)
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        return Stream(response)


@asynccontextmanager
async def responses_of(app: AgentApp, **options: Any) -> AsyncIterator[ResponsesClient]:
    """Serve an application on a free port, with a client for it."""
    async with served(app, **options) as client:
        yield ResponsesClient(client)
