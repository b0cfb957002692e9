"""Services on a Redis server keep the laws."""

from __future__ import annotations

import uuid

import pytest

from greenroom.services.redis_storage import RedisStorage
from greenroom.services.storage import Storage
from kits.on_storage_kit import (
    ConversationsOnStorage,
    ForksOfHistoriesOnStorage,
    ForksOfStatesOnStorage,
    HistoriesOnStorage,
    OnStorage,
    StatesOnStorage,
)
from kits.redis_server import RedisServer


class OnRedis(OnStorage):
    """Each storage has a prefix of its own."""

    @pytest.fixture(autouse=True)
    def server(self, redis_server: RedisServer) -> None:
        self.url = redis_server.url()

    def storage(self) -> Storage:
        return RedisStorage(self.url, prefix=uuid.uuid4().hex)


class TestStatesOnRedis(OnRedis, StatesOnStorage): ...


class TestForksOfStatesOnRedis(OnRedis, ForksOfStatesOnStorage): ...


class TestHistoriesOnRedis(OnRedis, HistoriesOnStorage): ...


class TestForksOfHistoriesOnRedis(OnRedis, ForksOfHistoriesOnStorage): ...


class TestConversationsOnRedis(OnRedis, ConversationsOnStorage): ...
