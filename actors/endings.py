"""The endings of turns that did not go well: what is said of why."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from greenroom.actors.errors import GreenroomError, HandlerError
from greenroom.actors.events import Item, Terminal, TurnCancelled, TurnFailed, TurnStatus
from greenroom.actors.ids import Sources
from greenroom.actors.messages import ErrorInfo, Turn
from greenroom.actors.turn import TurnRun, error_info
from greenroom.services.store import TurnRecord

logger = logging.getLogger("greenroom.actors")

INTERRUPTED: Final = (
    "the process that worked on this turn ended before the turn did. What its tools had done by then stays done, so it "
    "was not begun again; send it again, as a new turn, if that does no harm"
)

ENDING_NOT_KEPT: Final = (
    "the turn has ended in another process, and how is not kept any more, so its last events are not among these; it "
    "may have done all that it was asked for. It was deleted, or is one of which nothing is kept, or its session has "
    "had many others since; the session's history has what is left of it"
)


def stopped(run: TurnRun, output: tuple[Item, ...], now: float) -> TurnFailed | TurnCancelled:
    """The ending of a turn that somebody had stopped."""
    usage = run.composer.usage if run.composer else None
    if run.failure is not None:
        return TurnFailed(now, run.failure, output, usage)
    return TurnCancelled(now, run.reason or "", output, usage)


class Circumstances(Protocol):
    """What an ending says more or less of. `torn_down`: whether the loop is being closed around all that runs in it."""

    sources: Sources
    debug: bool

    @property
    def torn_down(self) -> bool: ...


def unhappy(
    run: TurnRun, error: BaseException | None, output: tuple[Item, ...], system: Circumstances
) -> TurnFailed | TurnCancelled:
    """The ending of a turn whose handler raised that error, or whose commit did."""
    sources = system.sources
    if isinstance(error, asyncio.CancelledError):
        if run.task is not None and run.task.cancelling():
            return cut_off(run, output, sources.now(), system.torn_down)
        error = HandlerError("the handler was cancelled from within: a task it awaited was cancelled")
    assert error is not None
    usage = run.composer.usage if run.composer else None
    return TurnFailed(sources.now(), _report(run, error, sources, system.debug), output, usage)


def cut_off(
    run: TurnRun, output: tuple[Item, ...], now: float, torn_down: bool
) -> TurnFailed | TurnCancelled:
    """The ending of a turn whose task was cancelled, and not by its actor unless it is `stopping`."""
    if run.stopping:
        return stopped(run, output, now)
    usage = run.composer.usage if run.composer else None
    if torn_down:
        return TurnCancelled(now, "the server stopped", output, usage)
    logger.warning(
        "the task of turn %s of session %r was cancelled by code outside of Greenroom; its turn ends as cancelled",
        run.log.id,
        run.log.turn.key.session_id,
    )
    return TurnCancelled(
        now, "other code in the server cancelled the task that worked on the turn", output, usage
    )


def deaf(run: TurnRun, seconds: float) -> None:
    """Log that a turn's handler did not stop within so long of being cancelled."""
    logger.error(
        "turn %s of session %r did not stop within %s s of being cancelled; it was ended without its handler, "
        "which still runs: it swallows CancelledError or waits in a thread",
        run.log.id,
        run.log.turn.key.session_id,
        seconds,
    )


def defect(run: TurnRun, task: asyncio.Task[None], sources: Sources) -> ErrorInfo | None:
    """What is said of a turn that Greenroom itself failed, and logged under an id of its own. None: that task of the
    turn, which has ended, was cancelled or went well."""
    error = None if task.cancelled() else task.exception()
    if error is None:
        return None
    error_id = _logged(run.log.turn, sources, ": the actor failed; a defect of Greenroom", error)
    return ErrorInfo(
        "internal_error", f"the server failed; its log has the details under {error_id}", error_id
    )


def timed_out(run: TurnRun, seconds: float, sources: Sources) -> ErrorInfo:
    """What is said of a turn that runs too long, and logged under an id of its own."""
    error_id = _logged(run.log.turn, sources, f": it ran longer than the {seconds} s of Limits.turn_seconds")
    why = (
        f"the turn took longer than the {seconds} s a turn may take; ask for less at a time, or raise the server's "
        "limit (Limits.turn_seconds)"
    )
    return ErrorInfo("turn_timeout", why, error_id)


def interrupted(turn: Turn, sources: Sources, *, stopping: bool = False) -> ErrorInfo:
    """What is said of a turn that its process did not end, and logged under an id of its own. `stopping`: it is this
    process, which lives and has to stop; else one that is gone."""
    ended = "this process stops" if stopping else "the process that had begun it is gone"
    why = f"the server is stopping: {INTERRUPTED}" if stopping else INTERRUPTED
    return ErrorInfo("turn_interrupted", why, _logged(turn, sources, f": {ended}"))


def untold(turn: Turn, sources: Sources) -> ErrorInfo:
    """What is said to who follows a turn of another process whose ending is not found, under an id of its own."""
    error_id = f"err_{sources.uuid()}"
    logger.warning(
        "how turn %s of session %r ended, in another process, is not kept any more [%s]",
        turn.id,
        turn.key.session_id,
        error_id,
    )
    return ErrorInfo("ending_not_kept", ENDING_NOT_KEPT, error_id)


def record_of(turn: Turn, ending: Terminal) -> TurnRecord:
    """What the session's history has of a turn that did not end well."""
    status: TurnStatus = "failed" if isinstance(ending, TurnFailed) else "cancelled"
    return TurnRecord(turn.id, status, ending.at, turn.request.input, ending.output)


def _report(run: TurnRun, error: BaseException, sources: Sources, debug: bool) -> ErrorInfo:
    known = isinstance(error, GreenroomError) and error.status < 500
    return error_info(error, _logged(run.log.turn, sources, error=None if known else error), debug)


def _logged(turn: Turn, sources: Sources, why: str = "", error: BaseException | None = None) -> str:
    """Write down that a turn failed; the id under which that is found in the log."""
    error_id = f"err_{sources.uuid()}"
    logger.error(
        "turn %s of session %r failed [%s]%s", turn.id, turn.key.session_id, error_id, why, exc_info=error
    )
    return error_id
