"""The plug for durable storage: small values by session, changed together or not at all, behind a fence.

What sessions have that must not be lost (history, states, turn logs, turns accepted, conversations, rounds) lies in
*folders*, one for each kind and session. A folder has a *head*, a small value that says what is in it, and numbered
values in named sections. All that knows what the values mean is written once, above this plug; a storage moves bytes.

The fence is what keeps a second writer out. Each folder has an epoch, which rises in the whole storage whenever a
folder is taken, and a revision, which rises with each write to the folder. Who writes says which epoch and revision he
believes it to have; when it has others, nothing is written and he is told how it stands. So an owner that was paused,
or cut off, for however long, cannot change what another has taken.

Owners are processes. They live as long as they `renew`, by the storage's own clock: one that was late is gone for good
and comes back under another name. The conformance kit is `tests/kits/storage_kit.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Struct

OwnerState: TypeAlias = Literal["serving", "draining", "gone"]
"""`gone`: stopped, died, or was late to renew; it will not be back under this name."""


class FolderKey(NamedTuple):
    """Which folder. `kind`: what it holds, a short word of ours. Ids may be any text, lone surrogates among it."""

    kind: str
    user_id: str
    session_id: str


class Fence(NamedTuple):
    """A folder's version. No two states of a folder have the same, also when it was deleted and made anew."""

    epoch: int
    revision: int


NOT_THERE = Fence(0, 0)
"""Of a folder that is not there. Every other has an epoch and a revision of at least 1."""


class Cell(NamedTuple):
    """Where in a folder a value lies. `number`: from 0 to 2**53 - 1."""

    section: str
    number: int


class Span(NamedTuple):
    """The cells of a section from `first` to `last`, both included."""

    section: str
    first: int = 0
    last: int = 2**53 - 1


class Change(Struct, frozen=True, kw_only=True):
    """What a write does to one folder, which it makes if need be.

    `expected`: the fence it must have, `NOT_THERE` for one that must not be there; none: whatever it has. `take`: it
    gets a new epoch, higher than any before in the storage; a folder that is made gets one in any case. `delete`:
    first, all that is in the folder goes, its names too, and the rest of the change applies to an empty one; with
    nothing else in the change the folder is gone. `head`: its new head; none leaves the one it has (`b""` in a new
    folder). `owner`: who has it from now on, `""` for nobody; none leaves it as it is. `open`: whether it holds work
    that somebody must do; none leaves it as it is. `put` and `drop`: values to write and to remove; dropping what is
    not there is fine. `names`: names in the whole storage that point to this folder, with a small value; a name that
    another folder has, or this one with another value, refuses the write (`NameTaken`). `unname`: names of this folder
    to remove; those of others stay. What goes goes first: a value or name that is in both is there afterwards.
    """

    key: FolderKey
    expected: Fence | None = None
    take: bool = False
    delete: bool = False
    head: bytes | None = None
    owner: str | None = None
    open: bool | None = None
    put: Sequence[tuple[Cell, bytes]] = ()
    drop: Sequence[Cell] = ()
    names: Sequence[tuple[bytes, bytes]] = ()
    unname: Sequence[bytes] = ()

    @property
    def ends(self) -> bool:
        """Whether the folder is gone afterwards."""
        return self.delete and not (
            self.take
            or self.head is not None
            or self.owner is not None
            or self.open is not None
            or self.put
            or self.names
        )


class Head(Struct, frozen=True):
    """How a folder stands. `owner`: `""` for nobody, whose state is `gone`."""

    key: FolderKey
    fence: Fence
    body: bytes
    owner: str
    owner_state: OwnerState
    open: bool


class Folder(Struct, frozen=True):
    """What was read of a folder, as of one moment: for each span that was asked for, its cells by rising number."""

    head: Head
    spans: tuple[tuple[tuple[int, bytes], ...], ...]


class Named(Struct, frozen=True):
    """Where a name points."""

    key: FolderKey
    value: bytes


class Conflict(Exception):
    """The folder has another fence than was expected; nothing was written. `found`: how it stands, none: it is not
    there."""

    def __init__(self, key: FolderKey, found: Head | None) -> None:
        super().__init__(f"{key!r} is not as expected: {found!r}")
        self.key = key
        self.found = found


class NameTaken(Exception):
    """The name is in use; nothing was written. `named`: where it points."""

    def __init__(self, name: bytes, named: Named) -> None:
        super().__init__(f"{name!r} is {named!r}")
        self.name = name
        self.named = named


class OwnerGone(Exception):
    """The owner was late, or never was."""


LONGEST_IDLE: Final = 1_000 * 365 * 86_400.0
"""Seconds. A server's clock does not reckon with `inf`: who says never gets a thousand years."""


class Storage(Protocol):
    """Folders. All calls raise `StoreUnavailable` when the storage cannot be reached, is full, and so on: a write was
    then not done, or, when the connection broke over it, was done or not as a whole; nothing is written in part.
    A write that its caller gave up (cancelled) is done as a whole or not at all.

    A folder that nobody has written to for the storage's `idle_seconds` is forgotten with its names, by itself, unless
    it is `open`; with `inf` never.
    """

    async def start(self) -> None:
        """Be ready for use; it counts: the storage stops when it was stopped as often as it was started.

        Raises `StoreUnavailable` that says what is missing when it cannot.
        """
        ...

    async def stop(self) -> None:
        """Let go of connections and files, after what is under way. A storage may be started again."""
        ...

    async def write(self, changes: Sequence[Change]) -> tuple[Fence, ...]:
        """Do all changes together, durably, or none; gives each folder's new fence (`NOT_THERE` for one deleted).

        No two changes are of one folder. They are done in their order: a name that one gives up the next may have.
        Raises `Conflict` for the first folder that is not as expected, and when all are, `NameTaken` for the first name
        that cannot be had.
        """
        ...

    async def read(self, key: FolderKey, spans: Sequence[Span] = ()) -> Folder | None:
        """The folder's head and those cells, as of one moment; none: it is not there."""
        ...

    async def lookup(self, name: bytes) -> Named | None:
        """Where the name points; none: nowhere."""
        ...

    async def sessions(self, kind: str, user_id: str) -> tuple[str, ...]:
        """The session ids of the user's folders of that kind, sorted by their UTF-8 bytes."""
        ...

    async def orphans(self, kind: str, limit: int) -> tuple[Head, ...]:
        """Folders of that kind that are open and whose owner is nobody or gone; those open for longest first."""
        ...

    async def renew(self, owner: str, seconds: float, state: OwnerState = "serving") -> tuple[bytes, ...]:
        """The owner lives for `seconds` more; `gone`: no longer. Gives the notes left for it, each once.

        An owner begins with its first renewal. Raises `OwnerGone` for one that was late or has gone.
        """
        ...

    async def note(self, owner: str, note: bytes) -> bool:
        """Leave a note that the owner's next renewal gives it. Whether it lives. At most 1,000 wait: of more the
        oldest is lost."""
        ...
