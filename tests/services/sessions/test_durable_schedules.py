"""Ten thousand random schedules of processes that share sessions, on each kind of storage."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.postgres.storage import PostgresStorage
from greenroom.services.redis.storage import RedisStorage
from greenroom.services.sqlite.storage import SqliteStorage
from greenroom.services.storage import Storage
from kits.durable_machine import run_schedules
from kits.postgres_server import PostgresServer, new_schema
from kits.redis_server import RedisServer

SCHEDULES = 10_000
SECONDS = 600
AT_ONCE = {"memory": 200, "file": 200, "redis": 20, "postgres": 20}
"""Worlds that share a storage, so that many writes go to the disk together, or to the server."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Owners are lost by the thousand."""
    logger = logging.getLogger("greenroom.services")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


def storage_of(place: str, request: pytest.FixtureRequest) -> Storage:
    """An empty one."""
    if place == "redis":
        redis: RedisServer = request.getfixturevalue("redis_server")
        return RedisStorage(redis.url(), prefix="schedules")
    if place == "postgres":
        postgres: PostgresServer = request.getfixturevalue("postgres_server")
        return PostgresStorage(postgres.url(), schema=new_schema())
    folder: Path = request.getfixturevalue("tmp_path")
    return MemoryStorage() if place == "memory" else SqliteStorage(folder / "friday.db")


@pytest.mark.slow
@pytest.mark.parametrize("place", AT_ONCE)
async def test_no_stale_write_is_accepted_and_no_turn_lost_or_doubled(
    place: str, request: pytest.FixtureRequest
) -> None:
    storage = storage_of(place, request)
    with anyio.fail_after(SECONDS):  # one that waits for ever is a failure, and not CI's end
        endings = await run_schedules(storage, SCHEDULES, at_once=AT_ONCE[place])
    assert endings["written"] > SCHEDULES / 10
    assert endings["refused"] > SCHEDULES / 100  # schedules that never try are no proof
    assert endings["joined"] > SCHEDULES / 10
