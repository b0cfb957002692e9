"""Turns of which nothing is kept, but that have an idempotency key: for some minutes a repeat gets their answer, in
every process that shares the store and whatever became of the one that ran them. Nothing else leads to it."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from msgspec import structs

from greenroom.actors.errors import KeyReused, SessionLost, TurnNotFound
from greenroom.actors.events import TurnFailed
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Turn
from greenroom.services.sessions.repeats import KIND
from kits.sharing import KEY, LEASE, LIMITS, Diary, Process, processes, repeatable, words
from kits.system import said, turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time

LONG = 1.25 * LIMITS.kept_seconds + 5
"""After so many seconds nothing is left of an answer."""
_sessions = itertools.count(1)


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    Diary.begun.clear()


def unkept(text: str, **options: Any) -> Turn:
    """A request, as a protocol makes it of one without a session: each time of another, with another id."""
    return repeatable(text, kept=False, session=f"its-own-{next(_sessions)}", **options)


async def ask(process: Process, asked: Turn) -> TurnLog:
    log = await process.system.submit(asked)
    await log.ended()
    return log


async def left(process: Process) -> int:
    """Answers that the store has for repeats, and sessions."""
    return sum([len(await process.storage.sessions(kind, "u")) for kind in (KIND, "session")])


async def test_a_repeat_gets_the_answer_in_every_process() -> None:
    async with processes(3) as (first, *others):
        log = await ask(first, unkept("a 2"))
        for process in (first, *others):
            repeat = await ask(process, unkept("a 2"))
            assert (repeat.id, repeat.events()) == (log.id, log.events())
            with pytest.raises(KeyReused):
                await process.system.submit(unkept("b"))
        assert (await ask(others[0], unkept("a", principal="ada"))).id != log.id, "a key is its caller's"
    assert Diary.begun == ["a 2", "a"]


async def test_nothing_but_the_key_leads_to_it() -> None:
    async with processes() as (first, second):
        log = await ask(first, unkept("a"))
        assert (await first.system.locate(log.id)).events() == log.events(), "where it ran, as without a key"
        with pytest.raises(TurnNotFound):
            await second.system.locate(log.id)
        with pytest.raises(TurnNotFound):
            await second.system.cancel(log.id)
        assert await second.system.store.load(log.turn.key) is None
        assert await second.storage.sessions("session", "u") == ()


async def test_without_a_key_nothing_is_written_of_it() -> None:
    async with processes() as (first, second):
        await first.tell("a", kept=False)
        without = first.storage.writes
        assert await left(second) == 0
        await ask(first, unkept("a"))
        assert first.storage.writes == 2 * without, "and with one it costs no write more"
        assert await left(second) == 1


async def test_a_repeat_that_joins_it_elsewhere_hears_it_out() -> None:
    async with processes() as (first, second):
        log = await first.system.submit(unkept("a 1 1"))
        joined = await second.system.submit(unkept("a 1 1"))
        assert joined.terminal is None
        await joined.ended()
        assert (joined.id, joined.events()) == (log.id, log.events())
    assert Diary.begun == ["a 1 1"]


async def test_it_is_as_little_of_its_session_as_without_a_key() -> None:
    async with processes() as (first, second):
        one = await first.tell("a")
        log = await ask(first, repeatable("b", kept=False, after=one.id))
        assert (words(log), log.turn.key) == ("a b", KEY)
        assert words(await second.tell("c", after=one.id)) == "a c"
        repeat = await ask(second, repeatable("b", kept=False, after=one.id))
        assert (repeat.id, repeat.events()) == (log.id, log.events())
        await asyncio.sleep(LONG)
        assert words(await first.tell("d")) == "a c d"
        assert await left(first) == 1, "the session itself stays"


async def test_one_in_a_fork_for_it_alone_leaves_no_fork() -> None:
    async with processes() as (first, second):
        one = await first.tell("a")
        await first.tell("b")
        log = await ask(first, repeatable("c 1", kept=False, after=one.id))
        assert (words(log), log.turn.key == KEY) == ("a c.", False)
        for process in (first, second):
            repeat = await ask(process, repeatable("c 1", kept=False, after=one.id))
            assert (repeat.id, repeat.events()) == (log.id, log.events())
        await asyncio.sleep(3)
        assert await second.storage.sessions("session", "u") == (KEY.session_id,)
        await asyncio.sleep(LONG)
        assert await left(second) == 1
    assert Diary.begun.count("c 1") == 1


# -- when its time is over, and when processes go ----------------------------------------------------------------------


async def test_after_its_time_it_is_a_new_request_and_nothing_is_left() -> None:
    async with processes() as (first, second):
        await ask(first, unkept("a"))
        await asyncio.sleep(LIMITS.kept_seconds - 1)
        assert words(await ask(second, unkept("a"))) == "a"
        assert Diary.begun == ["a"]
        await asyncio.sleep(LONG - LIMITS.kept_seconds + 1)
        assert await left(second) == 0
        for process in (second, first):
            await ask(process, unkept("a"))
        assert Diary.begun == ["a", "a"]


async def test_what_is_past_its_time_goes_although_its_process_is_gone() -> None:
    async with processes() as (first, second):
        log = await ask(first, unkept("a"))
        first.storage.cut = True
        await asyncio.sleep(LEASE + 3)
        assert (await ask(second, unkept("a"))).events() == log.events()
        await asyncio.sleep(LONG)
        assert await left(second) == 0
    assert Diary.begun == ["a"]


@pytest.mark.parametrize("key", ["k", None])
async def test_a_fork_goes_too_whose_process_died_before_it_forgot_it(key: str | None) -> None:
    async with processes() as (first, second):
        one = await first.tell("a")
        await first.tell("b")
        asked = structs.replace(repeatable("c 0.1", kept=False, after=one.id), idempotency_key=key)
        log = await first.system.submit(asked)
        first.storage.cut_after = 1  # its ending
        assert words(await _ended(log)) == "a c."
        first.storage.cut = True
        assert len(await second.storage.sessions("session", "u")) == 2
        await asyncio.sleep(LEASE + 3)
        assert await second.storage.sessions("session", "u") == (KEY.session_id,)
        if key is not None:
            repeat = structs.replace(repeatable("c 0.1", kept=False, after=one.id), idempotency_key=key)
            assert (await ask(second, repeat)).id == log.id, "its answer stays for its time"
        await asyncio.sleep(LONG)
        assert await left(second) == 1
    assert Diary.begun.count("c 0.1") == 1


async def _ended(log: TurnLog) -> TurnLog:
    await log.ended()
    return log


async def test_it_is_kept_while_nobody_is_there_and_goes_when_somebody_is() -> None:
    """Both processes are cut off, and come back when its time is long over."""
    async with processes() as (first, second):
        await ask(first, unkept("a"))
        first.storage.cut = second.storage.cut = True
        await asyncio.sleep(10 * LONG)
        first.storage.cut = second.storage.cut = False
        await asyncio.sleep(LONG)
        assert await left(second) == 0


async def test_one_that_its_process_died_over_has_failed_for_repeats_too() -> None:
    async with processes() as (first, second):
        running = await first.system.submit(unkept("a 1 60"))
        await asyncio.sleep(2)
        first.storage.cut = True
        early = await second.system.submit(unkept("a 1 60"))
        with pytest.raises(SessionLost):
            await running.ended()
        await early.ended()
        for log in (early, await ask(second, unkept("a 1 60"))):
            assert log.id == running.id
            assert isinstance(log.terminal, TurnFailed)
            assert log.terminal.error.code == "turn_interrupted"
            assert said(log.terminal) == "a."
        with pytest.raises(TurnNotFound):
            await second.system.locate(running.id)
        await asyncio.sleep(LONG)
        assert await left(second) == 0
    assert Diary.begun == ["a 1 60"]


async def test_an_ending_of_which_nobody_was_told_is_what_a_repeat_gets() -> None:
    async with processes() as (first, second):
        log = await first.system.submit(unkept("a 0.1"))
        first.storage.lose_answers = 1
        with pytest.raises(SessionLost):
            await log.ended()
        for process in (second, first):
            repeat = await ask(process, unkept("a 0.1"))
            assert (repeat.id, words(repeat)) == (log.id, "a.")
    assert Diary.begun == ["a 0.1"]


async def test_a_process_that_keeps_few_turns_has_the_store_s() -> None:
    limits = structs.replace(LIMITS, kept_turns=1)
    async with processes(1, limits=limits) as (only,):
        log = await ask(only, unkept("a"))
        await only.tell("b")
        assert (await ask(only, unkept("a"))).id == log.id
        assert (await ask(only, structs.replace(turn("c"), idempotency_key="c", kept=False))).id != log.id
    assert Diary.begun == ["a", "b", "c"]
