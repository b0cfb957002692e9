"""The keeper: one box for a key, from the first use until it is released, lost, or unused for too long."""

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from greenroom.actors.errors import LeaseOver, SandboxBusy, SandboxLost, SandboxTimeout, SandboxUnavailable
from greenroom.sandbox.backend import BOX_SECONDS
from greenroom.sandbox.keeper import Keeper, KeeperStatistics
from greenroom.sandbox.leases import LeaseKey
from greenroom.sandbox.result import ToolResult
from kits.fake_backend import FakeBox
from kits.keeping import KEY, OTHER, Gate, World, ask, raised
from kits.virtual_time import virtual_time

pytestmark = virtual_time


# ------------------------------------------------------------------------------------------------------------- its box


async def test_nothing_is_made_until_a_tool_is_called_and_then_once() -> None:
    world = World()
    async with world.keeping() as keeper:
        with keeper.hold(KEY):
            await keeper.release(KEY)
        assert keeper.statistics() == KeeperStatistics(0, 0, 0, 0, 0)
        assert keeper.lease_of(KEY) is None
        first = await ask(keeper)
        assert await ask(keeper) == first == world.engine.box().spec.lease
        assert keeper.lease_of(KEY) == world.leases.ever[0]
        assert set(world.way_out.open) == set(world.folders.there) == {first}
        assert (await world.leases.all())[0].state == "ready"
        assert keeper.statistics() == KeeperStatistics(1, 0, 0, 0, 0)
    world.nothing_left()


async def test_calls_that_come_first_together_get_one_box() -> None:
    world = World(create_seconds=2.0)
    async with world.keeping() as keeper:
        got = await asyncio.gather(*(ask(keeper) for _ in range(5)), ask(keeper, OTHER))
        assert len(set(got[:5])) == 1
        assert len(world.engine.ever) == 2


async def test_an_engine_that_hangs_for_one_holds_up_no_other() -> None:
    world = World()
    async with world.keeping() as keeper:
        world.engine.stuck = stuck_for(world, KEY)
        hanging = [asyncio.create_task(ask(keeper)) for _ in range(2)]
        await anyio.sleep(1)
        with anyio.fail_after(0.5):
            assert await ask(keeper, OTHER)
        world.engine.loosen()
        assert len(set(await asyncio.gather(*hanging))) == 1
        assert len(world.engine.ever) == 2


def stuck_for(world: World, key: LeaseKey) -> Callable[[Any], bool]:
    """The engine hangs for the boxes of this key."""

    def stuck(spec: Any) -> bool:
        lease = world.leases.now.get(spec.lease) if spec else None
        return lease is not None and lease.key == key

    return stuck


async def test_who_goes_while_it_is_made_takes_it_from_nobody() -> None:
    world = World(create_seconds=2.0)
    async with world.keeping() as keeper:
        going = asyncio.create_task(ask(keeper))
        staying = asyncio.create_task(ask(keeper))
        await anyio.sleep(1)
        going.cancel()
        assert await staying == await ask(keeper)
        assert len(world.engine.ever) == 1


async def test_what_cannot_be_made_leaves_nothing_and_is_tried_again() -> None:
    world = World()
    async with world.keeping() as keeper:
        world.engine.refuses = SandboxUnavailable("no space left; make some")
        said = await asyncio.gather(*(raised(ask(keeper), SandboxUnavailable) for _ in range(3)))
        assert said == ["no space left; make some"] * 3
        await keeper.release(KEY)
        assert not world.leases.now
        assert not world.folders.there
        world.engine.refuses = None
        assert await ask(keeper)


async def test_a_backend_s_own_mistake_is_told_as_ours(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    async with world.keeping() as keeper:
        world.engine.refuses = ZeroDivisionError("oh")
        assert "ZeroDivisionError: oh" in await raised(ask(keeper), SandboxUnavailable)
    assert "Making or removing" in caplog.text
    world.nothing_left()


async def test_a_box_that_is_never_ready_is_given_up() -> None:
    world = World()
    async with world.keeping() as keeper:
        world.engine.stuck = lambda spec: bool(world.engine.boxes)
        begun = asyncio.get_running_loop().time()
        assert "doctor" in await raised(ask(keeper), SandboxUnavailable)
        assert asyncio.get_running_loop().time() - begun == pytest.approx(BOX_SECONDS)
        world.engine.loosen()
    world.nothing_left()


# ------------------------------------------------------------------------------------------------------------- its end


async def test_it_is_released_when_its_calls_are_done_and_the_next_call_gets_a_new_one() -> None:
    world = World(remove_seconds=1.0)
    gate = world.engine.tools["gate"] = Gate()
    async with world.keeping() as keeper:
        first = await ask(keeper)
        calling = asyncio.create_task(ask(keeper, tool="gate"))
        await gate.begun.wait()
        releasing = asyncio.create_task(keeper.release(KEY))
        await anyio.sleep(5)
        assert world.engine.boxes[first].under_way == ["gate"]
        coming = asyncio.create_task(ask(keeper))
        gate.open.set()
        assert await calling == first
        await releasing
        assert first not in world.engine.boxes
        assert await coming not in {first, ""}


async def test_it_can_be_released_while_it_is_made() -> None:
    world = World(create_seconds=2.0)
    async with world.keeping() as keeper:
        calling = asyncio.create_task(ask(keeper))
        await anyio.sleep(1.5)
        await keeper.release(KEY)
        await raised(calling, LeaseOver)
        assert not world.engine.boxes
        assert not world.leases.now
        assert await ask(keeper)


async def test_a_release_that_is_cancelled_is_carried_out_all_the_same() -> None:
    world = World(remove_seconds=1.0)
    gate = world.engine.tools["gate"] = Gate()
    async with world.keeping() as keeper:
        calling = asyncio.create_task(ask(keeper, tool="gate"))
        await gate.begun.wait()
        with anyio.move_on_after(1):
            await keeper.release(KEY)
        await raised(calling, SandboxLost)
        await anyio.sleep(2)
        assert not world.engine.boxes


async def test_a_box_that_dies_under_a_call_is_told_of_once_and_replaced() -> None:
    world = World()
    gate = world.engine.tools["gate"] = Gate()
    async with world.keeping() as keeper:
        calling = [asyncio.create_task(ask(keeper, tool="gate")) for _ in range(2)]
        await gate.begun.wait()
        await world.engine.box().die()
        for call in calling:
            assert "gone" in await raised(call, SandboxLost)
        assert await ask(keeper) == world.engine.box(1).spec.lease
        assert len(world.engine.boxes) == 1


async def test_one_that_died_between_calls_is_told_of_once() -> None:
    world = World()
    async with world.keeping() as keeper:
        first = await ask(keeper)
        await world.engine.box().die()
        await anyio.sleep(1)
        assert first not in world.engine.boxes  # the backend told of its end
        assert not world.leases.now
        said = await raised(ask(keeper), SandboxLost)
        assert "pages, logins, files" in said
        assert "next call gets a new, empty one" in said
        assert await ask(keeper) != first


async def test_one_that_is_deaf_is_found_when_it_is_used_again() -> None:
    world = World()
    async with world.keeping() as keeper:
        first = await ask(keeper)
        world.engine.box().deaf = True
        assert await ask(keeper) == first  # used a moment ago
        await anyio.sleep(60)
        assert "no longer answered" in await raised(ask(keeper), SandboxLost)
        assert await ask(keeper) != first


async def test_one_that_answers_no_call_is_replaced_however_soon_it_is_tried_again() -> None:
    async def stopped(box: FakeBox, _: dict[str, object]) -> ToolResult:
        box.deaf = True
        raise SandboxTimeout("no answer")

    world = World()
    world.engine.tools["stopped"] = stopped
    async with world.keeping() as keeper:
        first = await ask(keeper)
        await raised(ask(keeper, tool="stopped"), SandboxTimeout)
        assert "no longer answered" in await raised(ask(keeper), SandboxLost)
        assert await ask(keeper) != first
    world.nothing_left()


async def test_one_whose_end_nobody_told_of_is_missed_by_the_comparison() -> None:
    world = World()
    async with world.keeping() as keeper:
        await ask(keeper)
        world.engine.listeners.clear()
        await world.engine.box().die()
        await anyio.sleep(6)
        assert not world.engine.boxes
        await raised(ask(keeper), SandboxLost)


async def test_an_engine_that_is_away_for_a_while_loses_nobody_a_box(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    async with world.keeping() as keeper:
        first = await ask(keeper)
        world.engine.away = True
        await anyio.sleep(20)
        assert await ask(keeper) == first
        world.engine.away = False
        await anyio.sleep(20)
        assert await ask(keeper) == first
    assert "could not be compared" in caplog.text


async def test_what_cannot_be_removed_is_tried_again_and_there_are_never_two(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    async with world.keeping(wait_seconds=10.0) as keeper:
        first = await ask(keeper)
        world.engine.keeps = SandboxUnavailable("device or resource busy")
        with anyio.move_on_after(5):
            await keeper.release(KEY)
        assert "never two" in await raised(ask(keeper), SandboxBusy)
        assert world.leases.now[first].state == "ending"
        assert await ask(keeper, OTHER)
        world.engine.keeps = None
        await anyio.sleep(2)
        assert await ask(keeper) != first
    world.nothing_left()
    assert "device or resource busy" in caplog.text


# ------------------------------------------------------------------------------------------------------- being unused


async def test_one_that_is_unused_is_removed_and_who_comes_back_is_told() -> None:
    world = World()
    async with world.keeping(idle_seconds=100.0) as keeper:
        first = await ask(keeper)
        await anyio.sleep(90)
        assert await ask(keeper) == first
        await anyio.sleep(90)
        assert first in world.engine.boxes
        await anyio.sleep(20)
        assert not world.engine.boxes
        assert not world.leases.now
        assert "not used for 100 s" in await raised(ask(keeper), SandboxLost)
        assert await ask(keeper) != first


async def test_none_is_removed_during_a_turn_a_call_a_look_or_a_person_s_use() -> None:
    world = World()
    gate = world.engine.tools["gate"] = Gate()
    async with world.keeping(idle_seconds=100.0) as keeper:
        first = await ask(keeper)
        with keeper.hold(KEY):
            await anyio.sleep(1000)
        assert await ask(keeper) == first
        with keeper.hold(KEY), keeper.hold(KEY):
            pass
        calling = asyncio.create_task(ask(keeper, tool="gate"))
        await anyio.sleep(1000)
        gate.open.set()
        assert await calling == first
        async with keeper.client(KEY, looking=True):
            await anyio.sleep(1000)
        await keeper.take_over(KEY)
        await anyio.sleep(1000)
        keeper.hand_back(KEY)
        await anyio.sleep(90)
        assert await ask(keeper) == first
        await anyio.sleep(200)
        assert not world.engine.boxes


async def test_a_released_one_is_no_loss_unless_it_is_said_so() -> None:
    world = World()
    async with world.keeping() as keeper:
        await ask(keeper)
        await keeper.release(KEY)
        await ask(keeper)
        await keeper.release(KEY, lost="the session was put away")
        await keeper.release(KEY, lost="nothing was there")
        assert "put away" in await raised(ask(keeper), SandboxLost)
        assert await ask(keeper)
        await keeper.release(KEY, lost="the session was put away")
        await keeper.release(KEY)  # forgotten
        assert await ask(keeper)


# ------------------------------------------------------------------------------------------------------------- a bound


async def test_over_the_bound_first_uses_wait_in_order_and_then_are_refused() -> None:
    world = World()
    keys = [LeaseKey("u", str(number), "browser") for number in range(5)]
    async with world.keeping(boxes=2, wait_seconds=30.0) as keeper:
        for key in keys[:2]:
            await ask(keeper, key)
        waiting = [asyncio.create_task(ask(keeper, key)) for key in keys[2:]]
        await anyio.sleep(10)
        assert keeper.statistics() == KeeperStatistics(2, 0, 0, 0, 3)
        assert not any(call.done() for call in waiting)
        await keeper.release(keys[0])
        assert await waiting[0]
        await keeper.release(keys[1])
        assert await waiting[1]
        said = await raised(waiting[2], SandboxBusy)
        assert "2 sandboxes run" in said
        assert "boxes=" in said
        assert world.engine.most == 2
        await keeper.release(keys[2])
        assert await ask(keeper, keys[4])
    world.nothing_left()


async def test_who_goes_from_the_queue_leaves_the_place_to_the_next() -> None:
    world = World()
    third = LeaseKey("u", "third", "base")
    async with world.keeping(boxes=1) as keeper:
        await ask(keeper)
        released = asyncio.create_task(ask(keeper, OTHER))
        going = asyncio.create_task(ask(keeper, LeaseKey("u", "gone", "base")))
        await anyio.sleep(1)
        next_one = asyncio.create_task(ask(keeper, third))
        await anyio.sleep(1)
        assert keeper.statistics().waiting == 3
        await keeper.release(OTHER)
        await raised(released, LeaseOver)
        going.cancel()
        await asyncio.wait({going})
        await checkpoint()
        await keeper.release(KEY)
        assert await next_one
        assert len(world.engine.ever) == 2


# --------------------------------------------------------------------------------------------------------------- calls


async def test_a_cancelled_call_is_cancelled_in_the_box_which_stays() -> None:
    world = World()
    gate = world.engine.tools["gate"] = Gate()
    async with world.keeping() as keeper:
        calling = asyncio.create_task(ask(keeper, tool="gate"))
        await gate.begun.wait()
        calling.cancel()
        await asyncio.wait({calling})
        assert world.engine.box().cancelled == ["gate"]
        assert await ask(keeper) == world.engine.box(0).spec.lease


async def test_a_call_that_takes_too_long_leaves_the_box_as_it_is() -> None:
    world = World()

    async def slow(box: FakeBox, arguments: dict[str, Any]) -> ToolResult:
        return ToolResult.of_text("stopped after 60 s", is_error=True)

    world.engine.tools["slow"] = slow
    async with world.keeping() as keeper:
        assert (await keeper.call(KEY, "slow", {})).is_error
        assert await ask(keeper) == world.engine.box(0).spec.lease


async def looking(keeper: Keeper) -> None:
    async with keeper.client(KEY, looking=True):
        await keeper.release(KEY)  # waits for nobody who only looks
        await checkpoint()


async def test_files_and_looking() -> None:
    world = World()
    async with world.keeping() as keeper:
        async with keeper.client(KEY) as client:
            first = client
        await world.engine.box().die()
        await anyio.sleep(1)
        async with keeper.client(KEY, looking=True) as client:  # leaves the news for the agent
            assert client is not first
        await raised(ask(keeper), SandboxLost)
        await raised(looking(keeper), SandboxLost)


# ------------------------------------------------------------------------------------------------------------ stopping


async def test_stop_waits_for_calls_and_refuses_new_ones() -> None:
    world = World()
    gate = world.engine.tools["gate"] = Gate()
    keeper = world.keeper()
    await raised(ask(keeper), LeaseOver)
    await keeper.start()
    await keeper.start()
    calling = asyncio.create_task(ask(keeper, tool="gate"))
    await gate.begun.wait()
    stopping = asyncio.create_task(keeper.stop())
    await anyio.sleep(10)
    assert world.engine.living()
    await raised(ask(keeper), LeaseOver)
    gate.open.set()
    assert await calling
    await stopping
    await keeper.stop()
    await raised(ask(keeper), LeaseOver)
    world.nothing_left()


async def test_stop_ends_the_wait_for_a_person() -> None:
    world = World()
    keeper = world.keeper()
    await keeper.start()
    await keeper.take_over(KEY)
    calling = asyncio.create_task(ask(keeper, tool="browser_snapshot"))
    await anyio.sleep(10)
    await keeper.stop()
    await raised(calling, LeaseOver)
    world.nothing_left()


async def test_what_stop_cannot_remove_the_next_process_does(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    keeper = world.keeper()
    await keeper.start()
    first = await ask(keeper)
    world.engine.stuck = lambda spec: True
    await keeper.stop()
    assert first in world.engine.boxes
    assert world.leases.now[first].state == "ending"
    assert list(world.owners.values()) == ["dead"]
    world.engine.loosen()
    async with world.keeping():
        await anyio.sleep(6)
        assert not world.engine.boxes
        assert list(world.owners.values()) == ["alive"]
    world.nothing_left()


async def test_a_start_that_fails_can_be_tried_again() -> None:
    world = World()
    keeper = world.keeper()
    world.engine.away = True
    await raised(keeper.start(), SandboxUnavailable)
    world.engine.away = False
    await keeper.start()
    assert await ask(keeper)
    await keeper.stop()
    world.nothing_left()


async def test_a_tool_s_timeout_is_passed_on() -> None:
    world = World()

    async def silent(box: FakeBox, arguments: dict[str, Any]) -> ToolResult:
        raise SandboxTimeout("no answer")

    world.engine.tools["silent"] = silent
    async with world.keeping() as keeper:
        await raised(ask(keeper, tool="silent"), SandboxTimeout)
        assert await ask(keeper) == world.engine.box(0).spec.lease
