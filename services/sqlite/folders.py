"""Folders as rows: what is read of them, and how those that are idle go."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

from greenroom.services.sqlite.owners import Owners
from greenroom.services.storage import Fence, Folder, FolderKey, Head, Named, Span

GRAINS: Final = 64
"""A folder's use is written down anew when so small a part of `idle_seconds` has passed since it was."""
SWEPT_AT_ONCE: Final = 100
"""Idle folders forgotten in one transaction, at most: writes wait for it."""


class Idleness(NamedTuple):
    """When a folder that nobody writes to is idle."""

    seconds: float

    @property
    def grain(self) -> float:
        return self.seconds / GRAINS

    def horizon(self, now: float) -> float:
        """Folders last used before this are idle. A time that is written down may be a grain too old."""
        return now - self.seconds - self.grain


def flat(key: FolderKey) -> bytes:
    """A key as one, of which those of a kind, and of a user in it, are next to each other."""
    return prefix(key[0], key[1]) + key[2].encode("utf-8", "surrogatepass")


def prefix(kind: str, user_id: str) -> bytes:
    """How the keys of a user begin. The length in front of the id keeps users apart."""
    user = user_id.encode("utf-8", "surrogatepass")
    return b"%b\x00%d:%b" % (kind.encode("utf-8", "surrogatepass"), len(user), user)


def unflat(raw: bytes) -> FolderKey:
    """The key that was made flat."""
    kind, _, ids = raw.partition(b"\x00")
    length, _, ids = ids.partition(b":")
    cut = int(length)
    return FolderKey(*(part.decode("utf-8", "surrogatepass") for part in (kind, ids[:cut], ids[cut:])))


def read(
    db: sqlite3.Connection, owners: Owners, key: FolderKey, spans: Sequence[Span], horizon: float
) -> Folder | None:
    """The folder's head and those cells, as of one moment; none when there is none, or it is idle."""
    if not spans:
        found = _find(db, owners, key, horizon)
        return None if found is None else Folder(found[1], ())
    db.execute("BEGIN")
    try:
        found = _find(db, owners, key, horizon)
        if found is None:
            return None
        cells = tuple(_cells(db, found[0], span) for span in spans)
    finally:
        db.execute("COMMIT")
    return Folder(found[1], cells)


def lookup(db: sqlite3.Connection, name: bytes, horizon: float) -> Named | None:
    """Where the name points."""
    row = db.execute(
        "SELECT key, value FROM names JOIN folders ON number = folder WHERE name = ? AND (opened > 0 OR used >= ?)",
        (name, horizon),
    ).fetchone()
    return None if row is None else Named(unflat(row[0]), row[1])


def sessions(db: sqlite3.Connection, kind: str, user_id: str, horizon: float) -> tuple[str, ...]:
    """The session ids of the user's folders of that kind, sorted by their UTF-8 bytes."""
    start = prefix(kind, user_id)
    rows = db.execute(
        "SELECT key FROM folders WHERE key >= ? AND key < ? AND (opened > 0 OR used >= ?) ORDER BY key",
        (start, start + b"\xff", horizon),  # which no text has in UTF-8
    )
    return tuple(raw[len(start) :].decode("utf-8", "surrogatepass") for (raw,) in rows)


def orphans(db: sqlite3.Connection, owners: Owners, kind: str, limit: int) -> tuple[Head, ...]:
    """Open folders of that kind whose owner is nobody or gone; those open for longest first."""
    start = kind.encode("utf-8", "surrogatepass")
    rows = db.execute(
        f"SELECT key, epoch, revision, head, owner FROM folders WHERE opened > 0 AND key > ? AND key < ? "
        f"AND NOT EXISTS (SELECT 1 FROM owners WHERE name = owner AND {owners.ALIVE}) ORDER BY opened LIMIT ?",
        (start + b"\x00", start + b"\x01", *owners.alive(), limit),
    )
    return tuple(
        Head(unflat(key), Fence(epoch, revision), head, owner, "gone", True)
        for key, epoch, revision, head, owner in rows
    )


def sweep(db: sqlite3.Connection, horizon: float) -> bool:
    """Forget folders that are idle. Whether that was all of them."""
    idle = db.execute(
        "SELECT number FROM folders WHERE used < ? AND opened = 0 ORDER BY used LIMIT ?",
        (horizon, SWEPT_AT_ONCE),
    ).fetchall()
    empty(db, idle)
    db.executemany("DELETE FROM folders WHERE number = ?", idle)
    return len(idle) < SWEPT_AT_ONCE


def empty(db: sqlite3.Connection, numbers: Sequence[tuple[int]]) -> None:
    """Delete all that is in these folders."""
    db.executemany("DELETE FROM cells WHERE folder = ?", numbers)
    db.executemany("DELETE FROM names WHERE folder = ?", numbers)


def _find(db: sqlite3.Connection, owners: Owners, key: FolderKey, horizon: float) -> tuple[int, Head] | None:
    row = db.execute(
        "SELECT number, epoch, revision, head, owner, opened, used FROM folders WHERE key = ?", (flat(key),)
    ).fetchone()
    if row is None:
        return None
    number, epoch, revision, head, owner, opened, used = row
    if not opened and used < horizon:
        return None
    state = owners.state(db, owner)
    return number, Head(FolderKey(*key), Fence(epoch, revision), head, owner, state, opened > 0)


def _cells(db: sqlite3.Connection, number: int, span: Span) -> tuple[tuple[int, bytes], ...]:
    return tuple(
        db.execute(
            "SELECT number, value FROM cells WHERE folder = ? AND section = ? AND number BETWEEN ? AND ? "
            "ORDER BY number",
            (number, *span),
        )
    )
