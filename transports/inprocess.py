"""The in-process transport: turns for an application in the same event loop, no bytes between."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from greenroom.actors.errors import InvalidRequest, NotServing
from greenroom.actors.events import Event, Terminal
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import AgentRequest, Disconnect, Message, Overlap, SessionKey, Text, Turn
from greenroom.transports.transport import Host


class TurnStream:
    """A turn on its way. Iterate it for its events (leaving early is a disconnect), or await `result()`."""

    def __init__(self, host: Host, turn: Turn) -> None:
        self._host = host
        self._turn = turn
        self._log: TurnLog | None = None

    def __repr__(self) -> str:
        return f"<TurnStream {self.id}>"

    @property
    def id(self) -> str:
        """The turn's id."""
        return self._turn.id

    @property
    def key(self) -> SessionKey:
        """The session it is for."""
        return self._turn.key

    async def submit(self) -> TurnLog:
        """Hand the turn in, if that has not been done, and give its log. Raises a `GreenroomError` if it is refused."""
        if self._log is None:
            self._log = await self._host.submit(self._turn)
        return self._log

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        async with aclosing(follow(self._host, await self.submit())) as events:
            async for event in events:
                yield event

    async def result(self) -> Terminal:
        """Wait for the turn's ending. Raises a `GreenroomError` if it is refused; a failed turn is an ending."""
        log = await self.submit()
        try:
            return await log.ended()
        finally:
            self._host.client_left(log)

    async def cancel(self) -> None:
        """Stop the turn."""
        await self.submit()
        await self._host.cancel(self.id, self._turn.principal)


async def follow_turn(host: Host, turn_id: str) -> AsyncGenerator[Event, None]:
    """The events of a turn that runs or is kept, from the first on. Raises `TurnNotFound`."""
    async with aclosing(follow(host, await host.locate(turn_id, None))) as events:
        async for event in events:
            yield event


async def follow(host: Host, log: TurnLog) -> AsyncGenerator[Event, None]:
    """The log's events from the first on. Leaving early is a disconnect."""
    try:
        async with aclosing(log.read()) as events:
            async for event in events:
                yield event
    finally:
        host.client_left(log)


class InProcess:
    """Every application has one; `AgentApp.process` goes through it."""

    name = "in-process"

    def __init__(self) -> None:
        self._host: Host | None = None

    async def start(self, host: Host) -> None:
        self._host = host

    async def stop(self, deadline: float) -> None:
        self._host = None

    @property
    def host(self) -> Host:
        """The running application. Raises `NotServing`."""
        if self._host is None:
            raise NotServing("the application is not running; use it inside `async with app:`")
        return self._host

    def process(
        self,
        request: str | AgentRequest,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        overlap: Overlap | None = None,
        disconnect: Disconnect | None = None,
    ) -> TurnStream:
        """A turn for a session. `request` may be just the user's text.

        Raises `NotServing` when the application is not running and `InvalidRequest` for a request without input.
        """
        host = self.host
        if isinstance(request, str):
            request = AgentRequest(input=(Message((Text(request),)),))
        if not request.input:
            raise InvalidRequest("the request has no input; give it at least one message", field="input")
        return TurnStream(host, self._turn(host, request, session_id, user_id, overlap, disconnect))

    def _turn(
        self,
        host: Host,
        request: AgentRequest,
        session_id: str | None,
        user_id: str | None,
        overlap: Overlap | None,
        disconnect: Disconnect | None,
    ) -> Turn:
        uuid = host.sources.uuid
        session_id = session_id or request.session_id or uuid()
        user_id = user_id or request.user_id or session_id
        turn_id = request.id or f"response_{uuid()}"
        request = msgspec.structs.replace(
            request, input=tuple(request.input), session_id=session_id, user_id=user_id, id=turn_id
        )
        return Turn(
            id=turn_id,
            key=SessionKey(user_id, session_id),
            request=request,
            overlap=overlap,
            disconnect=disconnect or Disconnect(),
            created_at=host.sources.now(),
        )
