"""The warm pool: boxes made ahead and paused."""

import asyncio

import anyio
import pytest

from greenroom.actors.errors import SandboxUnavailable
from greenroom.sandbox.keeper import KeeperStatistics
from greenroom.sandbox.leases import LeaseKey
from kits.keeping import KEY, OTHER, World, ask
from kits.virtual_time import virtual_time

pytestmark = virtual_time


async def test_warm_boxes_are_made_ahead_paused_and_taken_at_once() -> None:
    world = World(create_seconds=2.0)
    async with world.keeping(warm=2) as keeper:
        await anyio.sleep(5)
        assert keeper.statistics() == KeeperStatistics(0, 0, 2, 0, 0)
        assert all(box.paused for box in world.engine.living())
        assert [lease.key for lease in world.leases.now.values()] == [None, None]
        warm = set(world.engine.boxes)
        with anyio.fail_after(0.01):
            first, second = await asyncio.gather(ask(keeper), ask(keeper, OTHER))
        assert {first, second} == warm
        assert {lease.key for lease in world.leases.now.values() if lease.id in warm} == {KEY, OTHER}
        await anyio.sleep(8)
        assert keeper.statistics() == KeeperStatistics(2, 0, 2, 0, 0)  # filled again
        await keeper.release(KEY)
        assert first not in world.engine.boxes
        assert await ask(keeper, KEY._replace(kind="base")) not in warm
    world.nothing_left()


async def test_warm_boxes_yield_to_sessions() -> None:
    world = World(create_seconds=2.0, remove_seconds=1.0)
    base = [LeaseKey("u", str(number), "base") for number in range(3)]
    async with world.keeping(warm=2, boxes=3) as keeper:
        await anyio.sleep(10)
        for key in base:
            assert await ask(keeper, key)
        assert keeper.statistics() == KeeperStatistics(3, 0, 0, 0, 0)
        assert world.engine.most == 3
        await keeper.release(base[0])
        await anyio.sleep(10)
        assert keeper.statistics() == KeeperStatistics(2, 0, 1, 0, 0)
    world.nothing_left()


async def test_one_that_is_just_being_made_yields_too() -> None:
    world = World(create_seconds=2.0)
    async with world.keeping(warm=1, boxes=1) as keeper:
        await anyio.sleep(1)
        assert await ask(keeper)
        assert keeper.statistics() == KeeperStatistics(1, 0, 0, 0, 0)
    world.nothing_left()


@pytest.mark.parametrize("how", ["deaf", "dead", "unleased"])
async def test_one_that_is_not_well_is_not_given(how: str) -> None:
    world = World()
    async with world.keeping(warm=1) as keeper:
        await anyio.sleep(1)
        bad = world.engine.box()
        if how == "deaf":
            bad.deaf = True
        elif how == "unleased":
            await world.leases.erase(bad.spec.lease)
        else:
            world.engine.listeners.clear()
            await bad.die()
        world.engine.watch = bool  # somebody took the lease away: the check would say so
        assert await ask(keeper) != bad.spec.lease
        assert bad.spec.lease not in world.engine.boxes
        await anyio.sleep(10)
        assert keeper.statistics().warm == 1
    world.nothing_left()


async def test_what_prevents_them_does_not_prevent_sessions(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.engine.refuses = SandboxUnavailable("no")
    async with world.keeping(warm=1) as keeper:
        await anyio.sleep(1)
        world.engine.refuses = None
        assert await ask(keeper)
        await anyio.sleep(10)
        assert keeper.statistics().warm == 1
    world.nothing_left()


async def test_a_key_that_has_a_lease_gets_no_warm_box_either() -> None:
    world = World()
    async with world.keeping(warm=1) as keeper, world.keeping() as other:
        await anyio.sleep(1)
        theirs = await ask(other)
        with pytest.raises(Exception, match="another process"):
            await ask(keeper)
        assert keeper.statistics().warm == 1  # and it is not lost
        assert await ask(other) == theirs
        assert await ask(keeper, OTHER)


async def test_stop_while_they_are_made_leaves_nothing() -> None:
    world = World(create_seconds=2.0)
    async with world.keeping(warm=3):
        await anyio.sleep(3)
    world.nothing_left()
