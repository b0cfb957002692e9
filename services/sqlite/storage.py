"""Folders in a SQLite file: they outlive the process, and the machine's power.

A write returns when it is on the disk (write-ahead log, `synchronous=FULL`). One thread writes, and puts what comes
while it waits for the disk together (`groups`, `batch`); another reads, and waits for no writer. Several
processes of one machine may use one file.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import anyio
from msgspec import DecodeError, Meta, Struct

from greenroom.actors.errors import StoreUnavailable
from greenroom.actors.setting_checks import Seconds, check_settings
from greenroom.services.boot_clock import BootClock, boot_clock
from greenroom.services.service import not_started
from greenroom.services.sqlite import folders
from greenroom.services.sqlite.batch import Batch
from greenroom.services.sqlite.file import open_to_read, open_to_write, unavailable, unusable
from greenroom.services.sqlite.folders import Idleness
from greenroom.services.sqlite.groups import Done, GroupWriter
from greenroom.services.sqlite.owners import Owners
from greenroom.services.sqlite.schema import check_version, migrate
from greenroom.services.sqlite.thread import SqliteThread
from greenroom.services.storage import (
    Change,
    Fence,
    Folder,
    FolderKey,
    Head,
    Named,
    OwnerGone,
    OwnerState,
    Span,
)

T = TypeVar("T")

logger = logging.getLogger("greenroom.services")

LONGEST_WAIT: Final = 600.0
"""For another process to be done writing, seconds: turns wait as long, and those after them."""
Busy: TypeAlias = Annotated[float, Meta(ge=0, le=LONGEST_WAIT)]
_BEFORE: Final = (
    "SELECT (SELECT max(version) FROM schema_versions), (SELECT epoch FROM counter), "
    "(SELECT coalesce(max(opened), 0) FROM folders WHERE opened > 0)"
)
"""What a transaction goes on from."""


class _Write(Struct, frozen=True):
    """Changes to folders, done together."""

    changes: Sequence[Change]


_Job: TypeAlias = "_Write | Callable[[sqlite3.Connection], Any]"


class SqliteStorage:
    """A `Storage` in the file `path`, which is made if need be.

    `busy_seconds`: how long to wait for another process to be done writing. `now`: seconds since the epoch, by which
    folders are idle. `clock`: by which owners live; none: this machine's.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        idle_seconds: float = 365 * 86_400.0,
        busy_seconds: float = 10.0,
        now: Callable[[], float] = time.time,
        clock: BootClock | None = None,
    ) -> None:
        check_settings("SqliteStorage", locals(), {"idle_seconds": Seconds, "busy_seconds": Busy})
        self.path = Path(path)
        self._idle = Idleness(idle_seconds)
        self._busy_seconds = busy_seconds
        self._now = now
        self._clock = clock
        self._sweep_at = 0.0
        self._write_thread = SqliteThread("greenroom sessions writer")
        self._read_thread = SqliteThread("greenroom sessions reader")
        self._writer: GroupWriter[_Job] = GroupWriter(self._write_thread, self._carry_out)
        self._started = 0
        self._turning = anyio.Lock()  # starting or stopping

    def __repr__(self) -> str:
        return f"<SqliteStorage {self.path}>"

    async def start(self) -> None:
        """Open the file, and bring one of an older version to this one's.

        Raises `StoreUnavailable` when it cannot be used: it is a folder, read-only, damaged, of a newer version, or of
        something else.
        """
        async with self._turning:
            if not self._started:
                await self._open_both()
            self._started += 1

    async def stop(self) -> None:
        """Close the file, after what is under way, when it was stopped as often as it was started."""
        async with self._turning:
            self._started = max(0, self._started - 1)
            if not self._started:
                await self._writer.done()
                await self._read_thread.stop()
                await self._write_thread.stop()

    async def write(self, changes: Sequence[Change]) -> tuple[Fence, ...]:
        """Do all changes together, and wait until they are on the disk. Raises `Conflict`, `NameTaken`."""
        fences: tuple[Fence, ...] = await self._written(_Write(changes))
        return fences

    async def read(self, key: FolderKey, spans: Sequence[Span] = ()) -> Folder | None:
        """The folder's head and those cells, as of one moment; none: it is not there."""
        return await self._read(lambda db: folders.read(db, self._owners, key, spans, self._horizon()))

    async def lookup(self, name: bytes) -> Named | None:
        """Where the name points; none: nowhere."""
        return await self._read(lambda db: folders.lookup(db, name, self._horizon()))

    async def sessions(self, kind: str, user_id: str) -> tuple[str, ...]:
        """The session ids of the user's folders of that kind, sorted by their UTF-8 bytes."""
        return await self._read(lambda db: folders.sessions(db, kind, user_id, self._horizon()))

    async def orphans(self, kind: str, limit: int) -> tuple[Head, ...]:
        """Folders of that kind that are open and whose owner is nobody or gone; those open for longest first."""
        return await self._read(lambda db: folders.orphans(db, self._owners, kind, limit))

    async def renew(self, owner: str, seconds: float, state: OwnerState = "serving") -> tuple[bytes, ...]:
        """The owner lives for `seconds` more; gives its notes. Raises `OwnerGone`."""
        notes: tuple[bytes, ...] = await self._written(
            lambda db: self._owners.renew(db, owner, seconds, state)
        )
        return notes

    async def note(self, owner: str, note: bytes) -> bool:
        """Leave a note that the owner's next renewal gives it. Whether it lives."""
        lives: bool = await self._written(lambda db: self._owners.note(db, owner, note))
        return lives

    # ------------------------------------------------------------------------------------------------ the two threads

    async def _open_both(self) -> None:
        try:
            await self._write_thread.start(self._open)
            await self._read_thread.start(lambda: open_to_read(self.path, self._busy_seconds))
        except (sqlite3.Error, OSError, StoreUnavailable) as error:
            raise await asyncio.to_thread(unusable, self.path, error) from error
        finally:
            if not self._read_thread.started:
                await self._write_thread.stop()

    async def _read(self, reading: Callable[[sqlite3.Connection], T]) -> T:
        if not self._started:
            raise not_started(self)
        return await self._told(self._read_thread.run(reading))

    async def _written(self, job: _Job) -> Any:
        if not self._started:
            raise not_started(self)
        return await self._told(self._writer.do(job))

    async def _told(self, doing: Awaitable[T]) -> T:
        """What comes of it. What SQLite says when it fails goes to the log, with the file's place."""
        try:
            return await doing
        except (sqlite3.Error, OSError, DecodeError) as error:
            logger.exception("%r cannot be read or written", self)
            raise unavailable(error) from error

    def _horizon(self) -> float:
        return self._idle.horizon(self._now())

    # ------------------------------------------------------------------------------------------- in the writer thread

    def _open(self) -> sqlite3.Connection:
        self.path = self.path.absolute()  # whatever folder the process goes to between two starts
        self._owners = Owners(self._clock or boot_clock())
        connection = open_to_write(self.path, self._busy_seconds)
        try:
            migrate(connection, self._now())
        except BaseException:
            connection.close()
            raise
        return connection

    def _carry_out(self, db: sqlite3.Connection, jobs: Sequence[_Job]) -> Sequence[Done]:
        # Another process may have migrated the file, and has written meanwhile.
        version, epoch, opened = db.execute(_BEFORE).fetchone()
        check_version(version)
        now = self._now()
        horizon, grain = self._idle.horizon(now), self._idle.grain
        if now >= self._sweep_at and folders.sweep(db, horizon):
            self._sweep_at = now + grain
        batch = Batch(db, self._owners, epoch=epoch, opened=opened, now=now, horizon=horizon, grain=grain)
        batch.load([job.changes for job in jobs if isinstance(job, _Write)])
        done = [batch.write(job.changes) if isinstance(job, _Write) else _do(db, job) for job in jobs]
        batch.flush()
        return done


def _do(db: sqlite3.Connection, job: Callable[[sqlite3.Connection], Any]) -> Done:
    try:
        return Done(job(db))
    except OwnerGone as gone:
        return Done(error=gone)
