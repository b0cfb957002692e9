"""A person takes the browser over, and hands it back."""

import asyncio
from typing import Any

import anyio
import pytest

from greenroom.actors.errors import LeaseOver, SandboxLost
from greenroom.sandbox.image.tool_schemas import BROWSER_TOOLS
from greenroom.sandbox.result import ToolResult
from greenroom.sandbox.tenancy import ACTS, BLIND
from kits.fake_backend import FakeBox
from kits.keeping import KEY, Gate, World, ask, raised
from kits.virtual_time import virtual_time

pytestmark = virtual_time


def asked(world: World) -> list[str]:
    return [tool for tool, _ in world.engine.box().asked]


async def test_every_tool_of_the_browser_waits_and_no_other() -> None:
    world = World()
    async with world.keeping(call_seconds=10.0) as keeper:
        await ask(keeper, tool="browser_snapshot")
        await keeper.take_over(KEY)
        waiting = [
            asyncio.create_task(ask(keeper, tool=tool))
            for tool in ("browser_snapshot", "browser_take_screenshot", "browser_click", "browser_anything")
        ]
        await ask(keeper, tool="run_ipython_cell")
        await anyio.sleep(3600)  # their time does not run
        assert asked(world) == ["browser_snapshot", "run_ipython_cell"]
        keeper.hand_back(KEY)
        await asyncio.gather(*waiting)
        assert len(world.engine.ever) == 1


async def test_taking_over_waits_for_what_is_under_way() -> None:
    world = World()
    gate = world.engine.tools["browser_click"] = Gate()
    async with world.keeping() as keeper:
        clicking = asyncio.create_task(ask(keeper, tool="browser_click"))
        await gate.begun.wait()
        taking = asyncio.create_task(keeper.take_over(KEY))
        waiting = asyncio.create_task(ask(keeper, tool="browser_snapshot"))
        await anyio.sleep(10)
        assert not taking.done()
        gate.open.set()
        await taking
        await clicking
        assert asked(world) == ["browser_click"]
        keeper.hand_back(KEY)
        await waiting


async def test_who_stops_waiting_to_take_over_has_not_taken_over() -> None:
    world = World()
    gate = world.engine.tools["browser_tab_list"] = Gate()
    async with world.keeping() as keeper:
        listing = asyncio.create_task(ask(keeper, tool="browser_tab_list"))
        await gate.begun.wait()
        with anyio.move_on_after(1):
            await keeper.take_over(KEY)
        gate.open.set()
        await listing
        assert not (await keeper.call(KEY, "browser_click", {})).is_error  # no need to look first


@pytest.mark.parametrize("tool", sorted(ACTS))
async def test_after_it_is_handed_back_the_agent_looks_before_it_acts(tool: str) -> None:
    world = World()

    async def snapshot(box: FakeBox, arguments: dict[str, Any]) -> ToolResult:
        return ToolResult.of_text("- Page URL: http://elsewhere.test/")

    world.engine.tools["browser_snapshot"] = snapshot
    async with world.keeping() as keeper:
        await ask(keeper, tool="browser_navigate")
        await keeper.take_over(KEY)
        acting = asyncio.create_task(keeper.call(KEY, tool, {"ref": "e1"}))
        await anyio.sleep(10)
        keeper.hand_back(KEY)
        answer = await acting
        assert answer.is_error
        assert f"{tool} was not carried out" in answer.text
        assert "elsewhere.test" in answer.text  # so it has looked
        assert not (await keeper.call(KEY, tool, {"ref": "e2"})).is_error
        assert asked(world) == ["browser_navigate", "browser_snapshot", tool]


async def test_looking_is_enough_and_a_browser_that_nobody_had_needs_no_look() -> None:
    world = World()
    async with world.keeping() as keeper:
        await keeper.take_over(KEY)
        keeper.hand_back(KEY)
        assert not (await keeper.call(KEY, "browser_click", {})).is_error
        await keeper.take_over(KEY)
        keeper.hand_back(KEY)
        await keeper.call(KEY, "browser_take_screenshot", {})
        assert not (await keeper.call(KEY, "browser_click", {})).is_error


@pytest.mark.parametrize("tool", sorted(BLIND))
async def test_an_answer_that_does_not_show_the_page_is_no_look(tool: str) -> None:
    world = World()
    async with world.keeping() as keeper:
        await ask(keeper, tool="browser_navigate")
        await keeper.take_over(KEY)
        keeper.hand_back(KEY)
        assert not (await keeper.call(KEY, tool, {})).is_error
        assert "was not carried out" in (await keeper.call(KEY, "browser_click", {})).text
        assert not (await keeper.call(KEY, "browser_click", {})).is_error


def test_what_acts_and_what_is_blind_are_tools() -> None:
    assert BROWSER_TOOLS.keys() > ACTS | BLIND
    assert not ACTS & BLIND


async def test_a_box_that_dies_in_a_person_s_hands_is_told_of_after_it_is_handed_back() -> None:
    world = World()
    async with world.keeping() as keeper:
        await ask(keeper)
        await keeper.take_over(KEY)
        waiting = asyncio.create_task(ask(keeper, tool="browser_click"))
        await anyio.sleep(1)
        await world.engine.box().die()
        await anyio.sleep(60)
        assert not waiting.done()
        keeper.hand_back(KEY)
        assert "gone" in await raised(waiting, SandboxLost)
        assert not (await keeper.call(KEY, "browser_click", {})).is_error


async def test_after_a_restart_the_agent_does_not_act_in_the_person_s_place() -> None:
    """The browser that a person held is gone with the process: nobody has it, and the agent learns that first."""
    world = World()
    await world.orphan("dead", "dead", KEY)  # a person had it when its process died
    async with world.keeping() as keeper:
        await raised(ask(keeper, tool="browser_click"), SandboxLost)
        assert not world.engine.boxes
        assert not world.engine.box().asked


async def test_it_can_be_taken_over_only_while_it_is_kept() -> None:
    world = World()
    keeper = world.keeper()
    await raised(keeper.take_over(KEY), LeaseOver)
    keeper.hand_back(KEY)
