"""openai-python as its users make it, with every byte of the answers kept, so that all of them can be checked.

Two major versions are served, one in each environment: 3.x speaks by httpx2, 2.x by httpx.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import openai

BASE_PATH = "/compatible-mode/v1"
DONE = "data: [DONE]\n\n"

SDK_LINE = int(openai.__version__.partition(".")[0])
_http: Any = importlib.import_module("httpx2" if SDK_LINE >= 3 else "httpx")

CUT_OFF: tuple[type[Exception], ...] = (openai.APIConnectionError, _http.TransportError)
"""What a stream raises whose server is gone: 3.x its own error, 2.x that of its HTTP library."""


@dataclass
class Answer:
    """What came back for one request. `path`: below the base path."""

    method: str
    path: str
    query: dict[str, str]
    status: int
    content_type: str
    body: bytearray = field(default_factory=bytearray)

    @property
    def streamed(self) -> bool:
        return self.content_type.startswith("text/event-stream")

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def read_to_its_end(self) -> bool:
        """Whether the client heard all of the stream; one that goes away hears less."""
        return self.text.endswith(DONE)

    def events(self) -> list[dict[str, Any]]:
        """The events of a stream, whose frames must have the right form; a last one that was cut off is left out."""
        *frames, rest = self.text.split("\n\n")
        assert not (self.read_to_its_end and rest)
        return [_event(frame) for frame in frames if frame != "data: [DONE]" and not frame.startswith(":")]

    def json(self) -> Any:
        return json.loads(self.body)


def _event(frame: str) -> dict[str, Any]:
    """`event: <type>`, then one line of JSON of that type."""
    named, data = frame.split("\n")
    event: dict[str, Any] = json.loads(data.removeprefix("data: "))
    assert named == f"event: {event['type']}"
    return event


class Wire:
    """What the clients of one test were answered, in order."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._sent = 0
        self._sending = asyncio.Condition()

    def __repr__(self) -> str:
        return f"<Wire {[(answer.method, answer.path, answer.status) for answer in self.answers]}>"

    @property
    def last(self) -> Answer:
        return self.answers[-1]

    def add(self, response: Any) -> bytearray:
        """Keep the head of a response; where its body goes."""
        url = response.request.url
        path = url.path.removeprefix(BASE_PATH)
        content_type = response.headers.get("content-type", "")
        answer = Answer(response.request.method, path, dict(url.params), response.status_code, content_type)
        self.answers.append(answer)
        return answer.body

    def heard_elsewhere(self, answers: Iterable[dict[str, Any]]) -> None:
        """What a client in another process was answered."""
        for answer in answers:
            path, body = answer["path"].removeprefix(BASE_PATH), bytearray(answer["body"].encode())
            self.answers.append(Answer(**{**answer, "path": path, "body": body}))

    async def send(self, request: Any) -> None:
        """A hook of an asynchronous client: a request goes out, for the first time or once more."""
        async with self._sending:
            self._sent += 1
            self._sending.notify_all()

    async def sent(self, count: int) -> None:
        """Wait until so many requests have gone out."""
        async with self._sending:
            await self._sending.wait_for(lambda: self._sent >= count)

    async def hear(self, response: Any) -> None:
        """A hook of an asynchronous client."""
        response.stream = _Heard(response.stream, self.add(response))

    def hear_now(self, response: Any) -> None:
        """A hook of a synchronous one."""
        response.stream = _HeardNow(response.stream, self.add(response))


class _Heard(_http.AsyncByteStream):  # type: ignore[misc]  # which of two modules it is from is known when it runs
    def __init__(self, stream: Any, body: bytearray) -> None:
        self._stream, self._body = stream, body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._body += piece
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


class _HeardNow(_http.SyncByteStream):  # type: ignore[misc]
    def __init__(self, stream: Any, body: bytearray) -> None:
        self._stream, self._body = stream, body

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            self._body += piece
            yield piece

    def close(self) -> None:
        self._stream.close()


# The SDK's own classes, but untyped: of an answer, tests know what it holds, and say so by looking at it.


def heard_http(wire: Wire) -> Any:
    """The SDK's own HTTP client; to be closed by whoever asks for it, as libraries on top of the SDK do not."""
    return openai.DefaultAsyncHttpxClient(event_hooks={"request": [wire.send], "response": [wire.hear]})


@asynccontextmanager
async def sdk(url: str, wire: Wire, **options: Any) -> AsyncIterator[Any]:
    """`openai.AsyncOpenAI` for a server. `max_retries` is 2, as everybody has it."""
    settings = {"base_url": url + BASE_PATH, "api_key": "any", "timeout": 60.0, **options}
    async with openai.AsyncOpenAI(http_client=heard_http(wire), **settings) as client:
        yield client


@contextmanager
def sdk_now(url: str, wire: Wire, **options: Any) -> Iterator[Any]:
    """`openai.OpenAI` for a server; to be used in a thread of its own, beside the model in the test's loop."""
    http = openai.DefaultHttpxClient(event_hooks={"response": [wire.hear_now]})
    settings = {"base_url": url + BASE_PATH, "api_key": "any", "timeout": 60.0, **options}
    with openai.OpenAI(http_client=http, **settings) as client:
        yield client
