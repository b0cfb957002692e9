"""Taking turns in where the store is shared: a turn is recorded before it is acknowledged, in its session's one order.

The session may be another process's. It is taken over when that one is gone or has no turn of it open; else the turn
joins its line there (`lines`), and is followed here. One that continues from another turn has its place behind that one
or in a fork, which is not known before that one has ended: it waits for that here, within a bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio

from greenroom.actors.actor import SessionActor
from greenroom.actors.archive import Archive
from greenroom.actors.asker import Asker, Verdict
from greenroom.actors.continuation import Continuations
from greenroom.actors.elsewhere import Elsewhere
from greenroom.actors.errors import (
    GreenroomError,
    NotServing,
    Overloaded,
    SessionHeld,
    SessionLost,
    StoreUnavailable,
    TurnMoved,
    TurnOver,
)
from greenroom.actors.held_up import HeldUp
from greenroom.actors.joining import Joining
from greenroom.actors.limits import Limits
from greenroom.actors.lines import Lines
from greenroom.actors.log import TurnLog
from greenroom.actors.mailbox import bytes_of, check_bounds, check_waits
from greenroom.actors.messages import Overlap, SessionKey, Turn
from greenroom.actors.pauses import SHORTEST_PAUSE, rest, until_back
from greenroom.actors.recovery import Recovery
from greenroom.actors.repeats import may_run, moved
from greenroom.actors.roster import Roster
from greenroom.actors.takeover import Takeover
from greenroom.actors.turn import TurnRun
from greenroom.services.durable import (
    Acceptance,
    DurableStore,
    Ending,
    InLine,
    SessionElsewhere,
    SessionTaken,
    Standing,
    TurnAccepted,
    TurnEntry,
    TurnJoined,
    TurnKnown,
)

T = TypeVar("T")


class Reception(Protocol):
    """What the system does of taking a turn in."""

    overlap: Overlap

    def check_serving(self, turn: Turn) -> None:
        """Raises when no turns are taken now, or none of this session."""
        ...

    def admit(self, actor: SessionActor, run: TurnRun) -> None:
        """The actor has a turn."""
        ...

    def client_left(self, log: TurnLog) -> None:
        """Who asked for the turn has gone before its end."""
        ...


class Intake:
    """Takes turns in, those of one session one after the other."""

    __slots__ = (
        "_archive",
        "_chance",
        "_continuations",
        "_elsewhere",
        "_held_up",
        "_joining",
        "_limits",
        "_lines",
        "_placing",
        "_reception",
        "_roster",
        "_store",
        "_takeover",
        "_tasks",
    )

    def __init__(
        self,
        store: DurableStore,
        reception: Reception,
        roster: Roster,
        archive: Archive,
        continuations: Continuations,
        recovery: Recovery,
        lines: Lines,
        elsewhere: Elsewhere,
        limits: Limits,
        chance: Callable[[], float],
    ) -> None:
        self._store = store
        self._reception = reception
        self._roster = roster
        self._archive = archive
        self._continuations = continuations
        self._takeover = Takeover(store, roster, continuations, recovery, lines.locks, chance)
        self._elsewhere = elsewhere
        self._limits = limits
        self._chance = chance
        self._lines = lines
        self._held_up = HeldUp(store, reception, roster, archive, elsewhere)
        self._joining = Joining(store, reception, archive, elsewhere, limits, chance, self._begin)
        self._placing: set[anyio.CancelScope] = set()
        self._tasks: set[asyncio.Task[object]] = set()

    def __repr__(self) -> str:
        return f"<Intake: turns for {len(self._lines.locks)} sessions are being taken in>"

    async def submit(self, turn: Turn) -> TurnLog:
        """Record a turn and give it to its session's actor; a repeat gives the log of the turn it repeats.

        Raises what `ActorSystem.submit` raises, `SessionHeld`, `StoreUnavailable` and `TurnMoved`. Who gives up waiting
        has left, as his turn's policy has it.
        """
        if users := self._lines.locks.users(turn.key):
            actor = self._roster.find(turn.key)
            size = self._archive.coming_of(turn.key) + (0 if actor is None else bytes_of(actor.turns[1:]))
            check_bounds(turn, users - 1, size, self._limits)
        asker = Asker(turn, asyncio.get_running_loop().time() + self._limits.elsewhere_seconds)
        taken_in, left = self._archive.takes_in(turn), self._reception.client_left
        return await asker.wait(self._begin(self._take_in(turn, asker), taken_in), left)

    async def take_over(self, key: SessionKey) -> None:
        """As `Takeover.of` has it."""
        await asyncio.shield(self._begin(self._takeover.of(key)))

    async def vacate(self, key: SessionKey) -> Standing:
        """As `Takeover.vacate` has it."""
        return await asyncio.shield(self._begin(self._takeover.vacate(key)))

    async def done(self) -> None:
        """Wait until all that is on its way is in, or refused, as no turns are taken any more."""
        for scope in self._placing:
            scope.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._lines.done()

    async def stop(self) -> None:
        """Give up what is on its way still: another process finds what is recorded of it."""
        for task in self._tasks:
            task.cancel()
        await self._lines.stop()
        await self.done()

    def _begin(self, work: Coroutine[Any, Any, T], *then: Callable[..., None]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        for done in (self._tasks.discard, *then):
            task.add_done_callback(done)
        return task

    async def _take_in(self, turn: Turn, asker: Asker) -> TurnLog:
        verdict = asker.verdict = self._judging(turn) if self._lines.locks.users(turn.key) else None
        try:
            async with self._lines.locks.of(turn.key, unless=verdict) as held:
                if held:
                    if verdict is not None:
                        verdict.cancel()
                    return await self._take_in_next(turn, asker)
        finally:
            if verdict is not None:
                verdict.cancel()
        del verdict  # it has the error that may be raised here, whose traceback has this frame
        return asker.answer()

    def _judging(self, turn: Turn) -> Verdict:
        verdict: Verdict = asyncio.get_running_loop().create_future()
        _ = self._begin(self._held_up.judge(turn, verdict))
        return verdict

    async def _take_in_next(self, turn: Turn, asker: Asker) -> TurnLog:
        known = self._archive.known(turn)
        if known is not None:
            return known
        while True:
            placed = turn if turn.after is None else await self._place(turn, self._continuations.place)
            if placed.key != turn.key:
                log = await self._take_in_fork(placed, asker)
            else:
                log = await self._accept(turn, asker)
            if log is not None:
                return log

    # -- the turn whose time it is ---------------------------------------------------------------------------------

    async def _place(self, turn: Turn, place: Callable[[Turn], Awaitable[Turn]]) -> Turn:
        """May wait for the turn that this one continues from, which a process that stops does not."""
        self._reception.check_serving(turn)
        with anyio.CancelScope() as scope:
            self._placing.add(scope)
            self._held_up.behind[turn.key] = None
            try:
                return await place(turn)
            finally:
                self._held_up.behind.pop(turn.key)
                self._placing.discard(scope)
        self._reception.check_serving(turn)
        raise NotServing("this process stops, and takes no more turns; ask again, for another one to answer")

    async def _take_in_fork(self, turn: Turn, asker: Asker) -> TurnLog | None:
        """Take the first turn of a session in that was made for it; none: it is gone, as this process was late."""
        owner = self._store.owner
        try:
            log = await self._accept(turn, asker)
        except GreenroomError:
            await self._continuations.drop(turn.key, owner)
            raise
        if log is None or log.turn.key != turn.key:  # a repeat
            await self._continuations.drop(turn.key, owner)
        return log

    async def _accept(self, turn: Turn, asker: Asker) -> TurnLog | None:
        """The turn's log; none: others have followed the turn it continues from, so it has another place."""
        try:
            return await self._accept_in_time(turn, asker)
        finally:
            self._held_up.behind.pop(turn.key, None)

    async def _accept_in_time(self, turn: Turn, asker: Asker) -> TurnLog | None:
        pause = SHORTEST_PAUSE
        while True:
            if not asker.maybe_joined:  # else nobody says any more that nothing of it is kept
                self._reception.check_serving(turn)
                asker.check()
                self._roster.get(turn.key).check_room(turn)
            owner = self._store.owner
            answer = await self._recorded(turn, owner, asker)
            if answer is None:
                pause = await rest(pause, self._chance)
            elif isinstance(answer, TurnAccepted):
                return await self._accepted(turn, answer, owner)
            elif isinstance(answer, TurnJoined):
                return self._joining.joined(turn, answer.entry, answer.elsewhere)
            elif isinstance(answer, TurnKnown):
                return self._joining.known(turn, answer.entry, asker)
            elif isinstance(answer, SessionTaken):
                pause = await self._recover(turn, answer.turns, pause, asker)
                if turn.after is not None:  # one of them may have followed that one
                    return None
            elif _waits_for(turn, answer):
                pause = await self._wait(turn, answer, pause, asker)
            else:
                return await self._take_in_fork(await self._place(turn, self._continuations.fork), asker)

    async def _recorded(self, turn: Turn, owner: str, asker: Asker) -> Acceptance | None:
        """None: whether it has joined a line is not known, and is to be found out."""
        join = partial(self._joining.check, turn, asker) if turn.after is None else None
        try:
            return await self._store.accept(turn, join)
        except StoreUnavailable as error:
            self._may_have_taken(turn.key)
            # When this process was late, whoever has the session by now may find that the turn was recorded.
            if self._store.owner != owner and await self._store.known(turn) is not None:
                raise moved(turn) from None
            asker.maybe_joined |= not error.nothing_kept
            if not asker.maybe_joined:
                raise
            if asker.late:
                raise may_run(turn, error) from error
            return None

    async def _recover(self, turn: Turn, entries: Sequence[TurnEntry], pause: float, asker: Asker) -> float:
        """Deal with what was open in the session. Where that cannot be done here and the turn may be among them, it is
        found out who has it. Gives the next pause."""
        try:
            await self._takeover.recover(turn.key, entries)
        except (Overloaded, SessionLost) as error:
            if not asker.maybe_joined:
                raise
            if asker.late:
                raise may_run(turn, error) from error
            return await rest(pause, self._chance)
        return pause

    def _may_have_taken(self, key: SessionKey) -> None:
        """A write of which nobody was told may have made the session this one's, and others may join its line before
        that is found out: what is known of it here is out of date, unless a turn of it is at work here."""
        actor = self._roster.find(key)
        if actor is None or not actor.busy:
            self._continuations.another_had(key)
        if actor is not None and not actor.busy:
            actor.forget_session(None)

    async def _accepted(self, turn: Turn, answer: TurnAccepted, owner: str) -> TurnLog | None:
        try:
            follows = await self._still_follows(turn, answer, owner)
            actor = self._roster.get(turn.key)
        except TurnMoved:
            raise
        except Exception:  # and not when this is given up: then others find the turn, as after a crash
            await self._take_back(turn)
            raise
        if not follows:
            await self._take_back(turn)
            return None
        before = actor.current
        run = actor.receive(turn)
        self._reception.admit(actor, run)
        actor.make_way(before, turn)
        return run.log

    async def _still_follows(self, turn: Turn, answer: TurnAccepted, owner: str) -> bool:
        """Whether nothing stands between a turn and the one that it continues from, if it does, once this process knows
        what there is before it. `owner`: who recorded it. Raises `TurnMoved`, and why it cannot be run here."""
        follows = True
        if answer.fresh:
            self._roster.get(turn.key).forget_session(None)
            self._continuations.another_had(turn.key)
            follows = turn.after is None or await self._is_newest(turn, turn.after, owner)
        if self._lines.has_new(answer.joined):
            await self._let_in_before(turn, answer.joined)
            follows = turn.after is None or self._roster.get(turn.key).newest == turn.after
        return follows

    async def _let_in_before(self, turn: Turn, joined: Sequence[InLine]) -> None:
        """Have those run first that joined the line before this turn, and not those that join it by now."""
        try:
            await until_back(lambda: self._lines.let_in(turn.key, among=joined), self._chance)
        except SessionLost:
            raise moved(turn) from None
        self._roster.get(turn.key).check_room(turn)

    # -- turns that continue from others ---------------------------------------------------------------------------

    async def _is_newest(self, turn: Turn, after: str, owner: str) -> bool:
        """Whether the store has nothing that followed the turn `after`."""
        record = await self._store.load(turn.key)
        newest = record.turns[-1].turn_id if record is not None and record.turns else None
        if newest == after and self._store.owner != owner:
            raise moved(turn)  # this process was late to tell others that it lives
        return newest == after

    async def _take_back(self, turn: Turn) -> None:
        """It is as if it had not been recorded. Raises `TurnMoved`."""
        ending = Ending(turn_id=turn.id, principal=turn.principal, kept=False)
        try:
            await until_back(lambda: self._store.finish(turn.key, ending), self._chance)
        except TurnOver:
            """It was taken back already, by an attempt of which nobody was told."""
        except SessionLost:
            raise moved(turn) from None

    async def _wait(self, turn: Turn, running: SessionElsewhere, pause: float, asker: Asker) -> float:
        """Wait for the process that is at work on the session. Gives the next pause."""
        check_waits(turn, self._reception.overlap)
        if asker.late:
            raise SessionHeld(
                f"another process works on a turn of session {turn.key.session_id!r} and did not end it within "
                f"{self._limits.elsewhere_seconds:g} s; send it again in a moment"
            )
        self._held_up.behind[turn.key] = running
        return await rest(pause, self._chance)


def _waits_for(turn: Turn, running: SessionElsewhere) -> bool:
    """Whether its place is not known before others have ended; else they have followed the one that it goes on from."""
    return turn.after is None or any(one.turn_id == turn.after for one in running.turns)
