"""Sessions that are to go with the process that made them go when it is gone, with what services have of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest
from msgspec import structs

from greenroom.actors import leftovers
from greenroom.actors.errors import StoreUnavailable, TurnMoved
from greenroom.actors.events import TurnFailed
from greenroom.actors.leftovers import Leftovers
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import SessionKey
from greenroom.services.durable import DurableStore, Passed
from greenroom.services.durable_responses import DurableResponses
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions.passing import KIND
from greenroom.services.sessions.unwanted import KIND as UNWANTED
from greenroom.services.storage import NOT_THERE, Conflict, Fence, FolderKey
from kits.sharing import KEY, LEASE, Process, processes, words
from kits.system import turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time


async def tell(process: Process, text: str, *, passing: bool | None, after: str | None = None) -> TurnLog:
    """A turn of a session that the one who asks for it forgets himself."""
    log = await process.system.submit(structs.replace(turn(text, after=after), passing=passing))
    await log.ended()
    return log


async def left(process: Process) -> tuple[int, int]:
    """Sessions, and marks of those that are to go."""
    kinds = ("session", KIND)
    sessions, marks = [len(await process.storage.sessions(kind, "u")) for kind in kinds]
    return sessions, marks


async def test_it_goes_when_its_process_is_gone_and_not_before() -> None:
    async with processes() as (first, second):
        one = await tell(first, "a", passing=True)
        assert words(await tell(first, "b", passing=True, after=one.id)) == "a b"
        await asyncio.sleep(100)
        assert await left(second) == (1, 1)
        first.storage.cut = True
        await asyncio.sleep(LEASE + 3)
        assert await left(second) == (0, 0)
        assert words(await second.tell("c")) == "c"


async def test_it_goes_when_the_turn_that_was_open_has_ended() -> None:
    async with processes() as (first, second):
        await tell(first, "a", passing=True)
        await first.system.submit(structs.replace(turn("b 60"), passing=True))
        await asyncio.sleep(1)
        first.storage.cut = True
        await asyncio.sleep(LEASE + 6)
        assert await left(second) == (0, 0)


async def test_it_stays_when_a_turn_made_it_one_that_stays() -> None:
    async with processes() as (first, second):
        one = await tell(first, "a", passing=True)
        await tell(first, "b", passing=False, after=one.id)
        assert await left(second) == (1, 0)
        first.storage.cut = True
        await asyncio.sleep(LEASE + 3)
        assert words(await second.tell("c")) == "a b c"


async def test_forgetting_it_in_time_leaves_no_mark() -> None:
    async with processes() as (first, second):
        await tell(first, "a", passing=True)
        await first.system.forget(KEY)
        assert await left(second) == (0, 0)


async def test_a_fork_goes_whose_process_died_before_its_turn_was_accepted() -> None:
    async with processes() as (first, second):
        one = await first.tell("a")
        await first.tell("b")
        first.storage.cut_after = 1  # the fork
        with pytest.raises(StoreUnavailable):
            await first.system.submit(turn("c", after=one.id))
        first.storage.cut = True
        assert await left(second) == (2, 1)
        await asyncio.sleep(LEASE + 3)
        assert await left(second) == (1, 0)
        assert words(await second.tell("d")) == "a b d"


async def test_a_fork_for_one_turn_alone_goes_when_the_store_is_back() -> None:
    async with processes() as (first, second):
        one = await first.tell("a")
        await first.tell("b")
        log = await first.system.submit(turn("c 0.1", kept=False, after=one.id))
        first.storage.cut_after = 1  # its ending
        await log.ended()
        await asyncio.sleep(2)
        assert await left(second) == (2, 1)
        first.storage.cut_after = None
        await asyncio.sleep(3)
        assert await left(second) == (1, 0)


@pytest.mark.parametrize("answered", [True, False])
async def test_a_fork_of_which_no_turn_came_goes_when_the_store_is_back(answered: bool) -> None:
    async with processes() as (first, second):
        one = await first.tell("a")
        await first.tell("b")
        if answered:
            first.storage.cut_after = 1  # the fork
        else:
            first.storage.lose_answers, first.storage.cut_then = 1, True
        with pytest.raises(
            StoreUnavailable, match="nothing can be written" if answered else "the connection broke"
        ):
            await first.system.submit(turn("c", after=one.id))
        await asyncio.sleep(2)
        assert await left(second) == (2, 1)
        first.storage.cut_after, first.storage.cut = None, False
        await asyncio.sleep(3)
        assert await left(second) == (1, 0)
        assert words(await first.tell("c", after=one.id)) == "a c"


async def test_a_fork_stays_whose_turn_another_process_has_by_now(monkeypatch: pytest.MonkeyPatch) -> None:
    async with processes() as (first, second):
        one = await first.tell("a")
        await first.tell("b")
        store, gate = first.system.store, asyncio.Event()
        fork = store.fork

        async def forked(source: SessionKey, turn_id: str, target: SessionKey) -> bool:
            made = await fork(source, turn_id, target)
            first.storage.gate, first.storage.lose_answers = gate, 1
            return made

        monkeypatch.setattr(store, "fork", forked)
        asking = asyncio.create_task(first.system.submit(turn("c 60", id="c", after=one.id)))
        await asyncio.sleep(1)
        first.storage.cut = True
        await asyncio.sleep(LEASE + 3)
        log = await second.system.locate("c")
        first.storage.cut = False
        gate.set()
        with pytest.raises(TurnMoved):
            await asking
        assert isinstance(await log.ended(), TurnFailed), "it had begun"
        assert await left(second) == (2, 0)
        assert words(await second.tell("d", after="c", session=log.turn.key.session_id)) == "a d"


async def test_a_fork_stays_whose_turn_is_kept() -> None:
    async with processes() as (first, second):
        one = await first.tell("a")
        await first.tell("b")
        log = await first.tell("c", after=one.id)
        assert log.turn.key != KEY
        assert await left(second) == (2, 0)
        first.storage.cut = True
        await asyncio.sleep(LEASE + 3)
        assert words(await second.tell("d", session=log.turn.key.session_id)) == "a c d"


@pytest.mark.parametrize("passing", [True, False, None])
@pytest.mark.parametrize("running", [False, True])
async def test_one_that_its_client_came_back_to_stays(
    passing: bool | None, running: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when that was after it had been looked for those that are to go."""
    async with processes(3) as (first, second, third):
        await tell(first, "a", passing=True)
        stores = [cast("DurableStore", process.system.store) for process in (second, third)]
        came_back: list[TurnLog] = []
        passed = stores[0].passed

        async def late(limit: int) -> tuple[Sequence[Passed], Sequence[SessionKey]]:
            if came_back:
                return [], []
            free, busy = await passed(limit)
            if free:
                text = "b 5" if running else "b"
                came_back.append(await third.system.submit(structs.replace(turn(text), passing=passing)))
                await asyncio.sleep(0.5)
            return free, busy

        async def nothing(limit: int) -> tuple[Sequence[Passed], Sequence[SessionKey]]:
            return [], []

        monkeypatch.setattr(stores[0], "passed", late)
        monkeypatch.setattr(stores[1], "passed", nothing)
        first.storage.cut = True
        await asyncio.sleep(LEASE + 10)
        (log,) = came_back
        assert words(log).startswith("a b")
        assert words(await third.tell("c")) == "a b c"


async def test_one_that_cannot_go_is_in_the_way_of_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "AT_ONCE", 2)
    there = [SessionKey("u", str(number)) for number in range(7)]
    stuck, busy = there[:2], there[2:4]

    class Store:
        storage = MemoryStorage()

        async def forget_repeats(self) -> bool:
            return True

        async def passed(self, limit: int) -> tuple[Sequence[Passed], Sequence[SessionKey]]:
            some = there[:limit]
            free = [Passed(key, NOT_THERE, NOT_THERE) for key in some if key not in busy]
            return free, [key for key in some if key in busy]

    async def forget(key: SessionKey, standing: Fence, mark: Fence) -> None:
        if key in stuck:
            raise OSError("broken") if key == stuck[0] else Conflict(FolderKey(KIND, *key), None)
        there.remove(key)

    await Store.storage.start()
    lets_go = Leftovers(Store(), forget, 300.0)  # type: ignore[arg-type]
    for _ in range(5):
        await lets_go.let_go()
    assert there == [*stuck, *busy]


async def unwanted_marks(process: Process) -> int:
    return len(await process.storage.sessions(UNWANTED, ""))


async def test_a_response_that_was_deleted_while_it_ran_goes_also_when_its_process_dies() -> None:
    async with processes(3) as (first, second, third):
        responses = DurableResponses(cast("DurableStore", third.system.store))
        await responses.start()
        await first.system.submit(turn("a 20", id="a", session="a", stored=True))
        await first.system.submit(turn("b 60", id="b", session="b", stored=True))
        await asyncio.sleep(1)
        for turn_id in "ab":
            assert not await responses.delete(None, turn_id)
        third.storage.cut = True  # whoever was asked is gone
        await asyncio.sleep(LEASE + 3)
        assert await unwanted_marks(second) == 2
        assert await found(second, "a")
        await asyncio.sleep(20)
        assert not await found(second, "a")
        assert await unwanted_marks(second) == 1
        first.storage.cut = True  # and so is the other one's process
        await asyncio.sleep(LEASE + 5)
        assert not await found(second, "b")
        assert await unwanted_marks(second) == 0
        record = await second.system.store.load(SessionKey("u", "a"))
        assert record is not None, "the session's history has it"


async def test_one_that_was_deleted_while_it_ran_leaves_no_mark_when_its_process_removes_it() -> None:
    async with processes() as (first, second):
        responses = DurableResponses(cast("DurableStore", first.system.store))
        await responses.start()
        log = await first.system.submit(turn("a 5", id="a", stored=True))
        await responses.delete(None, "a")
        assert await unwanted_marks(second) == 1
        await log.ended()
        assert await unwanted_marks(second) == 1
        assert await responses.delete(None, "a")
        assert await unwanted_marks(second) == 0
        assert not await found(second, "a")


async def test_one_that_was_deleted_while_it_ran_leaves_no_mark_when_its_session_is_deleted_too() -> None:
    async with processes() as (first, second):
        responses = DurableResponses(cast("DurableStore", first.system.store))
        await responses.start()
        log = await first.system.submit(turn("a 60", id="a", stored=True))
        await responses.delete(None, "a")
        await second.system.forget(KEY)
        await log.ended()
        assert not await responses.delete(None, "a")
        assert await unwanted_marks(second) == 0


async def found(process: Process, turn_id: str) -> bool:
    return await cast("DurableStore", process.system.store).find(turn_id, None) is not None


class Elsewhere:
    """A service that keeps what it has in another place, which all processes share. `there`: of which sessions.
    `gate`: what forgets waits for it."""

    def __init__(self, there: set[SessionKey]) -> None:
        self.there = there
        self.begun = asyncio.Event()
        self.gate: asyncio.Event | None = None

    async def fork(self, source: SessionKey, turn_id: str, turns: Sequence[str], target: SessionKey) -> bool:
        self.there.add(target)
        return True

    async def forget(self, key: SessionKey) -> None:
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        self.there.discard(key)


@pytest.mark.parametrize("passing", [True, None])
async def test_services_elsewhere_forget_also_when_the_process_dies_between_the_session_and_them(
    passing: bool | None,
) -> None:
    """One that is deleted, and one that is to go as its process is gone."""
    there = {KEY}
    async with processes(3) as (first, second, third):
        services = [Elsewhere(there) for _ in range(3)]
        for process, service in zip((first, second, third), services, strict=True):
            process.system.services.add(service)
        services[1].gate = asyncio.Event()  # the second one stops in the middle of it
        third.storage.cut = True
        await tell(first, "a", passing=passing)
        deleting = None if passing else asyncio.create_task(second.system.forget(KEY))
        first.storage.cut = deleting is None
        async with asyncio.timeout(2 * LEASE):
            await services[1].begun.wait()
        assert await left(second) == (0, 1)
        second.storage.cut = first.storage.cut = True
        third.storage.cut = False
        await asyncio.sleep(LEASE + 5)
        assert there == set()
        assert await left(third) == (0, 0)
        services[1].gate.set()
        if deleting is not None:
            await deleting


async def test_a_session_that_begins_anew_stays_when_services_elsewhere_were_not_done_with_the_old_one() -> (
    None
):
    there = {KEY}
    async with processes() as (first, second):
        services = [Elsewhere(there) for _ in range(2)]
        first.system.services.add(services[0])
        second.system.services.add(services[1])
        services[0].gate = asyncio.Event()
        await tell(first, "a", passing=None)
        deleting = asyncio.create_task(first.system.forget(KEY))
        await services[0].begun.wait()
        await tell(second, "b", passing=None)
        first.storage.cut = True
        await asyncio.sleep(LEASE + 5)
        assert await left(second) == (1, 0)
        assert not services[1].begun.is_set()
        assert words(await second.tell("c")) == "b c"
        services[0].gate.set()
        await deleting


async def test_only_what_services_have_elsewhere_costs_a_write_more() -> None:
    for writes, services in ((1, []), (2, [Elsewhere({KEY})])):
        async with processes(1) as (only,):
            only.system.services.update(services)
            await tell(only, "a", passing=None)
            before = only.storage.writes
            await only.system.forget(KEY)
            assert only.storage.writes - before == writes
            assert await left(only) == (0, 0)


async def test_one_that_takes_its_time_to_go_holds_up_no_turn_that_is_to_be_taken_over() -> None:
    class Slow:
        async def fork(self, *_: object) -> bool:
            return True

        async def forget(self, _: SessionKey) -> None:
            going.set()
            await asyncio.sleep(100)

    going, slow = asyncio.Event(), Slow()
    async with processes(3) as (first, second, third):
        second.system.services.add(slow)
        await tell(first, "a", passing=True)
        await third.system.submit(turn("b 60", id="t", session="other"))
        first.storage.cut = True
        await asyncio.sleep(LEASE / 2)
        third.storage.cut = True
        async with asyncio.timeout(LEASE):
            await going.wait()
        await asyncio.sleep(LEASE / 2 + 2)
        there = await second.system.locate("t")
        assert isinstance(there.terminal, TurnFailed)
