"""Random schedules of processes that share sessions: ten thousand in memory, and in a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sqlite.storage import SqliteStorage
from greenroom.services.storage import Storage
from kits.durable_machine import run_schedules

SCHEDULES = 10_000
SECONDS = 600
AT_ONCE = 200
"""Worlds that share a storage, so that many writes go to the disk together."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Owners are lost by the thousand."""
    logger = logging.getLogger("greenroom.services")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["memory", "file"])
async def test_no_stale_write_is_accepted_and_no_turn_lost_or_doubled(place: str, tmp_path: Path) -> None:
    storage: Storage = MemoryStorage() if place == "memory" else SqliteStorage(tmp_path / "friday.db")
    with anyio.fail_after(SECONDS):  # one that waits for ever is a failure, and not CI's end
        endings = await run_schedules(storage, SCHEDULES, at_once=AT_ONCE)
    assert endings["written"] > SCHEDULES / 10
    assert endings["refused"] > SCHEDULES / 100  # schedules that never try are no proof
