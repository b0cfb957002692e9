"""The plug for responses: what protocols that let a client come back to an answer keep of it.

The session's own history is the `SessionStore`'s business; here is each turn as its client saw it, so that it can be
retrieved, replayed from any event, continued from, and deleted. The conformance kit is
`tests/kits/response_store_kit.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from greenroom.actors.events import Event
from greenroom.actors.messages import SessionKey, Turn


class ResponseRecord(Struct, frozen=True, kw_only=True):
    """A turn that has ended, whole. `key`: the session it ran in, which a fork may have given it."""

    turn: Turn
    key: SessionKey
    events: Sequence[Event]
    background: bool = False


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
