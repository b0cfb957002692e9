"""Turns that join the line of another process's session, where something goes wrong at that moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import structs

from greenroom.actors.errors import Overloaded, StoreUnavailable, TurnNotFound
from greenroom.actors.events import TurnCancelled, TurnFailed
from greenroom.actors.log import TurnLog
from kits.sharing import KEY, LEASE, LIMITS, Diary, Process, processes, words
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


async def test_what_joins_a_session_that_was_taken_unknowingly_goes_on_from_what_is_there() -> None:
    """The owner has had it before, and keeps an agent warm that does not know what another process did since."""
    async with processes() as (first, second):
        await first.tell("a")
        await second.tell("b")
        first.storage.lose_answers = 1
        with pytest.raises(StoreUnavailable):
            await asked(first, "x")
        log = await asked(second, "c")
        await log.ended()
        assert first.system.find(log.id).terminal is not None
        assert words(log) == "a b c"


async def test_what_joins_behind_a_turn_that_has_just_been_recorded_runs_behind_it() -> None:
    """Its owner reads the line then, as others joined it before that turn."""
    async with processes() as (first, second):
        await asked(first, "a 2")
        logs = [await asked(second, "b")]
        first.storage.seconds = 0.2
        own = asyncio.create_task(asked(first, "c"))
        await asyncio.sleep(0.05)
        logs += [await asked(second, "d"), await own]
        for log in logs:
            await log.ended()
        assert Diary.begun == ["a 2", "b", "c", "d"]


async def test_a_turn_goes_on_from_the_one_it_names_though_another_has_joined_behind_that() -> None:
    async with processes() as (first, second):
        await asked(first, "a 3", id="a")
        await asked(second, "b")
        log = await asked(first, "c", after="a")
        await log.ended()
        assert words(log) == "a c"
        assert log.turn.key != KEY


async def test_an_interruption_of_which_it_is_not_known_whether_it_joined_interrupts() -> None:
    async with processes() as (first, second):
        running = await asked(first, "a 60")
        second.storage.lose_answers = 1
        log = await asked(second, "b", overlap="interrupt")
        ending = await asyncio.wait_for(running.ended(), 5)
        assert isinstance(ending, TurnCancelled)
        assert log.id in ending.reason
        await log.ended()
        assert words(log) == "b"


async def test_a_turn_that_may_have_joined_is_not_refused_for_want_of_room_here() -> None:
    limits = structs.replace(LIMITS, active_sessions=1)
    async with processes(limits=limits) as (first, second):
        await asked(first, "a 3")
        second.storage.lose_answers = 1
        asking = asyncio.create_task(asked(second, "b"))
        await asyncio.sleep(0)
        await asked(second, "other 9", session="other")
        log = await asking
        await log.ended()
        assert words(log) == "a b"


async def test_a_turn_that_was_refused_and_is_to_be_cancelled_is_looked_for_once_at_a_time() -> None:
    """It lies in its owner's line until it is taken back, which takes until the next renewal."""
    async with processes() as (first, second):
        first.storage.lose_answers = 1
        with pytest.raises(StoreUnavailable):
            await asked(first, "x", id="x")
        first.storage.seconds = 0.01
        await asked(second, "b", overlap="interrupt")
        reads = first.storage.reads
        await first.system.cancel("x")
        await asyncio.sleep(0.5)
        assert first.storage.reads - reads < 20, "it was looked for more than once at a time"


async def test_who_asks_is_told_when_a_process_stops_that_does_not_know_whether_a_turn_is_recorded() -> None:
    async with processes() as (first, second):
        await first.tell("a", id="a")
        second.storage.seconds = 0.3
        asking = asyncio.create_task(asked(second, "b", id="b", after="a"))
        await asyncio.sleep(0.45)
        second.storage.cut = True
        await second.system.stop()
        with pytest.raises(StoreUnavailable) as told:
            await asking
        assert not told.value.nothing_kept
        await asyncio.sleep(LEASE + 5)
        assert (await first.system.locate("b")).terminal is not None, "it was, and another one has it"


async def test_a_turn_for_which_there_is_no_room_when_it_is_recorded_is_taken_back() -> None:
    limits = structs.replace(LIMITS, active_sessions=1)
    async with processes(1, limits=limits) as (first,):
        first.storage.gate = asyncio.Event()
        both = [asyncio.create_task(asked(first, "b 1", id=name, session=name)) for name in "st"]
        await asyncio.sleep(0.1)
        first.storage.gate.set()
        found = await asyncio.gather(*both, return_exceptions=True)
        assert [type(one) for one in found] == [TurnLog, Overloaded]
        with pytest.raises(TurnNotFound):
            await first.system.locate("t")


async def test_what_joined_where_it_cannot_be_worked_on_is_run_elsewhere() -> None:
    """All sessions were at work by then that may be."""
    async with processes(limits=structs.replace(LIMITS, active_sessions=1)) as (first, second):
        running = await asked(first, "a 2")
        log = await asked(second, "b")
        first.storage.seconds = 0.1
        await running.ended()
        other = await asked(first, "x 60", session="x")
        async with asyncio.timeout(10):
            await log.ended()
        assert words(log) == "a b"
        assert other.terminal is None
        assert second.system.statistics().accepted_turns == 1, "where it was run"


async def test_a_session_that_cannot_be_worked_on_is_not_let_go_of_any_more_when_it_can_be() -> None:
    """It joined when all sessions were at work that may be, and the store was away when it was to be let go of."""
    limits = structs.replace(LIMITS, active_sessions=1)
    async with processes(limits=limits) as (first, second):
        running = await asked(first, "a 2")
        log = await asked(second, "b 5")
        first.storage.seconds = 0.1
        await running.ended()
        other = await asked(first, "x 60", session="x")
        first.storage.cut_after = 0
        await asyncio.sleep(0.205)
        first.storage.cut_after, first.storage.seconds = None, 0.0
        await first.system.cancel(other.id)
        await other.ended()
        await asked(first, "c")
        await log.ended()
        assert words(log) == "a b."
        await asyncio.sleep(20)
        assert Diary.begun == ["a 2", "x 60", "b 5", "c"]


# -- sessions that are taken over where there is no room for them ------------------------------------------------------

ONE = structs.replace(LIMITS, active_sessions=1)


async def test_what_waited_is_run_though_who_took_it_over_first_had_no_room() -> None:
    async with processes(limits=ONE) as (first, second):
        running = await asked(first, "a 2")
        log = await asked(second, "b")
        other = await asked(second, "x 60", session="x")
        await first.system.drain(10)
        assert running.terminal is not None
        await asyncio.sleep(5)
        assert log.terminal is None, "nobody can work on it"
        await second.system.cancel(other.id)
        await log.ended()
        assert words(log) == "a b"


async def test_one_that_had_begun_is_not_begun_again_for_want_of_room() -> None:
    async with processes(limits=ONE) as (first, second):
        await asked(first, "a 60", id="a")
        other = await asked(second, "x 60", session="x")
        first.storage.cut = True
        await asyncio.sleep(LEASE + 10)
        await second.system.cancel(other.id)
        log = await second.system.locate("a")
        ending = await log.ended()
        assert isinstance(ending, TurnFailed)
        assert ending.error.code == "turn_interrupted"
        assert Diary.begun == ["a 60", "x 60"]


async def test_one_that_may_be_begun_again_is_as_soon_as_there_is_room() -> None:
    async with processes(limits=ONE, idempotent=True) as (first, second):
        await asked(first, "a 60", id="a")
        other = await asked(second, "x 900", session="x")
        first.storage.cut = True
        await asyncio.sleep(600)
        await second.system.cancel(other.id)
        await other.ended()
        await asyncio.sleep(3 * LIMITS.recovery_seconds)
        assert Diary.begun == ["a 60", "x 900", "a 60"]


async def test_one_that_waited_has_not_begun_by_having_been_taken_without_an_answer() -> None:
    async with processes() as (first, second):
        await asked(first, "a 2")
        log = await asked(second, "b")
        second.storage.lose_answers = 1
        await first.system.drain(10)
        await log.ended()
        assert not second.storage.lose_answers
        assert words(log) == "a b"


async def test_nobody_is_told_that_nothing_is_kept_of_one_that_joined_where_there_is_no_room() -> None:
    """The answer to its joining was lost, and when it was looked for its owner had gone."""
    async with processes(3, limits=structs.replace(ONE, elsewhere_seconds=30.0)) as (first, second, third):
        await asked(first, "a 0.5")
        third.storage.cut = True
        second.storage.lose_answers, second.storage.seconds = 1, 1.0
        asking = asyncio.create_task(asked(second, "b"))
        await asyncio.sleep(0.1)
        other = asyncio.create_task(asked(second, "x 60", session="x"))
        await first.system.drain(10)
        await asyncio.sleep(6)
        third.storage.cut = False
        log = await asking
        await log.ended()
        assert words(log) == "a b"
        assert (await other).terminal is None
        assert Diary.begun == ["a 0.5", "x 60", "b"]
