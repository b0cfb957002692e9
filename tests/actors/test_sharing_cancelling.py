"""Turns that are cancelled from another process than the one that has them, which is gone before it hears of it."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs

from greenroom.actors.events import TurnCancelled
from greenroom.actors.limits import Limits
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
