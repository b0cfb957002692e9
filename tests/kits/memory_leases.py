"""Leases in memory: for tests under virtual time, and those that look at every record there ever was."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from greenroom.actors.errors import LeaseHeld
from greenroom.sandbox.leases import Lease, LeaseKey, LeaseState


class MemoryLeases:
    """Several keepers of one test may share one, as processes share a file. It passes the leases kit."""

    def __init__(self) -> None:
        self.now: dict[str, Lease] = {}
        self.ever: list[Lease] = []

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def add(self, lease: Lease) -> None:
        self._check(lease.key, lease.id)
        self.now[lease.id] = lease
        self.ever.append(lease)

    async def change(self, lease_id: str, *, state: LeaseState, key: LeaseKey | None = None) -> bool:
        lease = self.now.get(lease_id)
        if lease is None:
            return False
        self._check(key, lease_id)
        self.now[lease_id] = msgspec.structs.replace(lease, state=state, key=key or lease.key)
        return True

    async def erase(self, lease_id: str) -> None:
        self.now.pop(lease_id, None)

    async def all(self) -> Sequence[Lease]:
        return sorted(self.now.values(), key=lambda lease: lease.created)

    def _check(self, key: LeaseKey | None, lease_id: str) -> None:
        if key is not None and any(other.key == key and other.id != lease_id for other in self.now.values()):
            raise LeaseHeld(f"{key} has a lease")
