"""The endings of turns that did not go well: what is said of why."""

from __future__ import annotations

import asyncio
import logging

from greenroom.actors.errors import GreenroomError, HandlerError
from greenroom.actors.events import Item, Terminal, TurnCancelled, TurnFailed, TurnStatus
from greenroom.actors.ids import Sources
from greenroom.actors.messages import ErrorInfo, Turn
from greenroom.actors.turn import TurnRun, error_info
from greenroom.services.store import TurnRecord

logger = logging.getLogger("greenroom.actors")


def stopped(run: TurnRun, output: tuple[Item, ...], now: float) -> TurnFailed | TurnCancelled:
    """The ending of a turn that somebody had stopped."""
    usage = run.composer.usage if run.composer else None
    if run.failure is not None:
        return TurnFailed(now, run.failure, output, usage)
    return TurnCancelled(now, run.reason or "", output, usage)


def unhappy(
    run: TurnRun, error: BaseException | None, output: tuple[Item, ...], sources: Sources, debug: bool
) -> TurnFailed | TurnCancelled:
    """The ending of a turn whose handler raised that error."""
    usage = run.composer.usage if run.composer else None
    if isinstance(error, asyncio.CancelledError):
        if run.task is not None and run.task.cancelling():
            return TurnCancelled(sources.now(), "the server stopped", output, usage)
        error = HandlerError("the handler was cancelled from within: a task it awaited was cancelled")
    assert error is not None
    return TurnFailed(sources.now(), _report(run, error, sources, debug), output, usage)


def timed_out(run: TurnRun, seconds: float, sources: Sources) -> ErrorInfo:
    """What is said of a turn that runs too long, and logged under an id of its own."""
    error_id = _logged(run, sources, f": it ran longer than the {seconds} s of Limits.turn_seconds")
    why = (
        f"the turn took longer than the {seconds} s a turn may take; ask for less at a time, or raise the server's "
        "limit (Limits.turn_seconds)"
    )
    return ErrorInfo("turn_timeout", why, error_id)


def record_of(turn: Turn, ending: Terminal) -> TurnRecord:
    """What the session's history has of a turn that did not end well."""
    status: TurnStatus = "failed" if isinstance(ending, TurnFailed) else "cancelled"
    return TurnRecord(turn.id, status, ending.at, turn.request.input, ending.output)


def _report(run: TurnRun, error: BaseException, sources: Sources, debug: bool) -> ErrorInfo:
    known = isinstance(error, GreenroomError) and error.status < 500
    return error_info(error, _logged(run, sources, error=None if known else error), debug)


def _logged(run: TurnRun, sources: Sources, why: str = "", error: BaseException | None = None) -> str:
    """Write down that a turn failed; the id under which that is found in the log."""
    error_id = f"err_{sources.uuid()}"
    key = run.log.turn.key
    logger.error(
        "turn %s of session %r failed [%s]%s", run.log.id, key.session_id, error_id, why, exc_info=error
    )
    return error_id
