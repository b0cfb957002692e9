"""Group commit: what goes together into one transaction, and who is told what."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from contextvars import ContextVar
from pathlib import Path
from typing import TypeAlias

import pytest

from greenroom.actors.errors import HandlerError
from greenroom.services.sqlite.groups import GROUP, Done, GroupWriter
from greenroom.services.sqlite.thread import SqliteThread

Job: TypeAlias = Callable[[sqlite3.Connection], object]


def carry_out(connection: sqlite3.Connection, jobs: Sequence[Job]) -> list[Done]:
    """Each job is a function of the connection; a `HandlerError` of it is a refusal."""
    return [_done(connection, job) for job in jobs]


def _done(connection: sqlite3.Connection, job: Job) -> Done:
    try:
        return Done(job(connection))
    except HandlerError as refusal:
        return Done(error=refusal)


class Writing:
    """A group writer with a table of numbers, and the statements that were carried out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.statements: list[str] = []
        self.thread = SqliteThread("test")
        self.writer = GroupWriter(self.thread, carry_out)

    def connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=0.0, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE numbers (number INTEGER UNIQUE)")
        connection.set_trace_callback(self.statements.append)
        return connection

    def numbers(self) -> list[int]:
        """What another connection sees."""
        with closing(sqlite3.connect(self.path)) as connection:
            return [number for (number,) in connection.execute("SELECT number FROM numbers ORDER BY number")]


@asynccontextmanager
async def writing(path: Path) -> AsyncIterator[Writing]:
    it = Writing(path / "numbers.db")
    await it.thread.start(it.connect)
    try:
        yield it
    finally:
        await it.writer.done()
        await it.thread.stop()


def adding(number: int) -> Job:
    def job(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO numbers VALUES (?)", (number,))
        return number

    return job


async def test_jobs_that_come_during_a_transaction_are_written_together_in_order(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        begun.set()
        assert go_on.wait(10)

    async with writing(tmp_path) as it:
        first = asyncio.ensure_future(it.writer.do(slow))
        await asyncio.to_thread(begun.wait, 10)
        others = [asyncio.ensure_future(it.writer.do(adding(number))) for number in range(100)]
        await asyncio.sleep(0)
        assert not any(other.done() for other in others)
        go_on.set()
        await first
        assert await asyncio.gather(*others) == list(range(100))
        assert it.statements.count("BEGIN IMMEDIATE") == 2
        inserted = [statement for statement in it.statements if statement.startswith("INSERT")]
        assert inserted == [f"INSERT INTO numbers VALUES ({number})" for number in range(100)]


async def test_a_group_has_a_bound(tmp_path: Path) -> None:
    async with writing(tmp_path) as it:
        await asyncio.gather(*(it.writer.do(adding(number)) for number in range(2 * GROUP + 1)))
        assert it.statements.count("BEGIN IMMEDIATE") == 3  # the first alone, as nothing was under way
        assert it.numbers() == list(range(2 * GROUP + 1))


async def test_a_job_is_done_when_others_can_see_it(tmp_path: Path) -> None:
    async with writing(tmp_path) as it:
        for number in range(20):
            await it.writer.do(adding(number))
            assert (await asyncio.to_thread(it.numbers))[-1] == number


async def test_a_job_that_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    def half_done(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (1000)")
        raise ZeroDivisionError

    def refused(connection: sqlite3.Connection) -> None:
        raise HandlerError("no")

    async with writing(tmp_path) as it:
        jobs: list[Job] = [adding(0), adding(1), half_done, adding(1), refused, adding(2)]
        results = await asyncio.gather(*map(it.writer.do, jobs), return_exceptions=True)
        kinds = [type(result) for result in results]
        assert kinds == [int, int, ZeroDivisionError, sqlite3.IntegrityError, HandlerError, int]
        assert await asyncio.to_thread(it.numbers) == [0, 1, 2]


async def test_a_refusal_costs_the_others_nothing(tmp_path: Path) -> None:
    def refused(connection: sqlite3.Connection) -> None:
        raise HandlerError("no")

    async with writing(tmp_path) as it:
        jobs: list[Job] = [adding(0), adding(1), refused, adding(2)]
        await asyncio.gather(*map(it.writer.do, jobs), return_exceptions=True)
        assert it.statements.count("COMMIT") == 2
        assert "ROLLBACK" not in it.statements


async def test_a_file_that_is_busy_is_waited_for_once_for_all(tmp_path: Path) -> None:
    async with writing(tmp_path) as it:
        other = await asyncio.to_thread(
            sqlite3.connect, it.path, isolation_level=None, check_same_thread=False
        )
        await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
        it.statements.clear()
        results = await asyncio.gather(*(it.writer.do(adding(n)) for n in range(9)), return_exceptions=True)
        assert all(isinstance(result, sqlite3.OperationalError) for result in results)
        assert it.statements.count("BEGIN IMMEDIATE") == 2
        await asyncio.to_thread(other.close)
        assert await it.writer.do(adding(1)) == 1


async def test_a_caller_who_is_cancelled_leaves_the_others_theirs(tmp_path: Path) -> None:
    async with writing(tmp_path) as it:
        calls = [asyncio.ensure_future(it.writer.do(adding(number))) for number in range(4)]
        await asyncio.sleep(0)
        calls[0].cancel()
        calls[2].cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError, int] * 2
        await it.writer.done()
        assert await asyncio.to_thread(it.numbers) == [0, 1, 2, 3]


async def test_what_a_turn_has_in_its_context_is_not_held_by_later_writes(tmp_path: Path) -> None:
    class Large:
        pass

    held: ContextVar[Large] = ContextVar("held")

    async def turn() -> weakref.ref[Large]:
        large = Large()
        held.set(large)
        await it.writer.do(adding(0))
        return weakref.ref(large)

    async with writing(tmp_path) as it:
        first = asyncio.create_task(turn())
        await asyncio.sleep(0)
        later = [asyncio.ensure_future(it.writer.do(adding(number))) for number in range(1, 3 * GROUP)]
        reference = await first
        del first
        await later[0]
        gc.collect()
        assert reference() is None
        assert not later[-1].done()
        await asyncio.gather(*later)


async def test_a_connection_that_cannot_be_made_leaves_no_thread_behind(tmp_path: Path) -> None:
    def connect() -> sqlite3.Connection:
        raise OSError("no")

    thread = SqliteThread("test that fails")
    with pytest.raises(OSError, match="no"):
        await thread.start(connect)
    assert not thread.started
    await thread.stop()
