"""Turns that are followed in another process than the one that runs them: nobody's stream just stops (law 2), also when
the turn leaves the store before it was looked at again, and who asks how it stands is told what is written by then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.actors.elsewhere import LONGEST_LOOK
from greenroom.actors.errors import CursorExpired, SessionDamaged, TurnNotFound
from greenroom.actors.events import TurnCompleted, TurnFailed
from greenroom.actors.messages import Disconnect
from greenroom.services.sessions.repeats import KIND
from greenroom.transports.frames import position_after
from greenroom.transports.process_encode import ProcessEncoder
from kits.grammar import check_events
from kits.sharing import KEY, LEASE, LIMITS, Diary, Process, processes, words
from kits.system import said, turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time

SOON = 1.01 * LONGEST_LOOK
BOTH = pytest.mark.parametrize("policy", [Disconnect(), Disconnect("cancel")], ids=lambda one: one.policy)


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    Diary.begun.clear()


def now() -> float:
    return asyncio.get_running_loop().time()


async def left(process: Process) -> int:
    """Endings that the store has of turns of which nothing is kept."""
    names = await process.storage.sessions(KIND, "u")
    return len(names)


# -- a turn of which nothing is kept -----------------------------------------------------------------------------------


@BOTH
async def test_who_follows_one_of_which_nothing_is_kept_has_its_ending(policy: Disconnect) -> None:
    async with processes(3) as (first, second, third):
        log = await first.system.submit(turn("a 1 5 0.1", kept=False, session="own", disconnect=policy))
        reading = asyncio.create_task(log.ended())
        await asyncio.sleep(1.5)
        there = [await process.system.locate(log.id) for process in (second, third)]
        await asyncio.gather(*(one.ended() for one in there))
        assert [words(one) for one in there] == ["a...", "a..."]
        assert [one.events() for one in there] == [log.events()] * 2
        await reading
        assert await first.system.store.load(log.turn.key) is None, "it is as little of its session as else"


async def test_who_comes_back_after_its_end_finds_it_for_as_long_as_where_it_ran() -> None:
    async with processes() as (first, second):
        log = await first.system.submit(turn("a 1 1", kept=False, session="own"))
        await (await second.system.locate(log.id)).ended()
        assert (await second.system.locate(log.id)).events() == log.events()
        assert (await second.system.cancel(log.id)).events() == log.events()
        with pytest.raises(TurnNotFound):
            await second.system.locate(log.id, "somebody else")
        await asyncio.sleep(1.25 * LIMITS.kept_seconds + 5)
        with pytest.raises(TurnNotFound):
            await second.system.locate(log.id)
        assert await left(second) == 0


async def test_one_that_nobody_follows_elsewhere_leaves_nothing_and_costs_no_write_more() -> None:
    async with processes() as (first, second):
        await first.system.store.load(KEY)
        before = first.storage.writes, second.storage.writes
        log = await first.system.submit(turn("a 0.1", kept=False, session="own"))
        looked_at = await second.system.locate(log.id)
        assert looked_at.terminal is None
        await log.ended()
        assert (first.storage.writes, second.storage.writes) == (before[0] + 2, before[1])
        assert await left(second) == 0
        with pytest.raises(TurnNotFound):
            await second.system.locate(log.id)


async def test_its_ending_is_there_also_when_it_is_another_process_that_writes_it() -> None:
    async with processes(3) as (first, second, third):
        running = await first.system.submit(turn("a 1 60", kept=False, session="own"))
        there = [await process.system.locate(running.id) for process in (second, third)]
        following = [asyncio.create_task(one.ended()) for one in there]
        await asyncio.sleep(2)
        first.storage.cut = True
        for ending in await asyncio.gather(*following):
            assert isinstance(ending, TurnFailed)
            assert ending.error.code == "turn_interrupted"
            assert said(ending) == "a."


@given(seconds=st.floats(0.001, 4.0), after=st.floats(0.0, 4.0), kept=st.booleans())
@settings(max_examples=60, deadline=None)
async def test_whenever_somebody_begins_to_follow_there_is_the_ending(
    seconds: float, after: float, kept: bool
) -> None:
    async with processes() as (first, second):
        log = await first.system.submit(turn(f"a {seconds}", kept=kept, session="own"))
        await asyncio.sleep(min(after, 0.99 * seconds))
        there = await second.system.locate(log.id)
        await there.ended()
        assert there.events() == log.events()


# -- one that is not kept for long enough ------------------------------------------------------------------------------


async def test_one_whose_ending_is_gone_before_it_was_seen_ends_all_the_same() -> None:
    async with processes() as (first, second):
        log = await first.system.submit(turn("a 1 5", stored=True))
        there = await second.system.locate(log.id)
        following = asyncio.create_task(there.ended())
        await log.ended()
        await first.system.store.remove(log.id, None)  # type: ignore[attr-defined]
        ended = now()
        ending = await following
        assert now() - ended < SOON
        assert isinstance(ending, TurnFailed)
        assert ending.error.code == "ending_not_kept"
        assert ending.error.id
        assert said(ending) == "a."
        check_events(there.events())
        with pytest.raises(TurnNotFound):
            await second.system.locate(log.id)


async def test_no_stream_just_stops_where_few_turns_of_a_session_are_kept() -> None:
    async with processes(logs_kept=1) as (first, second):
        logs = [await first.system.submit(turn(text)) for text in ("a 5", *"bcdef")]
        there = [await second.system.locate(log.id) for log in logs]
        *gone, newest = await asyncio.gather(*(log.ended() for log in there))
        assert isinstance(newest, TurnCompleted)
        codes = {ending.error.code for ending in gone if isinstance(ending, TurnFailed)}
        assert codes == {"ending_not_kept"}
        for log in there:
            check_events(log.events())


async def test_one_that_cannot_be_read_any_more_ends_for_those_who_follow_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with processes() as (first, second):
        log = await first.system.submit(turn("a 60"))
        there = await second.system.locate(log.id)
        following = asyncio.create_task(there.ended())
        await asyncio.sleep(2)

        async def find(*_: Any) -> Any:
            raise SessionDamaged("what is kept of it cannot be read")

        monkeypatch.setattr(second.system.store, "find", find)
        ending = await following
        assert isinstance(ending, TurnFailed)
        assert ending.error.code == "session_damaged"
        check_events(there.events())


# -- how it stands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False])
async def test_who_asks_how_a_turn_stands_is_told_what_is_written_by_then(kept: bool) -> None:
    async with processes() as (first, second):
        log = await first.system.submit(turn("a 1 7.3", kept=kept, session="own"))
        there = await second.system.locate(log.id)
        following = asyncio.create_task(there.ended())
        assert isinstance(await log.ended(), TurnCompleted)
        ended = now()
        assert (await second.system.locate(log.id)).events() == log.events()
        assert now() == ended
        await following
        assert there.events() == log.events(), "who follows it has each event once"


def far_away(process: Process, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the process reads of turns is as old as that when it has it."""
    find = process.system.store.find  # type: ignore[attr-defined]

    async def find_from_far_away(*asked: Any) -> Any:
        found = await find(*asked)
        await asyncio.sleep(seconds)
        return found

    monkeypatch.setattr(process.system.store, "find", find_from_far_away)


async def test_those_who_ask_at_the_same_time_add_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    async with processes() as (first, second):
        far_away(second, 0.07, monkeypatch)
        log = await first.system.submit(turn("a 1" + 30 * " 0.03"))
        there = await second.system.locate(log.id)
        following = asyncio.create_task(there.ended())
        while there.terminal is None:
            await asyncio.gather(*(second.system.locate(log.id) for _ in range(3)))
        await following
        assert there.events() == log.events()


async def test_who_comes_when_it_is_about_to_be_followed_no_more_is_not_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for quarters in range(4 * 20, 4 * 35):
        async with processes() as (first, second):
            far_away(second, 0.5, monkeypatch)
            log = await first.system.submit(turn("a 60"))
            await second.system.locate(log.id)
            await asyncio.sleep(quarters / 4)
            there = await second.system.locate(log.id)
            assert isinstance(await there.ended(), TurnCompleted)


async def test_who_waits_for_what_a_dead_process_said_hears_at_once_that_it_was_taken_over() -> None:
    async with processes(3, idempotent=True) as (first, second, third):
        log = await first.system.submit(turn("a 1 60"))
        there = await second.system.locate(log.id)
        await asyncio.sleep(2)
        first.storage.cut = True
        waiting = asyncio.create_task(position_after(99, there, ProcessEncoder, "after", patience=600))
        with pytest.raises(CursorExpired):
            await waiting
        assert there.taken_at is not None
        assert now() < 2 + LEASE + LIMITS.recovery_seconds * 1.25 + SOON
        assert third.system.statistics().open_turns + second.system.statistics().open_turns == 1
