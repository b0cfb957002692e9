"""Operations on a storage in any order, carried out by two clients of it and on dictionaries: every answer is compared.

Part of the conformance kit `storage_kit`. No time passes here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from msgspec import Struct, field
from msgspec.structs import replace

from greenroom.services.storage import (
    NOT_THERE,
    Cell,
    Change,
    Conflict,
    Fence,
    FolderKey,
    Head,
    Named,
    NameTaken,
    OwnerGone,
    OwnerState,
    Span,
    Storage,
)

T = TypeVar("T")

MACHINE_KEYS = (
    FolderKey("session", "a", "b_c"),
    FolderKey("session", "a_b", "c"),
    FolderKey("session", "a", "\ud800"),
    FolderKey("log", "a", "b_c"),
)
SECTIONS = ("turn", "state")
OWNERS = ("one", "two", "")
SECONDS = 1e6

CLIENTS = st.integers(0, 1)
KEYS = st.sampled_from(MACHINE_KEYS)
VALUES = st.binary(max_size=3)
NAMES = st.sampled_from([b"n", b"m", b"\x00"])
CELLS = st.builds(Cell, st.sampled_from(SECTIONS), st.integers(0, 4))
EXPECTED = st.sampled_from(["any", "any", "right", "right", "right", "none", "stale"])


def few(one: st.SearchStrategy[T]) -> st.SearchStrategy[tuple[T, ...]]:
    """Mostly none."""
    return st.just(()) | st.lists(one, max_size=3).map(tuple)


CHANGES = st.builds(
    Change,
    key=KEYS,
    take=st.booleans(),
    delete=st.sampled_from([False, False, False, True]),
    head=st.none() | VALUES,
    owner=st.none() | st.sampled_from(OWNERS),
    open=st.none() | st.booleans(),
    put=few(st.tuples(CELLS, VALUES)),
    drop=few(CELLS),
    names=few(st.tuples(NAMES, st.sampled_from([b"", b"v"]))),
    unname=few(NAMES),
)


class ModelFolder(Struct):
    """A folder as it should be. `opened`: when it was opened, 0 for one that is not open."""

    fence: Fence
    head: bytes = b""
    owner: str = ""
    opened: int = 0
    cells: dict[Cell, bytes] = field(default_factory=dict)

    def span(self, span: Span) -> tuple[tuple[int, bytes], ...]:
        found = [
            (number, value)
            for (section, number), value in self.cells.items()
            if section == span.section and span.first <= number <= span.last
        ]
        return tuple(sorted(found))


class Model:
    """A storage, in dictionaries. What the real one is free to choose, the new fences, it is told."""

    def __init__(self) -> None:
        self.folders: dict[FolderKey, ModelFolder] = {}
        self.names: dict[bytes, Named] = {}
        self.owners: dict[str, OwnerState] = {}
        self.notes: dict[str, list[bytes]] = {}
        self.openings = 0
        self.epochs = [0]
        self.fences: set[tuple[FolderKey, Fence]] = set()

    def refusal(self, changes: Sequence[Change]) -> tuple[type[Exception], Any, Any] | None:
        """Why the changes are refused, if they are: the error, what about, and what is found."""
        for change in changes:
            folder = self.folders.get(change.key)
            if change.expected not in {None, NOT_THERE if folder is None else folder.fence}:
                return Conflict, change.key, None if folder is None else self.head(change.key)
        names = dict(self.names)
        for change in changes:
            unname(names, change)
            for name, value in change.names:
                if names.setdefault(name, Named(change.key, value)) != Named(change.key, value):
                    return NameTaken, name, names[name]
        return None

    def head(self, key: FolderKey) -> Head:
        folder = self.folders[key]
        state = self.owners.get(folder.owner, "gone")
        return Head(key, folder.fence, folder.head, folder.owner, state, bool(folder.opened))

    def apply(self, change: Change, fence: Fence) -> None:
        """Do what the storage did, and check the fence it gave."""
        before = self.folders.get(change.key)
        unname(self.names, change)
        if change.delete:
            self.folders.pop(change.key, None)
        if change.ends:
            assert fence == NOT_THERE
            return
        self.check_fence(change, fence, before)
        folder = self.folders.setdefault(change.key, ModelFolder(fence))
        folder.fence = fence
        folder.head = folder.head if change.head is None else change.head
        folder.owner = folder.owner if change.owner is None else change.owner
        if change.open and not folder.opened:
            self.openings += 1
            folder.opened = self.openings
        elif change.open is False:
            folder.opened = 0
        for cell in change.drop:
            folder.cells.pop(cell, None)
        folder.cells.update(change.put)
        self.names.update({name: Named(change.key, value) for name, value in change.names})

    def check_fence(self, change: Change, fence: Fence, before: ModelFolder | None) -> None:
        assert (change.key, fence) not in self.fences
        self.fences.add((change.key, fence))
        if before is None or change.delete or change.take:
            assert fence.epoch > max(self.epochs)
            assert fence.revision >= 1
            self.epochs.append(fence.epoch)
        else:
            assert fence.epoch == before.fence.epoch
            assert fence.revision > before.fence.revision

    def orphans(self, kind: str) -> list[Head]:
        open_ones = [key for key, folder in self.folders.items() if folder.opened and key.kind == kind]
        open_ones.sort(key=lambda key: self.folders[key].opened)
        return [head for head in map(self.head, open_ones) if head.owner_state == "gone"]


def unname(names: dict[bytes, Named], change: Change) -> None:
    """Take away the names that go with a change."""
    for name, named in list(names.items()):
        if named.key == change.key and (change.delete or name in change.unname):
            del names[name]


class StorageMachine(RuleBasedStateMachine):
    """The operations."""

    def open(self) -> Sequence[Storage]:
        """Two clients of a new storage, not yet started."""
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.model = Model()
        self.storages = self.open()
        for storage in self.storages:
            self.run(storage.start())

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            for key in MACHINE_KEYS:
                self.read(0, key, [])
            for storage in self.storages:
                self.run(storage.stop())
            self.runner.close()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def expecting(self, change: Change, how: str) -> Change:
        folder = self.model.folders.get(change.key)
        right = NOT_THERE if folder is None else folder.fence
        expected = {
            "any": None,
            "right": right,
            "none": NOT_THERE,
            "stale": Fence(right.epoch, right.revision + 1),
        }
        return replace(change, expected=expected[how])

    @rule(
        client=CLIENTS,
        changes=st.lists(st.tuples(CHANGES, EXPECTED), max_size=3, unique_by=lambda one: one[0].key),
    )
    def write(self, client: int, changes: list[tuple[Change, str]]) -> None:
        expecting = [self.expecting(change, how) for change, how in changes]
        fences: Sequence[Fence] = ()
        refusal: tuple[type[Exception], Any, Any] | None = None
        wanted = self.model.refusal(expecting)
        try:
            fences = self.run(self.storages[client].write(expecting))
        except Conflict as conflict:
            refusal = Conflict, conflict.key, conflict.found
        except NameTaken as taken:
            refusal = NameTaken, taken.name, taken.named
        assert refusal == wanted
        if wanted is None:
            for change, fence in zip(expecting, fences, strict=True):
                self.model.apply(change, fence)
        for change in expecting:
            self.read(1 - client, change.key, [Span(section) for section in SECTIONS])

    @rule(
        client=CLIENTS,
        key=KEYS,
        spans=st.lists(st.builds(Span, st.sampled_from(SECTIONS), st.integers(0, 4), st.integers(0, 4))),
    )
    def read(self, client: int, key: FolderKey, spans: list[Span]) -> None:
        found = self.run(self.storages[client].read(key, spans))
        folder = self.model.folders.get(key)
        if folder is None:
            assert found is None
        else:
            assert found is not None
            assert found.head == self.model.head(key)
            assert found.spans == tuple(folder.span(span) for span in spans)

    @rule(client=CLIENTS, name=NAMES)
    def lookup(self, client: int, name: bytes) -> None:
        assert self.run(self.storages[client].lookup(name)) == self.model.names.get(name)

    @rule(client=CLIENTS, kind=st.sampled_from(["session", "log"]), user_id=st.sampled_from(["a", "a_b"]))
    def sessions(self, client: int, kind: str, user_id: str) -> None:
        wanted = [key.session_id for key in self.model.folders if key[:2] == (kind, user_id)]
        wanted.sort(key=lambda text: text.encode("utf-8", "surrogatepass"))
        assert self.run(self.storages[client].sessions(kind, user_id)) == tuple(wanted)

    @rule(client=CLIENTS, kind=st.sampled_from(["session", "log"]), limit=st.integers(1, 5))
    def orphans(self, client: int, kind: str, limit: int) -> None:
        found = self.run(self.storages[client].orphans(kind, limit))
        assert list(found) == self.model.orphans(kind)[:limit]

    @rule(
        client=CLIENTS,
        owner=st.sampled_from(OWNERS[:2]),
        state=st.sampled_from(["serving", "serving", "draining", "gone"]),
    )
    def renew(self, client: int, owner: str, state: OwnerState) -> None:
        gone = self.model.owners.get(owner) == "gone"
        try:
            notes = self.run(self.storages[client].renew(owner, SECONDS, state))
        except OwnerGone:
            assert gone
        else:
            assert not gone
            assert list(notes) == self.model.notes.pop(owner, [])
            self.model.owners[owner] = state

    @rule(client=CLIENTS, owner=st.sampled_from(OWNERS), note=VALUES)
    def note(self, client: int, owner: str, note: bytes) -> None:
        lives = self.model.owners.get(owner, "gone") != "gone"
        assert self.run(self.storages[client].note(owner, note)) is lives
        if lives:
            self.model.notes.setdefault(owner, []).append(note)

    @rule(client=CLIENTS)
    def start_again(self, client: int) -> None:
        """Its other client may go on; one object for both goes on as well."""
        self.run(self.storages[client].stop())
        self.run(self.storages[client].start())
