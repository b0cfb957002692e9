"""Turns behind one that is held up while it is taken in: they are not kept waiting for what can be answered at once.

A turn is held up that continues from one that has not ended. A repeat of a turn, or one that does not want to wait,
need not wait for it.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from greenroom.actors.archive import Archive
from greenroom.actors.asker import Verdict
from greenroom.actors.elsewhere import Elsewhere
from greenroom.actors.errors import GreenroomError, StoreUnavailable
from greenroom.actors.log import TurnLog
from greenroom.actors.mailbox import check_waits
from greenroom.actors.messages import Overlap, SessionKey, Turn
from greenroom.actors.roster import Roster
from greenroom.services.durable import DurableStore, SessionElsewhere

PATIENCE: Final = 0.05
"""Before it is looked whether what a turn waits behind is held up, seconds: mostly it is not."""


class Overlapping(Protocol):
    """What the system does with turns that do not say how they overlap others."""

    overlap: Overlap


class HeldUp:
    """Judges them. `behind`: sessions the next turn of which waits for one that runs: in another process, or (none)
    here."""

    __slots__ = ("_archive", "_elsewhere", "_roster", "_store", "_system", "behind")

    def __init__(
        self,
        store: DurableStore,
        system: Overlapping,
        roster: Roster,
        archive: Archive,
        elsewhere: Elsewhere,
    ) -> None:
        self.behind: dict[SessionKey, SessionElsewhere | None] = {}
        self._store = store
        self._system = system
        self._roster = roster
        self._archive = archive
        self._elsewhere = elsewhere

    async def judge(self, turn: Turn, verdict: Verdict) -> None:
        """Find out what does not depend on when the turns before this one are in."""
        while turn.key not in self.behind:
            await asyncio.sleep(PATIENCE)
            if verdict.done():
                return
        answer: TurnLog | GreenroomError | None
        try:
            answer = await self._hurried(turn, self.behind[turn.key])
        except StoreUnavailable:  # whether it is away is found out when the turn's time comes
            return
        except GreenroomError as error:
            answer = error.with_traceback(None)
        if answer is not None and not verdict.done():
            verdict.set_result(answer)

    async def _hurried(self, turn: Turn, running: SessionElsewhere | None) -> TurnLog | None:
        """A repeat's log; none: the turn is to wait. Raises `SessionBusy` for one that does not."""
        entry = await self._store.known(turn)
        if entry is not None:
            return self._archive.known(turn) or self._elsewhere.repeated(turn, entry)
        if running is not None:
            check_waits(turn, self._system.overlap)
        elif (actor := self._roster.find(turn.key)) is not None and actor.current is not None:
            actor.check_room(turn)
            actor.make_way(actor.current, turn)
        return None
