"""The routes of the `/process` protocol on aiohttp."""

from __future__ import annotations

from collections.abc import Awaitable

from aiohttp import web

from greenroom.actors.log import TurnLog
from greenroom.transports.follow import Follower
from greenroom.transports.frames import resume_position
from greenroom.transports.process_decode import decode_request
from greenroom.transports.process_encode import ProcessEncoder
from greenroom.transports.process_object import response_object
from greenroom.transports.request_body import BodyReader, check_media_type
from greenroom.transports.transport import Host
from greenroom.transports.turn_request import TurnRequest


class ProcessRoutes:
    """`/process` and what belongs to it. Times are in seconds, sizes in bytes."""

    def __init__(self, host: Host, *, read_seconds: float, keepalive_seconds: float) -> None:
        self._host = host
        self._body = BodyReader(None, read_seconds, "body_bytes")
        self._keepalive_seconds = keepalive_seconds

    def routes(self) -> list[web.RouteDef]:
        """The routes, for an aiohttp application."""
        return [
            web.post("/process", self.process),
            web.get("/process/{id}", self.show, allow_head=False),
            web.get("/process/{id}/events", self.events, allow_head=False),
            web.post("/process/{id}/cancel", self.cancel),
        ]

    async def process(self, request: TurnRequest) -> web.StreamResponse:
        """A turn: its events as a stream, or with `"stream": false` its response."""
        host = self._host
        check_media_type(request)
        principal = await host.authenticate(request.headers)
        body = self._body.at_hand(request) or await self._body.read(request)
        turn = decode_request(body, sources=host.sources, principal=principal)
        log = await host.submit(turn)
        try:
            if turn.request.stream:
                return await self._stream(request, log, 0, with_ids=False)
            await log.ended()
        finally:
            if log.terminal is None:
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
        return await self._host.locate(request.match_info["id"], principal)

    def _stream(
        self, request: TurnRequest, log: TurnLog, position: int, *, with_ids: bool
    ) -> Awaitable[web.StreamResponse]:
        # No coroutine of its own: every open stream would hold one more.
        follower = Follower(
            request, log, ProcessEncoder, position, with_ids=with_ids, keepalive=self._keepalive_seconds
        )
        return follower.run()
