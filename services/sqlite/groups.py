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
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

from greenroom.services.sqlite.thread import SqliteThread

J = TypeVar("J")

GROUP: Final = 256
"""Jobs of one transaction, at most: it keeps other processes from writing for as long as it takes."""


class Done(NamedTuple):
    """How a job ended: with a result, or refused with an error, after which it has written nothing."""

    result: Any = None
    error: Exception | None = None


CarryOut: TypeAlias = Callable[[sqlite3.Connection, Sequence[J]], Sequence[Done]]
"""Does jobs, in a transaction, and says how each of them ended. When it raises, none is done."""


class _Waiting(NamedTuple, Generic[J]):
    job: J
    future: asyncio.Future[Any]


class GroupWriter(Generic[J]):
    """Writes with the connection of `thread`."""

    def __init__(self, thread: SqliteThread, carry_out: CarryOut[J]) -> None:
        self._thread = thread
        self._carry_out = carry_out
        self._waiting: deque[_Waiting[J]] = deque()
        self._writing: asyncio.Future[Sequence[Done]] | None = None
        self._context = Context()  # else one write after the other would run in, and hold, the first turn's

    async def do(self, job: J) -> Any:
        """Do it in a transaction, and wait until that is on the disk. Gives the job's result, or raises its error.

        It is carried out whole or not at all, also when the caller is cancelled.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
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
        self._writing = self._thread.run(lambda connection: _write(connection, self._carry_out, jobs))
        self._writing.add_done_callback(partial(self._settle, group), context=self._context)

    def _settle(self, group: list[_Waiting[J]], writing: asyncio.Future[Sequence[Done]]) -> None:
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


def _write(connection: sqlite3.Connection, carry_out: CarryOut[J], jobs: Sequence[J]) -> Sequence[Done]:
    try:
        return _transact(connection, carry_out, jobs)
    except Exception as error:  # noqa: BLE001 - each job's caller is told
        if len(jobs) == 1 or is_busy(error):  # each would wait as long again
            return [Done(error=error)] * len(jobs)
    return [_write(connection, carry_out, [job])[0] for job in jobs]


def _transact(connection: sqlite3.Connection, carry_out: CarryOut[J], jobs: Sequence[J]) -> Sequence[Done]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        done = carry_out(connection, jobs)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return done
