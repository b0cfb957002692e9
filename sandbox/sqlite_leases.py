"""Leases in a SQLite file, shared by all processes of a user.

One connection, used by one thread in the order of the calls: a call that is cancelled under way is carried out or not,
but none that came later overtakes it. Writing waits for the disk (`synchronous=FULL`): a lease that was written before
its box was made is there after a crash of the machine too.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from greenroom.actors.errors import ConfigurationError, LeaseHeld, SandboxUnavailable
from greenroom.sandbox.leases import Lease, LeaseChange, LeaseKey
from greenroom.sandbox.places import private_folder, state_folder

T = TypeVar("T")

BUSY_SECONDS: Final = 10.0
"""How long to wait for another process to be done writing; a write takes milliseconds."""

# Two leases without a key are no conflict: NULL is unlike NULL. Ids are bytes, as JSON's may be no valid Unicode.
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS leases (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    user_id BLOB,
    session_id BLOB,
    kind TEXT,
    owner TEXT NOT NULL,
    backend TEXT NOT NULL,
    state TEXT NOT NULL,
    created REAL NOT NULL,
    epoch INTEGER NOT NULL DEFAULT 0,
    person TEXT NOT NULL DEFAULT 'no'
);
CREATE UNIQUE INDEX IF NOT EXISTS one_of_each_key ON leases (user_id, session_id, kind);
"""

LATER: Final = {"epoch": "INTEGER NOT NULL DEFAULT 0", "person": "TEXT NOT NULL DEFAULT 'no'"}
"""Columns that files of earlier versions do not have."""

COLUMNS: Final = "user_id, session_id, kind, id, owner, backend, state, created, epoch, person"


class SqliteLeases:
    """Leases in the file `path`; none: `leases.sqlite` in the user's state folder."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or state_folder() / "leases.sqlite"
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None  # the thread's alone

    def __repr__(self) -> str:
        return f"<SqliteLeases {self.path}>"

    async def start(self) -> None:
        """Open the file, made if need be. Raises `SandboxUnavailable` when it cannot be used."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="greenroom leases")
        await self._do(self._open)

    async def stop(self) -> None:
        """Close the file, after what is under way."""
        thread, self._thread = self._thread, None
        if thread is not None:
            closing = asyncio.get_running_loop().run_in_executor(thread, self._close)
            thread.shutdown(wait=False)
            await closing

    async def add(self, lease: Lease) -> None:
        """Write down a new one. Raises `LeaseHeld` when its key has one already."""
        await self._do(lambda: self._add(lease))

    async def change(self, lease_id: str, change: LeaseChange, *, epoch: int | None = None) -> bool:
        """Change it; with `epoch`, only one that has it. Raises `LeaseHeld` when the key has another lease."""
        return await self._do(lambda: self._change(lease_id, change, epoch))

    async def erase(self, lease_id: str) -> None:
        """Forget it. One that is not there is fine."""
        await self._do(lambda: self._run("DELETE FROM leases WHERE id = ?", (lease_id,)))

    async def all(self) -> Sequence[Lease]:
        """All there are, oldest first."""
        return await self._do(self._all)

    # ------------------------------------------------------------------------------------------------ in the thread

    async def _do(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise ConfigurationError(f"{self} is used while it is not started; `await leases.start()` first")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise SandboxUnavailable(
                f"the record of sandboxes {self.path} cannot be used ({error}), so none is made; see to the disk and "
                "the file's rights, or name another folder with GREENROOM_STATE"
            ) from error

    def _open(self) -> None:
        if self._connection is None:
            private_folder(self.path.parent)
            self.path.touch(mode=0o600)
            connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.executescript(SCHEMA)
                _add_columns(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _run(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        assert self._connection is not None
        return self._connection.execute(statement, values)  # each statement is a transaction of its own

    def _add(self, lease: Lease) -> None:
        try:
            self._run(f"INSERT INTO leases ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _row(lease))
        except sqlite3.IntegrityError:
            if lease.key is None or not self._held(lease.key):
                raise  # the id is taken: no lease is written twice
            raise _already(lease.key) from None

    def _change(self, lease_id: str, change: LeaseChange, epoch: int | None) -> bool:
        self._run("BEGIN IMMEDIATE")
        try:
            new = self._changed(lease_id, change, epoch)
        except BaseException:
            self._run("ROLLBACK")
            raise
        self._run("COMMIT")
        return new

    def _changed(self, lease_id: str, change: LeaseChange, epoch: int | None) -> bool:
        row = self._run(f"SELECT {COLUMNS} FROM leases WHERE id = ?", (lease_id,)).fetchone()
        new = None if row is None else change.of(_lease(row), epoch)
        if new is None:
            return False
        try:
            self._run(
                "UPDATE leases SET user_id = ?, session_id = ?, kind = ?, owner = ?, state = ?, epoch = ?, person = ? "
                "WHERE id = ?",
                (*_columns(new.key), new.owner, new.state, new.epoch, new.person, lease_id),
            )
        except sqlite3.IntegrityError:
            assert new.key is not None
            raise _already(new.key) from None
        return True

    def _held(self, key: LeaseKey) -> bool:
        found = self._run(
            "SELECT 1 FROM leases WHERE user_id = ? AND session_id = ? AND kind = ?", _columns(key)
        )
        return found.fetchone() is not None

    def _all(self) -> Sequence[Lease]:
        return [_lease(row) for row in self._run(f"SELECT {COLUMNS} FROM leases ORDER BY created, number")]


def _add_columns(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    there = {row[1] for row in connection.execute("PRAGMA table_info(leases)")}
    for name, kind in LATER.items():
        if name not in there:
            connection.execute(f"ALTER TABLE leases ADD COLUMN {name} {kind}")
    connection.execute("COMMIT")


def _row(lease: Lease) -> tuple[object, ...]:
    return (
        *_columns(lease.key),
        *(lease.id, lease.owner, lease.backend, lease.state, lease.created, lease.epoch, lease.person),
    )


def _lease(row: Sequence[Any]) -> Lease:
    user_id, session_id, kind, lease_id, owner, backend, state, created, epoch, person = row
    return Lease(
        id=lease_id,
        key=None if kind is None else LeaseKey(_text(user_id), _text(session_id), kind),
        owner=owner,
        backend=backend,
        state=state,
        created=created,
        epoch=epoch,
        person=person,
    )


def _columns(key: LeaseKey | None) -> tuple[bytes | None, bytes | None, str | None]:
    if key is None:
        return None, None, None
    return (
        key.user_id.encode("utf-8", "surrogatepass"),
        key.session_id.encode("utf-8", "surrogatepass"),
        key.kind,
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _already(key: LeaseKey) -> LeaseHeld:
    return LeaseHeld(
        f"session {key.session_id!r} has a {key.kind} sandbox already; it must be gone before another"
    )
