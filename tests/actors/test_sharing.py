"""Processes that share a store: whose turn it is, who sees what, and what becomes of one that goes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from greenroom.actors.errors import (
    KeyReused,
    NotServing,
    SessionBusy,
    SessionHeld,
    SessionLost,
    StoreUnavailable,
    TurnNotFound,
)
from greenroom.actors.events import TextDelta, TurnCancelled, TurnCompleted, TurnFailed
from greenroom.actors.log import TurnLog
from kits.grammar import check_events
from kits.sharing import KEY, LEASE, LIMITS, Diary, processes, repeatable, words
from kits.system import said, turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    Diary.begun.clear()


# -- a session that goes to and fro ------------------------------------------------------------------------------------


async def test_a_session_is_whole_in_whichever_process_its_turns_are() -> None:
    async with processes(3) as (first, second, third):
        assert words(await first.tell("a")) == "a"
        assert words(await second.tell("b")) == "a b"
        assert words(await first.tell("c")) == "a b c", "an agent that was kept warm is out of date"
        assert words(await third.tell("d")) == "a b c d"
        record = await first.system.store.load(KEY)
        assert record is not None
        assert [record.turn_id for record in record.turns] == [f"turn-{n}" for n in _last(4)]


def _last(count: int) -> list[int]:
    """The numbers of the last turns."""
    newest = int(turn().id.removeprefix("turn-"))
    return list(range(newest - count, newest))


async def test_a_turn_waits_for_a_session_that_is_at_work_elsewhere() -> None:
    async with processes() as (first, second):
        log = await first.system.submit(turn("a 2"))
        assert words(await second.tell("b")) == "a b"
        assert log.terminal is not None


async def test_one_that_continues_from_a_turn_that_runs_elsewhere_does_not_wait_for_ever() -> None:
    async with processes() as (first, second):
        log = await first.system.submit(turn("a 60"))
        with pytest.raises(SessionHeld) as held:
            await second.tell("b", after=log.id)
        assert (held.value.status, held.value.retry_after) == (503, 1.0)
        with pytest.raises(SessionBusy):
            await second.tell("c", after=log.id, overlap="reject")
        await first.system.cancel(log.id)
        await log.ended()
        assert words(await second.tell("d")) == "d", "nothing is kept of what was refused"
    assert Diary.begun == ["a 60", "d"]


async def test_two_at_once_are_one_after_the_other() -> None:
    async with processes() as (first, second):
        logs = await asyncio.gather(
            *(process.tell(f"{n} 0.1") for n in range(6) for process in (first, second))
        )
        texts = sorted((words(log) for log in logs), key=len)
        for shorter, longer in itertools.pairwise(texts):
            assert longer.startswith(shorter.removesuffix("."))
    assert len(Diary.begun) == 12


async def test_a_fork_sees_what_the_other_process_did() -> None:
    async with processes() as (first, second):
        one = await first.tell("a")
        two = await second.tell("b", after=one.id)
        assert two.turn.key == KEY
        fork = await first.tell("c", after=one.id)
        assert (words(fork), fork.turn.key == KEY) == ("a c", False)
        assert words(await first.tell("d", after=two.id)) == "a b d"


# -- turns that are elsewhere ------------------------------------------------------------------------------------------


async def test_a_turn_is_followed_from_another_process() -> None:
    async with processes() as (first, second):
        log = await first.system.submit(turn("a 1 1 1", id="t"))
        there = await second.system.locate("t")
        assert there is not log
        await there.ended()
        assert there.events() == log.events()
        assert (await second.system.locate("t")).events() == log.events(), "and when it has ended"


async def test_one_that_waits_is_followed_from_its_acceptance() -> None:
    async with processes() as (first, second):
        await first.system.submit(turn("a 3"))
        log = await first.system.submit(turn("b", id="t"))
        there = await second.system.locate("t")
        assert there.events() == log.events()[:1]
        await there.ended()
        assert there.events() == log.events()


async def test_turns_of_two_callers_may_have_the_same_id() -> None:
    async with processes() as (first, second):
        logs = [
            await first.system.submit(turn("a 1 1", id="t", session=name, principal=name))
            for name in ("ada", "bob")
        ]
        await asyncio.sleep(1.5)
        for log, name in zip(logs, ("ada", "bob"), strict=True):
            there = await second.system.locate("t", name)
            assert len(there.events()) >= 4, "what it says is written down as it runs"
            await there.ended()
            assert there.events() == log.events()


async def test_others_turns_are_not_found() -> None:
    async with processes() as (first, second):
        await first.tell("a", id="t", principal="ada")
        assert (await second.system.locate("t", "ada")).id == "t"
        for principal in (None, "bob"):
            with pytest.raises(TurnNotFound):
                await second.system.locate("t", principal)


async def test_a_turn_is_cancelled_from_another_process() -> None:
    async with processes() as (first, second):
        log = await first.system.submit(turn("a 60", id="t"))
        there = await second.system.cancel("t", reason="enough")
        await there.ended()
        assert isinstance(log.terminal, TurnCancelled)
        assert log.terminal.reason == "enough"
        assert there.events() == log.events()


async def test_a_repeat_in_another_process_joins_the_turn() -> None:
    async with processes() as (first, second):
        log = await first.system.submit(repeatable("a 2"))
        joined = await second.system.submit(repeatable("a 2"))
        await joined.ended()
        assert joined.events() == log.events()
        with pytest.raises(KeyReused):
            await second.system.submit(repeatable("b"))
        assert (await second.system.submit(repeatable("a 2"))).events() == log.events()
    assert Diary.begun == ["a 2"]


# -- a process that goes -----------------------------------------------------------------------------------------------


async def test_a_process_that_is_cut_off_stops_before_another_takes_its_sessions(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with processes() as (first, second):
        running = await first.system.submit(turn("a 1 60", id="running"))
        waiting = await first.system.submit(turn("b", id="waiting"))
        await asyncio.sleep(2)
        first.storage.cut = True
        cut = asyncio.get_running_loop().time()
        with pytest.raises(SessionLost):
            await running.ended()
        assert asyncio.get_running_loop().time() - cut < LEASE, "it does not wait to be told"
        with pytest.raises(SessionLost):
            await waiting.ended()
        there = await second.system.locate("running")
        await there.ended()
        assert isinstance(there.terminal, TurnFailed)
        assert there.terminal.error.code == "turn_interrupted"
        assert f"turn running of session 's' failed [{there.terminal.error.id}]: the process" in caplog.text
        assert said(there.terminal) == "a.", "what it had said is kept"
        assert words(await _ended(await second.system.locate("waiting"))) == "b"
        first.storage.cut = False
        await asyncio.sleep(2)
        assert words(await first.tell("c")) == "b c"
    assert Diary.begun == ["a 1 60", "b", "c"]


async def _ended(log: TurnLog) -> TurnLog:
    await log.ended()
    return log


async def test_an_idempotent_handler_is_begun_once_more() -> None:
    async with processes(idempotent=True) as (first, second):
        await first.system.submit(turn("a 1 3", id="t"))
        await asyncio.sleep(2)
        first.storage.cut = True
        await asyncio.sleep(LEASE)
        log = await second.system.locate("t")
        await log.ended()
        assert isinstance(log.terminal, TurnCompleted)
        check_events(log.events())
        assert said(log.terminal).endswith("a..")
    assert Diary.begun == ["a 1 3", "a 1 3"]


@pytest.mark.parametrize(("accepting", "taking"), [(True, False), (False, True)])
async def test_a_turn_is_begun_once_more_only_if_both_handlers_are_idempotent(
    accepting: bool, taking: bool
) -> None:
    """As when an update changes what the handler is declared to be."""
    async with processes(idempotent=(accepting, taking)) as (first, second):
        await first.system.submit(turn("a 1 3", id="t"))
        await first.system.submit(turn("b", id="waiting"))
        await asyncio.sleep(2)
        first.storage.cut = True
        await asyncio.sleep(LEASE)
        log = await _ended(await second.system.locate("t"))
        assert isinstance(log.terminal, TurnFailed)
        assert log.terminal.error.code == "turn_interrupted"
        assert words(await _ended(await second.system.locate("waiting"))) == "b"
    assert Diary.begun == ["a 1 3", "b"]


async def test_it_is_not_begun_for_ever() -> None:
    async def lethal(msgs: Any) -> AsyncIterator[str]:
        Diary.begun.append("again")
        found[(len(Diary.begun) - 1) % 2].storage.cut = True
        found[len(Diary.begun) % 2].storage.cut = False
        await asyncio.sleep(3600)
        yield ""

    async with processes(function=lethal, agent=False, idempotent=True) as found:
        log = await found[0].system.submit(turn("a", id="t"))
        for _ in range(100):
            if log.terminal is not None:
                break
            await asyncio.sleep(10)
            alive = next(process for process in found if not process.storage.cut)
            log = await alive.system.locate("t")
        assert isinstance(log.terminal, TurnFailed)
        assert log.terminal.error.code == "turn_interrupted"
    assert len(Diary.begun) == 1 + LIMITS.attempts


async def test_a_look_for_what_was_left_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    async with processes() as (first, second):
        await first.system.submit(turn("a 60"))
        await first.system.submit(turn("b", id="waiting"))
        looks = second.system.store.orphans  # type: ignore[attr-defined]
        failures = iter(range(3))

        async def orphans(limit: int) -> Any:
            if next(failures, None) is not None:
                raise ValueError("what the store says makes no sense")
            return await looks(limit)

        monkeypatch.setattr(second.system.store, "orphans", orphans)
        first.storage.cut = True
        await asyncio.sleep(2 * LEASE)
        assert words(await second.system.locate("waiting")) == "b"


async def test_a_store_that_fails_in_the_middle_of_taking_over_leaves_no_turn_behind() -> None:
    async with processes() as (first, second):
        await first.system.submit(turn("a 60", id="running"))
        await first.system.submit(turn("b", id="waiting"))
        first.storage.cut, second.storage.cut_after = True, 1
        await asyncio.sleep(LEASE + 3)
        assert Diary.begun == ["a 60"], "what is not written down is not done"
        more = asyncio.create_task(second.tell("c"))
        await asyncio.sleep(1)
        second.storage.cut_after = None
        assert words(await more) == "b c"
        running = await second.system.locate("running")
        assert isinstance(running.terminal, TurnFailed)
    assert Diary.begun == ["a 60", "b", "c"]


async def test_a_stop_hands_the_waiting_over_and_ends_what_runs(caplog: pytest.LogCaptureFixture) -> None:
    async with processes() as (first, second):
        running = await first.system.submit(turn("a 60", id="running"))
        waiting = await first.system.submit(turn("b", id="waiting"))
        stopping = asyncio.create_task(first.system.drain(3))
        await asyncio.sleep(0)
        with pytest.raises(NotServing):
            await first.tell("late")
        await stopping
        assert isinstance(running.terminal, TurnFailed)
        assert running.terminal.error.code == "turn_interrupted"
        assert running.terminal.error.message.startswith("the server is stopping")
        assert (
            f"turn running of session 's' failed [{running.terminal.error.id}]: this process" in caplog.text
        )
        with pytest.raises(SessionLost):
            await waiting.ended()
        there = await _ended(await second.system.locate("waiting"))
        assert words(there) == "b"
        assert there.taken_at is None, "it had told nobody anything that it has not told here"
    assert Diary.begun == ["a 60", "b"]


async def test_a_stop_hands_idempotent_turns_over_too() -> None:
    async with processes(idempotent=True) as (first, second):
        running = await first.system.submit(turn("a 1 5", id="t"))
        reading = asyncio.create_task(_told_until_it_is_lost(running))
        await first.system.drain(1.05)  # in which what it has just said is not written down yet
        told = await reading
        assert told[-1] == TextDelta(".", told[-1].item)
        there = await _ended(await second.system.locate("t"))
        assert words(there).endswith("a..")
        assert there.events()[: len(told)] == told
        assert there.taken_at is None, "readers may go on from whatever they had"
    assert Diary.begun == ["a 1 5", "a 1 5"]


async def test_what_is_handed_over_to_another_version_is_not_begun_again_there() -> None:
    async with processes(idempotent=(True, False)) as (first, second):
        await first.system.submit(turn("a 1 5", id="t"))
        await first.system.submit(turn("b", id="waiting"))
        await first.system.drain(1.05)
        there = await _ended(await second.system.locate("t"))
        assert isinstance(there.terminal, TurnFailed)
        assert there.terminal.error.code == "turn_interrupted"
        assert said(there.terminal) == "a."
        assert words(await _ended(await second.system.locate("waiting"))) == "b"
    assert Diary.begun == ["a 1 5", "b"]


async def _told_until_it_is_lost(log: TurnLog) -> list[Any]:
    told: list[Any] = []
    with pytest.raises(SessionLost):
        await _tell(log, told)
    return told


async def _tell(log: TurnLog, told: list[Any]) -> None:
    async for event in log.read():
        told.append(event)  # noqa: PERF401 - they are wanted also if there is no end


# -- a store that fails ------------------------------------------------------------------------------------------------


async def test_an_ending_waits_for_a_store_that_is_away() -> None:
    async with processes(1) as (only,):
        log = await only.system.submit(turn("a 1"))
        await asyncio.sleep(0.5)
        only.storage.cut = True
        await asyncio.sleep(2)
        assert log.terminal is None, "nobody is told of an ending that is not written down"
        only.storage.cut = False
        assert words(await _ended(log)) == "a."
        assert words(await only.tell("b")) == "a b"


async def test_a_stop_lets_go_of_a_turn_whose_ending_the_store_does_not_take() -> None:
    async with processes() as (first, second):
        log = await first.system.submit(turn("a 60", id="a"))
        await asyncio.sleep(1)
        first.storage.cut = True
        await first.system.stop()
        with pytest.raises(SessionLost):
            await log.ended()
        there = await _ended(await second.system.locate("a"))
        assert isinstance(there.terminal, TurnFailed)
        assert there.terminal.error.code == "turn_interrupted"


@pytest.mark.parametrize("lost", range(1, 5))
async def test_answers_that_are_lost_lose_and_double_nothing(lost: int) -> None:
    async with processes(1) as (only,):
        await only.tell("a")
        log = await only.system.submit(turn("b 1", id="b"))
        only.storage.lose_answers = lost
        await log.ended()
        assert words(log) == "a b."
        assert words(await only.tell("c")) == "a b c"
        record = await only.system.store.load(KEY)
        assert record is not None
        assert [len(record.turns), record.revision] == [3, 3]
    assert Diary.begun == ["a", "b 1", "c"]


async def test_a_turn_whose_acceptance_is_not_known_is_refused_and_gone() -> None:
    async with processes() as (first, second):
        first.storage.lose_answers = 100
        with pytest.raises(StoreUnavailable):
            await first.tell("a", id="t")
        first.storage.lose_answers = 0
        await asyncio.sleep(5)
        with pytest.raises(TurnNotFound):
            await second.system.locate("t")
        assert words(await second.tell("b")) == "b"
    assert Diary.begun == ["b"]


async def test_a_refusal_of_a_store_that_is_away_says_when_to_come_back() -> None:
    async with processes(1) as (only,):
        only.storage.cut = True
        with pytest.raises(StoreUnavailable) as refused:
            await only.tell("a")
        assert refused.value.retry_after
        only.storage.cut = False
        assert words(await only.tell("b")) == "b"


async def test_who_gives_up_waiting_for_an_acceptance_loses_nothing() -> None:
    async with processes(1) as (only,):
        asking = asyncio.create_task(only.system.submit(turn("a", id="t")))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.sleep(1)
        assert words(await only.system.locate("t")) == "a"
