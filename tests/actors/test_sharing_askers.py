"""Clients that go before their turn is accepted: it continues from one that another process is at work on."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from msgspec import structs

from greenroom.actors.errors import MailboxFull, StoreUnavailable, TurnMoved, TurnNotFound
from greenroom.actors.events import TurnCancelled
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Disconnect, Turn
from greenroom.actors.repeats import UNNAMED
from kits.sharing import LEASE, LIMITS, Diary, Process, processes, repeatable, words
from kits.system import turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time

CONTINUE, CANCEL = Disconnect(), Disconnect("cancel")
PATIENT = structs.replace(LIMITS, elsewhere_seconds=30.0)


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    Diary.begun.clear()


async def leaves(process: Process, asked: Turn, after: float = 1.0) -> None:
    """Ask, and go while the turn is being taken in."""
    asking = asyncio.create_task(process.system.submit(asked))
    await asyncio.sleep(after)
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
        raise AssertionError("it was taken in before its client left")


async def is_known(process: Process, turn_id: str) -> bool:
    try:
        await process.system.locate(turn_id)
    except TurnNotFound:
        return False
    return True


async def following(log: TurnLog) -> None:
    await log.ended()


@pytest.mark.parametrize("policy", [CANCEL, Disconnect("grace", 0.5)], ids=lambda policy: policy.policy)
@pytest.mark.parametrize("line", [False, True], ids=["first", "in line"])
async def test_a_turn_that_is_to_be_cancelled_is_not_taken_in(policy: Disconnect, line: bool) -> None:
    async with processes(limits=PATIENT) as (first, second):
        held = await first.system.submit(turn("a 5", id="a"))
        before = [asyncio.create_task(second.tell("b", after="a"))] if line else []
        await asyncio.sleep(0.5)
        await leaves(second, turn("x", id="t", disconnect=policy, after=None if line else "a"))
        after = await second.tell("c")
        assert words(held) == "a."
        await asyncio.gather(*before)
        assert words(after).split() == (["a", "b", "c"] if line else ["a", "c"])
        assert not await is_known(second, "t")
        assert "x" not in Diary.begun


async def test_one_that_runs_on_whatever_happens_is_run() -> None:
    async with processes(limits=PATIENT) as (first, second):
        await first.system.submit(turn("a 5", id="a"))
        await leaves(second, turn("b", id="t", disconnect=CONTINUE, after="a"))
        assert words(await second.tell("c")) == "a b c"
        assert await is_known(second, "t")


async def test_one_that_is_accepted_within_its_grace_is_cancelled_after_it() -> None:
    async with processes(limits=PATIENT) as (first, second):
        await first.system.submit(turn("a 5", id="a"))
        await leaves(second, turn("b 60", id="t", disconnect=Disconnect("grace", 10.0), after="a"))
        await asyncio.sleep(6)
        log = second.system.find("t")
        await asyncio.sleep(8)
        assert log.terminal is None
        await asyncio.sleep(4)
        assert isinstance(log.terminal, TurnCancelled)
        assert Diary.begun == ["a 5", "b 60"]


async def test_one_that_somebody_follows_within_its_grace_is_not() -> None:
    async with processes(limits=PATIENT) as (first, second):
        await first.system.submit(turn("a 5", id="a"))
        await leaves(second, turn("b 30", id="t", disconnect=Disconnect("grace", 10.0), after="a"))
        await asyncio.sleep(6)
        log = second.system.find("t")
        await following(log)
        assert words(log) == "a b."


@pytest.mark.parametrize("policy", [CANCEL, Disconnect("grace", 3.0)], ids=lambda policy: policy.policy)
async def test_who_asks_again_meanwhile_has_his_turn(policy: Disconnect) -> None:
    async with processes(limits=PATIENT) as (first, second):
        await first.system.submit(turn("a 5", id="a"))
        asked = repeatable("b", id="t", disconnect=policy, after="a")
        await leaves(second, asked)
        again = await second.system.submit(asked)
        await again.ended()
        assert words(again) == "a b"
        assert Diary.begun == ["a 5", "b"]


async def test_who_leaves_the_line_makes_room() -> None:
    limits = structs.replace(PATIENT, waiting_turns=1)
    async with processes(limits=limits) as (first, second):
        await first.system.submit(turn("a 5", id="a"))
        waiting = asyncio.create_task(second.tell("b", after="a"))
        await asyncio.sleep(0.5)
        last = asyncio.create_task(second.system.submit(turn("x", disconnect=CANCEL)))
        await asyncio.sleep(0.5)
        with pytest.raises(MailboxFull):
            await second.system.submit(turn("c"))
        last.cancel()
        await asyncio.sleep(0.1)
        assert words(await second.tell("c")) == "a b c"
        await waiting


async def test_one_that_was_recorded_by_a_process_that_was_late_has_moved() -> None:
    async with processes() as (first, second):
        first.storage.gate = asyncio.Event()
        asking = asyncio.create_task(first.system.submit(turn("a", id="t")))
        await asyncio.sleep(0.5)
        first.storage.cut = True
        await asyncio.sleep(LEASE + 1)
        first.storage.cut = False
        await asyncio.sleep(2)
        first.storage.gate.set()
        with pytest.raises(TurnMoved) as moved:
            await asking
        assert moved.value.turn_id == "t"
        await following(await second.system.locate("t"))


async def test_one_that_was_not_recorded_may_be_sent_again() -> None:
    async with processes() as (first, _):
        first.storage.cut = True
        with pytest.raises(StoreUnavailable) as refused:
            await first.system.submit(turn("a", id="t"))
        assert refused.value.nothing_kept
        first.storage.cut = False
        await asyncio.sleep(LEASE)
        assert not await is_known(first, "t")


async def test_one_of_which_nobody_knows_whether_it_was_recorded_may_be_sent_again() -> None:
    async with processes() as (first, _):
        first.storage.lose_answers = 1
        with pytest.raises(StoreUnavailable) as refused:
            await first.system.submit(turn("a", id="t"))
        assert refused.value.nothing_kept
        assert words(await first.tell("b")) == "b", "it was removed"


async def test_one_that_its_client_asks_for_by_the_servers_id_is_joined_wherever_it_went() -> None:
    async with processes(idempotent=True) as (first, second):
        asked = structs.replace(turn("a 60", id="t"), fingerprint=UNNAMED)
        await first.system.submit(asked)
        first.storage.cut = True
        await asyncio.sleep(LEASE + 2)
        first.storage.cut = False
        await asyncio.sleep(2)
        again = await first.system.submit(structs.replace(asked, request=structs.replace(asked.request)))
        there = await second.system.locate("t")
        await following(again)
        assert words(again) == words(there)
        assert Diary.begun == ["a 60", "a 60"], "here, and once more there"
