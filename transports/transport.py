"""The plug for transports: what carries a protocol to the session actors.

A `Transport` turns what it receives into `Turn` messages for the `Host` and follows turn logs to answer. It knows no
handler, no framework and no store. Its conformance kit is `tests/kits/transport_kit.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

from msgspec import Struct

from greenroom.actors.ids import Sources
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Message, SessionKey, Turn
from greenroom.services.conversation_store import ConversationStore
from greenroom.services.response_store import ResponseStore
from greenroom.services.store import SessionRecord
from greenroom.transports.looking import Looking

HostState: TypeAlias = Literal["starting", "ready", "draining", "stopped"]


class Endpoint(Struct, frozen=True):
    """A route of the user's own: `function` takes the decoded JSON body's fields, the query's, or `request`.

    Without a function the path is another name of `POST /process`. `instead`: GET of it is asked in place of what the
    server tells of itself there.
    """

    path: str
    methods: tuple[str, ...]
    function: Any
    instead: bool = False


class Sessions(Protocol):
    """What a transport may do with a session besides sending turns to it."""

    async def session(self, key: SessionKey) -> SessionRecord | None:
        """What is kept of the session: its turns that have ended. None: nothing is."""
        ...

    async def forget(self, key: SessionKey) -> None:
        """Delete the session: its turns are cancelled, and nothing of it is kept, in services neither."""
        ...


class Host(Sessions, Protocol):
    """The application, as a transport sees it. `honours`: the fields of `TurnOptions` its handler does as asked.
    `responses`: the turns with `Turn.stored` that have ended. `conversations`: what clients said of sessions.
    `looking`: whether people may look into sessions' browsers."""

    name: str
    description: str
    sources: Sources
    endpoints: Sequence[Endpoint]
    debug: bool
    honours: frozenset[str]
    responses: ResponseStore
    conversations: ConversationStore
    looking: Looking | None

    @property
    def state(self) -> HostState:
        """Whether turns are taken."""
        ...

    def authenticate(self, headers: Mapping[str, str]) -> Awaitable[str | None]:
        """Who calls (`None`: anybody, as no authentication is configured). Raises `Unauthenticated`."""
        ...

    def submit(self, turn: Turn) -> Coroutine[Any, Any, TurnLog]:
        """Accept a turn and give its log, whose own `turn` may name another session: one that `Turn.after` led to.

        Raises a `GreenroomError` that says why not: nothing of it is kept.
        """
        ...

    def check_input(self, messages: Sequence[Message]) -> None:
        """Raises `InvalidRequest` for messages that the application's framework has no place for, whatever went before;
        `field` names the message as `input[number]`."""
        ...

    def find(self, turn_id: str, principal: str | None) -> TurnLog:
        """The log of a turn that runs or is kept here. Raises `TurnNotFound`."""
        ...

    async def locate(self, turn_id: str, principal: str | None) -> TurnLog:
        """The log of a turn, wherever it runs or ran: in another process, or before this one. Raises `TurnNotFound`."""
        ...

    async def cancel(self, turn_id: str, principal: str | None, reason: str = "asked") -> TurnLog:
        """Stop that turn and no other. Doing it twice, or late, changes nothing. Raises `TurnNotFound`."""
        ...

    async def forget_turn(self, turn_id: str, principal: str | None) -> None:
        """Keep nothing of a turn that has ended, neither its log nor its response, but what its session's history has.
        Raises `StoreUnavailable`."""
        ...

    def client_left(self, log: TurnLog) -> None:
        """A client that followed this turn has gone before its end; what happens now is the turn's own policy."""
        ...


class Transport(Protocol):
    """One carrier. It starts before the application's init hooks, so that it can say "starting", and stops after all
    turns have ended, before the shutdown hooks."""

    name: str

    async def start(self, host: Host) -> None:
        """Begin to listen. Raises when it cannot (the port is taken): the application then does not start. Until
        `host.state` is "ready", `host.submit` refuses with `NotServing`."""
        ...

    async def stop(self, deadline: float) -> None:
        """Take no more requests, let open streams end, be gone within `deadline` seconds."""
        ...
