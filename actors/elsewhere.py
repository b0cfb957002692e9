"""Turns that are not at work in this process: their logs, as far as the store that processes share has them.

The log of one that runs in another process is filled from the store as long as somebody follows it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from msgspec.structs import replace

from greenroom.actors.endings import untold
from greenroom.actors.errors import SessionDamaged, SessionLost, StoreUnavailable, TurnNotFound
from greenroom.actors.events import ArgumentsDelta, Event, TextDelta, TurnAccepted, TurnFailed
from greenroom.actors.followers import FollowedLog, tell_of_followers, wants_to_hear
from greenroom.actors.ids import Sources
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import ErrorInfo, SessionKey, Turn
from greenroom.actors.pauses import rest
from greenroom.actors.repeats import key_reused, turn_exists
from greenroom.actors.retelling import retold
from greenroom.actors.turn import TurnKey
from greenroom.services.durable import DurableStore, TurnEntry

logger = logging.getLogger("greenroom.actors")

SHORTEST_LOOK: Final = 0.05
LONGEST_LOOK: Final = 1.0
"""Between two looks at a turn that runs elsewhere, seconds, at the most (`rest`): short while it says something."""
LONGEST_NEAR: Final = 0.25
"""At the most while somebody follows one that is at work, or the next to be: it may begin and end at any moment."""
SEEN_SECONDS: Final = 1.25 * LONGEST_LOOK
"""After so long whoever follows a turn has what was written of it."""
PATIENCE: Final = 20
"""Looks at a turn that nobody follows, before no more are taken."""


class Elsewhere:
    """Logs by the turn's principal and id."""

    __slots__ = ("_following", "_logs", "_sources", "_store", "abandoned")

    def __init__(self, store: DurableStore, sources: Sources) -> None:
        self.abandoned: Callable[[SessionKey], object] = _nobody
        """Hears of sessions whose owner is gone, although somebody waits for a turn of it."""
        self._store = store
        self._sources = sources
        self._logs: dict[TurnKey, TurnLog] = {}
        self._following: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Elsewhere: {len(self._logs)} turns followed>"

    async def log(self, turn_id: str, principal: str | None) -> TurnLog:
        """The turn's log, with all that is written of it by now. Raises `TurnNotFound`, `StoreUnavailable`."""
        known = self._logs.get((principal, turn_id))
        if known is not None and await self._look(known) is not None and known.lost is None:
            return known
        entry = await self._store.find(turn_id, principal)
        if entry is None:
            raise TurnNotFound(
                f"there is no turn {turn_id!r}: it never was, is somebody else's, or ended longer ago than it is kept"
            )
        return self.log_of(entry)

    def repeated(self, turn: Turn, entry: TurnEntry) -> TurnLog:
        """The log of the turn that another one is a repeat of. Raises `KeyReused` or `TurnExists` if it is none."""
        first = entry.turn
        if turn.fingerprint and first.fingerprint == turn.fingerprint:
            return self.log_of(entry)
        if first.id == turn.id:
            raise turn_exists(turn)
        raise key_reused(turn, first)

    def log_of(self, entry: TurnEntry, then: Callable[[], object] | None = None) -> TurnLog:
        """The log as the entry has it, and will have it. `then`: called when one that is new is followed no more."""
        turn = entry.turn
        key = turn.principal, turn.id
        if entry.status == "ended":
            if then is not None:
                then()
            return _log(entry)
        log = self._logs.get(key)
        if log is None:
            log = self._logs[key] = _log(entry)
            log.behind = True
            following = self._begin(self._follow(key, log), f"following {log!r}")
            if then is not None:
                following.add_done_callback(lambda _: then())
        elif then is not None:
            then()
        return log

    async def stop(self) -> None:
        """Follow nothing any more."""
        for task in self._following:
            task.cancel()
        if self._following:
            await asyncio.wait(self._following)

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        return task

    async def _follow(self, key: TurnKey, log: TurnLog) -> None:
        telling = None
        if isinstance(log, FollowedLog):
            telling = self._begin(tell_of_followers(self._store, log), f"telling who follows {log!r}")
        try:
            await self._fill(log)
        finally:
            if telling is not None:
                telling.cancel()
            self._logs.pop(key, None)
            if log.terminal is None:
                log.break_off(SessionLost("the turn is not followed here any more; ask for it again"))

    async def _fill(self, log: TurnLog) -> None:
        pause, patience = SHORTEST_LOOK, PATIENCE
        while log.terminal is None and (patience or log.watched):
            longer = await rest(pause, self._sources.chance, LONGEST_LOOK)
            patience = PATIENCE if log.watched else patience - 1
            had = len(log)
            try:
                entry = await self._look(log)
            except StoreUnavailable as error:
                logger.warning("turn %s cannot be followed for now: %s", log.id, error)
                pause = LONGEST_LOOK
                continue
            except SessionDamaged as error:
                self._end(log, ErrorInfo(error.code, error.message))
                return
            if entry is None:
                self._end(log, untold(log.turn, self._sources))
                return
            longest = LONGEST_NEAR if log.watched and entry.ahead <= 1 else LONGEST_LOOK
            pause = SHORTEST_LOOK if len(log) > had else min(longer, longest)

    async def _look(self, log: TurnLog) -> TurnEntry | None:
        """Add what is written by now. The entry; none: the turn is not kept. Several may look at the same time."""
        had = len(log)
        entry = await self._next(log, had)
        if entry is None:
            return None
        if entry.status != "ended" and not entry.owned:
            self.abandoned(entry.turn.key)
        if log.terminal is None and log.lost is None:
            if entry.taken_at is not None:
                log.taken(entry.taken_at)
            for event in entry.events[len(log) - had :]:
                log.append(event)
        return entry

    def _end(self, log: TurnLog, why: ErrorInfo) -> None:
        """How the turn ends, or did, is not to be had here, and no stream just stops: it has that as its ending."""
        if log.terminal is not None:
            return
        composer = retold(log.events()[:], log, self._sources.uuid)
        composer.abandon()
        log.append(TurnFailed(self._sources.now(), why, tuple(composer.output), composer.usage))

    async def _next(self, log: TurnLog, first: int) -> TurnEntry | None:
        """The turn with its events from number `first` on; none: it is no longer kept."""
        turn = log.turn
        entry = await self._store.find(turn.id, turn.principal, first)
        if entry is None and turn.idempotency_key is not None:
            # It may have ended as one of which nothing is kept: then there is what repeats get.
            entry = await self._store.known(turn)
            if entry is None or entry.turn.id != turn.id:
                return None
            entry = replace(entry, events=entry.events[first:])
        return entry


def _nobody(key: SessionKey) -> None:
    """Until somebody asks to be told."""


def _log(entry: TurnEntry) -> TurnLog:
    plain = entry.status == "ended" or not wants_to_hear(entry.turn)
    log = (TurnLog if plain else FollowedLog)(entry.turn, taken_at=entry.taken_at)
    for event in entry.events or (TurnAccepted(entry.turn.id, entry.turn.created_at),):
        log.append(event)
    log.size = sum(map(_size, entry.events))
    return log


def _size(event: Event) -> int:
    return len(event.text) if isinstance(event, TextDelta | ArgumentsDelta) else 0
