"""Chat Completions on aiohttp.

This protocol has no word for a run that failed: it is an error, of a status on which no client sends its request again,
or, once a stream has begun, a frame in it.
"""

from __future__ import annotations

from aiohttp import web

from greenroom.actors.errors import SessionLost
from greenroom.actors.events import Terminal, TurnCancelled, TurnCompleted, TurnFailed
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Disconnect
from greenroom.actors.repeats import moved
from greenroom.transports.chat_decode import ChatSettings, decode_chat
from greenroom.transports.chat_encode import FAILED, ChatEncoder, ToolDisplay, completion_object, error_of
from greenroom.transports.follow import Follower
from greenroom.transports.idempotency import asked_key
from greenroom.transports.openai_fields import INVALID
from greenroom.transports.request_body import BodyReader
from greenroom.transports.responses_errors import Problem, problem_response
from greenroom.transports.retries import Asking, Retries
from greenroom.transports.transport import Host
from greenroom.transports.turn_request import TurnRequest


class ChatRoutes:
    """`/chat/completions`. `tools`: how calls of the agent's own tools are shown. `disconnect`: what becomes of a turn
    whose client goes away, when its request does not say."""

    def __init__(
        self,
        host: Host,
        *,
        body: BodyReader,
        keepalive_seconds: float,
        tools: ToolDisplay = "hidden",
        disconnect: Disconnect | None = None,
    ) -> None:
        self._host = host
        self._body = body
        self._keepalive_seconds = keepalive_seconds
        self._settings = ChatSettings(
            model=host.name, honours=host.honours, tools=tools, disconnect=disconnect or Disconnect()
        )
        self._retries = Retries()

    def routes(self) -> list[web.RouteDef]:
        """The routes, from the base path on."""
        return [web.post("/chat/completions", self.complete)]

    async def complete(self, request: TurnRequest) -> web.StreamResponse:
        """A turn: with `"stream": true` chunks, else one completion."""
        host = self._host
        principal = await host.authenticate(request.headers)
        body = self._body.at_hand(request) or await self._body.read(request)
        key = asked_key(request.headers)
        turn = decode_chat(body, sources=host.sources, settings=self._settings, principal=principal, key=key)
        asking = self._retries.asking(request, principal, body, turn)
        with asking:
            log = await asking.begin(turn, host.submit)
            ending = None if turn.request.stream else await self._ended(log)
        if ending is None:
            return await self._stream(request, log, asking)
        if isinstance(ending, TurnCompleted):
            return web.Response(body=completion_object(log.turn, ending), content_type="application/json")
        return _failure(ending)

    async def _ended(self, log: TurnLog) -> Terminal:
        try:
            return await log.ended()
        except SessionLost:
            raise moved(log.turn) from None
        finally:
            self._host.client_left(log)

    async def _stream(self, request: TurnRequest, log: TurnLog, asking: Asking) -> web.StreamResponse:
        follower = Follower(request, log, ChatEncoder, keepalive=self._keepalive_seconds)
        try:
            return await follower.run()
        except SessionLost:
            raise moved(log.turn) from None
        finally:
            if not follower.reached:
                asking.unanswered()
            self._host.client_left(log)


def _failure(ending: TurnFailed | TurnCancelled) -> web.StreamResponse:
    error = error_of(ending)
    status = 400 if error.type == INVALID else FAILED
    return problem_response(Problem(status, error.message, error.type, error.param, error.code))
