"""The storage in memory: the kit, and its bounds."""

from __future__ import annotations

from greenroom.services.memory_storage import OWNERS, SWEPT_AT_ONCE, MemoryStorage
from greenroom.services.storage import Storage
from kits.in_turn import Clock
from kits.storage_kit import StorageKit
from kits.storage_owners_kit import KEY, change


class TestMemoryStorage(StorageKit):
    def clients(self, idle_seconds: float) -> tuple[Storage, Storage]:
        storage = MemoryStorage(idle_seconds=idle_seconds, monotonic=self.clock)
        return storage, storage


async def test_a_crowd_that_went_idle_together_is_forgotten_a_part_at_a_time() -> None:
    clock = Clock()
    storage = MemoryStorage(idle_seconds=100.0, monotonic=clock)
    await storage.start()
    await storage.write(
        [change(KEY._replace(session_id=str(number))) for number in range(SWEPT_AT_ONCE + 50)]
    )
    clock.now += 100.0
    await storage.write([change()])
    assert repr(storage) == "<MemoryStorage: 51 folders>"
    assert await storage.sessions("session", "u") == ("s",)
    await storage.write([change()])
    assert repr(storage) == "<MemoryStorage: 1 folders>"


async def test_owners_that_are_gone_are_remembered_within_a_bound() -> None:
    storage = MemoryStorage()
    await storage.start()
    await storage.renew("lives", 1e6)
    for number in range(OWNERS + 10):
        await storage.renew(str(number), 0.0)
    assert len(storage._owners) == OWNERS
    assert await storage.note("lives", b"still")
