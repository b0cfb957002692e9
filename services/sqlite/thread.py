"""A thread with a connection to a SQLite file: the only one that uses it, in the order of the calls.

What waits for the disk waits there, never on the event loop. Each write goes there and back, so the way is short: a
queue there, and the loop's own back. An executor's would take twice the time.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

_Call: TypeAlias = "tuple[Callable[[], Any], asyncio.Future[Any]]"


class SqliteThread:
    """Runs functions of a connection in one thread. `name`: the thread's.

    It does not keep the process from ending: who wants what is under way to be done stops it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[_Call | None] | None = None
        self._connection: sqlite3.Connection | None = None  # the thread's alone

    @property
    def started(self) -> bool:
        return self._calls is not None

    async def start(self, connect: Callable[[], sqlite3.Connection]) -> None:
        """Connect, in the thread. Raises what `connect` raises; then it is not started."""

        def opened() -> None:
            self._connection = connect()

        calls = self._calls = SimpleQueue()
        threading.Thread(target=_work, args=(calls,), name=self._name, daemon=True).start()
        try:
            await _called(calls, opened)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the connection, after what is under way."""
        calls, self._calls = self._calls, None
        if calls is not None:
            closing = _called(calls, self._close)
            calls.put(None)
            await closing

    def run(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Have the thread do it. A call that is cancelled under way is carried out."""
        assert self._calls is not None

        def call() -> T:
            assert self._connection is not None
            return work(self._connection)

        return _called(self._calls, call)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _called(calls: SimpleQueue[_Call | None], call: Callable[[], T]) -> asyncio.Future[T]:
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    calls.put((call, future))
    return future


def _work(calls: SimpleQueue[_Call | None]) -> None:
    """The thread: does the calls until there is none."""
    while (next_call := calls.get()) is not None:
        call, future = next_call
        try:
            settle = partial(_settle, future, call(), None)
        except BaseException as error:  # noqa: BLE001 - who called is told
            settle = partial(_settle, future, None, error)
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            future.get_loop().call_soon_threadsafe(settle)
        del next_call, call, future, settle  # what a turn had is not held until the next one comes


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return  # its caller was cancelled
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
