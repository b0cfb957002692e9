"""Services on a Redis server keep the laws."""

from __future__ import annotations

import uuid

import pytest

from greenroom.actors.errors import StoreUnavailable
from greenroom.services.durable_history import DurableSessionHistoryService
from greenroom.services.durable_state import DurableStateService
from greenroom.services.redis.storage import RedisStorage
from greenroom.services.session_history import Session
from greenroom.services.storage import Storage
from kits.history_kit import HELLO, HI
from kits.in_turn import in_turn
from kits.on_storage_kit import (
    ConversationsOnStorage,
    ForksOfHistoriesOnStorage,
    ForksOfStatesOnStorage,
    HistoriesOnStorage,
    LeasesOnStorage,
    OnStorage,
    ResponsesOnStorage,
    StatesOnStorage,
)
from kits.redis_server import RedisServer, running_redis


class OnRedis(OnStorage):
    """Each storage has a prefix of its own."""

    @pytest.fixture(autouse=True)
    def server(self, redis_server: RedisServer) -> None:
        self.url = redis_server.url()

    def storage(self) -> Storage:
        return self.client(uuid.uuid4().hex)

    def client(self, place: str) -> Storage:
        return RedisStorage(self.url, prefix=place)


class TestStatesOnRedis(OnRedis, StatesOnStorage): ...


class TestForksOfStatesOnRedis(OnRedis, ForksOfStatesOnStorage): ...


class TestHistoriesOnRedis(OnRedis, HistoriesOnStorage): ...


class TestForksOfHistoriesOnRedis(OnRedis, ForksOfHistoriesOnStorage): ...


class TestConversationsOnRedis(OnRedis, ConversationsOnStorage): ...


class TestResponsesOnRedis(OnRedis, ResponsesOnStorage): ...


class TestLeasesOnRedis(OnRedis, LeasesOnStorage): ...


async def test_a_server_that_is_away_is_said_and_nothing_is_lost() -> None:
    with running_redis() as server:
        storage = RedisStorage(server.url(), answer_seconds=0.5)
        async with DurableStateService(storage) as states, DurableSessionHistoryService(storage) as histories:
            assert await states.save_state("u", {"n": 1}, "s") == 1
            await histories.append_message(Session("s", "u"), HELLO)
            with in_turn() as work:
                await states.save_state("u", {"n": 2}, "s")
                await histories.append_message(Session("s", "u"), HI)
                server.kill()
                assert not await states.health()
                with pytest.raises(StoreUnavailable):
                    await work.write_elsewhere(None)
                with pytest.raises(StoreUnavailable):
                    await histories.get_session("u", "s")
                work.roll_back()
            with pytest.raises(StoreUnavailable):
                await states.save_state("u", {"n": 3}, "s")
            server.start()
            assert await states.health()
            assert await states.export_state("u", "s") == {"n": 1}
            session = await histories.get_session("u", "s")
            assert session is not None
            assert session.messages == [HELLO]
            assert await states.save_state("u", {"n": 4}, "s") == 2
