"""The actor system: finding turns, bounds, passivation, disconnects, draining (laws 4, 6 and 7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import kits.system
from greenroom.actors.errors import NotServing, Overloaded, TurnExists, TurnNotFound
from greenroom.actors.events import TurnCancelled, TurnCompleted, TurnFailed
from greenroom.actors.limits import Limits
from greenroom.actors.messages import Disconnect
from kits.system import asked, running_system, said, turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time


async def slow(msgs: Any) -> AsyncIterator[str]:
    """Says a letter a second."""
    for letter in asked(msgs[-1]):
        yield letter
        await asyncio.sleep(1)


async def warm() -> Any:
    """Makes an agent that is kept between turns."""
    return slow


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_an_ended_turn_can_be_read_for_a_while_and_then_no_more() -> None:
    async with running_system(slow, limits=Limits(kept_seconds=60)) as system:
        log = await system.submit(turn("ab", id="t"))
        await log.ended()
        assert system.find("t") is log
        assert [type(event).__name__ async for event in log.read()][-1] == "TurnCompleted"
        await asyncio.sleep(120)
        with pytest.raises(TurnNotFound):
            system.find("t")
        with pytest.raises(TurnNotFound):
            log.events()
        assert await log.ended() == log.terminal


async def test_kept_turns_are_bounded_in_number_and_size() -> None:
    async with running_system(slow, limits=Limits(kept_turns=3, kept_bytes=310)) as system:
        for number in range(5):
            await (await system.submit(turn("x", id=f"t{number}"))).ended()
        assert system.statistics().kept_turns == 3
        await (await system.submit(turn("y" * 99, id="large"))).ended()
        assert system.statistics().kept_turns == 2
        assert said(await system.find("large").ended()) == "y" * 99


async def test_a_log_that_is_being_read_is_not_taken_from_its_reader() -> None:
    async with running_system(slow, limits=Limits(kept_turns=1)) as system:
        log = await system.submit(turn("abc", id="first"))
        reader = log.read()
        seen = [await anext(reader)]
        await log.ended()
        await (await system.submit(turn("x"))).ended()
        await (await system.submit(turn("x"))).ended()
        seen += [event async for event in reader]
        assert isinstance(seen[-1], TurnCompleted)


async def test_turns_are_found_by_their_own_principal_only() -> None:
    async with running_system(slow) as system:
        log = await system.submit(turn("a", id="t", principal="alice"))
        for stranger in (None, "bob", ""):
            with pytest.raises(TurnNotFound):
                system.find("t", stranger)
            with pytest.raises(TurnNotFound):
                await system.cancel("t", stranger)
        assert system.find("t", "alice") is log
        own = await system.submit(turn("b", id="t", principal="bob", session="other"))
        assert own is not log


async def test_an_id_names_one_turn() -> None:
    async with running_system(slow) as system:
        await system.submit(turn("a", id="t"))
        with pytest.raises(TurnExists):
            await system.submit(turn("a", id="t", session="another"))


async def test_active_sessions_are_bounded_by_letting_the_oldest_idle_one_go() -> None:
    async with running_system(warm, agent=True, limits=Limits(active_sessions=2)) as system:
        for number in range(4):
            await (await system.submit(turn("a", session=f"s{number}"))).ended()
        stats = system.statistics()
        assert (stats.active_sessions, stats.passivated_sessions) == (2, 2)
        await system.submit(turn("abc", session="s2"))
        await system.submit(turn("abc", session="s9"))
        with pytest.raises(Overloaded) as refused:
            await system.submit(turn("a", session="s10"))
        assert refused.value.status == 503
        assert refused.value.retry_after
        with pytest.raises(TurnNotFound):
            system.find("s10")


async def test_open_turns_are_bounded() -> None:
    async with running_system(slow, limits=Limits(turns=3)) as system:
        logs = [await system.submit(turn("a", session=f"s{number}")) for number in range(3)]
        with pytest.raises(Overloaded):
            await system.submit(turn("a", session="s3"))
        await logs[0].ended()
        await system.submit(turn("a", session="s3"))


async def test_a_session_that_keeps_no_agent_warm_leaves_memory_with_its_turn() -> None:
    async with running_system(slow) as system:
        for number in range(3):
            await (await system.submit(turn("a", session=f"s{number}"))).ended()
        stats = system.statistics()
        assert (stats.active_sessions, stats.passivated_sessions) == (0, 3)


async def test_idle_sessions_leave_memory() -> None:
    async with running_system(warm, agent=True, limits=Limits(idle_seconds=30)) as system:
        for number in range(20):
            await (await system.submit(turn("a", session=f"s{number}"))).ended()
        assert system.statistics().active_sessions == 20
        await asyncio.sleep(45)
        assert system.statistics().active_sessions == 0


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Disconnect("continue"), TurnCompleted),
        (Disconnect("cancel"), TurnCancelled),
        (Disconnect("grace", 3.0), TurnCancelled),
        (Disconnect("grace", 30.0), TurnCompleted),
    ],
)
async def test_what_a_disconnect_does_is_the_turns_policy(policy: Disconnect, expected: type) -> None:
    async with running_system(slow) as system:
        log = await system.submit(turn("abcdefgh", disconnect=policy))
        await asyncio.sleep(2.5)
        system.client_left(log)
        await asyncio.sleep(60)  # nobody follows it meanwhile
        ending = log.terminal
        assert ending is not None
        assert isinstance(ending, expected)
        assert said(ending).startswith("abc")


async def test_a_client_that_comes_back_within_the_grace_keeps_its_turn() -> None:
    async with running_system(slow) as system:
        log = await system.submit(turn("abcdefgh", disconnect=Disconnect("grace", 3.0)))
        await asyncio.sleep(1)
        system.client_left(log)
        await asyncio.sleep(2)
        assert said(await log.ended()) == "abcdefgh"


async def test_the_grace_runs_from_the_last_leave() -> None:
    async with running_system(slow) as system:
        log = await system.submit(turn("abcdefghij", disconnect=Disconnect("grace", 4.0)))
        await asyncio.sleep(1)
        system.client_left(log)
        await asyncio.sleep(3)  # meanwhile it was back, and now it goes again
        system.client_left(log)
        await asyncio.sleep(3)
        assert log.terminal is None
        await asyncio.sleep(2)
        assert isinstance(log.terminal, TurnCancelled)
    assert not system._disconnects._absences


async def test_a_turn_that_somebody_else_still_follows_is_not_deserted() -> None:
    async with running_system(slow) as system:
        log = await system.submit(turn("abcd", disconnect=Disconnect("cancel")))
        follower = asyncio.create_task(log.ended())
        await asyncio.sleep(1)
        system.client_left(log)
        assert isinstance(await follower, TurnCompleted)


async def test_draining_refuses_first_lets_turns_end_and_cancels_what_is_late() -> None:
    async with running_system(slow) as system:
        short = await system.submit(turn("abc", session="short"))
        long = await system.submit(turn("a" * 600, session="long"))
        queued = await system.submit(turn("b", session="long"))
        drain = asyncio.create_task(system.drain(30))
        await asyncio.sleep(0)
        with pytest.raises(NotServing):
            await system.submit(turn("a"))
        await drain
        assert now() == 30.0
        assert isinstance(short.terminal, TurnCompleted)
        if kits.system.kind == "memory":
            assert isinstance(long.terminal, TurnCancelled)
            assert isinstance(queued.terminal, TurnCancelled)
            assert "stopping" in long.terminal.reason
        else:  # another process has the session now
            assert isinstance(long.terminal, TurnFailed)
            assert long.terminal.error.code == "turn_interrupted"
            assert queued.terminal is None
            assert queued.lost is not None
        assert len(said(long.terminal)) in (30, 31)


async def test_a_drain_with_nothing_to_wait_for_does_not_wait() -> None:
    async with running_system(slow) as system:
        await (await system.submit(turn("a"))).ended()
        before = now()
        await system.drain(30)
        assert now() == before


async def test_stopping_leaves_no_task_behind() -> None:
    async with running_system(slow) as system:
        for number in range(5):
            await system.submit(turn("abc", session=f"s{number}"))
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert system.statistics().state == "stopped"
    with pytest.raises(NotServing):
        await system.submit(turn("a"))
