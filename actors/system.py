"""The actor system of one process: activate, find, passivate, drain.

This is local placement: a session's actor lives here. Nothing outside this room assumes so; what others see of it is
`submit`, `find` and `cancel`, and they are answered with turn logs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Literal, TypeAlias

import anyio
from anyio import CapacityLimiter
from msgspec import Struct

from greenroom.actors.actor import SessionActor
from greenroom.actors.aftermath import Aftermath
from greenroom.actors.archive import Archive
from greenroom.actors.continuation import Continuations
from greenroom.actors.deletion import Deletion
from greenroom.actors.disconnects import Disconnects
from greenroom.actors.errors import GreenroomError, NotServing, SessionBusy
from greenroom.actors.followers import FollowedLog
from greenroom.actors.handler import Handler
from greenroom.actors.ids import Sources
from greenroom.actors.limits import Limits
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Overlap, SessionKey, Turn
from greenroom.actors.roster import Roster
from greenroom.actors.session import Sandboxes
from greenroom.actors.sharing import Sharing
from greenroom.actors.turn import TurnKey, TurnRun
from greenroom.services.durable import is_durable
from greenroom.services.known_services import KnownServices
from greenroom.services.response_store import ResponseStore
from greenroom.services.store import SessionStore
from greenroom.services.webhooks.announcing import Announcer

logger = logging.getLogger("greenroom.actors")

SystemState: TypeAlias = Literal["new", "serving", "draining", "stopped"]


class Statistics(Struct, frozen=True):
    """What is in memory now, and counts since the start."""

    state: SystemState
    active_sessions: int
    idle_sessions: int
    passivated_sessions: int
    open_turns: int
    kept_turns: int
    accepted_turns: int


class ActorSystem:
    """Runs the sessions of one application in one event loop.

    `start` and `stop` may be called from different tasks. What recurs (letting idle sessions go, forgetting old turns)
    is one task of its own.
    """

    def __init__(
        self,
        handler: Handler,
        store: SessionStore,
        *,
        limits: Limits | None = None,
        sources: Sources | None = None,
        overlap: Overlap = "queue",
        debug: bool = False,
        responses: ResponseStore | None = None,
        sandboxes: Sandboxes | None = None,
        announcer: Announcer | None = None,
    ) -> None:
        self.handler = handler
        self.store = store
        self.limits = limits or Limits()
        self.sources = sources or Sources()
        self.overlap: Overlap = overlap
        self.debug = debug
        self.responses = responses
        self.sandboxes = sandboxes
        self.announcer = announcer
        """Hears of the endings of turns with a webhook."""
        self.services = KnownServices()
        """Those that took part in turns, and the application's own."""
        self.state: SystemState = "new"
        releases = sandboxes is not None and sandboxes.on_passivate == "release"
        self._roster = Roster(
            self.limits.active_sessions, self._new_actor, self._put_away if releases else None
        )
        self._continuations = Continuations(self._roster, store, self.services, self.sources.uuid, sandboxes)
        self._aftermath = Aftermath(self._continuations, responses, self.sources.chance)
        self._continuations.later = self._aftermath.forget
        self._archive = Archive(self.limits)
        self._sharing = (
            Sharing(store, self, self._roster, self._archive, self._continuations)
            if is_durable(store)
            else None
        )
        self.ledger = self._sharing.ledger if self._sharing is not None else None
        self._accepted = 0
        self._disconnects = Disconnects(self._cancel_here, store.hear if is_durable(store) else None)
        self._deletion = Deletion(self._roster, self._continuations, self._sharing, self.sources.now)
        self._releasing: set[asyncio.Task[None]] = set()
        self._housekeeping: asyncio.Task[None] | None = None
        self._all_ended = asyncio.Event()

    def __repr__(self) -> str:
        return f"<ActorSystem {self.state}, {len(self._roster)} sessions, {self._archive.open} turns>"

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to take turns."""
        self.loop = asyncio.get_running_loop()
        self.worker_threads = CapacityLimiter(self.limits.worker_threads)
        if self._sharing is not None:
            self._sharing.store.when_asked(self._cancel_here)
            self._sharing.store.when_followed(self._followed_elsewhere)
        await self.store.start()
        if self._sharing is not None:
            await self._sharing.start()
        self._housekeeping = self.loop.create_task(self._keep_house(), name="greenroom housekeeping")
        self.state = "serving"

    async def drain(self, seconds: float) -> None:
        """Take no more turns; let those accepted end until the deadline, then cancel the rest and see them end."""
        if self.state != "serving":
            return
        self.state = "draining"
        if self._sharing is not None:
            await self._sharing.drain()
        with anyio.move_on_after(seconds):
            await self._no_turns()
        if self._sharing is not None:
            # A store that is away may hold them up.
            with anyio.move_on_after(2 * self.limits.cancel_seconds + 1):
                await self._sharing.intake.done()
        # A cancelled turn ends within its bound, with its handler or without it; only a store that hangs takes longer.
        # What is left then is found as a dead process's.
        with anyio.move_on_after(2 * self.limits.cancel_seconds + 1) as patience:
            if self._sharing is not None:
                await self._sharing.hand_over(
                    [actor for actor in self._roster.actors() if actor.turns or actor.leaving]
                )
            else:
                for run in self._archive.runs():
                    self._actor_of(run).cancel(run, "the server is stopping")
            await self._no_turns()
        if patience.cancelled_caught:
            logger.error("stopping without %s turns that could not be committed", self._archive.open)

    async def stop(self) -> None:
        """Let everything go. Turns that still run are cancelled. Stopping what was not started does nothing."""
        if self.state in ("new", "stopped"):
            return
        await self.drain(0)
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.wait([self._housekeeping])
        if self._sharing is not None:
            await self._sharing.stop()
        await self._deletion.stop()
        await self._disconnects.stop()
        await self._aftermath.done()
        self._roster.passivate_all()
        while self._releasing:
            await asyncio.wait(self._releasing)
        self.state = "stopped"
        await self.store.stop()

    # -- turns -----------------------------------------------------------------------------------------------------

    async def submit(self, turn: Turn) -> TurnLog:
        """Accept a turn. What is accepted may be in another session (`Turn.after`): the log's own turn says in which.
        A repeat (`Turn.fingerprint`) gives the log of the turn that is there, also while draining.

        Raises `NotServing`, `Overloaded`, `SessionBusy`, `MailboxFull`, `TurnExists`, `KeyReused` or
        `ContinuationNotFound`.
        """
        known = self._archive.known(turn)
        if known is not None and not (self._sharing is not None and await self._sharing.forgotten(known)):
            return known
        if self._sharing is not None:
            self.check_open(turn)
            return await self._sharing.submit(turn)
        if turn.after is None:
            return self._accept(turn)
        self.check_open(turn)
        taken_in = self._archive.takes_in(turn)
        try:
            placed = await self._continuations.place(turn)
        finally:
            taken_in()
        try:
            log = self._archive.known(placed) or self._accept(placed)  # or a repeat was quicker
        except GreenroomError:
            if placed.key != turn.key:
                await self._continuations.drop(placed.key)
            raise
        if log.turn is not placed and placed.key != turn.key:
            await self._continuations.drop(placed.key)
        return log

    def check_open(self, turn: Turn) -> None:
        """Raises what `check_serving` raises, and `Overloaded`."""
        if self.state != "serving" or self._deletion.under_way:  # nearly always there is nothing to check
            self.check_serving(turn)
        self._archive.check_room(turn)

    def check_serving(self, turn: Turn) -> None:
        """Raises `NotServing`, or `SessionBusy` for a session that is being deleted."""
        if self.state != "serving":
            raise NotServing(
                f"no turns are taken: the application is {self.state}; try again, or another process"
            )
        if self.deletes(turn.key):
            raise SessionBusy(
                f"session {turn.key.session_id!r} is being deleted; send it again when that is done, to a new session"
            )

    def _accept(self, turn: Turn) -> TurnLog:
        self.check_open(turn)
        actor = self._roster.get(turn.key)
        run = actor.deliver(turn)
        self.admit(actor, run)
        return run.log

    def admit(self, actor: SessionActor, run: TurnRun) -> None:
        """The actor has that turn."""
        self._roster.working(actor)
        self._archive.add(run)
        self._accepted += 1

    def readmit(self, actor: SessionActor, run: TurnRun) -> None:
        """The actor has a turn that was taken over."""
        self.admit(actor, run)
        self._disconnects.taken_over(run.log)

    async def locate(self, turn_id: str, principal: str | None = None) -> TurnLog:
        """The log of a turn, wherever it runs or ran. Raises `TurnNotFound`, `StoreUnavailable`."""
        sharing = self._sharing
        return self.find(turn_id, principal) if sharing is None else await sharing.locate(turn_id, principal)

    def find(self, turn_id: str, principal: str | None = None) -> TurnLog:
        """The log of a turn that runs or ran here. Raises `TurnNotFound`."""
        return self._archive.log((principal, turn_id))

    async def cancel(
        self, turn_id: str, principal: str | None = None, reason: str = "cancelled on request"
    ) -> TurnLog:
        """Stop that turn, if it has not ended. Raises `TurnNotFound`."""
        if (run := self._archive.run((principal, turn_id))) is not None:
            self._actor_of(run).cancel(run, reason)
            return run.log
        if self._sharing is not None:
            return await self._sharing.cancel(turn_id, principal, reason)
        return self.find(turn_id, principal)

    def _cancel_here(self, turn_id: str, principal: str | None, reason: str) -> None:
        self._heed((principal, turn_id), "cancelling", lambda run: self._actor_of(run).cancel(run, reason))

    def _heed(self, turn: TurnKey, about: str, what: Callable[[TurnRun], object]) -> None:
        """Do something with a turn of this process that another one speaks of; one that has ended is fine."""
        if (run := self._archive.run(turn)) is not None:
            what(run)
        elif self._sharing is not None:
            self._sharing.lines.find(turn, about, what)

    async def forget_turn(self, turn_id: str, principal: str | None = None) -> None:
        """Keep of a turn that has ended what its session's history has, and nothing else. Raises `StoreUnavailable`."""
        await self._aftermath.forget_response((principal, turn_id))
        self._archive.forget((principal, turn_id))

    async def forget(self, key: SessionKey) -> None:
        """Delete a session: its turns are cancelled, wherever they are, and when they have ended nothing of it is kept.

        Raises `SessionHeld`, `NotServing` and `StoreUnavailable`: then it is kept.
        """
        await self._deletion.of(key)

    def deletes(self, key: SessionKey) -> bool:
        """Whether the session is being deleted here."""
        return key in self._deletion.under_way

    def client_left(self, log: TurnLog) -> None:
        """Somebody who followed a turn has gone before its end: the turn's own policy says what now (law 4)."""
        if log.turn.disconnect.policy == "continue" or log.watched:
            return
        if not isinstance(log, FollowedLog):
            self._disconnects.left(log)
        elif self.state == "serving":  # else it was cut off here, and comes back elsewhere
            log.client_left()

    def _followed_elsewhere(self, turn_id: str, principal: str | None, process: str, seconds: float) -> None:
        tell = self._disconnects.followed
        self._heed((principal, turn_id), process, lambda run: tell(run.log, process, seconds))

    def statistics(self) -> Statistics:
        """How things stand."""
        return Statistics(
            state=self.state,
            active_sessions=len(self._roster),
            idle_sessions=self._roster.idle,
            passivated_sessions=self._roster.passivated,
            open_turns=self._archive.open,
            kept_turns=self._archive.kept,
            accepted_turns=self._accepted,
        )

    @property
    def hooked_turns(self) -> int:
        """Turns with a webhook that have not ended."""
        return self._archive.hooked

    @property
    def torn_down(self) -> bool:
        """Whether whoever owns the loop is closing it: all that runs in it was cancelled, not one turn alone."""
        witness = self._housekeeping  # which `stop` cancels when it has drained, and who cancels everything
        return witness is not None and witness.cancelling() > 0

    # -- for actors ------------------------------------------------------------------------------------------------

    def turn_ended(self, run: TurnRun) -> None:
        """A turn has its ending."""
        turn = run.log.turn
        if turn.disconnect.policy != "continue":
            self._disconnects.over(run.log)
        if turn.stored or not turn.kept:
            self._aftermath.of(run.log)
        if turn.webhook is not None and self.announcer is not None and run.log.terminal is not None:
            self.announcer.ended(turn, run.log.terminal)
        if self.ledger is not None:
            self.ledger.over(run)
        self._archive.ended(run, self.loop.time())
        if not self._archive.open:
            self._all_ended.set()

    def turn_lost(self, run: TurnRun) -> None:
        """A turn has no ending here: another process has it, and whoever looks for it finds it there."""
        if run.log.turn.disconnect.policy != "continue":
            self._disconnects.over(run.log)
        if self.ledger is not None:
            self.ledger.over(run)
        self._archive.drop(run)
        if run.reason is not None and self._sharing is not None and not self.torn_down:
            self._sharing.insist(run.log, run.reason)
        if not self._archive.open:
            self._all_ended.set()

    def turn_recovered(self, log: TurnLog) -> None:
        """A turn of a process that is gone has been ended."""
        turn = log.turn
        if turn.stored or not turn.kept:
            self._aftermath.of(log)
        if turn.webhook is not None and self.announcer is not None and log.terminal is not None:
            self.announcer.ended(turn, log.terminal)

    def actor_idle(self, actor: SessionActor) -> None:
        """The actor has nothing to do. One that keeps no agent warm holds nothing that its store has not."""
        if actor.session.driver is None:
            self._roster.let_go(actor)
        else:
            self._roster.resting(actor, self.loop.time())

    def _new_actor(self, key: SessionKey) -> SessionActor:
        return SessionActor(key, self)

    def _put_away(self, key: SessionKey) -> None:
        task = self.loop.create_task(self._release_sandboxes(key), name=f"sandboxes of {key.session_id!r}")
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _release_sandboxes(self, key: SessionKey) -> None:
        if self.sandboxes is not None and self._roster.find(key) is None:  # it may be active again
            try:
                await self.sandboxes.passivated(key)
            except Exception:
                logger.exception("the sandboxes of session %r could not be released", key.session_id)

    def _actor_of(self, run: TurnRun) -> SessionActor:
        return self._roster.get(run.log.turn.key)

    async def _no_turns(self) -> None:
        while self._archive.open:
            self._all_ended.clear()
            await self._all_ended.wait()

    async def _keep_house(self) -> None:
        limits = self.limits
        interval = max(0.05, min(limits.idle_seconds, limits.kept_seconds) / 4)
        while True:
            await anyio.sleep(interval)
            now = self.loop.time()
            self._roster.passivate_idle(now - limits.idle_seconds)
            self._archive.expire(now)
