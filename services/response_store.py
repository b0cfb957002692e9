"""The plug for responses: what protocols that let a client come back to an answer keep of it.

The session's own history is the `SessionStore`'s business; here is each turn as its client saw it, so that it can be
retrieved, replayed from any event, continued from, and deleted. The conformance kit is
`tests/kits/response_store_kit.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from greenroom.actors.events import Event
from greenroom.actors.messages import SessionKey, Turn


class ResponseRecord(Struct, frozen=True, kw_only=True):
    """A turn that has ended, whole. `key`: the session it ran in, which a fork may have given it; `text_size`: of the
    text in its events, where it was counted as they arose; `taken_at`: as `TurnEntry` says."""

    turn: Turn
    key: SessionKey
    events: Sequence[Event]
    background: bool = False
    text_size: int | None = None
    taken_at: int | None = None


class ResponseStore(Protocol):
    """Responses by the principal who asked and the turn's id. What is over the store's bounds is forgotten, oldest
    first."""

    async def start(self) -> None:
        """Be ready for use."""
        ...

    async def stop(self) -> None:
        """Let go of connections and files."""
        ...

    async def put(self, record: ResponseRecord) -> None:
        """Keep a response, in place of one with the same principal and id."""
        ...

    async def get(self, principal: str | None, turn_id: str) -> ResponseRecord | None:
        """The response; none when it is not kept."""
        ...

    async def delete(self, principal: str | None, turn_id: str) -> bool:
        """Keep it no longer. Whether it was kept."""
        ...


_Put = TypeVar("_Put", bound=Callable[..., Coroutine[Any, Any, None]])


def at_once(put: _Put) -> _Put:
    """Marks a `put` that never waits: it runs where the turn ends, and costs no task. One that overrides it is not
    marked."""
    put.__dict__["at_once"] = True
    return put


def is_at_once(responses: ResponseStore) -> bool:
    """Whether the store's `put` is so marked."""
    return getattr(responses.put, "at_once", False) is True


def is_fed_by_turns(responses: ResponseStore) -> bool:
    """Whether what it has was written with the turns' endings: what it does not have will not come. Its `delete` is
    also called for what is still to come, and again when it has come: it sees to it that this goes, whatever becomes of
    the process."""
    return getattr(responses, "fed_by_turns", False) is True
