"""Sessions that are deleted in processes that share a store: what runs in them is cancelled, wherever it runs, and
every turn that was accepted has its ending."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from msgspec import structs

from greenroom.actors.elsewhere import SEEN_SECONDS
from greenroom.actors.errors import NotServing, SessionBusy, SessionHeld, StoreUnavailable, TurnNotFound
from greenroom.actors.events import Terminal, TurnCancelled, TurnFailed
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import SessionKey
from greenroom.services.durable import DurableStore, Standing
from greenroom.services.durable_state import DurableStateService
from greenroom.services.sessions.head import ENTRY, folder_of
from greenroom.services.storage import Cell, Change
from kits.sharing import KEY, LEASE, LIMITS, Diary, Process, processes, words
from kits.system import turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time

PATIENT = structs.replace(LIMITS, elsewhere_seconds=4 * LEASE)
INCURIOUS = structs.replace(PATIENT, recovery_seconds=3600.0)
"""Of what a dead process left, only who wants something of the same session takes care."""


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    Diary.begun.clear()


def is_deleted(ending: Terminal | None) -> bool:
    return isinstance(ending, TurnCancelled) and ending.reason == "its session is deleted"


async def check_nothing_is_left(process: Process, *turns: str) -> None:
    assert await process.system.store.load(KEY) is None
    assert await process.storage.sessions("session", "u") == ()
    for turn_id in turns:
        with pytest.raises(TurnNotFound):
            await process.system.locate(turn_id)


@pytest.mark.parametrize("history", [False, True])
async def test_what_runs_and_waits_in_another_process_is_cancelled_and_then_deleted(history: bool) -> None:
    async with processes(3) as (first, second, third):
        if history:
            await first.tell("before")
        logs = [await first.system.submit(turn(text, id=text)) for text in ("a 60", "b", "c")]
        followed = [await process.system.locate("a 60") for process in (second, third)]
        reading = [asyncio.create_task(log.ended()) for log in followed]
        await asyncio.sleep(1)
        before = asyncio.get_running_loop().time()
        await second.system.forget(KEY)
        assert asyncio.get_running_loop().time() - before < LIMITS.elsewhere_seconds
        assert all(is_deleted(log.terminal) for log in logs)
        assert [is_deleted(ending) for ending in await asyncio.gather(*reading)] == [True, True]
        await check_nothing_is_left(third, "a 60", "b", "c")
        assert words(await first.tell("d")) == "d"
        assert words(await third.tell("e")) == "d e"
    assert Diary.begun == [*["before"][:history], "a 60", "d", "e"]


async def test_a_session_that_begins_anew_has_nothing_of_the_one_that_was_deleted() -> None:
    async with processes() as (first, second):
        await first.tell("a")
        await second.system.forget(KEY)
        assert words(await first.tell("b")) == "b", "an agent that was kept warm is out of date"
        await first.system.forget(KEY)
        assert words(await second.tell("c")) == "c"


async def test_no_two_turns_of_a_session_run_at_once_because_it_was_deleted() -> None:
    async with processes() as (first, second):
        running = await first.system.submit(turn("a 60", id="a"))
        await asyncio.sleep(1)
        deleting = asyncio.create_task(second.system.forget(KEY))
        await asyncio.sleep(0.1)
        with pytest.raises(SessionBusy, match="being deleted"):
            await second.tell("b")
        await deleting
        assert is_deleted(running.terminal)
        assert words(await second.tell("c")) == "c"


async def test_who_follows_in_another_process_what_runs_here_sees_the_ending() -> None:
    async with processes() as (first, second):
        await first.system.submit(turn("a 60", id="a"))
        reading = asyncio.create_task((await second.system.locate("a")).ended())
        await asyncio.sleep(30)
        await first.system.forget(KEY)
        assert is_deleted(await reading)


@pytest.mark.parametrize("place", [0, 1])
async def test_who_follows_what_has_just_ended_elsewhere_sees_the_ending(place: int) -> None:
    async with processes() as found:
        running = await found[0].system.submit(turn("a 8"))
        followed = await found[1].system.submit(turn("b 0.01"))
        reading = asyncio.create_task(followed.ended())
        await running.ended()
        await asyncio.sleep(0.1)
        await found[place].system.forget(KEY)
        await reading
        assert words(followed) == "a b."
        await check_nothing_is_left(found[place])


async def test_turns_that_keep_coming_elsewhere_do_not_keep_the_session() -> None:
    async with processes() as (first, second):
        deleted = asyncio.create_task(first.system.forget(KEY))
        while not deleted.done():
            await second.tell("a")
            await asyncio.sleep(0.3)
        await deleted


async def test_without_open_turns_nobody_is_waited_for() -> None:
    async with processes() as (first, second):
        await first.tell("a")
        await asyncio.sleep(2 * SEEN_SECONDS)
        before = asyncio.get_running_loop().time()
        await second.system.forget(KEY)
        await second.system.forget(KEY)
        assert asyncio.get_running_loop().time() == before


@pytest.mark.parametrize("limits", [PATIENT, INCURIOUS], ids=["found", "asked"])
@pytest.mark.parametrize("idempotent", [False, True])
async def test_what_a_dead_process_left_is_ended_and_not_run(idempotent: bool, limits: Any) -> None:
    async with processes(limits=limits, idempotent=idempotent) as (first, second):
        await first.system.submit(turn("a 60", id="a"))
        await first.system.submit(turn("b", id="b"))
        followed = [asyncio.create_task((await second.system.locate(name)).ended()) for name in "ab"]
        await asyncio.sleep(1)
        first.storage.cut = True
        await second.system.forget(KEY)
        assert [is_deleted(ending) for ending in await asyncio.gather(*followed)] == [True, True]
        await check_nothing_is_left(second, "a")
    assert Diary.begun == ["a 60"]


async def test_a_process_that_does_not_answer_keeps_its_session() -> None:
    async with processes() as (first, second):
        await first.tell("a")
        await first.system.submit(turn("b 20", id="b"))
        await asyncio.sleep(1)
        first.storage.deaf = True
        before = asyncio.get_running_loop().time()
        with pytest.raises(SessionHeld) as held:
            await second.system.forget(KEY)
        assert asyncio.get_running_loop().time() - before == pytest.approx(LIMITS.elsewhere_seconds, abs=0.5)
        assert (held.value.status, held.value.retry_after) == (503, 1.0)
        record = await second.system.store.load(KEY)
        assert record is not None
        first.storage.deaf = False
        assert is_deleted(await (await second.system.locate("b")).ended()), "it was asked to stop"
        await second.system.forget(KEY)
        await check_nothing_is_left(second)


async def test_a_damaged_turn_takes_no_ending_from_the_turn_that_runs() -> None:
    async with processes() as (first, second):
        running = await first.system.submit(turn("a 60", id="a"))
        await first.system.submit(turn("b", id="b"))
        await asyncio.sleep(1)
        damage = Change(key=folder_of(KEY), put=[(Cell(ENTRY, 2), b"\0garbage")])
        await second.storage.write([damage])
        await second.system.forget(KEY)
        assert is_deleted(running.terminal)
        await check_nothing_is_left(second, "a", "b")
        assert words(await second.tell("c")) == "c"


class Notes:
    """A service of the application, which keeps what it has where it likes."""

    def __init__(self) -> None:
        self.forgotten: list[SessionKey] = []

    async def fork(self, source: SessionKey, turn_id: str, turns: Sequence[str], target: SessionKey) -> bool:
        return True

    async def forget(self, key: SessionKey) -> None:
        self.forgotten.append(key)


async def test_a_deletion_that_is_refused_leaves_what_services_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they have in the sessions' own storage goes with the session, in one write, and the rest after it."""
    async with processes() as (first, second):
        await first.tell("a")
        notes, states = Notes(), DurableStateService(second.storage)
        second.system.services.add(notes)
        async with states:
            await states.save_state(KEY.user_id, {"seen": 1}, KEY.session_id)
            store = cast("DurableStore", second.system.store)
            standing = store.standing

            async def overtaken(key: SessionKey) -> Standing:
                found = await standing(key)
                await first.tell("more 0.5")
                return found

            monkeypatch.setattr(store, "standing", overtaken)
            with pytest.raises(SessionHeld, match="nothing is deleted"):
                await second.system.forget(KEY)
            assert await states.export_state(*KEY) == {"seen": 1}
            assert notes.forgotten == []
            monkeypatch.setattr(store, "standing", standing)
            second.storage.cut_after = 1
            await second.system.forget(KEY)
            second.storage.cut_after = None
            assert await states.export_state(*KEY) is None
            assert notes.forgotten == [KEY]
        await check_nothing_is_left(second)


async def test_a_store_that_is_away_keeps_it() -> None:
    async with processes() as (first, second):
        await first.tell("a")
        second.storage.cut = True
        with pytest.raises(StoreUnavailable):
            await second.system.forget(KEY)
        second.storage.cut = False
        assert words(await second.tell("b")) == "a b"


async def test_a_process_that_stops_deletes_nothing_more() -> None:
    async with processes() as (first, second):
        await first.system.submit(turn("a 60", id="a"))
        await asyncio.sleep(1)
        first.storage.deaf = True
        deleting = asyncio.create_task(second.system.forget(KEY))
        await asyncio.sleep(1)
        await second.system.stop()
        with pytest.raises(NotServing):
            await deleting
        assert (await first.system.locate("a")).terminal is None


async def test_deletions_and_turns_in_all_processes_leave_no_turn_without_its_ending() -> None:
    async with processes(3) as found:
        logs: list[TurnLog] = []

        async def talk(number: int, process: Process) -> None:
            for count in range(10):
                await asyncio.sleep(0.03 * number)
                try:
                    logs.append(await process.system.submit(turn(f"{number}-{count} 0.1")))
                except (SessionBusy, SessionHeld):
                    """It is being deleted here, or at work elsewhere."""

        async def delete(process: Process) -> None:
            for _ in range(5):
                try:
                    await process.system.forget(KEY)
                except SessionHeld:
                    """There is always one more."""
                await asyncio.sleep(0.2)

        await asyncio.gather(*map(talk, range(1, 4), found), *map(delete, found))
        endings = [await log.ended() for log in logs]
        assert len(endings) > 5
        assert [ending for ending in endings if isinstance(ending, TurnFailed)] == []
        await asyncio.sleep(SEEN_SECONDS)
        await found[0].system.forget(KEY)
        await check_nothing_is_left(found[1])
    assert len(set(Diary.begun)) == len(Diary.begun)
