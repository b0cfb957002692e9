"""Turns that are being closed without their handler while their store is away: each is cancelled all the same, none is
begun after that, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import copy_context
from typing import Any

import pytest
from msgspec import structs

from greenroom.actors.actor import SessionActor
from greenroom.actors.archive import Archive
from greenroom.actors.errors import SessionLost, StoreUnavailable
from greenroom.actors.events import Terminal, TurnCancelled, TurnCompleted, TurnFailed
from greenroom.actors.limits import Limits
from greenroom.actors.log import TurnLog
from greenroom.actors.scope import TurnScope
from greenroom.actors.system import ActorSystem
from greenroom.actors.turn import TurnRun
from kits.sharing import LIMITS, Diary, Process, processes
from kits.system import asked, running_system, turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    Diary.begun.clear()


async def lost(log: TurnLog) -> None:
    async with asyncio.timeout(60):
        with pytest.raises(SessionLost):
            await log.ended()


async def ending(process: Process, turn_id: str) -> Terminal:
    """How a turn ends, asked for again whenever it is not here any more."""
    async with asyncio.timeout(300):
        while True:
            try:
                return await (await process.system.locate(turn_id)).ended()
            except (SessionLost, StoreUnavailable):
                await asyncio.sleep(1)


# -- sessions that are lost meanwhile ----------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [0.0, 0.1, 0.2, 0.5, 1.0])
async def test_one_that_waited_is_cancelled_though_its_session_is_lost_before_its_ending_is_written(
    late: float,
) -> None:
    limits = structs.replace(LIMITS, recovery_seconds=0.3)
    async with processes(1, limits=limits) as (process,):
        running = await process.system.submit(turn("a 1000", id="a"))
        waiting = await process.system.submit(turn("b 20", id="b"))
        process.storage.cut = True
        await process.system.cancel("b", reason="enough")
        await lost(running)
        await lost(waiting)
        await asyncio.sleep(late)
        process.storage.cut = False
        there = await ending(process, "b")
        assert isinstance(there, TurnCancelled)
        assert there.reason == "enough"
        await asyncio.sleep(60)
        assert process.system.statistics().open_turns == 0
    assert Diary.begun == ["a 1000"]


@pytest.mark.parametrize("count", [1, 2])
async def test_one_that_ran_is_not_begun_again_though_its_session_is_lost(count: int) -> None:
    async with processes(count, idempotent=True) as (process, *_):
        log = await process.system.submit(turn("a 5 5", id="a"))
        await asyncio.sleep(1)
        process.storage.cut = True
        await process.system.cancel("a", reason="enough")
        await lost(log)
        process.storage.cut = False
        there = await ending(process, "a")
        assert isinstance(there, TurnCancelled)
        assert there.reason == "enough"


async def test_one_that_is_lost_as_it_is_committed_was_cancelled_by_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with processes(1, limits=structs.replace(LIMITS, store_seconds=60.0)) as (process,):
        log = await process.system.submit(turn("a 1", id="a"))
        process.storage.cut = True
        await lost(log)
        await asyncio.sleep(1)
        process.storage.cut = False
    assert "outside of Greenroom" not in caplog.text


async def test_a_run_of_a_turn_that_came_back_is_not_taken_for_the_new_one() -> None:
    archive, again = Archive(Limits()), turn(id="t")
    old, new = (TurnRun((None, "t"), TurnLog(again), TurnScope(again.key, "t"), copy_context()) for _ in "ab")
    archive.add(old)
    archive.add(new)
    archive.drop(old)
    archive.ended(old, 0.0)
    assert archive.log(new.key) is new.log
    archive.ended(new, 0.0)
    assert (archive.open, archive.kept) == (0, 1)


# -- stopping meanwhile ------------------------------------------------------------------------------------------------


async def test_a_stop_breaks_off_what_is_being_closed() -> None:
    async with processes(1) as (process,):
        before = asyncio.all_tasks()
        running = await process.system.submit(turn("a 100", id="a"))
        waiting = await process.system.submit(turn("b", id="b"))
        await asyncio.sleep(1)
        process.storage.cut = True
        await process.system.cancel("b")
        await process.system.stop()
        await lost(running)
        await lost(waiting)
        assert asyncio.all_tasks() <= before
        process.storage.cut = False


async def test_no_ending_is_tried_to_be_written_where_the_store_is_stopped() -> None:
    async with processes(1) as (process,):
        ledger, late = process.system.ledger, turn()
        assert ledger is not None
        await process.system.stop()
        run = TurnRun((None, late.id), TurnLog(late), TurnScope(late.key, late.id), copy_context())
        async with asyncio.timeout(60):
            with pytest.raises(SessionLost):
                await ledger.end(run, TurnCancelled(0.0, "enough"), None)


@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_session_is_handed_over_when_what_is_being_closed_has_its_ending(idempotent: bool) -> None:
    async with processes(idempotent=idempotent) as (first, second):
        await first.system.submit(turn("a 30", id="a"))
        for name in "bc":
            await first.system.submit(turn(name, id=name))
        await asyncio.sleep(0.5)
        first.storage.cut = True
        await first.system.cancel("b", reason="enough")
        stopping = asyncio.create_task(first.system.drain(0))
        await asyncio.sleep(0.2)
        first.storage.cut = False
        await stopping
        assert isinstance(await ending(second, "b"), TurnCancelled)
        assert isinstance(await ending(second, "c"), TurnCompleted)
        assert isinstance(await ending(second, "a"), TurnCompleted if idempotent else TurnFailed)
    assert Diary.begun == (["a 30", "a 30", "c"] if idempotent else ["a 30", "c"])


# -- defects -----------------------------------------------------------------------------------------------------------


async def stubborn(msgs: Any) -> AsyncIterator[str]:
    if asked(msgs[-1]) == "stubborn":
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await asyncio.sleep(50)
    yield "."


async def test_what_fails_after_the_ending_does_not_hold_the_session_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_system(stubborn) as system:
        bad = await system.submit(turn("stubborn"))
        waiting = await system.submit(turn("b"))
        await asyncio.sleep(1)
        turn_ended = ActorSystem.turn_ended

        def broken(self: ActorSystem, run: TurnRun) -> None:
            turn_ended(self, run)
            if run.log is bad:
                raise ZeroDivisionError

        monkeypatch.setattr(ActorSystem, "turn_ended", broken)
        await system.cancel(bad.id)
        async with asyncio.timeout(500):
            assert isinstance(await bad.ended(), TurnCancelled)
            assert isinstance(await waiting.ended(), TurnCompleted)


async def test_what_fails_before_it_fails_no_other_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_system(stubborn) as system:
        bad = await system.submit(turn("stubborn"))
        waiting = await system.submit(turn("b"))
        await asyncio.sleep(1)
        keep, failing = SessionActor._keep, iter([True])

        async def broken(self: SessionActor, *rest: Any) -> Terminal:
            if next(failing, False):
                raise ZeroDivisionError
            return await keep(self, *rest)

        monkeypatch.setattr(SessionActor, "_keep", broken)
        await system.cancel(bad.id)
        async with asyncio.timeout(500):
            there = await bad.ended()
            assert isinstance(there, TurnFailed)
            assert there.error.code == "internal_error"
            assert isinstance(await waiting.ended(), TurnCompleted)
