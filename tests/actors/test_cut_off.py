"""Tasks of turns that other code cancels, as whoever holds `asyncio.all_tasks()` may, at any point: each turn still has
its one ending, which all that is kept agrees with, and its session goes on. A loop that is closed waits for nothing."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kits.system
from greenroom.actors.errors import StoreUnavailable
from greenroom.actors.events import (
    ItemStarted,
    PartDone,
    TurnCancelled,
    TurnCompleted,
    TurnFailed,
)
from greenroom.actors.limits import Limits
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import SessionKey, Text, ToolCall, ToolOutput
from greenroom.actors.scope import current_turn
from greenroom.actors.system import ActorSystem
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.memory_store import InMemoryStore
from greenroom.services.storage import Change, Fence
from greenroom.services.store import SessionStore, TurnCommit
from greenroom.services.work import Work, current_work
from kits.distant_storage import DistantStorage
from kits.grammar import check_events
from kits.system import asked, running_system, turn
from kits.virtual_time import VirtualTimeLoop, virtual_time

pytestmark = virtual_time
KEY = SessionKey("u", "s")
STEPS = 60
"""More than a turn takes."""


class SlowStore(InMemoryStore):
    """One whose commit waits before it is made: cut off, it has kept nothing."""

    async def commit(self, key: SessionKey, turn: TurnCommit) -> None:
        await asyncio.sleep(0)
        await super().commit(key, turn)


class SlowStorage(DistantStorage):
    """Each write waits before it is done and before it is answered."""

    async def write(self, changes: Sequence[Change]) -> tuple[Fence, ...]:
        await asyncio.sleep(0)
        fences = await super().write(changes)
        await asyncio.sleep(0)
        return fences


def slow_store() -> SessionStore:
    return SlowStore() if kits.system.kind == "memory" else DurableSessions(SlowStorage())


class Board:
    """A service in memory: the turns that wrote on it, and the works that are not over."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.open: set[Work] = set()

    def write(self) -> None:
        work = current_work.get()
        assert work is not None
        work.staging(self, Sheet)
        self.open.add(work)
        work.when_over(lambda: self.open.discard(work))


class Sheet:
    def __init__(self, board: Board) -> None:
        self._board = board

    def apply(self, turn_id: str) -> None:
        self._board.written.append(turn_id)


class Worker:
    """An agent that uses a tool, leaves a task behind, and counts the turns that it has answered."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.count = 0

    async def reply(self, msgs: Any) -> AsyncIterator[object]:
        self.board.write()
        scope = current_turn.get()
        assert scope is not None
        scope.adopt(asyncio.create_task(self.lingers(), name="lingers"))
        await asyncio.sleep(0)
        yield ItemStarted("call", "tool_call", "assistant", "c", "look")
        yield PartDone(ToolCall("c", "look", "{}"), "call")
        yield ItemStarted("result", "tool_output", "tool", "c", "look")
        yield PartDone(ToolOutput("c", "look", (Text("found"),)), "result")
        await asyncio.sleep(0)
        self.count += 1
        yield asked(msgs[-1])

    async def lingers(self) -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            raise

    def state_dict(self) -> int:
        return self.count

    def load_state_dict(self, state: int) -> None:
        self.count = state


def tasks_of_turns() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("turn ")]


async def cancel_at(steps: Collection[int]) -> None:
    for step in range(STEPS):
        if step in steps:
            for task in tasks_of_turns():
                task.cancel()
        await asyncio.sleep(0)


async def check_agreement(
    store: SessionStore, board: Board, logs: Sequence[TurnLog], reported: Collection[str] = ()
) -> None:
    """Everything that is kept says the same of these turns, all there are."""
    for log in logs:
        check_events(log.events())
        assert isinstance(log.terminal, (TurnCompleted, TurnCancelled, TurnFailed))
    completed = [log.id for log in logs if isinstance(log.terminal, TurnCompleted)]
    record = await store.load(KEY)
    assert record is not None
    assert record.state == str(len(completed)).encode()
    statuses = {one.turn_id: one.status for one in record.turns}
    assert len(statuses) == len(record.turns), "a turn is in the history twice"
    assert [turn_id for turn_id, status in statuses.items() if status == "completed"] == completed
    for log in logs:
        assert log.terminal is not None
        begun = len(log.events()) > 2
        assert (log.id in statuses) == begun, f"{log.events()!r} in {statuses!r}"
        if begun:
            assert record.turns[list(statuses).index(log.id)].output == log.terminal.output
    assert board.written == completed
    assert not board.open, "a turn's work is not over"


async def cut_off(steps: Collection[int]) -> list[TurnLog]:
    """Three turns of one session, of which two wait, while all tasks of turns are cancelled at these steps."""
    board, store = Board(), slow_store()

    async def new_worker() -> Worker:
        return Worker(board)

    async with running_system(
        new_worker, agent=True, store=store, limits=Limits(journal_seconds=0.0)
    ) as system:
        logs = [await system.submit(turn(f"q{number}")) for number in range(3)]
        await cancel_at(steps)
        async with asyncio.timeout(60):
            for log in logs:
                await log.ended()
            last = await system.submit(turn("last"))
            assert isinstance(await last.ended(), TurnCompleted)
        assert not tasks_of_turns()
        assert system.statistics().open_turns == 0
        await check_agreement(store, board, [*logs, last])
    return logs


async def test_a_turn_whose_task_is_cancelled_at_any_step_has_its_ending_and_its_session_goes_on() -> None:
    endings = set[type]()
    for step in range(STEPS):
        endings |= {type(log.terminal) for log in await cut_off([step])}
    assert endings >= {TurnCancelled, TurnCompleted}


@given(st.sets(st.integers(0, STEPS - 1), max_size=8))
async def test_what_ends_a_turn_may_be_cancelled_as_well(steps: set[int]) -> None:
    await cut_off(steps)


async def test_the_ending_says_that_it_was_not_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async def waits(msgs: Any) -> AsyncIterator[str]:
        yield "partial"
        await asyncio.sleep(1000)

    async with running_system(waits) as system:
        log = await system.submit(turn())
        await asyncio.sleep(1)
        (task,) = tasks_of_turns()
        task.cancel()
        ending = await log.ended()
    assert isinstance(ending, TurnCancelled)
    assert "other code" in ending.reason
    assert "outside of Greenroom" in caplog.text
    assert log.id in caplog.text


async def test_a_defect_is_told_with_the_id_it_has_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> None:
        raise ZeroDivisionError("secret")

    async def echo(msgs: Any) -> AsyncIterator[str]:
        yield asked(msgs[-1])

    async with running_system(echo) as system:
        monkeypatch.setattr("greenroom.actors.actor.SessionActor._finish", fails)
        ending = await (await system.submit(turn())).ended()
        monkeypatch.undo()
        assert isinstance(ending, TurnFailed)
        assert ending.error.code == "internal_error"
        assert ending.error.id
        assert ending.error.id in ending.error.message
        assert "secret" not in ending.error.message
        assert ending.error.id in caplog.text
        assert "ZeroDivisionError: secret" in caplog.text
        assert isinstance(await (await system.submit(turn())).ended(), TurnCompleted)


# ------------------------------------------------------------------------------------------- a loop that is torn down


def torn_down(
    store: SessionStore, board: Board, steps: int, submitted: Callable[[], object] = bool
) -> tuple[list[TurnLog], float]:
    """The logs of turns that were at work when their loop was closed after so many steps, and when it was (s)."""
    logs: list[TurnLog] = []

    async def new_worker() -> Worker:
        return Worker(board)

    async def main() -> ActorSystem:
        context = running_system(new_worker, agent=True, store=store)
        system = await context.__aenter__()
        logs.extend([await system.submit(turn(f"q{number}")) for number in range(3)])
        submitted()
        for _ in range(steps):
            await asyncio.sleep(0)
        contexts.append(context)
        return system

    contexts: list[object] = []  # held, or the garbage collector would stop the system
    loop = VirtualTimeLoop()
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(main())
        return logs, loop.time()
    finally:
        gc.collect()


@pytest.mark.parametrize("step", range(0, STEPS, 2))
def test_a_loop_closed_at_any_step_leaves_no_turn_without_an_ending(
    step: int, caplog: pytest.LogCaptureFixture
) -> None:
    board = Board()
    logs, _ = torn_down(slow_store(), board, step)
    assert "destroyed" not in caplog.text
    for log in logs:
        assert log.terminal is not None or log.lost is not None
        if log.terminal is not None:
            check_events(log.events())
    assert not board.open


class HangingStorage(MemoryStorage):
    """One that is away from some time on, in one way or another."""

    away = ""

    async def write(self, changes: Sequence[Change]) -> tuple[Fence, ...]:
        if self.away == "gone":
            raise StoreUnavailable("it is gone")
        if self.away == "hanging":
            await asyncio.Event().wait()
        return await super().write(changes)


@pytest.mark.parametrize("how", ["gone", "hanging"])
def test_a_loop_that_is_closed_waits_for_no_store(how: str, caplog: pytest.LogCaptureFixture) -> None:
    storage = HangingStorage()

    def goes_away() -> None:
        storage.away = how

    logs, seconds = torn_down(DurableSessions(storage), Board(), 20, goes_away)
    assert len(logs) == 3
    assert all(log.lost is not None for log in logs)
    assert seconds <= 5.0
    assert "destroyed" not in caplog.text
