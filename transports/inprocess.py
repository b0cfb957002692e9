"""The in-process transport: turns for an application in the same event loop, no bytes between."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, get_args

import msgspec

from greenroom.actors.errors import InvalidRequest, NotServing, SessionLost
from greenroom.actors.events import Event, Terminal
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import (
    AgentRequest,
    Content,
    Disconnect,
    Message,
    Overlap,
    SessionKey,
    Text,
    Turn,
)
from greenroom.actors.repeats import moved
from greenroom.transports.json_checks import identifier, wrong
from greenroom.transports.process_decode import read_request
from greenroom.transports.transport import Host
from greenroom.transports.turn_policies import asked_disconnect, asked_overlap, asked_webhook

_PARTS = frozenset(get_args(Content))


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
        """Wait for the turn's ending. Raises a `GreenroomError` if it is refused, and `TurnMoved` if it goes on in
        another process, as this one stops or was cut off; a failed turn is an ending."""
        log = await self.submit()
        try:
            return await log.ended()
        except SessionLost:
            raise moved(log.turn) from None
        finally:
            self._host.client_left(log)

    async def cancel(self) -> None:
        """Stop the turn."""
        await self.submit()
        await self._host.cancel(self.id, self._turn.principal)


async def follow_turn(host: Host, turn_id: str, principal: str | None) -> AsyncGenerator[Event, None]:
    """The events of a principal's turn that runs or is kept, from the first on. Raises `TurnNotFound`."""
    async with aclosing(follow(host, await host.locate(turn_id, principal))) as events:
        async for event in events:
            yield event


async def follow(host: Host, log: TurnLog) -> AsyncGenerator[Event, None]:
    """The log's events from the first on. Leaving early is a disconnect. Raises `TurnMoved` as `TurnStream.result`."""
    try:
        async with aclosing(log.read()) as events:
            async for event in events:
                yield event
    except SessionLost:
        raise moved(log.turn) from None
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
        request: str | AgentRequest | dict[str, Any],
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        overlap: Overlap | None = None,
        disconnect: Disconnect | str | None = None,
    ) -> TurnStream:
        """A turn for a session. `request` may be just the user's text, or a dictionary as `/process` takes it;
        `disconnect` may be in that protocol's words.

        Raises `NotServing` when the application is not running and `InvalidRequest`, which names the argument, for what
        cannot be a turn.
        """
        host = self.host
        asked: dict[str, Any] = {}
        if isinstance(request, dict):
            request = read_request(dict(request))
            asked = request.extra
        elif isinstance(request, str):
            request = AgentRequest(input=(Message((Text(request),)),))
        else:
            _check_request(request)
        turn = self._turn(
            host,
            request,
            _id(session_id, "session_id"),
            _id(user_id, "user_id"),
            asked_overlap(overlap if overlap is not None else asked.get("overlap")),
            _policy(disconnect if disconnect is not None else asked.get("disconnect")),
        )
        webhook = asked_webhook(asked.get("webhook"))
        return TurnStream(host, turn if webhook is None else msgspec.structs.replace(turn, webhook=webhook))

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


def _id(value: Any, name: str) -> str | None:
    return None if value is None else identifier(value, name)


def _policy(value: Any) -> Disconnect | None:
    return value if isinstance(value, Disconnect) else asked_disconnect(value)


def _check_request(request: Any) -> None:
    """Structs are checked by nobody when they are made."""
    if not isinstance(request, AgentRequest):
        wrong("request", "the user's text, an AgentRequest or a dictionary", request)
    for name in ("session_id", "user_id", "id"):
        _id(getattr(request, name), name)
    if not request.input:
        raise InvalidRequest("the request has no input; give it at least one message", field="input")
    if not isinstance(request.input, tuple | list):
        wrong("input", "a sequence of Message", request.input)
    for i, message in enumerate(request.input):
        if not isinstance(message, Message):
            wrong(f"input[{i}]", "a Message", message)
        if not isinstance(message.content, tuple | list) or not _PARTS.issuperset(map(type, message.content)):
            wrong(f"input[{i}].content", "a tuple of parts, such as (Text(...),)", message.content)
