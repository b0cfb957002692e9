"""Leases: what is written down of sandboxes, before there is one and until it is gone (law 8).

A lease says whose box it is (a session's, or nobody's yet: one of the warm pool), which process owns it, and which
backend has it. Whatever dies, the record stays, and says what must be tidied up.

`tests/kits/leases_kit.py` is the conformance kit of stores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import msgspec
from msgspec import Struct

from greenroom.sandbox.backend import BoxKind

LeaseState: TypeAlias = Literal["making", "ready", "free", "ending"]
"""`making`: its box may exist, or not; `ready`: it does; `free`: it does, and its owner has let it go, for another
process of the session's; `ending`: it is being removed, and nobody may use it."""

Person: TypeAlias = Literal["no", "has", "had"]
"""Whether a person has the browser; `had`: the agent has not seen the page since."""


class LeaseKey(NamedTuple):
    """Whose sandbox of which kind: a tuple, as sessions' keys are."""

    user_id: str
    session_id: str
    kind: BoxKind


class Lease(Struct, frozen=True, kw_only=True):
    """One record. `key` none: a box of the warm pool, or one whose key was given up. `created`: seconds since the
    epoch. `epoch`: how often it was let go, taken over, or claimed to be removed; who does one of these says which he
    saw."""

    id: str
    key: LeaseKey | None
    owner: str
    backend: str
    state: LeaseState
    created: float
    epoch: int = 0
    person: Person = "no"

    def __repr__(self) -> str:
        return f"<Lease {self.id[:8]} of {self.key or 'the warm pool'}, {self.state}>"


class LeaseChange(Struct, frozen=True, kw_only=True):
    """What becomes of a lease; none leaves what it has. `key`: a warm box gets its session. `keyless`: it has no key
    any more, which may have another lease then. `owner`: whose it is from now on."""

    state: LeaseState
    key: LeaseKey | None = None
    keyless: bool = False
    owner: str | None = None
    person: Person | None = None

    def of(self, lease: Lease, epoch: int | None) -> Lease | None:
        """The lease after it; none when it does not apply to a lease of another epoch."""
        if epoch not in {None, lease.epoch}:
            return None
        return msgspec.structs.replace(
            lease,
            state=self.state,
            key=None if self.keyless else self.key or lease.key,
            owner=self.owner or lease.owner,
            person=self.person or lease.person,
            epoch=lease.epoch + (epoch is not None),
        )


class Held(Struct, frozen=True):
    """A key's lease. `gone`: where leases are kept it is known that its owner is gone, also one of another machine."""

    lease: Lease
    gone: bool


class Leases(Protocol):
    """Where leases are kept. Each method is atomic, also between processes, and durable when it returns."""

    async def start(self) -> None:
        """Be ready. Doing it twice is fine."""
        ...

    async def stop(self) -> None:
        """Let go of everything. Doing it twice is fine."""
        ...

    async def add(self, lease: Lease) -> None:
        """Write down a new one. Raises `LeaseHeld` when its key has one already, whoever's and in whatever state."""
        ...

    async def change(self, lease_id: str, change: LeaseChange, *, epoch: int | None = None) -> bool:
        """Change it; with `epoch`, only one that has this epoch, which then rises. False: it has not, or is not there.

        Raises `LeaseHeld` when the key has another lease.
        """
        ...

    async def erase(self, lease_id: str) -> None:
        """Its box is gone. One that is not there is fine."""
        ...

    async def all(self) -> Sequence[Lease]:
        """All there are, of all owners, oldest first."""
        ...


@runtime_checkable
class SharedLeases(Leases, Protocol):
    """Leases of sessions that go from process to process, be it of several machines. A box then waits for its session,
    which goes on with it wherever on the machine it is: `DurableLeases` (`greenroom.services`) is one."""

    @property
    def place(self) -> str:
        """Where they are kept, from the start on: the same for all who share them, nothing secret."""
        ...

    async def find(self, key: LeaseKey) -> Held | None:
        """The key's lease."""
        ...

    async def ask(self, lease_id: str) -> None:
        """Ask its owner to let it go. He may not hear of it, or may have to keep it: who must have it asks again."""
        ...

    def when_told(self, asked: Callable[[str], object], taken: Callable[[str], object]) -> None:
        """Call `asked` with each lease of this process that somebody asks for, and `taken` with each that another
        process took over because this one seemed to be gone."""
        ...
