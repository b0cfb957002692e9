"""The session actor: the one that runs a session's turns, one after the other, and commits each (laws 1-3).

It costs no task while it is idle: each turn has one, which starts the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextvars import copy_context
from functools import partial
from typing import Protocol

import anyio
from anyio import CapacityLimiter

from greenroom.actors.commit import Keeper, commit, keep_words, last_words
from greenroom.actors.composer import Composer
from greenroom.actors.errors import GreenroomError, HandlerError, MailboxFull, SessionBusy
from greenroom.actors.events import (
    Item,
    Terminal,
    TurnAccepted,
    TurnCancelled,
    TurnFailed,
    TurnStarted,
)
from greenroom.actors.limits import Limits
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import ErrorInfo, Overlap, SessionKey, Turn
from greenroom.actors.scope import TurnScope, current_turn
from greenroom.actors.session import NO_OPTIONS, Sandboxes, Session
from greenroom.actors.turn import TurnRun, error_info
from greenroom.services.work import Work, current_work

logger = logging.getLogger("greenroom.actors")

STARTED = TurnStarted()
BREATH = 256
"""Events after which a handler that never waits lets others run: some 0.2 ms of the loop."""


class Surroundings(Keeper, Protocol):
    """What an actor knows of its system."""

    limits: Limits
    overlap: Overlap
    debug: bool
    loop: asyncio.AbstractEventLoop
    worker_threads: CapacityLimiter
    sandboxes: Sandboxes | None

    def turn_ended(self, run: TurnRun) -> None:
        """A turn has its ending."""
        ...

    def actor_idle(self, actor: SessionActor) -> None:
        """The actor's mailbox is empty and nothing runs."""
        ...


class SessionActor:
    """Owns one active session."""

    __slots__ = ("_current", "_mailbox", "_system", "idle_since", "key", "last_kept", "session")

    def __init__(self, key: SessionKey, system: Surroundings) -> None:
        self.key = key
        self.session = Session(key, system.store, system.sandboxes)
        self.idle_since = 0.0
        self.last_kept: str | None = None
        """The newest turn that ended and is kept; "" when there is none, none when that is not known."""
        self._system = system
        self._mailbox: tuple[TurnRun, ...] = ()  # short and mostly empty: an empty tuple takes no room
        self._current: TurnRun | None = None

    def __repr__(self) -> str:
        return f"<SessionActor {tuple(self.key)!r} {self._current or 'idle'}, {len(self._mailbox)} waiting>"

    @property
    def busy(self) -> bool:
        """Whether a turn runs (and so maybe others wait)."""
        return self._current is not None

    @property
    def turns(self) -> tuple[TurnRun, ...]:
        """Those that run or wait, in order."""
        return self._mailbox if self._current is None else (self._current, *self._mailbox)

    @property
    def newest(self) -> str | None:
        """The id of the newest turn that is kept, or will be; "" when there is none, none when that is not known."""
        for run in reversed(self.turns):
            if run.log.turn.kept and not run.never_ran:
                return run.log.id
        return self.last_kept

    def find(self, turn_id: str) -> TurnRun | None:
        """The turn, if it runs or waits."""
        return next((run for run in self.turns if run.log.id == turn_id), None)

    # -- taking turns in -------------------------------------------------------------------------------------------

    def deliver(self, turn: Turn) -> TurnRun:
        """Put a turn in the mailbox. Raises `SessionBusy` or `MailboxFull`; then nothing of it is kept."""
        system, current = self._system, self._current
        overlap = turn.overlap or system.overlap
        if current is not None:
            self._check_room(overlap)
        log = TurnLog(turn)
        log.emit(TurnAccepted(turn.id, turn.created_at))
        scope = TurnScope(turn.key, turn.id, turn.options, system.worker_threads)
        run = TurnRun((turn.principal, turn.id), log, scope, copy_context())
        if current is None:
            self._start(run)
        else:
            self._mailbox = (*self._mailbox, run)
            if overlap == "interrupt":
                self.cancel(current, f"interrupted by turn {turn.id}")
        return run

    def _check_room(self, overlap: Overlap) -> None:
        if overlap == "reject":
            raise SessionBusy(
                f"session {self.key.session_id!r} is working on a turn and this request asked not to wait "
                '(overlap "reject"); send it again later, or with overlap "queue" or "interrupt"'
            )
        if len(self._mailbox) >= self._system.limits.waiting_turns:
            raise MailboxFull(
                f"{len(self._mailbox)} turns wait for session {self.key.session_id!r} already; "
                "send it again when some are done"
            )

    def _start(self, run: TurnRun) -> None:
        """Give a turn its task: one a turn, in the context it was submitted in."""
        self._current = run
        task = self._system.loop.create_task(self._work(run), context=run.context, name=run.name)
        run.task = run.scope.own = task
        run.watch = partial(self._task_gone, run)
        task.add_done_callback(run.watch)

    def _next(self) -> None:
        if self._mailbox:
            run, *waiting = self._mailbox
            self._mailbox = tuple(waiting)
            self._start(run)
        else:
            self._current = None
            self.session.turn_id = None
            self._system.actor_idle(self)

    # -- stopping turns --------------------------------------------------------------------------------------------

    def cancel(self, run: TurnRun, reason: str) -> None:
        """Stop that turn. What has ended, or is being committed, stays as it is."""
        if run.stopping or run.phase not in ("queued", "running"):
            return
        run.reason = reason
        if run.phase == "running":
            self._stop(run)
        elif run is not self._current:
            self._mailbox = tuple(waiting for waiting in self._mailbox if waiting is not run)
            self._end(run, TurnCancelled(self._now(), reason))

    def _time_out(self, run: TurnRun) -> None:
        seconds = self._system.limits.turn_seconds
        if run.phase == "running" and not run.stopping:
            run.failure = ErrorInfo("turn_timeout", f"the turn took longer than a turn may ({seconds} s)")
            self._stop(run)

    def _stop(self, run: TurnRun) -> None:
        assert run.task is not None
        run.task.cancel()
        timer = self._system.loop.call_later(self._system.limits.cancel_seconds, self._end_over_its_head, run)
        run.timers += (timer,)

    def _end_over_its_head(self, run: TurnRun) -> None:
        """The handler will not stop. Its turn ends all the same, and what it does from now on is not heard."""
        if run.phase != "running":
            return
        logger.error(
            "turn %s of session %r did not stop within %s s of being cancelled; it was ended without its handler, "
            "which still runs: it swallows CancelledError or waits in a thread",
            run.log.id,
            self.key.session_id,
            self._system.limits.cancel_seconds,
        )
        run.phase = "committing"
        run.scope.closed = True
        for task in run.scope.tasks:
            task.cancel()
        self._forget_agent()
        ending = self._stopped(run, last_words(run))
        run.closer = self._system.loop.create_task(self._close(run, ending), name=run.name)

    async def _close(self, run: TurnRun, ending: Terminal) -> None:
        try:
            await self._keep(run, ending)
        finally:
            self._end(run, ending)
            self._next()

    def _task_gone(self, run: TurnRun, task: asyncio.Task[None]) -> None:
        """The turn's task is no more. Whatever ended it before its time, each turn still gets its ending."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error(
                "turn %s: the actor itself failed; this is a defect of Greenroom", run.log.id, exc_info=error
            )
        if run.over:
            run.release()
            return
        if run.closer is not None:
            return
        if error is not None:
            self._end(
                run,
                TurnFailed(self._now(), ErrorInfo("internal_error", "the server failed; its log says how")),
            )
        else:  # whoever closes the loop has torn it down, and would those that wait
            for lost in (run, *self._mailbox):
                self._end(lost, TurnCancelled(self._now(), "the server stopped", last_words(lost)))
            self._mailbox = ()
        self._forget_agent()
        self._next()

    # -- working turns off -----------------------------------------------------------------------------------------

    async def _work(self, run: TurnRun) -> None:
        """One turn, from start to its one ending. Runs as a task, in a context of its own."""
        if run.reason is not None:  # cancelled before it began: nothing of it enters the history
            self._end(run, TurnCancelled(self._now(), run.reason))
            self._next()
            return
        system = self._system
        run.phase = "running"
        if system.limits.turn_seconds is not None:
            run.timers += (system.loop.call_later(system.limits.turn_seconds, self._time_out, run),)
        run.log.emit(STARTED)
        work = Work(run.log.id)
        current_work.set(work)
        current_turn.set(run.scope)
        error: BaseException | None = None
        try:
            await self._answer(run)
        except (Exception, asyncio.CancelledError) as caught:  # noqa: BLE001 - whatever it is, it ends the turn
            error = caught
        if not run.running:  # it was ended over our head: another turn may be running by now
            work.roll_back()
            error = None
            return
        run.phase = "committing"
        run.scope.closed = True
        if run.timers:
            run.stop_timers()
        if run.scope.tasks:
            await self._end_tasks(run)
        await self._finish(run, work, error)
        error = None  # its traceback holds this frame, and the two would wait for the garbage collector
        self._next()
        if run.task is not None and run.watch is not None:  # as nearly always; it spares the loop a step
            run.task.remove_done_callback(run.watch)
        run.release()

    async def _answer(self, run: TurnRun) -> None:
        """Run the handler and write down what it says."""
        system = self._system
        turn = run.log.turn
        run.composer = Composer(run.log, system.sources.uuid, system.limits.turn_bytes)
        session = self.session
        session.principal = turn.principal
        session.turn_id = turn.id
        session.options = turn.options or NO_OPTIONS
        handler = system.handler
        translator = handler.adapter.translator(run.composer)
        stream = await handler.answer(session, turn)
        feed, breath = translator.feed, BREATH
        try:
            async for item in stream:
                feed(item)
                breath -= 1
                if not breath:
                    breath = BREATH
                    await asyncio.sleep(0)
        except BaseException:
            with anyio.move_on_after(system.limits.cancel_seconds):
                await _close_stream(stream)
            raise
        if not run.stopping:
            translator.finish()

    async def _end_tasks(self, run: TurnRun) -> None:
        """Nothing that a framework started on its own outlives the turn."""
        tasks = set(run.scope.tasks)
        for task in tasks:
            task.cancel()
        _, pending = await asyncio.wait(tasks, timeout=self._system.limits.cancel_seconds)
        for task in pending:
            logger.error("turn %s left %r behind, which does not stop when cancelled", run.log.id, task)

    # -- endings ---------------------------------------------------------------------------------------------------

    async def _finish(self, run: TurnRun, work: Work, error: BaseException | None) -> None:
        """Commit all or none of what the turn changed, then say how it ended (law 3)."""
        ending: Terminal | None = None
        if error is None and not run.stopping:
            try:
                ending = await commit(run, work, self.session, self._system)
                if run.log.turn.kept:
                    self.last_kept = run.log.id
            except Exception as caught:  # noqa: BLE001 - whatever it is, the turn has failed
                error = caught
        if ending is None:
            work.roll_back()
            self._forget_agent()
            output = last_words(run)
            ending = self._stopped(run, output) if run.stopping else self._unhappy(run, error, output)
            await self._keep(run, ending)
        error = None
        self._end(run, ending)

    async def _keep(self, run: TurnRun, ending: Terminal) -> None:
        if await keep_words(run, ending, self.key, self._system.store):
            self.last_kept = run.log.id

    def _stopped(self, run: TurnRun, output: tuple[Item, ...]) -> Terminal:
        usage = run.composer.usage if run.composer else None
        if run.failure is not None:
            return TurnFailed(self._now(), run.failure, output, usage)
        return TurnCancelled(self._now(), run.reason or "", output, usage)

    def _unhappy(self, run: TurnRun, error: BaseException | None, output: tuple[Item, ...]) -> Terminal:
        usage = run.composer.usage if run.composer else None
        if isinstance(error, asyncio.CancelledError):
            if run.task is not None and run.task.cancelling():
                return TurnCancelled(self._now(), "the server stopped", output, usage)
            error = HandlerError("the handler was cancelled from within: a task it awaited was cancelled")
        assert error is not None
        return TurnFailed(self._now(), self._report(run, error), output, usage)

    def _report(self, run: TurnRun, error: BaseException) -> ErrorInfo:
        error_id = f"err_{self._system.sources.uuid()}"
        logger.error(
            "turn %s of session %r failed [%s]",
            run.log.id,
            self.key.session_id,
            error_id,
            exc_info=None if isinstance(error, GreenroomError) and error.status < 500 else error,
        )
        return error_info(error, error_id, self._system.debug)

    def forget_session(self) -> None:
        """Nothing of the session is kept any more."""
        self._forget_agent()
        self.last_kept = ""

    def _forget_agent(self) -> None:
        """The next turn starts from the last good state, not from what a broken turn left in the agent."""
        self.session.driver = None

    def _end(self, run: TurnRun, ending: Terminal) -> None:
        run.phase = "ended"
        if run.timers:
            run.stop_timers()
        if run.composer is not None:
            run.log.size = run.composer.spent
            run.composer.end()
            run.composer = None
        run.log.append(ending)
        self._system.turn_ended(run)

    def _now(self) -> float:
        return self._system.sources.now()


async def _close_stream(stream: AsyncIterator[object]) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()
