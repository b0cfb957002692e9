"""The plug for stores: what keeps sessions between the turns, and while no actor holds them.

A turn ends with one `commit`: its record and the session's state together, or nothing (law 3). A store also keeps the
states after some turns before the newest, so that a session can be continued from there. The store's conformance kit is
`tests/kits/store_kit.py`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from msgspec import Struct

from greenroom.actors.events import Item, TurnStatus
from greenroom.actors.messages import Message, SessionKey


class TurnRecord(Struct, frozen=True):
    """What is kept of a turn that has ended. `at`: when it ended, in seconds since the epoch."""

    turn_id: str
    status: TurnStatus
    at: float
    input: tuple[Message, ...] = ()
    output: tuple[Item, ...] = ()


class TurnCommit(Struct, frozen=True):
    """What a turn changes. `state`: the session's new state; none leaves the one before it."""

    record: TurnRecord
    state: bytes | None = None


class SessionRecord(Struct, frozen=True):
    """What is kept of a session. `revision`: its number of commits. `turns`: the last ones, oldest first."""

    key: SessionKey
    revision: int
    state: bytes | None
    turns: tuple[TurnRecord, ...]


@runtime_checkable
class SessionStore(Protocol):
    """Sessions by key. Keys that differ are different sessions, whatever the ids contain."""

    async def start(self) -> None:
        """Be ready for use. Raises a `GreenroomError` that says what is missing when it cannot."""
        ...

    async def stop(self) -> None:
        """Let go of connections and files. A store may be started again."""
        ...

    async def load(self, key: SessionKey) -> SessionRecord | None:
        """The session as of its last commit; none when there was no commit, or it is no longer kept."""
        ...

    async def commit(self, key: SessionKey, turn: TurnCommit) -> None:
        """Keep a turn: all of it or, when this raises, nothing.

        Raises `HandlerError` for a record that cannot be kept as it is; its `field` names the flaw.
        """
        ...

    async def fork(self, source: SessionKey, turn_id: str, target: SessionKey) -> bool:
        """Make `target` a session with the turns of `source` up to that one, and the state as it was after it.

        False, and no `target`, when that turn or the state after it is no longer kept, or never was. A turn that left
        the state as it was has the one before it. `source` stays as it is, and later changes of either do not show in
        the other.
        """
        ...

    async def forget(self, key: SessionKey) -> None:
        """Keep nothing of the session any more. One that is not kept is fine."""
        ...
