"""The routes of the `/process` protocol on aiohttp."""

from __future__ import annotations

from collections.abc import Awaitable

from aiohttp import web

from greenroom.actors.errors import InvalidRequest, SessionLost, TurnNotFound
from greenroom.actors.log import TurnLog
from greenroom.actors.repeats import moved
from greenroom.transports.follow import Follower
from greenroom.transports.frames import number_in, resume
from greenroom.transports.idempotency import HEADER, asked_key
from greenroom.transports.kept_turns import find_kept
from greenroom.transports.process_decode import decode_request
from greenroom.transports.process_encode import ProcessEncoder
from greenroom.transports.process_object import response_object
from greenroom.transports.request_body import BodyReader, check_media_type
from greenroom.transports.transport import Host
from greenroom.transports.turn_request import TurnRequest

CURSOR = "Last-Event-ID"
EVENTS = "text/event-stream"
"""What a client accepts that reads server-sent events as such."""


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
        """A turn: its events as a stream, or with `"stream": false` its response.

        A repeat of a request that names itself gets the turn that is there, its events after `Last-Event-ID`. Frames
        have `id:` lines for clients that say they know what these are for; all others get what they always got.
        """
        host, headers = self._host, request.headers
        check_media_type(request)
        principal = await host.authenticate(headers)
        body = self._body.at_hand(request) or await self._body.read(request)
        turn = decode_request(
            body, sources=host.sources, principal=principal, repeatable=True, key=asked_key(headers)
        )
        named, cursor = bool(turn.fingerprint), headers.get(CURSOR)
        if cursor:
            _check_resumable(cursor, named)
        log = await host.submit(turn)
        try:
            if turn.request.stream:
                again = log.turn is not turn
                position = await resume(cursor, log, ProcessEncoder) if cursor and again else 0
                with_ids = named or EVENTS in headers.get("Accept", "")
                return await self._stream(request, log, position, with_ids=with_ids)
            await log.ended()
        except SessionLost:
            raise moved(log.turn) from None
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
        cursor = request.headers.get(CURSOR) or request.query.get("last_event_id") or ""
        try:
            position = await resume(cursor, log, ProcessEncoder)
            return await self._stream(request, log, position, with_ids=True)
        finally:
            self._host.client_left(log)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Stop a turn; answers with its response as it stands. Doing it twice is fine."""
        principal = await self._host.authenticate(request.headers)
        turn_id = request.match_info["id"]
        try:
            log = await self._host.cancel(turn_id, principal)
        except TurnNotFound:
            log = await find_kept(self._host, turn_id, principal)  # it has ended long ago
        return web.Response(body=response_object(log), content_type="application/json")

    async def _log(self, request: web.Request) -> TurnLog:
        principal = await self._host.authenticate(request.headers)
        return await find_kept(self._host, request.match_info["id"], principal)

    def _stream(
        self, request: TurnRequest, log: TurnLog, position: int, *, with_ids: bool
    ) -> Awaitable[web.StreamResponse]:
        # No coroutine of its own: every open stream would hold one more.
        follower = Follower(
            request, log, ProcessEncoder, position, with_ids=with_ids, keepalive=self._keepalive_seconds
        )
        return follower.run()


def _check_resumable(cursor: str, named: bool) -> None:
    """Raises `InvalidRequest` before a turn is begun that was not meant."""
    number_in(cursor)
    if not named:
        raise InvalidRequest(
            f"{CURSOR} asks for the rest of a turn, and the request does not say of which: send the {HEADER} or the "
            "`id` that the turn was asked for with, or follow it with GET /process/{id}/events",
            field=CURSOR,
        )
