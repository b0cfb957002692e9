"""Folders in this process's memory: the reference of what a `Storage` does, for tests and for services by themselves.

Several stores of one process may share it, as several processes share a database. Nothing waits in here, so each call
is carried out as a whole.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec import Struct, field

from greenroom.actors.setting_checks import Seconds, check_settings
from greenroom.services.service import not_started
from greenroom.services.storage import (
    NOT_THERE,
    Change,
    Conflict,
    Fence,
    Folder,
    FolderKey,
    Head,
    Named,
    NameTaken,
    OwnerGone,
    OwnerState,
    Span,
)

NOTES: Final = 1_000
"""Notes that wait for an owner, at most."""
OWNERS: Final = 10_000
"""Owners remembered, at most: of those that are gone the oldest are forgotten, and are gone all the same."""
SWEPT_AT_ONCE: Final = 512
"""Idle folders forgotten by one call, at most: a crowd that went idle together must not block the loop."""


class _Folder(Struct):
    """`opened`: its place among those that were opened, 0 for one that is not open. `used`: when it was written to."""

    epoch: int
    revision: int = 0
    head: bytes = b""
    owner: str = ""
    opened: int = 0
    used: float = 0.0
    sections: dict[str, dict[int, bytes]] = field(default_factory=dict)
    names: set[bytes] = field(default_factory=set)


class _Owner(Struct):
    """`until`: when it is late."""

    state: OwnerState
    until: float
    notes: deque[bytes] = field(default_factory=lambda: deque(maxlen=NOTES))


class MemoryStorage:
    """A `Storage` that lasts as long as the object does: stopping it loses nothing."""

    def __init__(
        self, *, idle_seconds: float = 365 * 86_400.0, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        check_settings("MemoryStorage", locals(), {"idle_seconds": Seconds})
        self._idle_seconds = idle_seconds
        self._monotonic = monotonic
        self._folders: OrderedDict[FolderKey, _Folder] = OrderedDict()
        """By when they were written to."""
        self._names: dict[bytes, Named] = {}
        self._owners: dict[str, _Owner] = {}
        self._epoch = 0
        self._opened = 0
        self._started = 0

    def __repr__(self) -> str:
        return f"<MemoryStorage: {len(self._folders)} folders>"

    async def start(self) -> None:
        """Be ready for use, until it was stopped as often."""
        self._started += 1

    async def stop(self) -> None:
        """Refuse further use, when it was started no more often."""
        self._started = max(0, self._started - 1)

    async def write(self, changes: Sequence[Change]) -> tuple[Fence, ...]:
        """Do all changes together, or none. Raises `Conflict`, `NameTaken`."""
        now = self._now()
        self._sweep(now)
        found = [self._find(change.key, now) for change in changes]
        for change, folder in zip(changes, found, strict=True):
            if change.expected is not None and change.expected != _fence(folder):
                raise Conflict(change.key, None if folder is None else self._head(change.key, folder, now))
        self._check_names(changes, now)
        return tuple(self._change(change, now) for change in changes)

    async def read(self, key: FolderKey, spans: Sequence[Span] = ()) -> Folder | None:
        """The folder's head and those cells; none: it is not there."""
        now = self._now()
        folder = self._find(key, now)
        if folder is None:
            return None
        cells = tuple(_cells(folder.sections.get(span.section, {}), span) for span in spans)
        return Folder(self._head(key, folder, now), cells)

    async def lookup(self, name: bytes) -> Named | None:
        """Where the name points; none: nowhere."""
        return self._lookup(name, self._now())

    async def sessions(self, kind: str, user_id: str) -> tuple[str, ...]:
        """The session ids of the user's folders of that kind, sorted by their UTF-8 bytes."""
        now = self._now()
        found = (key for key in list(self._folders) if key[:2] == (kind, user_id) and self._find(key, now))
        return tuple(sorted((key.session_id for key in found), key=_utf8))

    async def orphans(self, kind: str, limit: int) -> tuple[Head, ...]:
        """Folders of that kind that are open and whose owner is nobody or gone; those open for longest first."""
        now = self._now()
        found = [
            (folder.opened, key, folder)
            for key, folder in self._folders.items()
            if folder.opened and key.kind == kind and self._state(folder.owner, now) == "gone"
        ]
        found.sort(key=lambda one: one[0])
        return tuple(self._head(key, folder, now) for _, key, folder in found[:limit])

    async def renew(self, owner: str, seconds: float, state: OwnerState = "serving") -> tuple[bytes, ...]:
        """The owner lives for `seconds` more; gives its notes. Raises `OwnerGone`."""
        now = self._now()
        known = self._owners.get(owner)
        if known is None:
            known = self._owners[owner] = _Owner(state, now + seconds)
            self._forget_owners(now)
        elif self._state(owner, now) == "gone":
            raise OwnerGone(owner)
        known.state = state
        known.until = now + seconds
        notes = tuple(known.notes)
        known.notes.clear()
        return notes

    async def note(self, owner: str, note: bytes) -> bool:
        """Leave a note that the owner's next renewal gives it. Whether it lives."""
        if self._state(owner, self._now()) == "gone":
            return False
        self._owners[owner].notes.append(note)
        return True

    # ----------------------------------------------------------------------------------------------------- the folders

    def _now(self) -> float:
        if not self._started:
            raise not_started(self)
        return self._monotonic()

    def _find(self, key: FolderKey, now: float) -> _Folder | None:
        folder = self._folders.get(key)
        if folder is not None and self._is_idle(folder, now):
            self._forget(key)
            return None
        return folder

    def _is_idle(self, folder: _Folder, now: float) -> bool:
        return not folder.opened and now - folder.used >= self._idle_seconds

    def _forget(self, key: FolderKey) -> None:
        for name in self._folders.pop(key).names:
            del self._names[name]

    def _sweep(self, now: float) -> None:
        for _ in range(SWEPT_AT_ONCE):
            key, folder = next(iter(self._folders.items()), (None, None))
            if key is None or folder is None or now - folder.used < self._idle_seconds:
                return
            if folder.opened:  # its time begins when it is closed, which is a write
                folder.used = now
                self._folders.move_to_end(key)
            else:
                self._forget(key)

    def _head(self, key: FolderKey, folder: _Folder, now: float) -> Head:
        owner_state = self._state(folder.owner, now)
        return Head(
            FolderKey(*key), _fence(folder), folder.head, folder.owner, owner_state, bool(folder.opened)
        )

    def _lookup(self, name: bytes, now: float) -> Named | None:
        named = self._names.get(name)
        return None if named is None or self._find(named.key, now) is None else named

    def _check_names(self, changes: Sequence[Change], now: float) -> None:
        """Raises `NameTaken` when the changes, in their order, want a name that cannot be had."""
        moved: dict[bytes, Named | None] = {}
        for change in changes:
            folder = self._find(change.key, now)
            for name in _names_to_go(change, folder):
                moved[name] = None
            for name, value in change.names:
                named = moved[name] if name in moved else self._lookup(name, now)
                if named is None:
                    moved[name] = Named(change.key, value)
                elif named != Named(change.key, value):
                    raise NameTaken(name, named)

    # --------------------------------------------------------------------------------- changing them, which cannot fail

    def _change(self, change: Change, now: float) -> Fence:
        key = FolderKey(*change.key)
        folder = self._folders.get(key)
        for name in _names_to_go(change, folder):
            del self._names[name]
            assert folder is not None
            folder.names.discard(name)
        if change.delete:
            folder = None
            self._folders.pop(key, None)
        if change.ends:
            return NOT_THERE
        if folder is None:
            folder = self._folders[key] = _Folder(self._next_epoch())
        elif change.take:
            folder.epoch = self._next_epoch()
        folder.revision += 1
        self._set_head(folder, change)
        _set_cells(folder.sections, change)
        for name, value in change.names:
            folder.names.add(name)
            self._names[name] = Named(key, value)
        folder.used = now
        self._folders.move_to_end(key)
        return _fence(folder)

    def _set_head(self, folder: _Folder, change: Change) -> None:
        if change.head is not None:
            folder.head = change.head
        if change.owner is not None:
            folder.owner = change.owner
        if change.open is False:
            folder.opened = 0
        elif change.open and not folder.opened:
            self._opened += 1
            folder.opened = self._opened

    def _next_epoch(self) -> int:
        self._epoch += 1
        return self._epoch

    # ------------------------------------------------------------------------------------------------------ the owners

    def _state(self, owner: str, now: float) -> OwnerState:
        known = self._owners.get(owner)
        return "gone" if known is None or now >= known.until else known.state

    def _forget_owners(self, now: float) -> None:
        if len(self._owners) > OWNERS:
            oldest = next((name for name in self._owners if self._state(name, now) == "gone"), None)
            if oldest is not None:
                del self._owners[oldest]


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _fence(folder: _Folder | None) -> Fence:
    return NOT_THERE if folder is None else Fence(folder.epoch, folder.revision)


def _cells(section: dict[int, bytes], span: Span) -> tuple[tuple[int, bytes], ...]:
    return tuple(sorted(cell for cell in section.items() if span.first <= cell[0] <= span.last))


def _names_to_go(change: Change, folder: _Folder | None) -> Iterable[bytes]:
    if folder is None:
        return ()
    return tuple(folder.names) if change.delete else folder.names.intersection(change.unname)


def _set_cells(sections: dict[str, dict[int, bytes]], change: Change) -> None:
    for name, number in change.drop:
        sections.get(name, {}).pop(number, None)
    for (name, number), value in change.put:
        sections.setdefault(name, {})[number] = value
