"""Sessions whose process is gone: their open turns are dealt with here, or the session is let go of again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from greenroom.actors.continuation import Continuations
from greenroom.actors.errors import Overloaded, SessionLost
from greenroom.actors.messages import SessionKey
from greenroom.actors.pauses import until_back
from greenroom.actors.recovery import Recovery
from greenroom.actors.roster import Roster
from greenroom.services.durable import DurableStore, SessionTaken, Standing, TurnEntry
from greenroom.services.keyed_locks import KeyedLocks


class Takeover:
    """Takes them over. `locks`: who holds a session's decides what becomes of it in this process."""

    __slots__ = ("_chance", "_continuations", "_locks", "_recovery", "_roster", "_store")

    def __init__(
        self,
        store: DurableStore,
        roster: Roster,
        continuations: Continuations,
        recovery: Recovery,
        locks: KeyedLocks[SessionKey],
        chance: Callable[[], float],
    ) -> None:
        self._store = store
        self._roster = roster
        self._continuations = continuations
        self._recovery = recovery
        self._locks = locks
        self._chance = chance

    async def of(self, key: SessionKey) -> None:
        """Deal with the open turns of a session whose process is gone. Raises `Overloaded`, `SessionLost` and
        `StoreUnavailable`."""
        async with self._locks.of(key):
            entries = await self._store.take(key)
            if entries:
                await self.recover(key, entries)

    async def vacate(self, key: SessionKey) -> Standing:
        """How a session stands that is to be deleted. The turns that a dead process left in it have been dealt with.

        Raises `Overloaded`, `SessionDamaged` and `StoreUnavailable`.
        """
        while True:
            async with self._locks.of(key):
                with suppress(SessionLost):  # this process was late: it looks again, under its new name
                    standing = await self._store.standing(key)
                    if isinstance(standing, SessionTaken):
                        await self.recover(key, standing.turns)
                    return standing

    async def recover(self, key: SessionKey, entries: Sequence[TurnEntry]) -> None:
        """Deal with the open turns of a session that was taken. Who calls holds its lock.

        Nobody else does as long as this process has the session: if it cannot, it lets go of it.
        """
        self._continuations.another_had(key)
        try:
            actor = self._roster.get(key)
        except Overloaded:
            # What waited has not begun by having been taken.
            await self._let_go(key, begun=any(entry.status == "running" for entry in entries))
            raise
        try:
            await self._recovery.recover(actor, entries)
        except SessionLost:
            raise
        except Exception:
            await self._let_go(key, begun=True)
            raise

    async def _let_go(self, key: SessionKey, begun: bool) -> None:
        with suppress(SessionLost):
            await until_back(lambda: self._store.release(key, begun=begun), self._chance)
