"""Turns that join the line of another process's session, where something goes wrong at that moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import structs

from greenroom.actors.log import TurnLog
from kits.sharing import LIMITS, Diary, Process, processes, words
from kits.system import turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    Diary.begun.clear()


async def asked(process: Process, text: str, **options: Any) -> TurnLog:
    return await process.system.submit(turn(text, **options))


async def test_what_joined_behind_a_turn_that_had_ended_without_its_owner_knowing_is_run() -> None:
    """The ending was written and nobody told, and then it was too late for it to be that one."""
    limits = structs.replace(LIMITS, store_seconds=0.0)
    async with processes(limits=limits) as (first, second):
        running = await asked(first, "a 2")
        log = await asked(second, "b")
        await asyncio.sleep(1)
        first.storage.lose_answers = 10
        await asyncio.sleep(1.5)
        first.storage.lose_answers = 0
        await running.ended()
        await asyncio.wait_for(log.ended(), 30)
        assert words(log) == "a b"


async def test_a_session_that_cannot_be_worked_on_is_not_let_go_of_any_more_when_it_can_be() -> None:
    """It joined when all sessions were at work that may be, and the store was away when it was to be let go of."""
    limits = structs.replace(LIMITS, active_sessions=1)
    async with processes(limits=limits) as (first, second):
        running = await asked(first, "a 2")
        log = await asked(second, "b 5")
        first.storage.read_seconds = 0.1
        await running.ended()
        other = await asked(first, "x 60", session="x")
        first.storage.cut_after = 0
        await asyncio.sleep(0.205)
        first.storage.cut_after, first.storage.read_seconds = None, 0.0
        await first.system.cancel(other.id)
        await other.ended()
        await asked(first, "c")
        await log.ended()
        assert words(log) == "a b."
        await asyncio.sleep(20)
        assert Diary.begun == ["a 2", "x 60", "b 5", "c"]
