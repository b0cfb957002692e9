"""Where an answer goes: into a stream of chunks, or into one completion."""

from typing import Protocol

import msgspec
from aiohttp import web

from kits.scripted_model_script import Fail, Request, Step
from kits.scripted_model_wire import (
    DONE,
    ChatRequest,
    Delta,
    Envelope,
    error_body,
    finish_reason,
    sse_event,
    usage_body,
)


class Output(Protocol):
    """Where an answer goes: a stream of chunks or one completion."""

    ended: bool
    """Whether all that the script had to say is on its way: a client that goes then has aborted nothing."""

    async def send(self, delta: Delta) -> None: ...
    async def fail(self, fail: Fail) -> web.StreamResponse: ...
    async def end(self, steps: tuple[Step, ...], request: Request) -> web.StreamResponse: ...


class WholeOutput:
    """Collects the deltas and answers with one `chat.completion`."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._deltas: list[Delta] = []
        self.ended = False

    async def send(self, delta: Delta) -> None:
        self._deltas.append(delta)

    async def fail(self, fail: Fail) -> web.StreamResponse:
        self.ended = True
        return _failed(fail)

    async def end(self, steps: tuple[Step, ...], request: Request) -> web.StreamResponse:
        self.ended = True
        usage = usage_body(steps, request, self._deltas)
        return web.Response(
            body=self._envelope.completion(self._deltas, finish_reason(steps), usage),
            content_type="application/json",
        )


class StreamedOutput:
    """Sends each delta as an event; headers go out with the first, so that a reply can fail before it."""

    def __init__(self, http: web.Request, known: ChatRequest, envelope: Envelope, keep_alive: bool) -> None:
        self._http, self._envelope, self._with_usage = http, envelope, known.include_usage
        self._keep_alive = keep_alive
        self._deltas: list[Delta] = []
        self._response: web.StreamResponse | None = None
        self.ended = False

    async def send(self, delta: Delta) -> None:
        response = await self._started()
        self._deltas.append(delta)
        await response.write(self._chunk(delta))

    async def fail(self, fail: Fail) -> web.StreamResponse:
        self.ended = True
        if self._response is None:
            return _failed(fail)
        await self._response.write_eof(
            sse_event(error_body(fail.status, fail.message, code=fail.code, kind=fail.type))
        )
        return self._response

    async def end(self, steps: tuple[Step, ...], request: Request) -> web.StreamResponse:
        response = await self._started()
        await response.write(self._chunk(Delta(), finish_reason(steps)))
        if self._with_usage:
            await response.write(self._envelope.usage_chunk(usage_body(steps, request, self._deltas)))
        self.ended = True  # clients hang up when they read [DONE], which may be before the write returns
        await response.write_eof(DONE)
        return response

    async def _started(self) -> web.StreamResponse:
        if self._response is None:
            headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
            self._response = web.StreamResponse(headers=headers)
            if not self._keep_alive:
                self._response.force_close()
            await self._response.prepare(self._http)
            await self._response.write(self._chunk(Delta(role="assistant", content="")))
        return self._response

    def _chunk(self, delta: Delta, reason: str | None = None) -> bytes:
        return self._envelope.chunk(delta, reason, with_usage=self._with_usage)


def drop(http: web.Request, output: Output) -> web.StreamResponse:
    output.ended = True
    if http.transport is not None:
        # What was written still arrives; abort() might lose it and make `Break(after=n)` a matter of luck.
        http.transport.close()
    return web.Response()


def json_response(body: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


def _failed(fail: Fail) -> web.Response:
    response = json_response(
        error_body(fail.status, fail.message, code=fail.code, kind=fail.type), fail.status
    )
    response.headers.update(fail.headers)
    return response
