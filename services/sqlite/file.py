"""Opening a file of sessions, and saying in words why it cannot be used."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from pathlib import Path
from typing import Final

from greenroom.actors.errors import StoreUnavailable
from greenroom.services.sqlite.groups import is_busy

CHECKPOINT_PAGES: Final = 4_000
"""The write-ahead log is moved into the file when it has so many pages of 4 KiB: not at every third group commit."""
LOG_BYTES: Final = 64 * 1024 * 1024
"""What a write-ahead log that has grown is cut to afterwards."""
PAUSE_SECONDS: Final = 0.01
"""Between two tries to turn the write-ahead log on, which SQLite does not wait for by itself."""

OPERATORS_SECONDS: Final = 30.0
"""When to try again after what only a person can mend."""

_DAMAGED: Final = (
    "the file of sessions is damaged, or none; the operator can put a backup in its place, or save what can be read "
    "with SQLite's command `.recover`"
)
_TOO_LONG: Final = (
    "its name is too long for the disk, which also has to take the name with the `-journal` that SQLite puts after it; "
    "name a shorter one"
)
_ELSEWHERE: Final = (
    "see to its rights, or say where sessions are kept instead: with --state sqlite:////var/lib/friday.db or "
    "--state memory, or in the application, AgentApp(state=…)"
)
_OTHER: Final = "the disk with the file of sessions does not work; the operator finds more in the log"
_MEANINGS: Final = {
    sqlite3.SQLITE_FULL: "the disk with the file of sessions is full; the operator has to make room",
    sqlite3.SQLITE_READONLY: "the file of sessions may only be read; the operator has to see to its rights",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}


def open_to_write(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """A connection that writes, each commit on the disk when it returns. The file is made if need be, for its user.

    Raises `StoreUnavailable`, `sqlite3.Error` or `OSError`; `unusable` says what they mean.
    """
    if not path.parent.is_dir():
        raise StoreUnavailable(
            "the folder it is to lie in is not there; make it (is the disk it lies on mounted?), or name another"
        )
    if path.is_dir():
        raise StoreUnavailable("that is a folder; name a file in it")
    if len(os.fsencode(path.name)) + len("-journal") > os.pathconf(path.parent, "PC_NAME_MAX"):
        raise StoreUnavailable(_TOO_LONG)
    if not path.exists():
        path.touch(mode=0o600)
    connection = _connect(path, busy_seconds)
    try:
        _turn_log_on(connection, time.monotonic() + busy_seconds)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_to_read(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """A connection that only reads a file that is there."""
    connection = _connect(path, busy_seconds)
    connection.execute("PRAGMA query_only = ON")
    return connection


def unusable(path: Path, error: Exception) -> StoreUnavailable:
    """The error for a file that cannot be opened, for who starts the application."""
    if isinstance(error, StoreUnavailable):
        return StoreUnavailable(f"the file of sessions {path} cannot be used: {error}")
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return StoreUnavailable(f"the file of sessions {path} cannot be used: {_TOO_LONG}")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        why = "this process may not write it; see to its rights and to those of the disk it lies on"
    elif not os.access(path.parent, os.W_OK):
        why = (
            f"this process may not write in its folder, where SQLite keeps two files beside it; {_ELSEWHERE}"
        )
    elif isinstance(error, OSError) and error.errno != errno.ENOSPC and not path.exists():
        why = f"it cannot be made in its folder; {_ELSEWHERE}"
    else:
        meaning = _meaning(error)[0]
        why = "it cannot be opened; see to it and to the disk it lies on" if meaning is _OTHER else meaning
    return StoreUnavailable(f"the file of sessions {path} cannot be used: {why} ({error})")


def unavailable(error: Exception) -> StoreUnavailable:
    """The error for a read or write that failed, for the caller of a turn: without places of this machine."""
    meaning, seconds = _meaning(error)
    return StoreUnavailable(
        f"the session could not be read or written, and nothing of it was changed: {meaning}",
        retry_after=seconds,
    )


def _meaning(error: Exception) -> tuple[str, float]:
    """What happened and what to do, and after how many seconds it may go better."""
    if is_busy(error):
        return (
            "another process has been writing the file of sessions all the time; try again in a moment",
            1.0,
        )
    if not isinstance(error, sqlite3.Error | OSError):
        return _DAMAGED, OPERATORS_SECONDS  # what was read is no turn
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return _MEANINGS.get(code, _OTHER), OPERATORS_SECONDS


def _connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    # Made in one thread and used there alone, but closed by another when that thread could not be started.
    return sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)


def _turn_log_on(connection: sqlite3.Connection, deadline: float) -> None:
    """Use a write-ahead log from now on. Raises `StoreUnavailable` where there is none, as on a network's disk."""
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            break
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_SECONDS)
    if mode != "wal":
        raise StoreUnavailable(
            f"its disk does not allow a write-ahead log (SQLite offers {mode!r}); name a file on a disk of this machine"
        )
