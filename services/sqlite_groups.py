"""Group commit: jobs that come while a transaction waits for the disk go together into the next one.

A disk is as fast with the jobs of a hundred sessions as with one's. Each job is told its own result, after the
transaction it was part of has reached the disk. A job that fails takes no other with it: the group is then written
again, each job in a transaction of its own.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from greenroom.actors.errors import GreenroomError
from greenroom.services.sqlite_thread import SqliteThread

T = TypeVar("T")
Job: TypeAlias = Callable[[sqlite3.Connection], T]

GROUP: Final = 256
"""Jobs of one transaction, at most: it keeps other processes from writing for as long as it takes."""


class _Done(NamedTuple):
    """How a job ended: with a result, or with an error."""

    result: Any = None
    error: Exception | None = None


class _Waiting(NamedTuple):
    job: Job[Any]
    future: asyncio.Future[Any]


class GroupWriter:
    """Writes with the connection of `thread`. `first` is run at the beginning of each transaction.

    A job that raises a `GreenroomError` has written nothing until then.
    """

    def __init__(self, thread: SqliteThread, first: Job[None]) -> None:
        self._thread = thread
        self._first = first
        self._waiting: deque[_Waiting] = deque()
        self._writing: asyncio.Future[list[_Done]] | None = None
        self._context = Context()  # else one write after the other would run in, and hold, the first turn's

    async def do(self, job: Job[T]) -> T:
        """Do it in a transaction, and wait until that is on the disk. Raises what the job or SQLite raises.

        It is carried out whole or not at all, also when the caller is cancelled.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(job, future))
        if self._writing is None:
            self._write_next()
        return await future

    async def done(self) -> None:
        """Wait until all is written that waits."""
        while self._writing is not None:
            await asyncio.wait([self._writing])

    def _write_next(self) -> None:
        group = [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]
        jobs = [waiting.job for waiting in group]
        self._writing = self._thread.run(lambda connection: _write(connection, self._first, jobs))
        self._writing.add_done_callback(partial(self._settle, group), context=self._context)

    def _settle(self, group: list[_Waiting], writing: asyncio.Future[list[_Done]]) -> None:
        self._writing = None
        if self._waiting:
            self._write_next()
        for waiting, done in zip(group, writing.result(), strict=True):
            if waiting.future.done():
                continue  # its caller was cancelled
            if done.error is not None:
                waiting.future.set_exception(done.error)
            else:
                waiting.future.set_result(done.result)


def is_busy(error: Exception) -> bool:
    """Whether another process was writing all the time that was waited."""
    code = getattr(error, "sqlite_errorcode", 0)  # sqlite3's own errors of use have none
    return code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _write(connection: sqlite3.Connection, first: Job[None], jobs: Sequence[Job[Any]]) -> list[_Done]:
    try:
        return _transact(connection, first, jobs)
    except Exception as error:  # noqa: BLE001 - each job's caller is told
        if len(jobs) == 1 or is_busy(error):  # each would wait as long again
            return [_Done(error=error)] * len(jobs)
    return [_write(connection, first, [job])[0] for job in jobs]


def _transact(connection: sqlite3.Connection, first: Job[None], jobs: Sequence[Job[Any]]) -> list[_Done]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        first(connection)
        done = [_do(connection, job) for job in jobs]
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return done


def _do(connection: sqlite3.Connection, job: Job[Any]) -> _Done:
    try:
        return _Done(job(connection))
    except GreenroomError as error:
        return _Done(error=error)
