"""Leases in memory: for tests under virtual time, and those that look at every record there ever was."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from greenroom.actors.errors import LeaseHeld
from greenroom.sandbox.leases import Held, Lease, LeaseChange, LeaseKey


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

    async def change(self, lease_id: str, change: LeaseChange, *, epoch: int | None = None) -> bool:
        lease = self.now.get(lease_id)
        new = None if lease is None else change.of(lease, epoch)
        if new is None:
            return False
        self._check(new.key, lease_id)
        self.now[lease_id] = new
        return True

    async def erase(self, lease_id: str) -> None:
        self.now.pop(lease_id, None)

    async def all(self) -> Sequence[Lease]:
        return sorted(self.now.values(), key=lambda lease: lease.created)

    def _check(self, key: LeaseKey | None, lease_id: str) -> None:
        if key is not None and any(other.key == key and other.id != lease_id for other in self.now.values()):
            raise LeaseHeld(f"{key} has a lease")


class SharedMemoryLeases:
    """One process's view of leases in memory that several share. `gone`: owners that the place knows to be gone."""

    place = "memory"

    def __init__(
        self, leases: MemoryLeases, gone: set[str], asked: dict[str, Callable[[str], object]]
    ) -> None:
        self.leases = leases
        self.gone = gone
        self._asked = asked
        self.taken: Callable[[str], object] = bool
        self.start, self.stop = leases.start, leases.stop
        self.add, self.change, self.erase, self.all = leases.add, leases.change, leases.erase, leases.all
        self._mine: Callable[[str], object] = bool

    async def find(self, key: LeaseKey) -> Held | None:
        found = [lease for lease in self.leases.now.values() if lease.key == key]
        return Held(found[0], found[0].owner in self.gone) if found else None

    async def ask(self, lease_id: str) -> None:
        lease = self.leases.now.get(lease_id)
        if lease is not None and lease.owner in self._asked:
            self._asked[lease.owner](lease_id)

    def when_told(self, asked: Callable[[str], object], taken: Callable[[str], object]) -> None:
        self._mine, self.taken = asked, taken

    def known_as(self, owner: str) -> None:
        """Whoever asks this owner asks here."""
        self._asked[owner] = self._hear

    def _hear(self, lease_id: str) -> None:
        self._mine(lease_id)
