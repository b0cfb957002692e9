"""The writes of one transaction: what they touch is read at once, worked out here, and written at once.

Each step of SQLite lets other threads run, and waits for them before it goes on. A group of a hundred writes takes few
steps this way, and a write that is refused none at all: what it would have done was never carried out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import compress
from operator import attrgetter
from typing import Any, Final

from msgspec import Struct, field

from greenroom.services.sqlite.folders import empty, flat, unflat
from greenroom.services.sqlite.groups import Done
from greenroom.services.sqlite.owners import Owners
from greenroom.services.storage import NOT_THERE, Change, Conflict, Fence, FolderKey, Head, Named, NameTaken

ASKED_AT_ONCE: Final = 256
"""Keys or names in one question, at most."""
_FOLDERS: Final = "SELECT key, number, epoch, revision, owner, opened, used FROM folders WHERE key IN "
_NAMES: Final = (
    "SELECT name, key, value, opened, used FROM names JOIN folders ON folders.number = folder WHERE name IN "
)
_USUAL: Final = ("epoch", "revision", "owner")
_IF_CHANGED: Final = ("opened", "used", "head")
"""A column that is named in a statement is written, and to its index too, whether it changes or not."""


class _Row(Struct):
    """A folder as the writes of this transaction leave it. `number`: 0 until there is one. `kept`: whether the file has
    a row of it. `there`: whether there is a folder, as of the last write. `emptied`: whether what the file has in it
    goes. `head`: none as in the file. `was_…`: as in the file. `cells`: new values, and none for those to be dropped.
    """

    key: bytes
    number: int = 0
    kept: bool = False
    there: bool = False
    emptied: bool = False
    touched: bool = False
    epoch: int = 0
    revision: int = 0
    owner: str = ""
    opened: int = 0
    used: float = 0.0
    head: bytes | None = None
    was_opened: int = 0
    was_used: float = 0.0
    cells: dict[tuple[str, int], bytes | None] = field(default_factory=dict)

    @property
    def fence(self) -> Fence:
        return Fence(self.epoch, self.revision) if self.there else NOT_THERE


class _Name(Struct, frozen=True):
    """Where a name points."""

    key: bytes
    value: bytes


class Batch:
    """Writes at the time `now`.

    `epoch`: the highest there was. `opened`: the place of the folder that was opened last of those that are open.
    `horizon`: folders last used before are idle. `grain`: a use is written down when so much time has passed.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        owners: Owners,
        *,
        epoch: int,
        opened: int,
        now: float,
        horizon: float,
        grain: float,
    ) -> None:
        self._db = db
        self._owners = owners
        self._before = self._epoch = epoch
        self._opened = opened
        self._now = now
        self._horizon = horizon
        self._grain = grain
        self._keys: dict[FolderKey, bytes] = {}
        self._rows: dict[bytes, _Row] = {}
        self._names: dict[bytes, _Name | None] = {}
        self._named: dict[bytes, _Name | None] = {}
        """The names that are not as in the file."""

    def load(self, writes: Sequence[Sequence[Change]]) -> None:
        """Read what the writes need to know."""
        names: set[bytes] = set()
        for changes in writes:
            for change in changes:
                if change.key not in self._keys:
                    key = self._keys[change.key] = flat(change.key)
                    self._rows[key] = _Row(key)
                for name, _ in change.names:
                    names.add(name)
                names.update(change.unname)
        for key, number, epoch, revision, owner, opened, used in self._ask(_FOLDERS, list(self._rows)):
            row = self._rows[key]
            row.kept = True
            row.number, row.epoch, row.revision = number, epoch, revision
            row.owner, row.opened, row.used = owner, opened, used
            row.was_opened, row.was_used = opened, used
            row.there = opened > 0 or used >= self._horizon
        for name, key, value, opened, used in self._ask(_NAMES, list(names)):
            if opened > 0 or used >= self._horizon:
                self._names[name] = _Name(key, value)

    def write(self, changes: Sequence[Change]) -> Done:
        """Work out what the changes do. Refused when they conflict, or a name is taken."""
        for change in changes:
            row = self._row(change)
            if change.expected is not None and change.expected != row.fence:
                return Done(error=Conflict(change.key, self._head(change.key, row) if row.there else None))
        if any(change.names or change.unname or change.delete for change in changes):
            try:
                moved = self._moved(changes)
            except NameTaken as taken:
                return Done(error=taken)
            self._names.update(moved)
            self._named.update(moved)
        return Done(tuple([self._change(change, self._row(change)) for change in changes]))

    def flush(self) -> None:
        """Write it all."""
        db = self._db
        there: list[_Row] = []
        emptied, gone = [], []
        for row in self._rows.values():
            if row.emptied:
                emptied.append((row.number,))
                if not row.there:
                    gone.append((row.number,))
            if row.there and row.touched:
                there.append(row)
        if emptied:
            empty(db, emptied)
            db.executemany("DELETE FROM folders WHERE number = ?", gone)
        _write_folders(db, there)
        _write_cells(db, there)
        if self._named:
            self._write_names()
        if self._epoch != self._before:
            db.execute("UPDATE counter SET epoch = ?", (self._epoch,))

    # ------------------------------------------------------------------------------------------------- working it out

    def _ask(self, question: str, keys: list[bytes]) -> Iterator[Any]:
        for start in range(0, len(keys), ASKED_AT_ONCE):
            some = keys[start : start + ASKED_AT_ONCE]
            size = 1 << (len(some) - 1).bit_length()  # few sizes: the statements are prepared already
            some += some[-1:] * (size - len(some))
            yield from self._db.execute(f"{question}(?{', ?' * (size - 1)})", some)

    def _row(self, change: Change) -> _Row:
        return self._rows[self._keys[change.key]]

    def _head(self, key: FolderKey, row: _Row) -> Head:
        head = row.head
        if head is None:
            head = self._db.execute("SELECT head FROM folders WHERE number = ?", (row.number,)).fetchone()[0]
        state = self._owners.state(self._db, row.owner)
        return Head(FolderKey(*key), row.fence, head, row.owner, state, row.opened > 0)

    def _moved(self, changes: Sequence[Change]) -> dict[bytes, _Name | None]:
        """Where names point afterwards that did not before. Raises `NameTaken`."""
        moved: dict[bytes, _Name | None] = {}
        for change in changes:
            if change.delete:
                key = self._keys[change.key]
                moved.update(
                    (name, None) for name, named in self._names.items() if named and named.key == key
                )
            for name in change.unname:
                named = moved.get(name, self._names.get(name))
                if named is not None and named.key == self._keys[change.key]:
                    moved[name] = None
            for name, value in change.names:
                wanted = _Name(self._keys[change.key], value)
                named = moved[name] if name in moved else self._names.get(name)
                if named is None:
                    moved[name] = wanted
                elif named != wanted:
                    raise NameTaken(name, Named(unflat(named.key), named.value))
        return moved

    def _change(self, change: Change, row: _Row) -> Fence:
        row.touched = True
        if change.delete or not row.there:
            row.there, row.emptied = False, row.kept
            row.cells.clear()
            if change.ends:
                return NOT_THERE
            self._make(row)
        elif change.take:
            row.epoch = self._next_epoch()
        row.revision += 1
        self._set_head(row, change)
        if not 0 <= self._now - row.used < self._grain:
            row.used = self._now
        for section, number in change.drop:
            row.cells[section, number] = None
        for (section, number), value in change.put:
            row.cells[section, number] = value
        return Fence(row.epoch, row.revision)

    def _set_head(self, row: _Row, change: Change) -> None:
        if change.head is not None:
            row.head = change.head
        if change.owner is not None:
            row.owner = change.owner
        if change.open is False:
            row.opened = 0
        elif change.open and not row.opened:
            self._opened += 1
            row.opened = self._opened

    def _make(self, row: _Row) -> None:
        row.there = True
        row.epoch = self._next_epoch()
        row.number = row.number or row.epoch
        row.used = self._now
        row.revision = row.opened = 0
        row.owner, row.head = "", b""

    def _next_epoch(self) -> int:
        self._epoch += 1
        return self._epoch

    # ---------------------------------------------------------------------------------------------------- writing it

    def _write_names(self) -> None:
        gone = [(name,) for name, named in self._named.items() if named is None]
        if gone:
            self._db.executemany("DELETE FROM names WHERE name = ?", gone)
        new = [
            (name, self._rows[named.key].number, named.value)
            for name, named in self._named.items()
            if named is not None
        ]
        if new:
            self._db.executemany("REPLACE INTO names VALUES (?, ?, ?)", new)


def _write_folders(db: sqlite3.Connection, rows: list[_Row]) -> None:
    new = [
        (row.number, row.key, row.epoch, row.revision, row.owner, row.opened, row.used, row.head)
        for row in rows
        if not row.kept
    ]
    if new:
        db.executemany("INSERT INTO folders VALUES (?, ?, ?, ?, ?, ?, ?, ?)", new)
    changed: dict[tuple[bool, bool, bool], list[_Row]] = {}
    for row in rows:
        if row.kept:
            which = row.opened != row.was_opened, row.used != row.was_used, row.head is not None
            changed.setdefault(which, []).append(row)
    for which, some in changed.items():
        columns = [*_USUAL, *compress(_IF_CHANGED, which)]
        values = attrgetter(*columns, "number")
        statement = f"UPDATE folders SET {' = ?, '.join(columns)} = ? WHERE number = ?"
        db.executemany(statement, [values(row) for row in some])


def _write_cells(db: sqlite3.Connection, rows: list[_Row]) -> None:
    dropped, put = [], []
    for row in rows:
        for (section, number), value in row.cells.items():
            if value is not None:
                put.append((row.number, section, number, value))
            elif row.kept and not row.emptied:
                dropped.append((row.number, section, number))
    if dropped:
        db.executemany("DELETE FROM cells WHERE folder = ? AND section = ? AND number = ?", dropped)
    if put:
        db.executemany(
            "INSERT INTO cells VALUES (?, ?, ?, ?) "
            "ON CONFLICT (folder, section, number) DO UPDATE SET value = excluded.value",
            put,
        )
