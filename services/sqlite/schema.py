"""The tables of a file of sessions, by version, and how a file of an older version becomes one of the newest.

To change the tables, add a function to `MIGRATIONS` and leave those there are as they are: files of every version are
out there. The test that opens a file of version 1 goes through all of them; a migration that moves what is kept gets
one of its own. What lies in `record` and `state` counts as well: `compact` and `earlier_states` write it, and fields
may be added there at the end without a new version, but not moved or taken away.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from msgspec import msgpack

from greenroom.actors.errors import StoreUnavailable

Migration: TypeAlias = Callable[[sqlite3.Connection], None]

APPLICATION: Final = 0x4772_6E72
"""Stands in the head of every file of ours, where SQLite has a place for it: "Grnr"."""

# Ids are bytes, as JSON's may be no valid Unicode. A session's turns are numbered by its revisions, without gaps; it
# has those from `oldest_turn` on, and the states after those from `oldest_state` on. The newest state is in a table of
# its own, so that a turn which leaves it as it was does not write it again. Rows lie in the order of their keys
# (WITHOUT ROWID): what is read together is together.
_VERSION_1: Final = (
    """
    CREATE TABLE sessions (
        number INTEGER PRIMARY KEY,
        user_id BLOB NOT NULL,
        session_id BLOB NOT NULL,
        revision INTEGER NOT NULL,
        oldest_turn INTEGER NOT NULL,
        oldest_state INTEGER NOT NULL,
        size INTEGER NOT NULL,
        used REAL NOT NULL,
        UNIQUE (user_id, session_id)
    )
    """,
    "CREATE INDEX sessions_by_use ON sessions (used)",
    "CREATE TABLE states (session INTEGER PRIMARY KEY, state BLOB NOT NULL)",
    """
    CREATE TABLE turns (
        session INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        turn_id TEXT NOT NULL,
        record BLOB NOT NULL,
        PRIMARY KEY (session, revision)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE earlier_states (
        session INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        state BLOB NOT NULL,
        PRIMARY KEY (session, revision)
    ) WITHOUT ROWID
    """,
)


def _first_tables(connection: sqlite3.Connection) -> None:
    for statement in _VERSION_1:
        connection.execute(statement)


# A folder's key is its kind and ids in one (`folders.flat`), of which those of a user lie together. Its number
# is the epoch it was made with; `counter` has the highest epoch there was. `opened`: its place among the open ones, in
# the order in which they were opened, 0 for one that is not open. The head may be large and is read less often, so it
# comes last. Cells lie in the order in which they came, as those of a turn come together, and are found by an index.
# Owners are those of `owners`.
_VERSION_2: Final = (
    """
    CREATE TABLE folders (
        number INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,
        epoch INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        owner TEXT NOT NULL,
        opened INTEGER NOT NULL,
        used REAL NOT NULL,
        head BLOB NOT NULL
    )
    """,
    "CREATE INDEX folders_by_use ON folders (used)",
    "CREATE INDEX folders_open ON folders (opened) WHERE opened > 0",
    """
    CREATE TABLE cells (
        folder INTEGER NOT NULL,
        section TEXT NOT NULL,
        number INTEGER NOT NULL,
        value BLOB NOT NULL,
        UNIQUE (folder, section, number)
    )
    """,
    "CREATE TABLE names (name BLOB PRIMARY KEY, folder INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE INDEX names_by_folder ON names (folder)",
    """
    CREATE TABLE owners (
        name TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        boot TEXT NOT NULL,
        renewed REAL NOT NULL,
        until REAL NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE TABLE notes (number INTEGER PRIMARY KEY, owner TEXT NOT NULL, note BLOB NOT NULL)",
    "CREATE INDEX notes_by_owner ON notes (owner)",
    "CREATE TABLE counter (epoch INTEGER NOT NULL)",
    "INSERT INTO counter SELECT coalesce(max(number), 0) FROM sessions",
)


def _folders(connection: sqlite3.Connection) -> None:
    """Sessions become folders of the kind "session", as `sessions.head` has them."""
    for statement in _VERSION_2:
        connection.execute(statement)
    sessions = connection.execute(
        "SELECT number, user_id, session_id, revision, oldest_turn, oldest_state, size, used FROM sessions"
    )
    for number, user_id, session_id, revision, *counts, used in sessions:
        key = b"session\x00%d:%b%b" % (len(user_id), user_id, session_id)
        head = msgpack.encode((revision, *counts))
        connection.execute(
            "INSERT INTO folders VALUES (?, ?, ?, ?, '', 0, ?, ?)",
            (number, key, number, revision, used, head),
        )
    connection.execute("INSERT INTO cells SELECT session, 'turn', revision, record FROM turns")
    connection.execute("INSERT INTO cells SELECT session, 'earlier', revision, state FROM earlier_states")
    connection.execute("INSERT INTO cells SELECT session, 'state', 0, state FROM states")
    for table in ("sessions", "turns", "earlier_states", "states"):
        connection.execute(f"DROP TABLE {table}")


MIGRATIONS: Final[tuple[Migration, ...]] = (_first_tables, _folders)
"""The first makes version 1 out of an empty file, each further one the next version out of the one before it."""


def migrate(connection: sqlite3.Connection, now: float, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the file to the newest version, in one transaction: it is done whole or not at all.

    Raises `StoreUnavailable` for a file of a newer version, or of something else; it stays as it is.
    """
    connection.execute("BEGIN IMMEDIATE")  # of two processes that start together, one migrates
    try:
        version = _version_of_any_file(connection)
        check_version(version, len(migrations))
        for number, change in enumerate(migrations[version:], version + 1):
            change(connection)
            connection.execute("INSERT INTO schema_versions (version, applied) VALUES (?, ?)", (number, now))
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def read_version(connection: sqlite3.Connection) -> int:
    """The version of a file of ours."""
    version: int = connection.execute("SELECT max(version) FROM schema_versions").fetchone()[0]
    return version


def check_version(version: int, known: int = len(MIGRATIONS)) -> None:
    """Raises `StoreUnavailable` for a version that this process does not know."""
    if version > known:
        raise StoreUnavailable(
            f"the sessions are kept in a file of version {version}, which a newer Greenroom has made; this one knows "
            f"version {known} and leaves it as it is; run the newer one, or name another file"
        )


def _version_of_any_file(connection: sqlite3.Connection) -> int:
    """The version; 0 for an empty file, which then becomes one of ours."""
    if connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION:
        return read_version(connection)
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StoreUnavailable(
            "it is a database of something else, and stays as it is; name a file that is not there yet, or one that "
            "Greenroom has made"
        )
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute("CREATE TABLE schema_versions (version INTEGER PRIMARY KEY, applied REAL NOT NULL)")
    return 0
