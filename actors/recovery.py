"""What becomes of the turns of a process that is gone: nothing is lost, and nothing runs twice unasked.

A turn that waited is run. One that had begun may have acted, so it is ended, as failed, with what it had said, and the
error says so; only a handler that is declared idempotent has it begun once more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from greenroom.actors.actor import SessionActor
from greenroom.actors.endings import interrupted
from greenroom.actors.errors import SessionLost
from greenroom.actors.events import TurnAccepted, TurnFailed
from greenroom.actors.handler import Handler
from greenroom.actors.ids import Sources
from greenroom.actors.ledger import Ledger
from greenroom.actors.limits import Limits
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import ErrorInfo
from greenroom.actors.retelling import retold
from greenroom.actors.turn import TurnRun
from greenroom.services.durable import TurnEntry

logger = logging.getLogger("greenroom.actors")


class Recovery:
    """Deals with open turns that were taken over. `admit`: is told of each that an actor has in its mailbox again;
    `ended`: of the log of each that has ended."""

    __slots__ = ("_admit", "_ended", "_handler", "_ledger", "_limits", "_sources")

    def __init__(
        self,
        ledger: Ledger,
        handler: Handler,
        limits: Limits,
        sources: Sources,
        admit: Callable[[SessionActor, TurnRun], None],
        ended: Callable[[TurnLog], None],
    ) -> None:
        self._ledger = ledger
        self._handler = handler
        self._limits = limits
        self._sources = sources
        self._admit = admit
        self._ended = ended

    async def recover(self, actor: SessionActor, entries: Sequence[TurnEntry]) -> None:
        """End or run the session's open turns, in their order: only the first can have begun. Waits for a store that
        cannot be reached. Raises `SessionLost`."""
        actor.forget_session(None)
        owner = self._ledger.store.owner
        for entry in entries:
            if self._ledger.store.owner != owner:
                raise SessionLost(
                    "this process was late to tell others that it lives; they have its sessions"
                )
            if entry.status == "running" and not self._may_run_again(entry):
                await self._end(entry)
            else:
                logger.info("turn %s of a process that is gone is run here", entry.turn.id)
                run = actor.receive(entry.turn, entry.events)
                run.log.taken_at = entry.taken_at
                self._admit(actor, run)

    def _may_run_again(self, entry: TurnEntry) -> bool:
        return self._handler.idempotent and entry.attempts <= self._limits.attempts

    async def _end(self, entry: TurnEntry) -> None:
        """End a turn as it stands; what stands in the way of that is not in the way of its ending."""
        why = interrupted(entry.turn, self._sources)
        try:
            log = await self._end_whole(entry, why)
        except SessionLost:
            raise
        except Exception:
            logger.exception("what turn %s said cannot be kept; its ending is", entry.turn.id)
            log = await self._end_bare(entry, why)
        self._ended(log)

    async def _end_whole(self, entry: TurnEntry, why: ErrorInfo) -> TurnLog:
        """With what it had said until then."""
        log = _log(entry)
        composer = retold(log.events()[:], log, self._sources.uuid)
        composer.abandon()
        log.size = composer.spent
        ending = TurnFailed(self._sources.now(), why, tuple(composer.output), composer.usage)
        await self._ledger.end_of_another(log, len(entry.events), ending)
        log.append(ending)
        return log

    async def _end_bare(self, entry: TurnEntry, why: ErrorInfo) -> TurnLog:
        """With nothing but the events that are written already."""
        log = _log(entry)
        ending = TurnFailed(self._sources.now(), why, ())
        await self._ledger.end_of_another(log, len(entry.events), ending, bare=True)
        log.append(ending)
        return log


def _log(entry: TurnEntry) -> TurnLog:
    turn = entry.turn
    log = TurnLog(turn, taken_at=entry.taken_at)
    for event in entry.events or (TurnAccepted(turn.id, turn.created_at),):
        log.emit(event)
    return log
