"""Sessions in a SQLite file: they outlive the process, and the machine's power.

A commit returns when its turn is on the disk (write-ahead log, `synchronous=FULL`). One thread writes, and puts what
comes while it waits for the disk together (`sqlite_groups`); another reads, and waits for no writer. Several processes
may use one file.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from msgspec import DecodeError

from greenroom.actors.errors import ConfigurationError, GreenroomError, StoreUnavailable
from greenroom.actors.messages import SessionKey
from greenroom.services import sqlite_rows as rows
from greenroom.services.compact import encode_turn
from greenroom.services.service import not_started
from greenroom.services.sqlite_file import open_to_read, open_to_write, unavailable, unusable
from greenroom.services.sqlite_groups import Done, GroupWriter
from greenroom.services.sqlite_rows import Retention
from greenroom.services.sqlite_schema import check_version, migrate, read_version
from greenroom.services.sqlite_thread import SqliteThread
from greenroom.services.store import SessionRecord, TurnCommit

T = TypeVar("T")

logger = logging.getLogger("greenroom.services")

DEFAULT: Final = Retention()
LONGEST_WAIT: Final = 600.0
"""For another process to be done writing, seconds: turns wait as long, and those after them."""


class SqliteStore:
    """A `SessionStore` in the file `path`, which is made if need be.

    It forgets turns over `turns_kept` of a session, the states after all but the last `states_kept` turns, the oldest
    of a session over `session_bytes`, and a session that has had no turn for `idle_seconds`. A session's newest state
    and turn are kept whatever their size. `busy_seconds`: how long to wait for another process to be done writing.
    `now`: seconds since the epoch.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        turns_kept: int = DEFAULT.turns_kept,
        states_kept: int = DEFAULT.states_kept,
        session_bytes: int = DEFAULT.session_bytes,
        idle_seconds: float = DEFAULT.idle_seconds,
        busy_seconds: float = 10.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path)
        self._retention = Retention(
            turns_kept=turns_kept,
            states_kept=states_kept,
            session_bytes=session_bytes,
            idle_seconds=idle_seconds,
        )
        for name, value in ("turns_kept", turns_kept), ("states_kept", states_kept):
            if value < 1:
                raise ConfigurationError(f"{name}={value} keeps nothing of a session; it is at least 1")
        if not 0 <= busy_seconds <= LONGEST_WAIT:
            raise ConfigurationError(f"busy_seconds={busy_seconds} is not between 0 and {LONGEST_WAIT}")
        self._busy_seconds = busy_seconds
        self._now = now
        self._sweep_at = 0.0
        self._write_thread = SqliteThread("greenroom sessions writer")
        self._read_thread = SqliteThread("greenroom sessions reader")
        self._writer = GroupWriter(self._write_thread, self._carry_out)
        self._started = False

    def __repr__(self) -> str:
        return f"<SqliteStore {self.path}>"

    async def start(self) -> None:
        """Open the file, and bring one of an older version to this one's.

        Raises `StoreUnavailable` when it cannot be used: it is a folder, read-only, damaged, of a newer version, or of
        something else.
        """
        if self._started:
            return
        try:
            await self._write_thread.start(self._open)
            await self._read_thread.start(lambda: open_to_read(self.path, self._busy_seconds))
        except (sqlite3.Error, OSError, StoreUnavailable) as error:
            raise await asyncio.to_thread(unusable, self.path, error) from error
        finally:
            self._started = self._read_thread.started
            if not self._started:
                await self._write_thread.stop()

    async def stop(self) -> None:
        """Close the file, after what is under way."""
        self._started = False
        await self._writer.done()
        await self._read_thread.stop()
        await self._write_thread.stop()

    async def load(self, key: SessionKey) -> SessionRecord | None:
        """The session as of its last commit; none when there was none, or it had no turn for too long."""
        self._check_started()
        horizon = self._retention.horizon(self._now())
        return await self._told(self._read_thread.run(lambda db: rows.load(db, key, horizon)))

    async def commit(self, key: SessionKey, turn: TurnCommit) -> None:
        """Keep a turn, and wait until it is on the disk.

        Raises `HandlerError` for a record that cannot be encoded, or not be read again, and `StoreUnavailable`.
        """

        def job(db: sqlite3.Connection) -> None:
            record = encode_turn(turn.record)  # large ones take their time, so here and not on the loop
            rows.add_turn(db, key, turn.record.turn_id, record, turn.state, self._now(), self._retention)

        await self._write(job)

    async def fork(self, source: SessionKey, turn_id: str, target: SessionKey) -> bool:
        """Make `target` what `source` was after that turn; see `SessionStore.fork`."""

        def job(db: sqlite3.Connection) -> bool:
            now = self._now()
            return rows.fork(db, source, turn_id, target, now, self._retention.horizon(now))

        return await self._write(job)

    async def forget(self, key: SessionKey) -> None:
        """Keep nothing of the session any more."""
        await self._write(lambda db: rows.forget(db, key))

    async def _write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        self._check_started()
        result: T = await self._told(self._writer.do(job))
        return result

    async def _told(self, doing: Awaitable[T]) -> T:
        """What comes of it. What SQLite says when it fails goes to the log, with the file's place."""
        try:
            return await doing
        except (sqlite3.Error, OSError, DecodeError) as error:
            logger.exception("%r cannot be read or written", self)
            raise unavailable(error) from error

    def _check_started(self) -> None:
        if not self._started:
            raise not_started(self)

    # ------------------------------------------------------------------------------------------ in the writer thread

    def _open(self) -> sqlite3.Connection:
        self.path = self.path.absolute()  # whatever folder the process goes to between two starts
        connection = open_to_write(self.path, self._busy_seconds)
        try:
            migrate(connection, self._now())
        except BaseException:
            connection.close()
            raise
        return connection

    def _carry_out(
        self, db: sqlite3.Connection, jobs: Sequence[Callable[[sqlite3.Connection], Any]]
    ) -> Sequence[Done]:
        self._first(db)
        return [_do(db, job) for job in jobs]

    def _first(self, db: sqlite3.Connection) -> None:
        """At the beginning of each transaction: another process may have migrated the file, sessions become idle."""
        check_version(read_version(db))
        now = self._now()
        if now >= self._sweep_at and rows.sweep(db, self._retention.horizon(now)):
            self._sweep_at = now + self._retention.grain


def _do(db: sqlite3.Connection, job: Callable[[sqlite3.Connection], Any]) -> Done:
    try:
        return Done(job(db))
    except GreenroomError as error:
        return Done(error=error)
