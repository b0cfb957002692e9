"""The Responses API over one WebSocket: `GET /responses` with an upgrade.

The client sends `{"type": "response.create", ...}` with what `POST /responses` takes, and gets the same events as text
messages, without `[DONE]`. One response runs at a time; errors are messages of type `error` and end nothing else. The
newest response of the connection can be continued although it was not to be stored: the session of such responses
lasts as long as the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from greenroom.actors.errors import Forbidden, GreenroomError, InvalidRequest, SessionLost, StoreUnavailable
from greenroom.actors.events import TurnCancelled, TurnCompleted
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import SessionKey
from greenroom.actors.pauses import SHORTEST_PAUSE, rest
from greenroom.actors.repeats import moved
from greenroom.transports.follow import SLICE
from greenroom.transports.frames import SharedFrames
from greenroom.transports.http_errors import OWN_FAULTS, unforeseen
from greenroom.transports.json_checks import boolean, json_object, string, unknown
from greenroom.transports.responses_decode import Settings, read_create
from greenroom.transports.responses_encode import ResponsesEncoder, event_json
from greenroom.transports.responses_errors import MethodNotAllowed, Problem, failure, problem_of
from greenroom.transports.responses_turns import ResponsesTurns
from greenroom.transports.transport import Host

CREATE = "response.create"
LOOK_SECONDS = 0.5
"""How often an open connection looks whether the application stops, which it would hold up."""


class ResponsesSocket:
    """The route. `message_bytes`: the largest message; a larger one closes the connection (1009).

    `origins`: those of `Cors`, whose pages may connect besides the server's own: no browser asks before it opens one.
    """

    def __init__(
        self,
        host: Host,
        turns: ResponsesTurns,
        settings: Settings,
        *,
        message_bytes: int,
        keepalive_seconds: float,
        origins: Sequence[str] = (),
    ) -> None:
        self._host = host
        self._turns = turns
        self._settings = settings
        self._message_bytes = message_bytes
        self._keepalive_seconds = keepalive_seconds
        self._origins = frozenset(origins)
        self._leaving: set[asyncio.Task[None]] = set()

    def routes(self) -> list[web.RouteDef]:
        """The route, from the base path on."""
        return [web.get("/responses", self.connect, allow_head=False)]

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """One connection, from the upgrade to its end."""
        socket = web.WebSocketResponse(max_msg_size=self._message_bytes, compress=False)
        if not socket.can_prepare(request):
            raise MethodNotAllowed(
                f"{request.path} takes POST; GET is for a WebSocket, with the headers of an upgrade", ["POST"]
            )
        self._check_origin(request)
        principal = await self._host.authenticate(request.headers)
        await socket.prepare(request)
        connection = _Connection(
            socket, self._host, self._turns, self._settings, principal, self._keepalive_seconds
        )
        try:
            await connection.run()
        finally:
            await self._left(connection)
        return socket

    async def _left(self, connection: _Connection) -> None:
        """Tidy up to the end, also when aiohttp cancels the handler because the client has gone."""
        leaving = asyncio.create_task(connection.leave())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        await asyncio.shield(leaving)

    def _check_origin(self, request: web.Request) -> None:
        origin = request.headers.get("Origin")
        if origin is None or "*" in self._origins or origin in self._origins:
            return
        if urlsplit(origin).netloc != request.host:
            raise Forbidden(
                f"pages of {origin} may not connect here; name the origin in the server's cors_origins"
            )


class _Connection:
    """One client. `near`: the newest response, which the next may continue."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        host: Host,
        turns: ResponsesTurns,
        settings: Settings,
        principal: str | None,
        keepalive_seconds: float,
    ) -> None:
        self._keepalive_seconds = keepalive_seconds
        self._pinged = asyncio.get_running_loop().time()
        self._socket = socket
        self._host = host
        self._turns = turns
        self._settings = settings
        self._principal = principal
        self._near: TurnLog | None = None
        self._own: set[SessionKey] = set()
        """Sessions of responses that are not to be stored."""
        self._answering: asyncio.Task[None] | None = None
        self._told = True
        """Whether the client has been told all there is, and may ask for more while we tidy up."""
        self._looking: asyncio.TimerHandle | None = None
        self._chores: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """Answer messages until the connection is closed."""
        self._look_later()
        async for message in self._socket:
            if not self._told:
                await self._complain(_in_flight())
                continue
            if self._answering is not None:
                await asyncio.wait([self._answering])
            self._told = False
            self._answering = asyncio.create_task(self._answer(message))

    async def leave(self) -> None:
        """The connection is over. What runs is followed no more, and what was not to be stored is forgotten."""
        if self._looking is not None:
            self._looking.cancel()
        if self._answering is not None:
            self._answering.cancel()
            await asyncio.wait([self._answering])
        if self._chores:
            await asyncio.wait(self._chores)
        pause = SHORTEST_PAUSE
        while self._own:
            try:
                await self._forget(self._own)
            except StoreUnavailable:
                if self._host.state in ("draining", "stopped"):
                    raise  # it goes as what a dead process left
                pause = await rest(pause, self._host.sources.chance)

    # -- from time to time -----------------------------------------------------------------------------------------

    def _look_later(self) -> None:
        seconds = min(LOOK_SECONDS, self._keepalive_seconds)
        self._looking = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        busy = self._answering is not None and not self._answering.done()
        if self._host.state in ("draining", "stopped") and not busy:
            self._do(self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server is stopping"))
            return
        now = asyncio.get_running_loop().time()
        if now - self._pinged >= self._keepalive_seconds:
            self._pinged = now
            self._do(self._ping())
        self._look_later()

    def _do(self, chore: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _ping(self) -> None:
        """A sign of life, for proxies. No answer is waited for: a client that works on a tool may not be reading."""
        try:
            await self._socket.ping()
        except ConnectionError:
            return  # the client has gone, which `run` sees too

    # -- answering -------------------------------------------------------------------------------------------------

    async def _answer(self, message: WSMessage) -> None:
        """One message's response, or an error: nothing else comes out."""
        try:
            log = await self._begin(_fields(message))
            await self._follow(log)
        except OWN_FAULTS as error:
            await self._fail(error)
        except GreenroomError as error:
            self._told = True
            await self._complain(problem_of(error))
        except ConnectionError:
            return  # the client has gone, which `run` sees too
        except Exception as error:  # noqa: BLE001 - it is logged, and the client is told that it is not his fault
            await self._fail(error)

    async def _fail(self, error: Exception) -> None:
        """Log what is no fault of the client's, who gets the id."""
        self._told = True
        error_id = unforeseen(error, self._host.sources, "a response over a WebSocket")
        await self._complain(failure(error_id))

    async def _begin(self, fields: dict[str, Any]) -> TurnLog:
        create = read_create(
            fields, sources=self._host.sources, settings=self._settings, principal=self._principal
        )
        return await self._turns.begin(create, self._near, self._own)

    async def _follow(self, log: TurnLog) -> None:
        """Send the events as they come, as fast as the client takes them."""
        more = asyncio.Event()
        frames = SharedFrames.of(log, ResponsesEncoder).reader()
        log.watch(more.set)
        try:
            while not frames.ended:
                more.clear()
                some = frames.take(SLICE)
                self._told = frames.ended
                for frame in some:
                    if (event := event_json(frame)) is not None:
                        await self._socket.send_frame(event, WSMsgType.TEXT)
                if not frames.ended and not frames.behind:
                    await more.wait()
        except SessionLost:
            raise moved(log.turn) from None
        finally:
            log.unwatch(more.set)
            frames.close()
            self._host.client_left(log)
        if isinstance(log.terminal, TurnCancelled):
            await self._complain(_cancelled(log))
        elif isinstance(log.terminal, TurnCompleted):
            self._near = log
            with suppress(StoreUnavailable):  # it is tried again with the next response, or when this is over
                await self._forget(self._own - {log.turn.key})

    async def _forget(self, keys: set[SessionKey]) -> None:
        """Sessions that nobody can continue any more."""
        for key in tuple(keys):
            await self._host.forget(key)
            self._own.discard(key)

    async def _complain(self, problem: Problem) -> None:
        """Say what is wrong. A client that has gone need not hear it."""
        said = msgspec.json.encode({"type": "error", "status": problem.status, "error": problem.fields()})
        try:
            await self._socket.send_frame(said, WSMsgType.TEXT)
        except ConnectionError:
            return


def _fields(message: WSMessage) -> dict[str, Any]:
    """What a message asks for, without what only HTTP has. Raises `InvalidRequest`."""
    if message.type is not WSMsgType.TEXT:
        raise InvalidRequest("messages are JSON as text, not binary")
    fields = json_object(message.data.encode("utf-8", "surrogatepass"), "type")
    kind = fields.pop("type", None)
    if kind != CREATE:
        unknown("type", "" if kind is None else string(kind, "type"), (CREATE,))
    if fields.pop("stream_id", None) is not None:
        raise InvalidRequest(
            "stream_id asks for responses side by side; here one runs at a time: open another connection",
            field="stream_id",
        )
    generate = fields.pop("generate", None)
    if generate is not None and not boolean(generate, "generate"):
        raise InvalidRequest(
            "generate: false asks for preparing a response without making it, which an agent has no use for",
            field="generate",
        )
    if fields.pop("background", None):
        raise InvalidRequest(
            "background is not for a WebSocket; create the response with POST /responses", field="background"
        )
    return {**fields, "stream": True}


def _in_flight() -> Problem:
    return Problem(
        400,
        "a response is on its way on this connection; wait for its end, or open another connection",
        code="response_in_flight",
    )


def _cancelled(log: TurnLog) -> Problem:
    """A response has no event that says it was cancelled, and without one the client would wait for ever."""
    return Problem(400, f"response {log.id} was cancelled", code="response_cancelled")
