"""The routes of the `/process` protocol on aiohttp."""

from __future__ import annotations

from collections.abc import Awaitable

import anyio
from aiohttp import web

from greenroom.actors.errors import BodyTooLarge, InvalidRequest, UnsupportedMediaType
from greenroom.actors.log import TurnLog
from greenroom.transports.follow import Follower
from greenroom.transports.frames import resume_position
from greenroom.transports.process_decode import decode_request
from greenroom.transports.process_encode import ProcessEncoder, response_object
from greenroom.transports.transport import Host

FORM_TYPES = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")
"""What a page of any site may post without asking (a CORS "simple request"): refused, or it could use a local agent."""


class ProcessRoutes:
    """`/process` and what belongs to it. Times are in seconds, sizes in bytes."""

    def __init__(self, host: Host, *, read_seconds: float, keepalive_seconds: float) -> None:
        self._host = host
        self._read_seconds = read_seconds
        self._keepalive_seconds = keepalive_seconds

    def routes(self) -> list[web.RouteDef]:
        """The routes, for an aiohttp application."""
        return [
            web.post("/process", self.process),
            web.get("/process/{id}", self.show, allow_head=False),
            web.get("/process/{id}/events", self.events, allow_head=False),
            web.post("/process/{id}/cancel", self.cancel),
        ]

    async def process(self, request: web.Request) -> web.StreamResponse:
        """A turn: its events as a stream, or with `"stream": false` its response."""
        host = self._host
        if request.content_type in FORM_TYPES and "Content-Type" in request.headers:
            raise UnsupportedMediaType(
                f"the body is declared as {request.content_type}; send JSON, and say so: "
                "-H 'Content-Type: application/json'"
            )
        principal = await host.authenticate(request.headers)
        turn = decode_request(await self._body(request), sources=host.sources, principal=principal)
        log = await host.submit(turn)
        try:
            if turn.request.stream:
                return await self._stream(request, log, 0, with_ids=False)
            await log.ended()
        finally:
            host.client_left(log)
        return web.Response(body=response_object(log), content_type="application/json")

    async def show(self, request: web.Request) -> web.StreamResponse:
        """A turn's response as it stands."""
        return web.Response(body=response_object(await self._log(request)), content_type="application/json")

    async def events(self, request: web.Request) -> web.StreamResponse:
        """A turn's events from the one after `Last-Event-ID` on, or from the first."""
        log = await self._log(request)
        cursor = request.headers.get("Last-Event-ID") or request.query.get("last_event_id") or ""
        try:
            return await self._stream(
                request, log, resume_position(cursor, log, ProcessEncoder), with_ids=True
            )
        finally:
            self._host.client_left(log)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Stop a turn; answers with its response as it stands. Doing it twice is fine."""
        principal = await self._host.authenticate(request.headers)
        log = await self._host.cancel(request.match_info["id"], principal)
        return web.Response(body=response_object(log), content_type="application/json")

    async def _log(self, request: web.Request) -> TurnLog:
        principal = await self._host.authenticate(request.headers)
        return self._host.find(request.match_info["id"], principal)

    def _stream(
        self, request: web.Request, log: TurnLog, position: int, *, with_ids: bool
    ) -> Awaitable[web.StreamResponse]:
        # No coroutine of its own: every open stream would hold one more.
        follower = Follower(
            request, log, ProcessEncoder, position, with_ids=with_ids, keepalive=self._keepalive_seconds
        )
        return follower.run()

    async def _body(self, request: web.Request) -> bytes:
        """The body, bounded in size and time. Raises `BodyTooLarge` and `InvalidRequest`."""
        try:
            if request.content.is_eof():  # it came with the headers, as most do
                return await request.read()
            with anyio.fail_after(self._read_seconds):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise BodyTooLarge(
                "the body is larger than this server takes; "
                "send large media by URL, or raise the server's body_bytes"
            ) from None
        except TimeoutError:
            raise InvalidRequest(
                f"the body did not arrive within {self._read_seconds:g} s; the connection is too slow or was stalled"
            ) from None
