"""What goes wrong in the middle of it, where processes share a store: no turn is lost, begun twice, or told of wrongly,
and no session is left that nobody can have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from msgspec import structs

from greenroom.actors.actor import SessionActor
from greenroom.actors.errors import GreenroomError, NotServing, SessionLost, StoreUnavailable
from greenroom.actors.events import TurnCancelled, TurnCompleted, TurnFailed
from greenroom.services.durable import TurnEntry
from greenroom.services.sessions.durable_store import DurableSessions
from kits.sharing import LEASE, LIMITS, Diary, Process, processes, words
from kits.system import asked, turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    Diary.begun.clear()


async def entry(process: Process, turn_id: str) -> TurnEntry | None:
    store = process.system.store
    assert isinstance(store, DurableSessions)
    return await store.find(turn_id, None)


async def ending(process: Process, turn_id: str) -> Any:
    """How a turn ends, asked for again whenever its process is gone."""
    for _ in range(60):
        try:
            async with asyncio.timeout(300):
                return await (await process.system.locate(turn_id)).ended()
        except (SessionLost, StoreUnavailable):
            await asyncio.sleep(1)
    raise AssertionError(f"turn {turn_id} does not end")


async def until(what: Callable[[], bool]) -> None:
    for _ in range(1000):
        if what():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it does not come to that")


def clean(process: Process) -> None:
    """Nothing is left of what the process did."""
    statistics = process.system.statistics()
    assert (statistics.open_turns, statistics.active_sessions - statistics.idle_sessions) == (0, 0)


# -- endings -----------------------------------------------------------------------------------------------------------


async def test_the_ending_that_is_told_is_the_one_that_is_written() -> None:
    """The first ending is written and nobody is told; the second one finds the store away, and then that it is late."""
    limits = structs.replace(LIMITS, store_seconds=2.0)
    async with processes(2, limits=limits) as (first, second):
        log = await first.system.submit(turn("a 0.2", id="t"))
        first.storage.lose_answers, first.storage.cut_then = 1, True
        await asyncio.sleep(3.7)
        first.storage.cut = False
        told, written = await log.ended(), await entry(second, "t")
        assert written is not None
        assert told == written.events[-1]
        assert log.events() == (await second.system.locate("t")).events()
        assert words(await first.tell("b")) == "a b"
        clean(first)


async def test_what_the_actor_fails_over_leaves_no_session_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect ends the running turn's task before the turn: the others of its session are run all the same."""
    async with processes() as (first, second):
        await first.system.submit(turn("a 1", id="a"))
        await first.system.submit(turn("b", id="b"))
        finish, failing = SessionActor._finish, iter([True])

        async def broken(actor: SessionActor, *rest: Any) -> bool:
            if next(failing, False):
                raise ZeroDivisionError
            return await finish(actor, *rest)

        monkeypatch.setattr(SessionActor, "_finish", broken)
        assert isinstance(await ending(second, "b"), TurnCompleted)
        assert isinstance(await ending(first, "a"), TurnFailed)
        assert words(await second.tell("c")) == "b c"
        clean(first)
    assert Diary.begun == ["a 1", "b", "c"]


async def stubborn(msgs: Any) -> AsyncIterator[str]:
    Diary.begun.append("stubborn")
    yield "."
    for _ in range(30):
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            Diary.begun.append("swallowed")


async def test_an_ending_over_the_handlers_head_that_is_answered_too_late() -> None:
    """The session is lost while the ending's write is on its way: nothing here is told or begun after that."""
    troubles: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
    async with processes(2, function=stubborn, agent=False) as (first, _):
        log = await first.system.submit(turn("a", id="t"))
        await asyncio.sleep(0.5)
        await first.system.cancel("t")
        await asyncio.sleep(0.5)
        first.storage.gate = asyncio.Event()
        await asyncio.sleep(1)
        gate, first.storage.gate = first.storage.gate, None
        first.storage.cut = True
        with pytest.raises(SessionLost):
            await log.ended()
        first.storage.cut = False
        await asyncio.sleep(1)
        gate.set()
        await asyncio.sleep(1)
        assert not troubles
        assert isinstance(await ending(first, "t"), TurnCancelled)
        await asyncio.sleep(40)
        clean(first)


# -- sessions that are taken, and turns that are accepted --------------------------------------------------------------


async def test_a_turn_that_is_accepted_and_then_has_no_place_is_not_left_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with processes(3) as (first, second, third):
        one = await first.tell("a")
        load = DurableSessions.load
        failing = iter([False, True])

        async def fails(store: DurableSessions, key: Any) -> Any:
            if store is second.system.store and next(failing, False):
                raise StoreUnavailable("it is away")
            return await load(store, key)

        monkeypatch.setattr(DurableSessions, "load", fails)
        with pytest.raises(StoreUnavailable):
            await second.tell("b", id="b", after=one.id)
        assert words(await third.tell("c")) == "a c"
        assert await entry(third, "b") is None
    assert Diary.begun == ["a", "c"]


async def test_a_session_that_cannot_be_dealt_with_nor_let_go_is_let_go_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with processes(3) as (first, second, third):
        await first.system.submit(turn("a 60", id="a"))
        await first.system.submit(turn("b", id="b"))
        first.storage.cut = third.storage.cut = True
        finish = DurableSessions.finish

        async def fails(store: DurableSessions, key: Any, end: Any) -> None:
            if store is second.system.store:
                second.storage.cut = True
                raise ZeroDivisionError
            await finish(store, key, end)

        monkeypatch.setattr(DurableSessions, "finish", fails)
        await until(lambda: second.storage.cut)
        await asyncio.sleep(1)
        second.storage.cut = third.storage.cut = False
        monkeypatch.undo()
        monkeypatch.setattr(second.system._sharing, "_take_over", _never)
        assert isinstance(await ending(third, "b"), TurnCompleted)
        assert isinstance(await ending(third, "a"), TurnFailed)
    assert Diary.begun == ["a 60", "b"]


async def _never(key: Any) -> None:
    """Another process is to do it."""


async def test_turns_of_a_session_that_was_lost_while_it_was_taken_are_not_begun() -> None:
    """Its process is late while the write that takes the session is on its way."""
    async with processes(3) as (first, second, third):
        await first.system.submit(turn("a 60", id="a"))
        await first.system.submit(turn("b 5", id="b"))
        first.storage.cut = third.storage.cut = True
        second.storage.gate = gate = asyncio.Event()
        writes = second.storage.writes
        await until(lambda: second.storage.writes > writes)
        await asyncio.sleep(0.1)
        gate.set()
        second.storage.gate = gate = asyncio.Event()
        await until(lambda: second.storage.writes > writes + 1)
        second.storage.cut = True
        await asyncio.sleep(LEASE + 1)
        third.storage.cut = False
        await asyncio.sleep(0.9)
        second.storage.gate = None
        gate.set()
        second.storage.cut = False
        for name in "ab":
            assert isinstance(await ending(third, name), TurnFailed)
    assert Diary.begun == ["a 60"]


async def test_a_session_is_not_begun_when_taking_it_was_answered_too_late() -> None:
    async with processes(3, idempotent=True) as (first, second, third):
        await first.system.submit(turn("a 5", id="a"))
        first.storage.cut = third.storage.cut = True
        second.storage.gate = gate = asyncio.Event()
        writes = second.storage.writes
        await until(lambda: second.storage.writes > writes)
        second.storage.cut = True
        await asyncio.sleep(LEASE + 1)
        third.storage.cut = False
        second.storage.gate = None
        second.storage.cut = False
        gate.set()
        assert isinstance(await ending(third, "a"), TurnCompleted)
    assert Diary.begun == ["a 5"] * 2


# -- processes that stop -----------------------------------------------------------------------------------------------


async def within(seconds: float, stopping: Any) -> None:
    now = asyncio.get_running_loop().time
    begun = now()
    await stopping
    assert now() - begun <= seconds


async def test_a_stop_does_not_wait_for_turns_that_wait_for_another_one() -> None:
    async with processes() as (first, second):
        running = await first.system.submit(turn("a 600", id="a"))
        await first.system.submit(turn("b"))
        following = asyncio.create_task(first.system.submit(turn("fork", after="a")))
        behind = asyncio.create_task(first.system.submit(turn("c")))
        await asyncio.sleep(1)
        await within(5, first.system.drain(1))
        assert isinstance(running.terminal, TurnFailed)
        for waiting in (following, behind):
            with pytest.raises(NotServing):
                await waiting
        assert words(await second.tell("d")) == "b d"


async def test_a_stop_does_not_wait_for_a_store_that_is_away() -> None:
    async with processes() as (first, second):
        await first.system.submit(turn("a 600", id="a"))
        first.storage.cut = True
        second.storage.cut_after = 1
        asking = asyncio.create_task(second.tell("b"))
        await asyncio.sleep(LEASE + 3)
        second.storage.cut = True
        await within(10, second.system.stop())
        with pytest.raises(GreenroomError):
            await asking


async def test_a_stop_does_not_wait_for_endings_that_cannot_be_written() -> None:
    limits = structs.replace(LIMITS, cancel_seconds=0.5)
    async with processes(limits=limits) as (first, second):
        await first.system.submit(turn("a 600", id="a"))
        await first.system.submit(turn("b", id="b"))
        await asyncio.sleep(0.5)
        first.storage.cut = True
        await within(2.5, first.system.stop())
        assert isinstance(await ending(second, "a"), TurnFailed)
        assert isinstance(await ending(second, "b"), TurnCompleted)
    assert Diary.begun == ["a 600", "b"]


@pytest.mark.parametrize("steps", range(12))
async def test_a_stop_does_not_wait_for_a_turn_that_begins_just_then(steps: int) -> None:
    async def function(msgs: Any) -> AsyncIterator[str]:
        yield "."
        if asked(msgs[-1]) == "long":
            await asyncio.sleep(600)
        await asyncio.sleep(1)
        for _ in range(steps):
            await asyncio.sleep(0)

    async with processes(function=function, agent=False) as (first, second):
        for name in ("short", "long"):
            await first.system.submit(turn(name, id=name))
        await within(6, first.system.drain(1))
        clean(first)
        assert isinstance(await ending(second, "short"), TurnCompleted | TurnFailed)


async def tidy(msgs: Any) -> AsyncIterator[str]:
    Diary.begun.append("tidy")
    try:
        await asyncio.sleep(10)
        yield "."
    finally:
        await asyncio.sleep(0.5)


async def test_a_turn_that_is_being_cancelled_is_not_begun_again_elsewhere() -> None:
    async with processes(2, function=tidy, agent=False, idempotent=True) as (first, second):
        await first.system.submit(turn("a", id="t"))
        await asyncio.sleep(1)
        await first.system.cancel("t")
        await first.system.drain(0)
        assert isinstance(await ending(second, "t"), TurnCancelled)
    assert Diary.begun == ["tidy"]


async def test_one_that_waited_and_was_cancelled_is_not_run_elsewhere() -> None:
    async with processes() as (first, second):
        await first.system.submit(turn("a 600", id="a"))
        for name in "bc":
            await first.system.submit(turn(name, id=name))
        gate = first.storage.gate = asyncio.Event()
        await first.system.cancel("b")
        stopping = asyncio.create_task(first.system.drain(0))
        await asyncio.sleep(0.2)
        gate.set()
        await stopping
        assert isinstance(await ending(second, "b"), TurnCancelled)
        assert isinstance(await ending(second, "c"), TurnCompleted)
    assert Diary.begun == ["a 600", "c"]


# -- across processes --------------------------------------------------------------------------------------------------


async def test_a_turn_may_interrupt_the_one_that_runs_elsewhere() -> None:
    async with processes() as (first, second):
        log = await first.system.submit(turn("a 60"))
        assert words(await second.tell("b", overlap="interrupt")) == "b"
        assert isinstance(log.terminal, TurnCancelled)


@pytest.mark.parametrize("overlap", ["reject", "interrupt"])
async def test_the_applications_overlap_holds_across_processes(overlap: Any) -> None:
    async with processes(overlap=overlap) as (first, second):
        log = await first.system.submit(turn("a 3"))
        asking = asyncio.create_task(second.tell("b"))
        if overlap == "reject":
            with pytest.raises(GreenroomError, match="reject"):
                await asking
            assert isinstance(await log.ended(), TurnCompleted)
        else:
            await asking
            assert isinstance(log.terminal, TurnCancelled)


async def test_a_turn_whose_process_is_gone_is_cancelled_all_the_same() -> None:
    async with processes() as (first, second):
        await first.system.submit(turn("a 60", id="a"))
        await first.system.submit(turn("b 60", id="b"))
        first.storage.cut = True
        await asyncio.sleep(1)
        log = await second.system.cancel("b", reason="enough")
        await within(LEASE + 5, log.ended())
        assert isinstance(log.terminal, TurnCancelled)


# -- forks that are for one turn ---------------------------------------------------------------------------------------


async def folders(process: Process) -> int:
    return len(await process.storage.sessions("session", "u"))


async def test_a_fork_for_a_turn_that_is_not_kept_is_let_go() -> None:
    async with processes() as (first, second):
        one = await first.tell("a")
        await first.tell("b")
        assert words(await first.tell("c", after=one.id, kept=False)) == "a c"
        assert words(await second.tell("c 1", after=one.id, kept=False)) == "a c."
        asking = asyncio.create_task(second.system.submit(turn("d 1", after=one.id, kept=False)))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.sleep(3)
        assert await folders(first) == 1


async def test_also_when_its_process_is_gone() -> None:
    async with processes() as (first, second):
        one = await first.tell("a")
        await first.tell("b")
        log = await first.system.submit(turn("c 60", id="c", after=one.id, kept=False))
        assert await folders(second) == 2
        first.storage.cut = True
        with pytest.raises(SessionLost):
            await log.ended()
        await asyncio.sleep(LEASE + 3)
        assert await folders(second) == 1
