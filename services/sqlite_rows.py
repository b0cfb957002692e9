"""Sessions as rows: what each call of the store does to the tables, inside a transaction of the caller's.

A commit adds a row for its turn and one for the state before it, and changes two; what it costs does not depend on how
many turns there are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final, NamedTuple

from msgspec import Struct

from greenroom.actors.messages import SessionKey
from greenroom.services.compact import decode_turn
from greenroom.services.earlier_states import lengthened, shortened
from greenroom.services.session_map import GRAINS
from greenroom.services.store import SessionRecord

SWEPT_AT_ONCE: Final = 100
"""Idle sessions forgotten in one transaction, at most: commits wait for it."""


class Retention(Struct, frozen=True, kw_only=True):
    """How much is kept of each session, and for how long. Sizes are those of the encoded turns and states."""

    turns_kept: int = 200
    states_kept: int = 50
    session_bytes: int = 16 * 1024 * 1024
    idle_seconds: float = 365 * 86_400.0

    @property
    def grain(self) -> float:
        """A session's use is written down anew when so much time has passed since it was; seconds."""
        return self.idle_seconds / GRAINS

    def horizon(self, now: float) -> float:
        """Sessions last used before this are idle. A time that is written down may be a grain too old."""
        return now - self.idle_seconds - self.grain


class _Session(NamedTuple):
    number: int
    revision: int
    oldest_turn: int
    oldest_state: int
    size: int
    used: float


def load(db: sqlite3.Connection, key: SessionKey, horizon: float) -> SessionRecord | None:
    """The session; none when there is none, or it is idle."""
    db.execute("BEGIN")  # all of it as of one moment
    try:
        session = _find(db, key)
        if session is None or session.used < horizon:
            return None
        state = _state(db, session.number)
        rows = db.execute(
            "SELECT record FROM turns WHERE session = ? ORDER BY revision", (session.number,)
        ).fetchall()
    finally:
        db.execute("COMMIT")
    return SessionRecord(
        SessionKey(*key), session.revision, state, tuple(decode_turn(raw) for (raw,) in rows)
    )


def add_turn(
    db: sqlite3.Connection,
    key: SessionKey,
    turn_id: str,
    record: bytes,
    state: bytes | None,
    now: float,
    retention: Retention,
) -> None:
    """Add a turn to a session, which begins with it if need be. `state`: none leaves the one before it."""
    session = _find(db, key)
    if session is not None and session.used < retention.horizon(now):
        _delete(db, session.number)
        session = None
    if session is None:
        session = _begin(db, key, now)
    number, before = session.number, _state(db, session.number)
    revision, size = session.revision + 1, session.size + len(record)
    if session.revision:
        short = shortened(before, before if state is None else state)
        db.execute("INSERT INTO earlier_states VALUES (?, ?, ?)", (number, session.revision, short))
        size += len(short)
    db.execute("INSERT INTO turns VALUES (?, ?, ?, ?)", (number, revision, turn_id, record))
    if state is not None and state != before:
        db.execute("REPLACE INTO states VALUES (?, ?)", (number, state))
        size += len(state) - len(before or b"")
    used = now if now - session.used >= retention.grain else session.used
    _keep(db, _bounded(db, session._replace(revision=revision, size=size, used=used), retention))


def fork(
    db: sqlite3.Connection, source: SessionKey, turn_id: str, target: SessionKey, now: float, horizon: float
) -> bool:
    """Make `target` what `source` was after that turn; see `SessionStore.fork`."""
    session = _find(db, source)
    if session is None or session.used < horizon:
        return False
    found = db.execute(
        "SELECT revision FROM turns WHERE session = ? AND revision >= ? AND turn_id = ? ORDER BY revision DESC",
        (session.number, session.oldest_state, turn_id),
    ).fetchone()
    if found is None:
        return False
    revision: int = found[0]
    state = _state_after(db, session, revision)
    number: int = db.execute("SELECT coalesce(max(number), 0) + 1 FROM sessions").fetchone()[0]
    db.execute(
        "INSERT INTO turns SELECT ?, revision, turn_id, record FROM turns WHERE session = ? AND revision <= ?",
        (number, session.number, revision),
    )
    db.execute(
        "INSERT INTO earlier_states SELECT ?, revision, state FROM earlier_states WHERE session = ? AND revision < ?",
        (number, session.number, revision),
    )
    forget(db, target)  # only now: it may be the source itself
    if state is not None:
        db.execute("INSERT INTO states VALUES (?, ?)", (number, state))
    size = _size(db, number) + len(state or b"")
    db.execute(
        "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (number, *_columns(target), revision, session.oldest_turn, session.oldest_state, size, now),
    )
    return True


def forget(db: sqlite3.Connection, key: SessionKey) -> None:
    """Keep nothing of the session any more."""
    session = _find(db, key)
    if session is not None:
        _delete(db, session.number)


def sweep(db: sqlite3.Connection, horizon: float) -> bool:
    """Forget sessions that are idle. Whether that was all of them."""
    idle = db.execute(
        "SELECT number FROM sessions WHERE used < ? ORDER BY used LIMIT ?", (horizon, SWEPT_AT_ONCE)
    ).fetchall()
    for (number,) in idle:
        _delete(db, number)
    return len(idle) < SWEPT_AT_ONCE


# ---------------------------------------------------------------------------------------------------------------- rows


def _columns(key: SessionKey) -> tuple[bytes, bytes]:
    user_id, session_id = key
    return user_id.encode("utf-8", "surrogatepass"), session_id.encode("utf-8", "surrogatepass")


def _find(db: sqlite3.Connection, key: SessionKey) -> _Session | None:
    row = db.execute(
        "SELECT number, revision, oldest_turn, oldest_state, size, used FROM sessions "
        "WHERE user_id = ? AND session_id = ?",
        _columns(key),
    ).fetchone()
    return None if row is None else _Session(*row)


def _begin(db: sqlite3.Connection, key: SessionKey, now: float) -> _Session:
    row = db.execute(
        "INSERT INTO sessions (user_id, session_id, revision, oldest_turn, oldest_state, size, used) "
        "VALUES (?, ?, 0, 1, 1, 0, ?)",
        (*_columns(key), now),
    )
    assert row.lastrowid is not None
    return _Session(row.lastrowid, 0, 1, 1, 0, now)


def _keep(db: sqlite3.Connection, session: _Session) -> None:
    number, *values = session
    db.execute(
        "UPDATE sessions SET revision = ?, oldest_turn = ?, oldest_state = ?, size = ?, used = ? WHERE number = ?",
        (*values, number),
    )


def _delete(db: sqlite3.Connection, number: int) -> None:
    db.execute("DELETE FROM turns WHERE session = ?", (number,))
    db.execute("DELETE FROM earlier_states WHERE session = ?", (number,))
    db.execute("DELETE FROM states WHERE session = ?", (number,))
    db.execute("DELETE FROM sessions WHERE number = ?", (number,))


def _state(db: sqlite3.Connection, number: int) -> bytes | None:
    row = db.execute("SELECT state FROM states WHERE session = ?", (number,)).fetchone()
    return None if row is None else row[0]


def _state_after(db: sqlite3.Connection, session: _Session, revision: int) -> bytes | None:
    rows = db.execute(
        "SELECT state FROM earlier_states WHERE session = ? AND revision >= ? ORDER BY revision",
        (session.number, revision),
    ).fetchall()
    newest = _state(db, session.number)
    return [newest, *lengthened(newest, tuple(short for (short,) in rows))][-1]


def _size(db: sqlite3.Connection, number: int) -> int:
    size: int = db.execute(
        "SELECT (SELECT coalesce(sum(length(record)), 0) FROM turns WHERE session = :number) + "
        "(SELECT coalesce(sum(length(state)), 0) FROM earlier_states WHERE session = :number)",
        {"number": number},
    ).fetchone()[0]
    return size


# -------------------------------------------------------------------------------------------------------------- bounds


def _bounded(db: sqlite3.Connection, session: _Session, retention: Retention) -> _Session:
    """Drop what is over the bounds: first the oldest states, then the oldest turns, with the states after them."""
    most = retention.session_bytes
    oldest, newest = session.revision - retention.states_kept + 1, session.revision
    if session.oldest_state < oldest or (session.size > most and session.oldest_state < newest):
        session = _without_states(db, session, oldest, most)
    oldest = newest - retention.turns_kept + 1
    if session.oldest_turn < oldest or (session.size > most and session.oldest_turn < newest):
        turns = db.execute(
            "SELECT revision, length(record) FROM turns WHERE session = ? AND revision < ? ORDER BY revision",
            (session.number, newest),
        )
        first, size = _dropped(turns, session.oldest_turn, oldest, session.size, most)
        db.execute("DELETE FROM turns WHERE session = ? AND revision < ?", (session.number, first))
        session = session._replace(oldest_turn=first, size=size)
        if session.oldest_state < first:
            session = _without_states(db, session, first, session.size)
    return session


def _without_states(db: sqlite3.Connection, session: _Session, oldest: int, most: int) -> _Session:
    """Without those before `oldest`, and more while the session takes more bytes than `most`."""
    states = db.execute(
        "SELECT revision, length(state) FROM earlier_states WHERE session = ? ORDER BY revision",
        (session.number,),
    )
    first, size = _dropped(states, session.oldest_state, oldest, session.size, most)
    db.execute("DELETE FROM earlier_states WHERE session = ? AND revision < ?", (session.number, first))
    return session._replace(oldest_state=first, size=size)


def _dropped(
    rows: Iterator[tuple[int, int]], first: int, oldest: int, size: int, most: int
) -> tuple[int, int]:
    """The first revision that stays, and the session's size then. `rows`: revisions and sizes, oldest first."""
    for revision, length in rows:
        if revision >= oldest and size <= most:
            break
        first, size = revision + 1, size - length
    return first, size
