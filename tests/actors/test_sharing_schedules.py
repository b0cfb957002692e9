"""Any schedule of turns, cuts, lost answers, deletions, drains and restarts of processes that share a store, in virtual
time: when all is healed and quiet each acknowledged turn has one ending, everywhere the same, and nothing was begun
twice."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from greenroom.actors.errors import GreenroomError, TurnNotFound
from greenroom.actors.events import Terminal, TurnFailed
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import SessionKey
from greenroom.actors.system import ActorSystem
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.store import TurnRecord
from kits.cut_storage import CutStorage
from kits.sharing import LEASE, LIMITS, Diary, new_diary
from kits.system import running_system, said, turn
from kits.virtual_time import VirtualTimeLoop

PROCESSES = 3
QUIET = 120.0
IDS = itertools.count(1, 1_000)
"""The first of each process, which no other has."""
PLACE = st.integers(0, PROCESSES - 1)
STEP = st.one_of(
    st.tuples(
        st.just("submit"),
        PLACE,
        st.sampled_from("st"),
        st.sampled_from(["", " 0.5", " 3", " 20"]),
        st.booleans(),
        st.booleans(),
    ),
    st.tuples(st.just("cut"), PLACE, st.booleans()),
    st.tuples(st.just("slow"), PLACE, st.sampled_from([0.0, 0.01, 0.3])),
    st.tuples(st.just("lose"), PLACE, st.integers(1, 3)),
    st.tuples(st.just("restart"), PLACE, st.sampled_from([0.0, 2.0])),
    st.tuples(st.just("cancel"), PLACE, st.integers(0, 20)),
    st.tuples(st.just("delete"), PLACE, st.sampled_from("st")),
)
PAUSE = st.sampled_from([0.0, 0.1, LEASE + 1, 1.0, 4.0])


class Place:
    """Where one process is, and after it the next."""

    def __init__(self, shared: MemoryStorage) -> None:
        self.storage = CutStorage(shared)
        self.system: ActorSystem
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        store = DurableSessions(self.storage, lease_seconds=LEASE, monotonic=asyncio.get_running_loop().time)
        self.system = await self._stack.enter_async_context(
            running_system(new_diary, agent=True, store=store, limits=LIMITS, first_id=next(IDS))
        )

    async def restart(self, seconds: float) -> None:
        await self.system.drain(seconds)
        await self._stack.aclose()
        self.storage.cut, self.storage.lose_answers = False, 0
        await self.start()

    async def close(self) -> None:
        await self._stack.aclose()


class Schedule:
    """What was done, and what came of it."""

    def __init__(self, shared: MemoryStorage) -> None:
        self.shared = shared
        self.places = [Place(shared) for _ in range(PROCESSES)]
        self.acknowledged: list[TurnLog] = []
        self.deleted: set[SessionKey] = set()
        """Sessions that somebody wanted to delete."""
        self.keys: set[SessionKey] = set()
        """Of sessions that turns were accepted in."""
        self.busy: dict[int, asyncio.Task[None]] = {}
        self.asking: set[asyncio.Task[None]] = set()
        self.count = 0

    async def step(self, what: str, *how: Any) -> None:
        at, place = how[0], self.places[how[0]]
        if at in self.busy and not self.busy[at].done():
            return
        if what == "submit":
            self.count += 1
            after = self.acknowledged[-1] if how[4] and self.acknowledged else None
            self._ask(self._submit(place.system, f"{self.count}{how[2]}", how[1], how[3], after))
        elif what == "cancel" and how[1] < len(self.acknowledged):
            self._ask(self._cancel(place.system, self.acknowledged[how[1]].id))
        elif what == "delete":
            self._ask(self._delete(place.system, SessionKey("u", how[1])))
        elif what == "cut":
            place.storage.cut = how[1]
        elif what == "slow":
            place.storage.seconds = how[1]
        elif what == "lose":
            place.storage.lose_answers = how[1]
        elif what == "restart":
            self.busy[at] = asyncio.get_running_loop().create_task(place.restart(how[1]))

    def _ask(self, asking: Any) -> None:
        self.asking.add(asyncio.get_running_loop().create_task(asking))

    async def _submit(
        self, system: ActorSystem, text: str, session: str, interrupt: bool, after: TurnLog | None
    ) -> None:
        """`after`: the turn goes on from that one, in its session or a fork of it."""
        asked = turn(text, id=text, session=session, overlap="interrupt" if interrupt else None)
        if after is not None:
            asked = structs.replace(asked, key=after.turn.key, after=after.id)
        try:
            log = await system.submit(asked)
        except GreenroomError:
            """It was refused."""
        else:
            self.acknowledged.append(log)
            self.keys.add(log.turn.key)
            if asked.key in self.deleted:  # and so may be what it goes on from
                self.deleted.add(log.turn.key)

    async def _cancel(self, system: ActorSystem, turn_id: str) -> None:
        try:
            await system.cancel(turn_id)
        except GreenroomError:
            """It is asked for no more."""

    async def _delete(self, system: ActorSystem, key: SessionKey) -> None:
        self.deleted.add(key)
        try:
            await system.forget(key)
        except GreenroomError:
            """It is kept, or most of it is."""

    async def settle(self) -> None:
        for place in self.places:
            place.storage.cut, place.storage.lose_answers = False, 0
        async with asyncio.timeout(QUIET):
            await asyncio.gather(*self.busy.values(), *self.asking)
        await asyncio.sleep(QUIET)

    async def check(self) -> None:
        assert max(Counter(Diary.begun).values(), default=0) <= 1, Diary.begun
        for log in self.acknowledged:
            assert log.lost is not None or log.terminal is not None
            endings = [ending async for ending in self._endings(log)]
            assert None not in endings
            assert endings == endings[:1] * len(endings)
            if log.lost is None and endings and not self._is_untold(log):
                assert log.terminal == endings[0]
        await self._check_history()
        await self._check_quiet()

    def _is_untold(self, log: TurnLog) -> bool:
        """Whether its session was deleted just after its ending, before that was looked for here."""
        ending = log.terminal
        untold = isinstance(ending, TurnFailed) and ending.error.code == "ending_not_kept"
        return untold and log.turn.key in self.deleted

    async def _endings(self, log: TurnLog) -> AsyncIterator[Terminal | None]:
        """As each process has it. Of a session that was deleted, those that have it still."""
        for place in self.places:
            try:
                yield (await place.system.locate(log.id)).terminal
            except TurnNotFound:
                assert log.turn.key in self.deleted

    async def _check_history(self) -> None:
        store = self.places[0].system.store
        assert isinstance(store, DurableSessions)
        for key in self.keys:
            record = await store.load(key)
            if record is None:
                continue
            found = [await store.find(one.turn_id, None) for one in record.turns]
            numbers = [one.number for one in found if one is not None and one.turn.key == key]
            assert numbers == sorted(set(numbers))
            _check_states(record.turns)
            ids = [one.turn_id for one in record.turns]
            for one in found:
                if one is not None and one.turn.key == key and one.turn.after in ids:
                    assert ids[ids.index(one.turn.id) - 1] == one.turn.after

    async def _check_quiet(self) -> None:
        assert not [folder for folder in self.shared._folders.values() if folder.opened]
        for place in self.places:
            statistics = place.system.statistics()
            assert (statistics.open_turns, statistics.active_sessions - statistics.idle_sessions) == (0, 0)
            sharing = place.system._sharing
            assert sharing is not None
            assert not sharing.intake._tasks
            assert not sharing.lines._tasks
            assert not sharing._taking
            assert not (len(sharing.lines.locks))
            assert not (sharing._insisting)
            await asyncio.sleep(30)
            assert not sharing.elsewhere._following


def _check_states(turns: Sequence[TurnRecord]) -> None:
    """Each turn that went well went on from the state of the last one that had."""
    told: list[str] = []
    for one in turns:
        if one.status == "completed":
            told.append(one.turn_id.split()[0])
            assert said(tuple(one.output)).rstrip(".") == " ".join(told)


async def carry_out(steps: list[Any]) -> None:
    Diary.begun.clear()
    shared = MemoryStorage(monotonic=asyncio.get_running_loop().time)
    await shared.start()
    schedule = Schedule(shared)
    for place in schedule.places:
        await place.start()
    for step, pause in steps:
        await schedule.step(*step)
        await asyncio.sleep(pause)
    await schedule.settle()
    await schedule.check()
    for place in schedule.places:
        await place.close()
    await asyncio.sleep(1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(st.tuples(STEP, PAUSE), min_size=10, max_size=30))
def test_nothing_is_lost_nor_doubled_whatever_happens(steps: list[Any]) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(carry_out(steps))
