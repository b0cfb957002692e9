"""Sessions on a Redis server keep the laws."""

from __future__ import annotations

import uuid

import pytest

from greenroom.services.redis.storage import RedisStorage
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.storage import Storage
from greenroom.services.store import SessionStore
from kits.durable_kit import DurableKit
from kits.redis_server import RedisServer
from kits.store_kit import StoreKit


class TestSessionsOnRedisAsAStore(StoreKit):
    @pytest.fixture(autouse=True)
    def server(self, redis_server: RedisServer) -> None:
        self.url = redis_server.url()

    def store(self, turns_kept: int, states_kept: int) -> SessionStore:
        storage = RedisStorage(self.url, prefix=uuid.uuid4().hex)
        return DurableSessions(storage, turns_kept=turns_kept, states_kept=states_kept)


class TestSessionsOnRedis(DurableKit):
    @pytest.fixture(autouse=True)
    def server(self, redis_server: RedisServer) -> None:
        self.url = redis_server.url()

    def clients(self) -> tuple[Storage, Storage]:
        prefix = uuid.uuid4().hex
        return RedisStorage(self.url, prefix=prefix), RedisStorage(self.url, prefix=prefix)
