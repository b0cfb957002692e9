"""What a system has besides where its store loses nothing and other processes share it: turns are recorded before they
are acknowledged, sessions taken over and handed over, turns that run elsewhere followed and cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, Protocol

import anyio
from msgspec import structs

from greenroom.actors.actor import SessionActor
from greenroom.actors.archive import Archive
from greenroom.actors.continuation import Continuations
from greenroom.actors.deletion import DELETED
from greenroom.actors.elsewhere import Elsewhere
from greenroom.actors.endings import interrupted
from greenroom.actors.errors import (
    GreenroomError,
    Overloaded,
    SessionDamaged,
    SessionLost,
    StoreUnavailable,
    TurnNotFound,
)
from greenroom.actors.handler import Handler
from greenroom.actors.ids import Sources
from greenroom.actors.intake import Intake, Reception
from greenroom.actors.ledger import Ledger
from greenroom.actors.leftovers import Leftovers
from greenroom.actors.limits import Limits
from greenroom.actors.lines import Lines
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import SessionKey, Turn
from greenroom.actors.recovery import Recovery
from greenroom.actors.roster import Roster
from greenroom.actors.session import Sandboxes
from greenroom.actors.turn import TurnKey, TurnRun
from greenroom.services.durable import DurableStore, Standing
from greenroom.services.durable_responses import NO_EVENTS
from greenroom.services.webhooks.announcing import Announcer

logger = logging.getLogger("greenroom.actors")

TAKEN_AT_ONCE: Final = 16
"""Sessions of dead processes that are looked for in one go."""
SHORTEST_REST: Final = 1.0
LONGEST_REST: Final = 300.0
"""For a session whose turns could not be dealt with, seconds; each rest is twice the one before it."""
INSIST_SECONDS: Final = 1.0
"""Between two times that a turn's process is asked to cancel it."""
MOVED: Final = "this process stops, and another one has the session; ask for the turn there"


class System(Reception, Protocol):
    """What a system offers for this."""

    handler: Handler
    limits: Limits
    sources: Sources
    announcer: Announcer | None
    sandboxes: Sandboxes | None

    def readmit(self, actor: SessionActor, run: TurnRun) -> None:
        """An actor has a turn that was taken over."""
        ...

    def turn_recovered(self, log: TurnLog) -> None:
        """A turn of a process that is gone has been ended."""
        ...

    def deletes(self, key: SessionKey) -> bool:
        """Whether the session is being deleted here."""
        ...


class Sharing:
    """One process's part in a shared store."""

    def __init__(
        self,
        store: DurableStore,
        system: System,
        roster: Roster,
        archive: Archive,
        continuations: Continuations,
    ) -> None:
        limits = system.limits
        self.store = store
        self.seconds = limits.elsewhere_seconds
        self.ledger = Ledger(
            store,
            system.announcer,
            journal_seconds=limits.journal_seconds,
            patience=limits.store_seconds,
            repeats_seconds=limits.kept_seconds,
            chance=system.sources.chance,
        )
        self.ledger.lost = self._session_lost
        self.elsewhere = Elsewhere(store, system.sources)
        self.elsewhere.abandoned = self._abandoned
        recovery = Recovery(
            self.ledger,
            system.handler,
            limits,
            system.sources,
            admit=system.readmit,
            ended=system.turn_recovered,
            cancelled=self._why_cancelled,
        )
        self.lines = Lines(store, roster, archive, recovery, system.sources.chance)
        self.intake = Intake(
            store,
            system,
            roster,
            archive,
            continuations,
            recovery,
            self.lines,
            self.elsewhere,
            limits,
            system.sources.chance,
        )
        self._system = system
        self._roster = roster
        self._archive = archive
        self._leftovers = Leftovers(store, continuations.forget, limits.kept_seconds)
        self._rests: dict[SessionKey, tuple[float, float]] = {}
        """Sessions whose turns could not be dealt with: until when they are left alone, and for how long that was."""
        self._looking: asyncio.Task[None] | None = None
        self._letting_go: asyncio.Task[None] | None = None
        self._draining = False
        self._taking: dict[SessionKey, asyncio.Task[None]] = {}
        """Sessions that are taken over as somebody waits for it."""
        self._insisting: dict[TurnKey, tuple[str, asyncio.Task[None]]] = {}
        """Turns elsewhere that are to be cancelled, and why, until they have ended."""

    def __repr__(self) -> str:
        return f"<Sharing of {self.store!r}>"

    async def start(self) -> None:
        """Begin to look for what dead processes left. The store is started."""
        self.store.when_lost(self._all_lost)
        self.store.when_joined(self.lines.joined)
        self._looking = asyncio.get_running_loop().create_task(
            self._look_for_orphans(), name="greenroom recovery"
        )

    async def stop(self) -> None:
        """Let go of all that is followed, and of turns whose endings the store did not take: others find them there."""
        tasks = [
            task for task in (self._looking, self._letting_go, *self._taking.values()) if task is not None
        ]
        self._looking = self._letting_go = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.intake.stop()
        for _, task in self._insisting.values():
            task.cancel()
        await self.elsewhere.stop()
        for actor in self._roster.actors():
            if actor.turns or actor.leaving:
                actor.lose(SessionLost(MOVED))

    async def drain(self) -> None:
        """Let others know that this process takes no more sessions."""
        self._draining = True
        self.lines.close()
        try:
            await self.store.drain()
        except StoreUnavailable as error:
            logger.warning("other processes could not be told that this one stops: %s", error)

    # -- sessions that change hands --------------------------------------------------------------------------------

    def _session_lost(self, key: SessionKey, error: SessionLost) -> None:
        actor = self._roster.find(key)
        if actor is not None:
            actor.lose(error)

    def _all_lost(self) -> None:
        """This process was late: others may have its sessions by now, and it stops what it does for them."""
        logger.error(
            "the store could not be told in time that this process lives, so its sessions may be others' by now; "
            "their turns are stopped here"
        )
        for actor in self._roster.actors():
            actor.lose(
                SessionLost("the server lost its store for too long; ask for the turn again in a moment")
            )

    async def hand_over(self, actors: Iterable[SessionActor]) -> None:
        """Let other processes have these sessions. A turn that runs ends, as one that failed, unless its handler is
        idempotent and another process may begin it once more; those that wait are run there."""
        async with anyio.create_task_group() as tasks:
            for actor in actors:
                tasks.start_soon(self._hand_over, actor)

    async def _hand_over(self, actor: SessionActor) -> None:
        actor.dismiss()
        try:
            for leaving in actor.leaving:
                await leaving.log.ended()
            run = actor.current
            if run is not None and not run.stopping and (run.queued or self._may_begin_again(run)):
                task, told = run.task, () if run.queued else tuple(run.log.events())
                actor.lose(SessionLost(MOVED))
                if task is not None:  # while it runs it may act, and must not beside another
                    await asyncio.wait([task], timeout=self._system.limits.cancel_seconds)
                await self.ledger.write_rest(run, told)
            elif run is not None:
                if run.running and not run.stopping:
                    actor.interrupt(run, interrupted(run.log.turn, self._system.sources, stopping=True))
                await run.log.ended()
            if self._system.sandboxes is not None:
                await self._system.sandboxes.hand_over(actor.key)
            await self.store.release(actor.key, begun=False)
        except SessionLost:
            logger.info("session %r is another process's already", actor.key.session_id)
        except GreenroomError:
            logger.exception(
                "session %r was not handed over; it is found as a dead process's", actor.key.session_id
            )

    def _may_begin_again(self, run: TurnRun) -> bool:
        return run.running and self._system.handler.idempotent and run.log.turn.idempotent

    # -- what dead processes left ----------------------------------------------------------------------------------

    async def _look_for_orphans(self) -> None:
        seconds = self._system.limits.recovery_seconds
        while not self._draining:
            try:
                await self._take_all_over()
                if self._letting_go is None or self._letting_go.done():  # it may wait long for services
                    self._letting_go = asyncio.get_running_loop().create_task(
                        self._let_go(), name="greenroom leftovers"
                    )
            except StoreUnavailable as error:
                logger.warning("it could not be looked for turns of dead processes: %s", error)
            except Exception:
                logger.exception("looking for turns of dead processes failed; it is tried again")
            await asyncio.sleep(seconds * (0.75 + self._system.sources.chance() / 2))

    async def _let_go(self) -> None:
        try:
            await self._leftovers.let_go()
        except StoreUnavailable as error:
            logger.warning("what dead processes left could not be let go of: %s", error)
        except Exception:
            logger.exception("letting go of what dead processes left failed; it is tried again")

    async def _take_all_over(self) -> None:
        """Go on as long as there are others than were looked at just before."""
        before: set[SessionKey] = set()
        while not self._draining:
            limit = TAKEN_AT_ONCE + len(self._rests)
            found = await self.store.orphans(limit)
            for key in found:
                if not self._draining:
                    await self._take_over(key)
            if len(found) < limit:
                self._rests = {key: rest for key, rest in self._rests.items() if key in found}
                return
            if before.issuperset(found):
                return
            before = set(found)

    def _abandoned(self, key: SessionKey) -> None:
        """Somebody here waits for a turn of a session that is nobody's."""
        if key not in self._taking and not self._draining:
            task = asyncio.get_running_loop().create_task(self._take_abandoned(key))
            self._taking[key] = task
            task.add_done_callback(lambda _: self._taking.pop(key))

    async def _take_abandoned(self, key: SessionKey) -> None:
        try:
            await self._take_over(key)
        except StoreUnavailable as error:
            logger.warning("session %r is not taken over yet: %s", key.session_id, error)

    async def _take_over(self, key: SessionKey) -> None:
        """What one session has is in the way of no other: where it cannot be dealt with, it is left alone for a while.

        Raises `StoreUnavailable`.
        """
        until, _ = self._rests.get(key, (0.0, 0.0))
        if asyncio.get_running_loop().time() < until:
            return
        try:
            await self.intake.take_over(key)
        except SessionLost:
            logger.debug("another process was quicker to take session %r over", key.session_id)
        except StoreUnavailable:  # it may be this session alone that it cannot write
            self._rest(key)
            raise
        except Overloaded as error:  # that may be over at any moment, and another process may have room
            logger.warning("session %r is not taken over yet: %s", key.session_id, error)
            self._rest(key, SHORTEST_REST)
            return
        except Exception:
            logger.exception(
                "the turns that a dead process left in session %r cannot be dealt with", key.session_id
            )
            self._rest(key)
            return
        self._rests.pop(key, None)

    def _rest(self, key: SessionKey, longest: float = LONGEST_REST) -> None:
        _, before = self._rests.get(key, (0.0, SHORTEST_REST / 2))
        rest = min(2 * before, longest)
        self._rests[key] = asyncio.get_running_loop().time() + rest, rest

    async def submit(self, turn: Turn) -> TurnLog:
        """Take a turn in; see `Intake.submit`."""
        if self._system.handler.idempotent:
            turn = structs.replace(turn, idempotent=True)
        return await self.intake.submit(turn)

    async def vacate(self, key: SessionKey) -> Standing:
        """How a session stands that is to be deleted; see `Intake.vacate`."""
        return await self.intake.vacate(key)

    # -- turns that run elsewhere ----------------------------------------------------------------------------------

    async def locate(self, turn_id: str, principal: str | None) -> TurnLog:
        """The log of a turn, wherever it runs or ran. Raises `TurnNotFound`, `StoreUnavailable`."""
        if self._archive.has((principal, turn_id)):
            log = self._archive.log((principal, turn_id))
            if not await self.forgotten(log):
                return log
        return await self.elsewhere.log(turn_id, principal)

    async def forgotten(self, log: TurnLog) -> bool:
        """Whether a turn that ended here, and may be deleted by any process, was: then it is not kept here either.

        Raises `StoreUnavailable`.
        """
        turn = log.turn
        if log.terminal is None or not turn.stored:
            return False
        if await self.store.find(turn.id, turn.principal, NO_EVENTS) is not None:
            return False
        self._archive.forget((turn.principal, turn.id))
        return True

    async def cancel(self, turn_id: str, principal: str | None, reason: str) -> TurnLog:
        """Have a turn cancelled that does not run here. Raises `TurnNotFound`, `StoreUnavailable`."""
        log = await self.locate(turn_id, principal)
        if log.terminal is None:
            self.insist(log, reason, INSIST_SECONDS)
            await self.store.ask_to_cancel(turn_id, principal, reason)
        return log

    def insist(self, log: TurnLog, reason: str, after: float = 0.0) -> None:
        """Have a turn cancelled that is not here, or not any more: its process may be gone, and another one to have
        it, maybe this one. `after`: so many seconds its process is asked."""
        key = log.turn.principal, log.id
        if key not in self._insisting:
            task = asyncio.get_running_loop().create_task(self._insist(log, reason, after))
            self._insisting[key] = reason, task
            task.add_done_callback(lambda _: self._insisting.pop(key))

    def _why_cancelled(self, turn: Turn) -> str | None:
        """Why a turn that was taken over is to be cancelled; none: it is not."""
        if self._system.deletes(turn.key):
            return DELETED
        reason, _ = self._insisting.get((turn.principal, turn.id), (None, None))
        return reason

    async def _insist(self, log: TurnLog, reason: str, pause: float) -> None:
        """Until it has ended, or is not found any more: a log that nobody follows is lost before a dead process is."""
        while True:
            await asyncio.sleep(pause)
            pause = INSIST_SECONDS
            with suppress(StoreUnavailable, SessionDamaged):
                if log.lost is not None:
                    try:
                        log = await self.locate(log.id, log.turn.principal)
                    except TurnNotFound:
                        return
                if log.terminal is not None:
                    return
                await self.store.ask_to_cancel(log.id, log.turn.principal, reason)
