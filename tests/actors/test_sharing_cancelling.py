"""Turns that are cancelled from another process than the one that has them, which is gone before it hears of it."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs

from greenroom.actors.events import TurnCancelled
from greenroom.actors.limits import Limits
from greenroom.services.durable import is_durable
from kits import sharing
from kits.sharing import KEY, LEASE, LIMITS, Diary, processes, words
from kits.system import said, turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time

PATIENT = structs.replace(LIMITS, elsewhere_seconds=4 * LEASE)
INCURIOUS = structs.replace(PATIENT, recovery_seconds=3600.0)
"""Of what a dead process left, only a turn of the same session takes care."""


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    Diary.begun.clear()


@pytest.mark.parametrize("after_its_death", [False, True])
@pytest.mark.parametrize("limits", [PATIENT, INCURIOUS], ids=["found", "asked"])
async def test_a_turn_that_was_cancelled_before_it_began_never_begins(
    limits: Limits, after_its_death: bool
) -> None:
    async with processes(limits=limits) as (first, second):
        await first.system.submit(turn("a 60", id="running"))
        for text in "bcd":
            await first.system.submit(turn(text, id=text))
        await asyncio.sleep(0.1)
        first.storage.cut = after_its_death
        logs = [await second.system.cancel(name, reason="enough") for name in ("b", "d")]
        first.storage.cut = True
        assert words(await second.tell("e")) == "c e"
        for name, log in zip("bd", logs, strict=True):
            assert isinstance(await log.ended(), TurnCancelled)
            there = await second.system.locate(name)
            assert isinstance(there.terminal, TurnCancelled)
            assert there.terminal.reason == "enough"
    assert Diary.begun == ["a 60", "c", "e"]


@pytest.mark.parametrize("idempotent", [False, True])
async def test_one_that_had_begun_ends_as_cancelled_with_what_it_had_said(idempotent: bool) -> None:
    async with processes(idempotent=idempotent) as (first, second):
        await first.system.submit(turn("a 1 60", id="running"))
        await asyncio.sleep(2)
        await second.system.cancel("running", reason="enough")
        first.storage.cut = True
        there = await second.system.locate("running")
        ending = await there.ended()
        assert isinstance(ending, TurnCancelled)
        assert (ending.reason, said(ending)) == ("enough", "a.")
        record = await second.system.store.load(KEY)
        assert record is not None
        assert [(one.turn_id, one.status) for one in record.turns] == [("running", "cancelled")]
    assert Diary.begun == ["a 1 60"]


@pytest.mark.parametrize("after_its_death", [False, True])
async def test_a_third_process_never_begins_a_turn_that_was_cancelled(after_its_death: bool) -> None:
    async with processes(3) as (first, second, third):
        await first.system.submit(turn("a 60", id="running"))
        for text in "bcd":
            await first.system.submit(turn(text, id=text))
        await asyncio.sleep(0.1)
        first.storage.cut = after_its_death
        for name in "bd":
            await second.system.cancel(name, reason="enough")
        first.storage.cut = second.storage.cut = True
        await asyncio.sleep(2 * LEASE)
        for name in "bd":
            there = await third.system.locate(name)
            assert isinstance(there.terminal, TurnCancelled)
            assert there.terminal.reason == "enough"
        assert words(await third.tell("e")) == "c e"
    assert Diary.begun == ["a 60", "c", "e"]


@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_third_process_ends_one_that_had_begun_with_what_it_had_said(idempotent: bool) -> None:
    async with processes(3, idempotent=idempotent) as (first, second, third):
        await first.system.submit(turn("a 1 60", id="running"))
        await asyncio.sleep(2)
        await second.system.cancel("running", reason="enough")
        first.storage.cut = second.storage.cut = True
        await asyncio.sleep(2 * LEASE)
        ending = (await third.system.locate("running")).terminal
        assert isinstance(ending, TurnCancelled)
        assert (ending.reason, said(ending)) == ("enough", "a.")
    assert Diary.begun == ["a 1 60"]


async def test_one_that_is_handed_over_before_its_process_heard_is_not_begun_once_more() -> None:
    async with processes(3, idempotent=True) as (first, second, third):
        await first.system.submit(turn("a 1 60", id="running"))
        await first.system.submit(turn("b", id="waiting"))
        await asyncio.sleep(2)
        first.storage.deaf = True
        for name in ("running", "waiting"):
            await second.system.cancel(name, reason="enough")
        second.storage.cut = True
        await first.system.drain(0)
        await asyncio.sleep(LEASE)
        endings = [(await third.system.locate(name)).terminal for name in ("running", "waiting")]
        assert [type(ending) for ending in endings] == [TurnCancelled, TurnCancelled]
        record = await third.system.store.load(KEY)
        assert record is not None
        assert [said(one.output) for one in record.turns] == ["a."]
    assert Diary.begun == ["a 1 60"]


async def test_a_cancelled_turn_that_its_process_has_lost_is_cancelled_where_it_is_now() -> None:
    async with processes(idempotent=True) as (first, second):
        await first.system.submit(turn("a 60", id="running"))
        await asyncio.sleep(0.5)
        store = first.system.store
        assert is_durable(store)
        await second.storage.renew(store.owner, 0.0, "gone")
        following = asyncio.create_task(second.tell("b"))
        await asyncio.sleep(0.1)
        assert Diary.begun == ["a 60", "a 60"]
        await first.system.cancel("running", reason="enough")  # it does not know yet that it is late
        await asyncio.sleep(0.1)
        there = await store.find("running", None)
        assert there is not None
        assert there.cancelled == "enough"
        assert words(await following) == "b"
        log = await second.system.locate("running")
        assert isinstance(log.terminal, TurnCancelled)


@pytest.mark.parametrize("running", ["a 5", "a 0.6 4.4"], ids=["silent", "said something meanwhile"])
async def test_one_that_waits_never_begins_even_if_its_process_hears_of_nothing(running: str) -> None:
    async with processes() as (first, second):
        await first.system.submit(turn(running))
        for text in "bc":
            await first.system.submit(turn(text, id=text))
        await asyncio.sleep(0.1)
        first.storage.deaf = True
        await second.system.cancel("b", reason="enough")
        second.storage.cut = True  # and nobody insists
        last = await first.system.locate("c")
        await last.ended()
        assert words(last) == "a c"
        assert isinstance((await first.system.locate("b")).terminal, TurnCancelled)
    assert Diary.begun == [running, "c"]


async def test_it_is_recorded_once_however_long_it_is_insisted() -> None:
    async with processes() as (first, second):
        await first.system.submit(turn("a 60", id="running"))
        await first.system.submit(turn("b", id="waiting"))
        first.storage.deaf = True
        before = second.storage.writes
        for name in ("running", "waiting"):
            await second.system.cancel(name, reason="enough")
        await asyncio.sleep(20)
        assert second.storage.writes == before + 2
        first.storage.deaf = False
        there = await second.system.locate("waiting")
        assert isinstance(await there.ended(), TurnCancelled)
    assert Diary.begun == ["a 60"]


async def test_it_is_insisted_for_as_long_as_a_dead_process_may_seem_to_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sharing, "LEASE", 60.0)
    async with processes(limits=PATIENT) as (first, second):
        await first.system.submit(turn("a 1000", id="running"))
        await first.system.submit(turn("b 1", id="waiting"))
        await asyncio.sleep(1)
        first.storage.cut = True
        await second.system.cancel("waiting", reason="enough")
        await asyncio.sleep(65)
        there = await second.system.locate("waiting")
        assert isinstance(await there.ended(), TurnCancelled)
    assert Diary.begun == ["a 1000"]
