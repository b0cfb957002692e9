"""What becomes of the turns of a process that is gone: nothing is lost, and nothing runs twice unasked.

A turn that waited is run. One that had begun may have acted, so it is ended, as failed, with what it had said, and the
error says so; only a handler that is declared idempotent has it begun once more. What was cancelled meanwhile, in
whichever process, is not run, and ends as cancelled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from greenroom.actors.actor import SessionActor
from greenroom.actors.endings import interrupted
from greenroom.actors.errors import SessionLost
from greenroom.actors.events import Item, TurnAccepted, TurnCancelled, TurnFailed, TurnStarted
from greenroom.actors.handler import Handler
from greenroom.actors.ids import Sources
from greenroom.actors.ledger import Ledger
from greenroom.actors.limits import Limits
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import ErrorInfo, Turn, Usage
from greenroom.actors.retelling import retold
from greenroom.actors.turn import TurnRun
from greenroom.services.durable import TurnEntry

logger = logging.getLogger("greenroom.actors")


class Recovery:
    """Deals with open turns that were taken over. `admit`: is told of each that an actor has in its mailbox again;
    `ended`: of the log of each that has ended. `cancelled`: says why this process wants a turn cancelled, whether or
    not that is recorded with it; none: it does not."""

    __slots__ = ("_admit", "_cancelled", "_ended", "_handler", "_ledger", "_limits", "_sources")

    def __init__(
        self,
        ledger: Ledger,
        handler: Handler,
        limits: Limits,
        sources: Sources,
        admit: Callable[[SessionActor, TurnRun], None],
        ended: Callable[[TurnLog], None],
        cancelled: Callable[[Turn], str | None],
    ) -> None:
        self._ledger = ledger
        self._handler = handler
        self._limits = limits
        self._sources = sources
        self._admit = admit
        self._ended = ended
        self._cancelled = cancelled

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
            if _had_begun(entry) and not self._is_to_run_again(entry):
                await self._end(entry)
            else:
                logger.info("turn %s of a process that is gone is run here", entry.turn.id)
                self._receive(actor, entry)

    def receive(self, actor: SessionActor, entries: Sequence[TurnEntry]) -> None:
        """Have turns run that another process recorded in the line of the actor's session."""
        for entry in entries:
            logger.debug("turn %s came in by another process", entry.turn.id)
            self._receive(actor, entry)

    def _receive(self, actor: SessionActor, entry: TurnEntry) -> None:
        """Nothing is waited for until it is cancelled, if it is to be: so it does not begin."""
        run = actor.receive(entry.turn, entry.events)
        run.log.taken_at = entry.taken_at
        self._admit(actor, run)
        reason = self._why_cancelled(entry)
        if reason is not None:
            actor.cancel(run, reason)

    def _is_to_run_again(self, entry: TurnEntry) -> bool:
        """One that was let go in order is no attempt that failed, and is not counted as one."""
        if not (self._handler.idempotent and entry.turn.idempotent) or self._why_cancelled(entry) is not None:
            return False
        return entry.status != "running" or entry.attempts <= self._limits.attempts

    def _why_cancelled(self, entry: TurnEntry) -> str | None:
        """Why the turn is to be cancelled; none: it is not."""
        return self._cancelled(entry.turn) if entry.cancelled is None else entry.cancelled

    async def _end(self, entry: TurnEntry) -> None:
        """End a turn as it stands; what stands in the way of that is not in the way of its ending."""
        reason = self._why_cancelled(entry)
        why = interrupted(entry.turn, self._sources) if reason is None else reason
        try:
            log = await self._end_whole(entry, why)
        except SessionLost:
            raise
        except Exception:
            logger.exception("what turn %s said cannot be kept; its ending is", entry.turn.id)
            log = await self._end_bare(entry, why)
        self._ended(log)

    async def _end_whole(self, entry: TurnEntry, why: ErrorInfo | str) -> TurnLog:
        """With what it had said until then."""
        log = _log(entry)
        composer = retold(log.events()[:], log, self._sources.uuid)
        composer.abandon()
        log.size = composer.spent
        ending = self._ending(why, tuple(composer.output), composer.usage)
        await self._ledger.end_of_another(log, len(entry.events), ending)
        log.append(ending)
        return log

    async def _end_bare(self, entry: TurnEntry, why: ErrorInfo | str) -> TurnLog:
        """With nothing but the events that are written already."""
        log = _log(entry)
        ending = self._ending(why)
        await self._ledger.end_of_another(log, len(entry.events), ending, bare=True)
        log.append(ending)
        return log

    def _ending(
        self, why: ErrorInfo | str, output: tuple[Item, ...] = (), usage: Usage | None = None
    ) -> TurnFailed | TurnCancelled:
        """`why`: what went wrong, or the reason for which it was cancelled."""
        if isinstance(why, str):
            return TurnCancelled(self._sources.now(), why, output, usage)
        return TurnFailed(self._sources.now(), why, output, usage)


def _had_begun(entry: TurnEntry) -> bool:
    """Whether it may have acted: in a process that died, or in one that let it go to be begun once more."""
    return entry.status == "running" or any(isinstance(event, TurnStarted) for event in entry.events)


def _log(entry: TurnEntry) -> TurnLog:
    turn = entry.turn
    log = TurnLog(turn, taken_at=entry.taken_at)
    for event in entry.events or (TurnAccepted(turn.id, turn.created_at),):
        log.emit(event)
    return log
