"""Boxes that go from process to process with their sessions: the same box, one owner at a time, and none left over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from greenroom.actors.errors import LeaseHeld, SandboxLost, SandboxUnavailable
from greenroom.sandbox.inventory import Inventory
from greenroom.sandbox.keeper import Keeper
from greenroom.sandbox.leases import LeaseChange, LeaseState
from kits.fake_backend import FakeBackend
from kits.keeping import KEY, OTHER, Gate, MemoryOwners, World, ask, raised
from kits.memory_leases import MemoryLeases
from kits.virtual_time import virtual_time

pytestmark = virtual_time

GRACE = 20.0


@asynccontextmanager
async def two(world: World, **settings: object) -> AsyncIterator[tuple[Keeper, Keeper]]:
    """Two processes that share leases."""
    async with (
        world.keeping(shared=True, **settings) as first,
        world.keeping(shared=True, **settings) as second,
    ):
        yield first, second
    world.nothing_left()


async def test_a_session_goes_on_with_the_box_of_a_process_that_died() -> None:
    world = World()
    async with two(world) as (first, second):
        box = await ask(first)
        world.die(first)
        assert await ask(second) == box
        assert len(world.engine.ever) == 1
        [lease] = world.leases.now.values()
        assert (lease.state, lease.owner, lease.epoch) == ("ready", "owner-1", 1)
        assert world.folders.there[box] == "owner-1"  # and so is its directory
        assert box in world.way_out.open


async def test_an_end_that_cannot_be_written_down_as_its_store_is_away_is_said_in_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(*what: object, **how: object) -> bool:
        raise SandboxUnavailable("where leases are kept is away")

    world = World()
    async with two(world) as (first, _):
        box = await ask(first)
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(first._parts.leases, "change", away)
            await first.release(KEY)
            await anyio.sleep(1)
        assert not world.engine.boxes  # it ended all the same
    said = [
        record for record in caplog.records if box in record.getMessage() and "ends" in record.getMessage()
    ]
    assert [(record.levelname, record.exc_info) for record in said] == [("WARNING", None)]
    assert "where leases are kept is away" in said[0].getMessage()


async def test_what_was_taken_for_dead_neither_removes_the_box_nor_closes_its_way_out() -> None:
    world = World()
    async with two(world, idle_seconds=30.0) as (first, second):
        box = await ask(first)
        world.die(first)
        with second.hold(KEY):
            assert await ask(second) == box
            await anyio.sleep(120)  # the first reaps what was idle there
            assert first.lease_of(KEY) is None
            assert await ask(second) == box
            assert box in world.way_out.open


async def test_a_session_that_does_not_come_back_has_its_box_removed_within_the_grace() -> None:
    world = World()
    async with two(world) as (first, second):
        await ask(first)
        world.die(first)
        await anyio.sleep(GRACE - 5)
        assert world.engine.living()
        await anyio.sleep(11)
        assert not world.engine.boxes
        assert not world.leases.now
        assert "gone" in await raised(ask(second), SandboxLost)


async def test_warm_boxes_and_those_being_made_or_ended_wait_for_nobody() -> None:
    world = World()
    kept = await world.orphan("dead", "dead", KEY)
    await world.orphan("dead", "dead", None)
    others: tuple[LeaseState, ...] = ("making", "ending")
    for number, state in enumerate(others):
        lease = await world.orphan("dead", "dead", KEY._replace(session_id=str(number)))
        await world.leases.change(lease, LeaseChange(state=state))
    async with world.keeping(shared=True) as keeper:
        assert list(world.engine.boxes) == list(world.leases.now) == [kept]
        assert await ask(keeper) == kept
    world.nothing_left()


async def test_without_shared_leases_nothing_waits_and_nothing_is_handed_over() -> None:
    world = World()
    async with world.keeping() as first, world.keeping() as second:
        box = await ask(first)
        await first.hand_over(KEY)
        assert await ask(first) == box
        world.die(first)
        await anyio.sleep(6)
        assert not world.engine.boxes
        await raised(ask(second), SandboxLost)
    world.nothing_left()


async def test_a_box_that_was_let_go_is_gone_on_with() -> None:
    world = World()
    async with two(world) as (first, second):
        box = await ask(first)
        await first.hand_over(KEY)
        assert world.leases.now[box].state == "free"
        assert box not in world.way_out.open
        assert first.lease_of(KEY) is None
        assert await ask(second) == box
        await second.hand_over(KEY)
        assert await ask(first) == box  # and back again, without a word of a loss
        assert len(world.engine.ever) == 1


async def test_calls_under_way_are_done_before_a_box_is_let_go() -> None:
    world = World()
    gate = world.engine.tools["work"] = Gate()
    async with two(world) as (first, second):
        working = asyncio.create_task(ask(first, tool="work"))
        await gate.begun.wait()
        handing = asyncio.create_task(first.hand_over(KEY))
        await anyio.sleep(10)
        assert not handing.done()
        gate.open.set()
        box = await working
        await handing
        assert await ask(second) == box


async def test_a_box_that_nobody_fetches_is_removed_though_who_let_it_go_lives() -> None:
    world = World()
    async with two(world) as (first, _):
        await ask(first)
        await first.hand_over(KEY)
        await anyio.sleep(GRACE + 6)
        assert not world.engine.boxes


async def test_a_living_process_lets_its_box_go_when_it_is_asked_and_no_turn_has_it() -> None:
    world = World()
    async with two(world) as (first, second):
        with first.hold(KEY):
            box = await ask(first)
            wanting = asyncio.create_task(ask(second))
            await anyio.sleep(10)
            assert not wanting.done()
        assert await wanting == box
        assert len(world.engine.ever) == 1


async def test_one_that_never_lets_go_is_waited_for_within_a_bound() -> None:
    world = World()
    async with two(world, wait_seconds=5.0) as (first, second):
        with first.hold(KEY):
            await ask(first)
            began = asyncio.get_running_loop().time()
            await raised(ask(second), LeaseHeld)
            assert asyncio.get_running_loop().time() - began < 30


async def test_of_two_that_want_it_at_once_exactly_one_gets_it() -> None:
    world = World()
    world.engine.adopt_seconds = 0.5
    async with two(world, wait_seconds=2.0) as (second, third), world.keeping(shared=True) as first:
        box = await ask(first)
        world.die(first)
        with second.hold(KEY), third.hold(KEY):
            got = await asyncio.gather(ask(second), ask(third), return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in got) == ["LeaseHeld", "str"]
        assert box in got
        assert len(world.engine.ever) == 1
        owner = world.leases.now[box].owner
        assert owner == ("owner-0" if got[0] == box else "owner-1")


async def test_an_owner_that_the_place_of_leases_knows_to_be_gone_loses_his_box_though_his_process_is_there() -> (
    None
):
    world = World()
    async with two(world) as (first, second):
        box = await ask(first)
        world.gone.add("owner-0")  # it was stopped, say, for longer than it may be
        with first.hold(KEY):
            assert await ask(second) == box
        first._parts.leases.taken(box)  # type: ignore[attr-defined]
        await anyio.sleep(1)
        assert first.lease_of(KEY) is None
        assert await ask(second) == box


async def test_a_box_that_died_meanwhile_is_told_of_plainly_and_once() -> None:
    world = World()
    async with two(world) as (first, second):
        await ask(first)
        await first.hand_over(KEY)
        await world.engine.box().die()
        assert "is gone" in await raised(ask(second), SandboxLost)
        assert await ask(second) == world.engine.box().spec.lease
        assert len(world.engine.boxes) == 1


@pytest.mark.parametrize("dies", [True, False])
async def test_a_box_that_ends_with_its_process_is_told_of_plainly_and_once(dies: bool) -> None:
    world = World()
    async with world.keeping(shared=True, mortal=True) as second:
        if dies:
            await world.orphan("dead", "dead", KEY)
            await world.engine.box().die()
        else:
            async with world.keeping(shared=True, mortal=True) as first:
                await ask(first)
            assert not world.engine.boxes
        assert "is gone" in await raised(ask(second), SandboxLost)
        assert await ask(second)
    world.nothing_left()


async def test_who_is_at_work_on_a_session_goes_on_with_its_box_before_he_needs_it() -> None:
    world = World()
    async with two(world) as (first, second):
        box = await ask(first)
        world.die(first)
        with second.hold(KEY):
            second.expect(KEY)
            await anyio.sleep(3 * GRACE)  # a model that thinks for long
            assert await ask(second) == box


async def test_expecting_a_box_makes_none() -> None:
    world = World()
    async with two(world) as (first, _):
        first.expect(KEY)
        await anyio.sleep(60)
        assert not world.engine.ever
        assert not first._tenants.all()


async def test_a_person_keeps_the_browser_through_a_hand_over_and_a_death() -> None:
    for dies in (True, False):
        world = World()
        async with two(world) as (first, second):
            box = await ask(first, tool="browser_snapshot")
            await first.take_over(KEY)
            if dies:
                world.die(first)
            else:
                await first.hand_over(KEY)
            clicking = asyncio.create_task(second.call(KEY, "browser_click", {}))
            await anyio.sleep(30)
            assert not clicking.done()
            await second.take_over(KEY)  # he has found the other process
            await anyio.sleep(3600)  # and takes his time
            assert not clicking.done()
            second.hand_back(KEY)
            assert "was not carried out" in (await clicking).text
            assert world.engine.box().spec.lease == box
            assert len(world.engine.ever) == 1
            await second.hand_over(KEY)
            assert world.leases.now[box].person == "no"  # the agent has looked


async def test_a_person_who_does_not_come_back_is_not_waited_for_without_end() -> None:
    world = World()
    async with two(world) as (first, second):
        await ask(first)
        await first.take_over(KEY)
        await first.hand_over(KEY)
        assert "was not carried out" in (await second.call(KEY, "browser_click", {})).text
        assert asyncio.get_running_loop().time() > 50
        assert not second._tenants.of(KEY).person


async def test_an_agent_that_has_not_looked_since_looks_in_the_next_process_too() -> None:
    world = World()
    async with two(world) as (first, second):
        await ask(first)
        await first.take_over(KEY)
        first.hand_back(KEY)
        await anyio.sleep(1)
        world.die(first)
        assert "was not carried out" in (await second.call(KEY, "browser_click", {})).text
        assert not (await second.call(KEY, "browser_click", {})).is_error


async def test_releasing_a_session_ends_its_box_in_whatever_process_it_is() -> None:
    world = World()
    async with two(world) as (first, second):
        await ask(first)
        await second.release(KEY)
        await anyio.sleep(GRACE + 6)
        assert not world.engine.boxes  # it lived, and had no turn
        await raised(ask(first), SandboxLost)
        await ask(first)
        await first.hand_over(KEY)
        await second.release(KEY)
        assert not world.engine.boxes  # it had let go of it: at once
        await ask(second)
        world.die(second)
        await first.release(KEY)
        assert not world.engine.boxes


async def test_who_stops_leaves_boxes_to_another_and_the_last_one_removes_all() -> None:
    world = World()
    async with world.keeping(shared=True) as second:
        async with world.keeping(shared=True) as first:
            box = await ask(first)
            await ask(first, OTHER)
        assert len(world.engine.living()) == 2
        assert await ask(second) == box
    world.nothing_left()


async def test_those_who_stop_at_the_same_time_leave_nothing() -> None:
    for seconds in (0.0, 0.1, 0.4):
        world = World(remove_seconds=0.3)
        keepers = [world.keeper(shared=True) for _ in range(3)]
        for number, keeper in enumerate(keepers):
            await keeper.start()
            await ask(keeper, KEY._replace(session_id=str(number)))
        async with anyio.create_task_group() as group:
            for keeper in keepers:
                group.start_soon(keeper.stop)
                await anyio.sleep(seconds)
        world.nothing_left()


async def test_who_lists_boxes_without_their_leases_sees_whose_each_is_now() -> None:
    world = World()
    async with two(world) as (first, second):
        box = await ask(first)
        world.die(first)
        assert await ask(second) == box
        looking = Inventory(
            {"fake": FakeBackend(world.engine)}, MemoryLeases(), second._parts.owners, world.folders
        )
        [item] = await looking.items()
        assert (item.lease, item.owner, item.hold) == (box, "owner-1", "alive")


async def test_who_would_stop_a_box_that_another_process_went_on_with_meanwhile_is_refused() -> None:
    world = World()
    async with two(world) as (first, second):
        box = await ask(first)
        world.die(first)
        looking = Inventory(
            {"fake": FakeBackend(world.engine)},
            MemoryLeases(),
            MemoryOwners(world.owners, "looking"),
            world.folders,
            second._parts.shared,
        )
        [item] = await looking.items()
        assert item.hold == "dead"
        assert await ask(second) == box
        await raised(looking.remove(item), SandboxUnavailable)
        assert await ask(second) == box
