"""Leases: what is written down of sandboxes, before there is one and until it is gone (law 8).

A lease says whose box it is (a session's, or nobody's yet: one of the warm pool), which process owns it, and which
backend has it. Whatever dies, the record stays, and says what must be tidied up.

`tests/kits/leases_kit.py` is the conformance kit of stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Struct

from greenroom.sandbox.backend import BoxKind

LeaseState: TypeAlias = Literal["making", "ready", "ending"]
"""`making`: its box may exist, or not; `ready`: it does; `ending`: it is being removed, and nobody may use it."""


class LeaseKey(NamedTuple):
    """Whose sandbox of which kind: a tuple, as sessions' keys are."""

    user_id: str
    session_id: str
    kind: BoxKind


class Lease(Struct, frozen=True, kw_only=True):
    """One record. `key` none: a box of the warm pool. `created`: seconds since the epoch."""

    id: str
    key: LeaseKey | None
    owner: str
    backend: str
    state: LeaseState
    created: float

    def __repr__(self) -> str:
        return f"<Lease {self.id[:8]} of {self.key or 'the warm pool'}, {self.state}>"


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

    async def change(self, lease_id: str, *, state: LeaseState, key: LeaseKey | None = None) -> bool:
        """Change its state and, where one is given, its key (a warm box gets its session). False: it is not there.

        Raises `LeaseHeld` when the key has another lease.
        """
        ...

    async def erase(self, lease_id: str) -> None:
        """Its box is gone. One that is not there is fine."""
        ...

    async def all(self) -> Sequence[Lease]:
        """All there are, of all owners, oldest first."""
        ...
