"""What must not stay in a shared store, and goes whichever process left it: answers for repeats whose time is over,
sessions that were to go with a process that is gone (`Turn.passing`, `Turn.temporary`, forks of which no turn came),
and responses that were deleted while they ran.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from greenroom.actors.errors import SessionDamaged, StoreUnavailable
from greenroom.actors.messages import SessionKey
from greenroom.services.durable import DurableStore, Passed
from greenroom.services.durable_responses import NO_EVENTS
from greenroom.services.sessions.unwanted import unwanted
from greenroom.services.storage import Conflict, Fence

logger = logging.getLogger("greenroom.actors")

AT_ONCE: Final = 16
"""Sessions that are looked at in one round, besides those that had to stay in the one before."""


class Leftovers:
    """Lets them go. `forget`: deletes a session as it stands, with its mark (`Continuations.forget`). `seconds`: how
    long answers for repeats are kept."""

    __slots__ = ("_at", "_forget", "_running", "_seconds", "_stayed", "_store")

    def __init__(
        self,
        store: DurableStore,
        forget: Callable[[SessionKey, Fence, Fence], Awaitable[None]],
        seconds: float,
    ) -> None:
        self._store = store
        self._forget = forget
        self._seconds = seconds
        self._at = 0.0
        """When it is next looked for answers whose time is over, seconds of the loop's clock."""
        self._stayed = 0
        """Sessions that could not go in the last round: the next looks at more."""
        self._running = 0
        """The same of turns that are to go."""

    def __repr__(self) -> str:
        return f"<Leftovers of {self._store!r}>"

    async def let_go(self) -> None:
        """A round, of bounded length. Raises `StoreUnavailable`."""
        now = asyncio.get_running_loop().time()
        if now >= self._at and await self._store.forget_repeats():
            self._at = now + self._seconds / 8
        self._running = await self._remove_unwanted(AT_ONCE + self._running)
        free, busy = await self._store.passed(AT_ONCE + self._stayed)
        stayed = len(busy)
        for session in free:
            stayed += not await self._is_forgotten(session)
        self._stayed = stayed

    async def _remove_unwanted(self, limit: int) -> int:
        """Remove turns that have ended of which nothing was to be kept. Gives how many could not be removed yet."""
        stayed = 0
        for turn, unmark in await unwanted(self._store.storage, limit):
            try:
                entry = await self._store.find(turn.turn_id, turn.principal, NO_EVENTS)
                if entry is not None and entry.status != "ended":
                    stayed += 1
                elif entry is None or not await self._store.remove(turn.turn_id, turn.principal):
                    await self._store.storage.write([unmark])
            except Conflict:
                logger.debug("somebody else removes turn %s", turn.turn_id)
            except SessionDamaged as error:
                stayed += 1
                logger.warning("turn %s, which was to be removed, stays for now: %s", turn.turn_id, error)
        return stayed

    async def _is_forgotten(self, session: Passed) -> bool:
        """One that cannot be forgotten is in the way of nothing else, and is tried again."""
        key = session.key
        try:
            await self._forget(key, session.standing, session.mark)
        except StoreUnavailable:
            raise
        except Conflict:
            logger.debug("somebody has gone on with session %r since it was found", key)
            return False
        except Exception:
            logger.exception("session %r, whose process is gone with what it was for, stays for now", key)
            return False
        logger.info("session %r is forgotten: it was to go with its process, which is gone", key)
        return True
