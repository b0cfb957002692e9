"""The session actor: the one that runs a session's turns, one after the other, and commits each (laws 1-3).

It costs no task while it is idle: each turn has one, which starts the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import copy_context
from functools import partial

from greenroom.actors.answering import answer, end_tasks
from greenroom.actors.commit import commit, keep_words, last_words, settle
from greenroom.actors.endings import cut_off, deaf, defect, stopped, timed_out, unhappy
from greenroom.actors.errors import SessionLost
from greenroom.actors.events import Event, Terminal, TurnAccepted, TurnCancelled, TurnFailed, TurnStarted
from greenroom.actors.log import TurnLog
from greenroom.actors.mailbox import check_room
from greenroom.actors.messages import ErrorInfo, SessionKey, Turn
from greenroom.actors.scope import TurnScope, current_turn
from greenroom.actors.session import Session
from greenroom.actors.surroundings import Surroundings
from greenroom.actors.turn import TurnRun
from greenroom.actors.weights import weight_of
from greenroom.services.work import Work, current_work

STARTED = TurnStarted()
TORN_DOWN = "the server stopped in the middle of the turn; ask again in a moment"


class SessionActor:
    """Owns one active session."""

    __slots__ = ("_current", "_mailbox", "_system", "idle_since", "key", "last_kept", "leaving", "session")

    def __init__(self, key: SessionKey, system: Surroundings) -> None:
        self.key = key
        self.session = Session(key, system.store, system.sandboxes)
        self.idle_since = 0.0
        self.last_kept: str | None = None
        """The newest turn that ended and is kept; "" when there is none, none when that is not known."""
        self.leaving: tuple[TurnRun, ...] = ()
        """Turns that were cancelled while they waited, until their endings are written down."""
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
    def current(self) -> TurnRun | None:
        """The turn that runs."""
        return self._current

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
        before = self._current
        if before is None:
            return self.receive(turn)
        self.check_room(turn)
        run = self.receive(turn)
        self.make_way(before, turn)
        return run

    def receive(self, turn: Turn, before: Sequence[Event] = ()) -> TurnRun:
        """Put a turn in the mailbox that there is room for, or that was accepted long ago. `before`: what it said when
        it was begun before, in a process that is gone."""
        log = TurnLog(turn, weight=weight_of(turn))
        for event in before or (TurnAccepted(turn.id, turn.created_at),):
            log.emit(event)
        scope = TurnScope(turn.key, turn.id, turn.options, self._system.worker_threads)
        run = TurnRun((turn.principal, turn.id), log, scope, copy_context(), journaled=len(before))
        if self._current is None:
            self._start(run)
        else:
            self._mailbox = (*self._mailbox, run)
        return run

    def make_way(self, before: TurnRun | None, turn: Turn) -> None:
        """A turn was received while `before` was at work: it may want that one to stop."""
        if before is not None and (turn.overlap or self._system.overlap) == "interrupt":
            self.cancel(before, f"interrupted by turn {turn.id}")

    def check_room(self, turn: Turn) -> None:
        """Raises `SessionBusy` or `MailboxFull` when there is no room for this turn."""
        if self._current is not None:
            check_room(turn, self._mailbox, self._system.limits, self._system.overlap)

    def _start(self, run: TurnRun) -> None:
        """Give a turn its task: one a turn, in the context it was submitted in."""
        self._current = run
        task = self._system.loop.create_task(self._work(run), context=run.context, name=run.name)
        run.task = run.scope.own = task
        run.watch = partial(self._task_gone, run)
        task.add_done_callback(run.watch)

    def _next(self) -> None:
        if self._mailbox and self._system.torn_down:
            self._tear_down()
        elif self._mailbox:
            run, *waiting = self._mailbox
            self._mailbox = tuple(waiting)
            self._start(run)
        else:
            self._current = None
            self.session.turn_id = None
            if not self.leaving:
                self._system.actor_idle(self)

    def _go_on(self, run: TurnRun) -> None:
        """A turn has its ending that its own task did not give it."""
        idle = self._current is run or (self._current is None and run in self.leaving)
        self.leaving = tuple(other for other in self.leaving if other is not run)
        if idle:
            self._next()

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
            ending = TurnCancelled(self._now(), reason)
            if self._system.ledger is None:
                self._end(run, ending)
                return
            self.leaving = (*self.leaving, run)
            self._close(run, ending)

    def interrupt(self, run: TurnRun, why: ErrorInfo) -> None:
        """Have that turn, if it runs, end as one that failed."""
        if run.phase == "running" and not run.stopping:
            run.failure = why
            self._stop(run)

    def _time_out(self, run: TurnRun) -> None:
        seconds = self._system.limits.turn_seconds
        if seconds is not None and run.running and not run.stopping:
            self.interrupt(run, timed_out(run, seconds, self._system.sources))

    def _stop(self, run: TurnRun) -> None:
        assert run.task is not None
        run.task.cancel()
        timer = self._system.loop.call_later(self._system.limits.cancel_seconds, self._end_over_its_head, run)
        run.timers += (timer,)

    def _end_over_its_head(self, run: TurnRun) -> None:
        """The handler will not stop. Its turn ends all the same, and what it does from now on is not heard."""
        if run.phase != "running":
            return
        deaf(run, self._system.limits.cancel_seconds)
        run.phase = "committing"
        run.scope.closed = True
        for task in run.scope.tasks:
            task.cancel()
        self._forget_agent()
        self._close(run, stopped(run, last_words(run), self._now()))

    def _close(self, run: TurnRun, ending: Terminal) -> None:
        """End a turn without its handler. It takes a task, and if that is cancelled another one."""
        if self._system.torn_down:
            self._tear_down()
            return
        run.phase = "committing"
        run.closer = self._system.loop.create_task(self._closing(run, ending), name=run.name)
        run.closer.add_done_callback(partial(self._closer_gone, run, ending))

    async def _closing(self, run: TurnRun, ending: Terminal) -> None:
        try:
            ending = await self._keep(run, ending)
        except SessionLost as error:
            self.lose(error)
        if run.over:  # the session was lost, now or meanwhile
            return
        if run.work is not None and run.unattended:
            settle(run.work, ending)
        self._end(run, ending)
        self._go_on(run)

    def _closer_gone(self, run: TurnRun, ending: Terminal, task: asyncio.Task[None]) -> None:
        why = defect(run, task, self._system.sources)
        if run.over:
            if why is not None:  # it failed after the ending
                self._go_on(run)
        elif why is None:
            self._close(run, ending)
        elif isinstance(ending, TurnFailed) and ending.error.code == why.code:  # for the second time
            self._tear_down()
        else:
            self._close(run, TurnFailed(self._now(), why))

    def lose(self, error: SessionLost) -> None:
        """The session is another process's now, and all its open turns are: here they just stop."""
        lost = (*self.turns, *self.leaving)
        self._mailbox, self.leaving, self._current = (), (), None
        self.session.turn_id = None
        self.forget_session(None)
        for run in lost:
            if not run.over:
                self._let_go(run, error)
        if lost:
            self._system.actor_idle(self)

    def _let_go(self, run: TurnRun, error: SessionLost) -> None:
        run.break_off(error)
        self._system.turn_lost(run)

    def _task_gone(self, run: TurnRun, task: asyncio.Task[None]) -> None:
        """The turn's task is no more. Whatever ended it before its time, each turn still gets its ending."""
        why = defect(run, task, self._system.sources)
        if run.over:
            run.release()
            if why is not None:  # it failed after the ending
                self._go_on(run)
        elif run.closer is None:
            self._forget_agent()
            if why is not None:
                self._close(run, TurnFailed(self._now(), why))
            else:
                self._close(run, cut_off(run, last_words(run), self._now(), self._system.torn_down))

    def _tear_down(self) -> None:
        """Whoever closes the loop has torn this down: the open turns end here and now, as nothing may be waited for.

        What is written down of them is for other processes to end.
        """
        if self._system.ledger is not None:
            self.lose(SessionLost(TORN_DOWN))
            return
        lost = [run for run in self.turns if not run.over]
        self._mailbox = ()
        for run in lost:
            if run.work is not None:
                run.work.roll_back()
            self._end(run, cut_off(run, last_words(run), self._now(), torn_down=True))
        self._forget_agent()
        self._next()

    # -- working turns off -----------------------------------------------------------------------------------------

    async def _work(self, run: TurnRun) -> None:
        """One turn, from start to its one ending. Runs as a task, in a context of its own."""
        if run.reason is not None:  # cancelled before it began
            run.phase = "committing"
            await self._closing(run, TurnCancelled(self._now(), run.reason))
            return
        work = self._begin(run)
        error: BaseException | None = None
        try:
            await answer(run, self.session, self._system)
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
        here = await self._finish(run, work, error)
        error = None  # its traceback holds this frame, and the two would wait for the garbage collector
        if not here:
            return
        self._next()
        if run.task is not None and run.watch is not None:  # as nearly always; it spares the loop a step
            run.task.remove_done_callback(run.watch)
        run.release()

    def _begin(self, run: TurnRun) -> Work:
        system = self._system
        run.phase = "running"
        if system.limits.turn_seconds is not None:
            run.timers += (system.loop.call_later(system.limits.turn_seconds, self._time_out, run),)
        if run.journaled < 2:
            run.log.emit(STARTED)
        if system.ledger is not None:
            system.ledger.begun(run)
        work = run.work = Work(run.log.turn.id)
        current_work.set(work)
        current_turn.set(run.scope)
        return work

    # -- endings ---------------------------------------------------------------------------------------------------

    async def _finish(self, run: TurnRun, work: Work, error: BaseException | None) -> bool:
        """Commit all or none of what the turn changed, then say how it ended (law 3). False when its session was lost
        to another process, and so it has no ending here."""
        ending: Terminal | None = None
        try:
            if run.scope.tasks:
                try:
                    await end_tasks(run, self._system.limits.cancel_seconds)
                except asyncio.CancelledError as caught:
                    error = error or caught
            if error is None and not run.stopping:
                try:
                    ending = await commit(run, work, self.session, self._system)
                    if run.log.turn.kept:
                        self.last_kept = run.log.id
                except SessionLost:
                    raise
                except (Exception, asyncio.CancelledError) as caught:  # noqa: BLE001 - as in `_work`
                    error = caught
            else:
                work.roll_back()
            if ending is None:
                ending = await self._keep_unhappy(run, work, error)
        except SessionLost as lost:
            work.roll_back()
            self.lose(lost)
            return False
        finally:
            error = None  # as in `_work`
        self._end(run, ending)
        return True

    async def _keep_unhappy(self, run: TurnRun, work: Work, error: BaseException | None) -> Terminal:
        """Keep what is to be kept of a turn that did not end well; one whose commit was cut off may turn out to have.

        Raises `SessionLost`.
        """
        if run.log.lost is not None:
            raise run.log.lost.again()
        system = self._system
        self._forget_agent()
        output = last_words(run)
        ending = stopped(run, output, self._now()) if run.stopping else unhappy(run, error, output, system)
        error = None
        kept = await self._keep(run, ending)
        settle(work, kept)
        return kept

    async def _keep(self, run: TurnRun, ending: Terminal) -> Terminal:
        ending, kept = await keep_words(run, ending, self.key, self._system)
        if kept:
            self.last_kept = run.log.id
        return ending

    def forget_session(self, last_kept: str | None = "") -> None:
        """What is remembered of the session holds no more: nothing of it is kept, or (none) it is not known what is."""
        self._forget_agent()
        self.last_kept = last_kept

    def dismiss(self) -> tuple[TurnRun, ...]:
        """The turns that wait, which are another process's from now on."""
        waiting, self._mailbox = self._mailbox, ()
        for run in waiting:
            self._let_go(run, SessionLost("this process stops, another one runs the turn; ask for it there"))
        return waiting

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
