"""Leases of sandboxes in a storage."""

import asyncio
from pathlib import Path

import pytest

from greenroom.actors.errors import ConfigurationError
from greenroom.sandbox.leases import LeaseChange, SharedLeases
from greenroom.services.durable_leases import DurableLeases
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sqlite.storage import SqliteStorage
from kits.leases_kit import KEY, SharedLeasesKit, lease


class TestInMemory(SharedLeasesKit):
    storages: dict[Path, MemoryStorage] = {}  # noqa: RUF012 - folders are other ones in each test

    def leases(self, folder: Path) -> SharedLeases:
        return DurableLeases(self.storages.setdefault(folder, MemoryStorage()))


class TestInSqlite(SharedLeasesKit):
    def leases(self, folder: Path) -> SharedLeases:
        return DurableLeases(SqliteStorage(str(folder / "sessions.db")))


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def test_who_was_late_keeps_what_nobody_took_and_hears_of_what_others_have() -> None:
    storage_clock, clock = Clock(), Clock()
    storage = MemoryStorage(monotonic=storage_clock)
    late = DurableLeases(storage, lease_seconds=3.0, monotonic=clock)
    other = DurableLeases(storage, lease_seconds=86_400.0)
    taken: list[str] = []
    heard = asyncio.Event()

    def hear(lease_id: str) -> None:
        taken.append(lease_id)
        heard.set()

    late.when_told(bool, hear)
    await late.start()
    await other.start()
    await late.add(lease(1))
    await late.add(lease(2, KEY._replace(session_id="t")))
    storage_clock.now += 10
    clock.now += 10  # it was stopped, say
    found = await other.find(KEY)
    assert found is not None
    assert found.gone
    assert await other.change(lease(1).id, LeaseChange(state="ready", owner="other"), epoch=0)
    async with asyncio.timeout(10):
        await heard.wait()
    assert taken == [lease(1).id]
    kept = await other.find(KEY._replace(session_id="t"))
    assert kept is not None
    assert not kept.gone
    assert not await late.change(lease(1).id, LeaseChange(state="ending"), epoch=0)
    await late.stop()
    await other.stop()


async def test_a_call_before_the_start_and_after_the_stop_is_refused_in_words() -> None:
    leases = DurableLeases(MemoryStorage())
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="not started"):
            await leases.all()
        await leases.start()
        await leases.stop()
