"""Owners and their notes as rows.

An owner that was late is gone for good, so its row stays, for as long as its name could come back. Of owners from
before the machine's last start no process is left, and they are gone without a row.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from greenroom.services.boot_clock import BootClock
from greenroom.services.storage import OwnerGone, OwnerState

NOTES: Final = 1_000
"""Notes that wait for an owner, at most."""
OWNERS: Final = 10_000
"""Owners remembered, at most: of those that are gone the oldest are forgotten, and are gone all the same."""

SLACK: Final = 60.0
"""A renewal may lie so many seconds ahead: another process renewed while this one was looking at the clock."""


class Owners:
    """Owners by the time of `clock`."""

    ALIVE: Final = "state <> 'gone' AND boot = ? AND renewed <= ? AND ? < until"
    """Of an owner's row. A renewal in the future is one from before the machine's last start."""

    def __init__(self, clock: BootClock) -> None:
        self._clock = clock
        self._tidied = False

    def alive(self) -> tuple[str, float, float]:
        """What `ALIVE` is asked with."""
        now = self._clock.now()
        return self._clock.boot, now + SLACK, now

    def state(self, db: sqlite3.Connection, owner: str) -> OwnerState:
        """How the owner is."""
        if not owner:
            return "gone"
        found = db.execute(
            f"SELECT state FROM owners WHERE name = ? AND {self.ALIVE}",
            (owner, *self.alive()),
        ).fetchone()
        return "gone" if found is None else found[0]

    def renew(
        self, db: sqlite3.Connection, owner: str, seconds: float, state: OwnerState
    ) -> tuple[bytes, ...]:
        """The owner lives for `seconds` more; gives its notes. Raises `OwnerGone`, having written nothing."""
        boot, _, now = self.alive()
        if db.execute("SELECT 1 FROM owners WHERE name = ?", (owner,)).fetchone() is None:
            self._make_room(db)
        elif self.state(db, owner) == "gone":
            raise OwnerGone(owner)
        db.execute("REPLACE INTO owners VALUES (?, ?, ?, ?, ?)", (owner, state, boot, now, now + seconds))
        notes = db.execute("SELECT note FROM notes WHERE owner = ? ORDER BY number", (owner,)).fetchall()
        if notes:
            db.execute("DELETE FROM notes WHERE owner = ?", (owner,))
        return tuple(note for (note,) in notes)

    def note(self, db: sqlite3.Connection, owner: str, note: bytes) -> bool:
        """Leave a note. Whether the owner lives."""
        if self.state(db, owner) == "gone":
            return False
        db.execute("INSERT INTO notes (owner, note) VALUES (?, ?)", (owner, note))
        db.execute(
            "DELETE FROM notes WHERE number IN "
            "(SELECT number FROM notes WHERE owner = ? ORDER BY number DESC LIMIT -1 OFFSET ?)",
            (owner, NOTES),
        )
        return True

    def _make_room(self, db: sqlite3.Connection) -> None:
        """When an owner begins, those from before the machine's last start go, and some of the oldest that are gone
        when there are too many: looking for them costs as much for one as for many."""
        boot, ahead, now = self.alive()
        if not self._tidied:
            db.execute("DELETE FROM owners WHERE boot <> ? OR renewed > ?", (boot, ahead))
            self._tidied = True
        (count,) = db.execute("SELECT count(*) FROM owners").fetchone()
        if count >= OWNERS:
            db.execute(
                "DELETE FROM owners WHERE name IN (SELECT name FROM owners WHERE state = 'gone' OR until <= ? "
                "ORDER BY until DESC LIMIT -1 OFFSET ?)",
                (now, OWNERS * 9 // 10),
            )
        db.execute(
            f"DELETE FROM notes WHERE owner NOT IN (SELECT name FROM owners WHERE {self.ALIVE})",
            (boot, ahead, now),
        )
