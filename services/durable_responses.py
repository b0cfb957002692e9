"""Responses of a store that loses nothing: they are its turns' own entries and logs, so no second copy is written.

They are kept for as long as the store keeps turns that have ended, are there as soon as a turn has its ending, and in
every process that shares the store.
"""

from __future__ import annotations

from typing import Final

from greenroom.services.durable import DurableStore, TurnEntry
from greenroom.services.response_store import ResponseRecord, at_once
from greenroom.services.service import not_started
from greenroom.services.sessions.unwanted import mark_unwanted, removed

NO_EVENTS: Final = 2**53
"""No log is so long: asked for from here on, an entry comes without its events."""


class DurableResponses:
    """A `ResponseStore` that shows the turns of a `DurableStore`, which its application starts and stops."""

    fed_by_turns: Final = True
    """See `response_store.is_fed_by_turns`."""

    def __init__(self, store: DurableStore) -> None:
        self._store = store
        self._started = False

    def __repr__(self) -> str:
        return f"<DurableResponses of {self._store!r}>"

    async def start(self) -> None:
        """Be ready for use."""
        self._started = True

    async def stop(self) -> None:
        """Refuse further use, until started again."""
        self._started = False

    @at_once
    async def put(self, record: ResponseRecord) -> None:
        """Nothing is left to do: the response was written with the turn's ending."""
        self._use()

    async def get(self, principal: str | None, turn_id: str) -> ResponseRecord | None:
        """The response; none when it is not kept."""
        entry = await self._use().find(turn_id, principal)
        if entry is None or not _is_response(entry):
            return None
        turn = entry.turn
        return ResponseRecord(
            turn=turn,
            key=turn.key,
            events=entry.events,
            background=turn.background,
            taken_at=entry.taken_at,
        )

    async def delete(self, principal: str | None, turn_id: str) -> bool:
        """Keep it no longer. What its session's history has of it stays. Whether it was kept.

        One that has not ended yet is to be deleted again when it has: another process does that when this one is gone.
        """
        store = self._use()
        entry = await store.find(turn_id, principal, NO_EVENTS)
        if entry is None:  # so may be the session
            await store.storage.write([removed(turn_id, principal)])
        if entry is None or not entry.turn.stored:
            return False
        if entry.status == "ended":
            return await store.remove(turn_id, principal)
        await mark_unwanted(store.storage, entry.turn, store.owner)
        return False

    def _use(self) -> DurableStore:
        if not self._started:
            raise not_started(self)
        return self._store


def _is_response(entry: TurnEntry) -> bool:
    return entry.turn.stored and entry.status == "ended"
