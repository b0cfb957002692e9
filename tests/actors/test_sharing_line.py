"""Turns that wait for a session that is at work: those behind the first one are not kept waiting for nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import structs

from greenroom.actors.errors import KeyReused, MailboxFull, SessionBusy, TurnExists
from greenroom.actors.events import TurnCancelled
from kits.sharing import LIMITS, Diary, Process, processes, repeatable, words
from kits.system import turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    Diary.begun.clear()


async def in_line(process: Process, text: str, **options: Any) -> asyncio.Task[Any]:
    """A turn that is asked for and waits."""
    task = asyncio.create_task(process.tell(text, **options))
    await asyncio.sleep(0.5)
    assert not task.done()
    return task


async def at_once(asking: Any) -> Any:
    """What is answered while the one before waits."""
    async with asyncio.timeout(1.0):
        return await asking


async def test_behind_one_that_waits_for_another_process() -> None:
    async with processes() as (first, second):
        running = await first.system.submit(repeatable("a 4", id="a"))
        waiting = await in_line(second, "b", after="a")
        with pytest.raises(SessionBusy, match="reject"):
            await at_once(second.tell("c", overlap="reject"))
        for repeat in (repeatable("a 4", id="a"), repeatable("a 4", id="other")):
            log = await at_once(second.system.submit(repeat))
            assert log.id == "a"
        with pytest.raises(TurnExists):
            await at_once(second.system.submit(turn("d", id="a")))
        with pytest.raises(KeyReused):
            await at_once(second.system.submit(repeatable("d", id="d")))
        assert running.terminal is None
        assert words(await waiting) == "a b"
    assert Diary.begun == ["a 4", "b"]


async def test_behind_one_that_continues_from_a_turn_that_runs() -> None:
    async with processes(1) as (only,):
        running = await only.system.submit(turn("a 60", id="a"))
        first = await in_line(only, "b", after="a", kept=True)
        with pytest.raises(SessionBusy, match="reject"):
            await at_once(only.tell("c", overlap="reject"))
        interrupting = asyncio.create_task(only.tell("d", overlap="interrupt"))
        assert isinstance(await asyncio.wait_for(running.ended(), 3.0), TurnCancelled)
        await asyncio.gather(first, interrupting)
    assert Diary.begun[0] == "a 60"


async def test_who_was_answered_leaves_its_place() -> None:
    limits = structs.replace(LIMITS, waiting_turns=2)
    async with processes(limits=limits) as (first, second):
        await first.system.submit(turn("a 4", id="a"))
        waiting = [await in_line(second, "b", after="a")]
        for _ in range(5):
            with pytest.raises(SessionBusy, match="reject"):
                await at_once(second.tell("c", overlap="reject"))
        waiting.append(await in_line(second, "d"))
        waiting.append(await in_line(second, "e"))
        with pytest.raises(MailboxFull):
            await second.tell("f")
        waiting[1].cancel()
        await asyncio.wait(waiting)
        await second.system.drain(5)
    assert Diary.begun == ["a 4", "b", "d", "e"], "who gives up waiting changes nothing"
