"""Turns that join the line of a session which is another process's: whether there is room for one, and what comes of it
here, where it is followed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from greenroom.actors.archive import Archive
from greenroom.actors.asker import Asker
from greenroom.actors.elsewhere import Elsewhere
from greenroom.actors.errors import MailboxFull, SessionHeld
from greenroom.actors.held_up import Overlapping
from greenroom.actors.limits import Limits
from greenroom.actors.log import TurnLog
from greenroom.actors.mailbox import check_bounds, check_waits
from greenroom.actors.messages import Turn
from greenroom.actors.pauses import until_back
from greenroom.services.durable import DurableStore, SessionElsewhere, TurnEntry

Begin = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
"""Has something done beside all else, as long as this process takes turns in."""


class Joining:
    """What a process does with turns that run elsewhere, as they come to it."""

    __slots__ = ("_archive", "_begin", "_chance", "_elsewhere", "_limits", "_store", "_system")

    def __init__(
        self,
        store: DurableStore,
        system: Overlapping,
        archive: Archive,
        elsewhere: Elsewhere,
        limits: Limits,
        chance: Callable[[], float],
        begin: Begin,
    ) -> None:
        self._store = store
        self._system = system
        self._archive = archive
        self._elsewhere = elsewhere
        self._limits = limits
        self._chance = chance
        self._begin = begin

    def check(self, turn: Turn, asker: Asker, stands: SessionElsewhere) -> None:
        """The turn is about to join. Raises `SessionBusy` for one that does not wait, and `SessionHeld` when
        there is no room for it in the line."""
        check_waits(turn, self._system.overlap)
        waiting = stands.turns[1:]
        try:
            check_bounds(turn, len(waiting), sum(one.size for one in waiting), self._limits)
        except MailboxFull as full:
            raise SessionHeld(f"another process works on the session: {full.message}") from None
        asker.stands = stands

    def joined(self, turn: Turn, entry: TurnEntry, stands: SessionElsewhere) -> TurnLog:
        """The log of a turn that has joined the line, which stood like that before."""
        if (turn.overlap or self._system.overlap) == "interrupt":
            running, why = stands.turns[0], f"interrupted by turn {turn.id}"
            asking = partial(self._store.ask_to_cancel, running.turn_id, running.principal, why)
            _ = self._begin(until_back(asking, self._chance))
        return self._elsewhere.log_of(entry, self._archive.takes_in(turn))

    def known(self, turn: Turn, entry: TurnEntry, asker: Asker) -> TurnLog:
        """A repeat's log; or the turn's own, of which it was not known whether it had joined."""
        own = entry.turn.id == turn.id and entry.turn.fingerprint == turn.fingerprint
        if asker.maybe_joined and own and asker.stands is not None:
            return self.joined(turn, entry, asker.stands)
        return self._elsewhere.repeated(turn, entry)
