"""Folders on a Redis server: the kit on a real one, what lies there, and what is told of it."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from greenroom.services.redis_storage import RedisStorage
from greenroom.services.storage import Storage
from kits.redis_server import RedisServer
from kits.storage_kit import StorageKit


def prefix() -> str:
    """One that no other test has."""
    return uuid.uuid4().hex


class TestRedisStorage(StorageKit):
    unit = 0.08

    @pytest.fixture(autouse=True)
    def server(self, redis_server: RedisServer) -> None:
        self.url = redis_server.url()

    def clients(self, idle_seconds: float) -> tuple[Storage, Storage]:
        of_this = prefix()
        one, other = (RedisStorage(self.url, prefix=of_this, idle_seconds=idle_seconds) for _ in range(2))
        return one, other

    async def advance(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # the server has a clock of its own
