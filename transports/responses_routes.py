"""The routes of the Responses API on aiohttp."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial

import msgspec
from aiohttp import web
from msgspec import structs

from greenroom.actors.errors import SessionLost
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Turn
from greenroom.actors.repeats import moved
from greenroom.transports.follow import Follower
from greenroom.transports.frames import position_after
from greenroom.transports.idempotency import asked_key
from greenroom.transports.request_body import BodyReader
from greenroom.transports.responses_decode import CreateRequest, Settings, decode_create
from greenroom.transports.responses_encode import ResponsesEncoder
from greenroom.transports.responses_listing import input_items
from greenroom.transports.responses_paging import asked_page, flag, page_of, whole_number
from greenroom.transports.responses_params import refused
from greenroom.transports.responses_turns import ResponsesTurns
from greenroom.transports.responses_whole import response_object, with_tutorial_key
from greenroom.transports.retries import Asking, Retries
from greenroom.transports.transport import Host
from greenroom.transports.turn_request import TurnRequest

_NUMBERS = 10**18 - 1


class ResponsesRoutes:
    """`/responses` and what belongs to it. `tutorial_key`: whether a whole response says itself twice, the second time
    under `response` with its last message alone, where the tutorial looks."""

    def __init__(
        self,
        host: Host,
        turns: ResponsesTurns,
        settings: Settings,
        body: BodyReader,
        *,
        keepalive_seconds: float,
        tutorial_key: bool,
    ) -> None:
        self._host = host
        self._turns = turns
        self._settings = settings
        self._body = body
        self._keepalive_seconds = keepalive_seconds
        self._whole = with_tutorial_key if tutorial_key else response_object
        self._retries = Retries()

    def routes(self) -> list[web.RouteDef]:
        """The routes, from the base path on."""
        return [
            web.post("/responses", self.create),
            web.get("/responses/{id}", self.show, allow_head=False),
            web.delete("/responses/{id}", self.delete),
            web.post("/responses/{id}/cancel", self.cancel),
            web.get("/responses/{id}/input_items", self.input_items, allow_head=False),
        ]

    async def create(self, request: TurnRequest) -> web.StreamResponse:
        """A turn: its events as a stream, its response when it has ended, or, in the background, as it stands now."""
        principal = await self._host.authenticate(request.headers)
        body = self._body.at_hand(request) or await self._body.read(request)
        create = decode_create(
            body,
            sources=self._host.sources,
            settings=self._settings,
            principal=principal,
            key=asked_key(request.headers),
        )
        asking = self._retries.asking(request, principal, body, create.turn)
        with asking:
            log = await asking.begin(create.turn, partial(self._begin, create))
            if not create.stream:
                return await self._answer(log, create.turn.background)
        return await self._stream(request, log, asking)

    def _begin(self, create: CreateRequest, turn: Turn) -> Awaitable[TurnLog]:
        return self._turns.begin(create if turn is create.turn else structs.replace(create, turn=turn))

    async def _answer(self, log: TurnLog, background: bool) -> web.StreamResponse:
        """The response when it has ended, or as it stands now. Raises `TurnMoved`."""
        try:
            if background:
                await asyncio.sleep(0)  # a client that is gone already is known to be then
                return _json(response_object(log.turn, log.events()))
            ending = await log.ended()
        except SessionLost:
            raise moved(log.turn) from None
        finally:
            if not background:
                self._host.client_left(log)
        if error := refused(log.turn, ending):
            raise error
        return _json(self._whole(log.turn, log.events()))

    async def _stream(self, request: TurnRequest, log: TurnLog, asking: Asking) -> web.StreamResponse:
        follower = self._follower(request, log, 0)
        try:
            return await follower.run()
        except SessionLost:
            raise moved(log.turn) from None
        finally:
            if not follower.reached:
                asking.unanswered()
            if log.terminal is None:
                self._host.client_left(log)

    async def show(self, request: web.Request) -> web.StreamResponse:
        """A response as it stands, or with `?stream=true` its events, those after `starting_after`."""
        stream = flag(request.query, "stream")
        after = whole_number(request.query, "starting_after", -1, 0, _NUMBERS)
        log = await self._log(request)
        if not stream:
            return _json(response_object(log.turn, log.events()))
        position = await position_after(after, log, ResponsesEncoder, "starting_after")
        try:
            return await self._follower(request, log, position).run()
        finally:
            self._host.client_left(log)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Keep a response no longer."""
        principal = await self._host.authenticate(request.headers)
        response_id = request.match_info["id"]
        await self._turns.delete(response_id, principal)
        return _json(msgspec.json.encode({"id": response_id, "object": "response", "deleted": True}))

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Stop a response in the background; answers with it as it is then. Doing it twice, or late, is fine."""
        principal = await self._host.authenticate(request.headers)
        log = await self._turns.cancel(request.match_info["id"], principal)
        return _json(response_object(log.turn, log.events()))

    async def input_items(self, request: web.Request) -> web.StreamResponse:
        """What a response was asked."""
        page = asked_page(request.query)
        log = await self._log(request)
        return _json(page_of(input_items(log.turn), page))

    async def _log(self, request: web.Request) -> TurnLog:
        principal = await self._host.authenticate(request.headers)
        return await self._turns.find(request.match_info["id"], principal)

    def _follower(self, request: TurnRequest, log: TurnLog, position: int) -> Follower:
        return Follower(
            request, log, ResponsesEncoder, position, with_ids=False, keepalive=self._keepalive_seconds
        )


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
