"""A thread with a connection to a SQLite file: the only one that uses it, in the order of the calls.

What waits for the disk waits there, never on the event loop.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class SqliteThread:
    """Runs functions of a connection in one thread. `name`: the thread's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None  # the thread's alone

    @property
    def started(self) -> bool:
        return self._thread is not None

    async def start(self, connect: Callable[[], sqlite3.Connection]) -> None:
        """Connect, in the thread. Raises what `connect` raises; then it is not started."""
        thread = ThreadPoolExecutor(1, thread_name_prefix=self._name)

        def opened() -> None:
            self._connection = connect()

        self._thread = thread
        try:
            await asyncio.get_running_loop().run_in_executor(thread, opened)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the connection, after what is under way."""
        thread, self._thread = self._thread, None
        if thread is not None:
            closing = asyncio.get_running_loop().run_in_executor(thread, self._close)
            thread.shutdown(wait=False)
            await closing

    def run(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Have the thread do it. A call that is cancelled under way is carried out or not."""
        assert self._thread is not None

        def call() -> T:
            assert self._connection is not None
            return work(self._connection)

        return asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
