"""One turn on its way through an actor: queued, running, committing, ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Literal, TypeAlias

from msgspec import Struct

from greenroom.actors.composer import Composer
from greenroom.actors.errors import GreenroomError, InvalidRequest, SessionLost
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import ErrorInfo, SessionKey
from greenroom.actors.scope import TurnScope
from greenroom.services.work import Work

_NO_CONTEXT = Context()
_NO_SCOPE = TurnScope(SessionKey("", ""), "", closed=True)

TurnKey: TypeAlias = tuple[str | None, str]
"""A turn's principal and id. Ids may be the client's own choice, so they are looked up only among the turns of the same
principal."""
Phase: TypeAlias = Literal["queued", "running", "committing", "ended"]


class TurnRun(Struct, eq=False):
    """The mutable side of a turn, touched by its actor alone.

    It is for the time it runs only: its log may be kept for long, and there are many.
    """

    key: TurnKey
    log: TurnLog
    scope: TurnScope
    context: Context
    phase: Phase = "queued"
    task: asyncio.Task[None] | None = None
    closer: asyncio.Task[None] | None = None
    """What ends the turn without its handler."""
    work: Work | None = None
    """What the turn changes; none: it has not begun."""
    composer: Composer | None = None
    reason: str | None = None
    """Why the turn is being cancelled; none: it is not."""
    failure: ErrorInfo | None = None
    """Why the turn is being failed from outside (it ran out of time)."""
    timers: tuple[asyncio.TimerHandle, ...] = ()
    watch: Callable[[asyncio.Task[None]], None] | None = None
    """Hears of it when the task ends before the turn does."""
    journaled: int = 0
    """Events that the session's store has: it gets the others with the turn's ending, or before (`Ledger`)."""
    writing: asyncio.Task[GreenroomError | None] | None = None
    """What gives it more of them."""

    def __repr__(self) -> str:
        return f"<TurnRun {self.log.id} {self.phase}>"

    @property
    def name(self) -> str:
        """What the turn's task is called: the watchdog names it."""
        return f"turn {self.log.id} of session {self.log.turn.key.session_id!r}"

    @property
    def running(self) -> bool:
        """Whether the handler is at work and heard."""
        return self.phase == "running"

    @property
    def queued(self) -> bool:
        """Whether it has not begun."""
        return self.phase == "queued"

    @property
    def never_ran(self) -> bool:
        """Whether it was cancelled before it began."""
        return self.work is None and self.reason is not None

    @property
    def unattended(self) -> bool:
        """Whether its own task is at it no more."""
        return self.task is None or self.task.done()

    @property
    def over(self) -> bool:
        """Whether the turn has its ending."""
        return self.phase == "ended"

    @property
    def stopping(self) -> bool:
        """Whether somebody asked the running handler to stop."""
        return self.reason is not None or self.failure is not None

    def release(self) -> None:
        """Let go what only a running turn needs.

        The task goes with it: it holds its context, which holds the scope, which holds the task. Such a circle waits
        for the garbage collector, and a thousand turns a second are ten thousand objects that do.
        """
        self.scope.own = None
        self.context, self.scope = _NO_CONTEXT, _NO_SCOPE
        self.task = self.watch = self.work = None

    def break_off(self, error: SessionLost) -> None:
        """Stop it without an ending: it is another process's."""
        self.phase = "ended"
        self.scope.closed = True
        self.stop_timers()
        for task in (self.task, self.closer, *self.scope.tasks):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        if self.composer is not None:
            self.composer.end()
            self.composer = None
        if self.work is not None and self.unattended:
            self.work.roll_back()
        self.log.break_off(error.again())

    def stop_timers(self) -> None:
        """No timer fires on a turn that has moved on."""
        for timer in self.timers:
            timer.cancel()
        self.timers = ()


def error_info(error: BaseException, error_id: str, debug: bool) -> ErrorInfo:
    """What goes on the wire of an error that ended a turn.

    Our own errors are written for callers and go out whole. Of others only the class goes out, unless `debug`.
    """
    if isinstance(error, GreenroomError):
        # Of other errors it is no part of the request.
        field = error.field if isinstance(error, InvalidRequest) else None
        return ErrorInfo(error.code, error.message, error_id, field)
    name = type(error).__name__
    if debug:
        return ErrorInfo(name, f"{name}: {error}", error_id)
    return ErrorInfo(
        name, f"the agent failed ({name}); the server's log has the details under {error_id}", error_id
    )
