"""Sessions in PostgreSQL keep the laws of stores, and random schedules of processes lose and double nothing."""

from __future__ import annotations

import pytest

from greenroom.services.postgres.storage import PostgresStorage
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.storage import Storage
from greenroom.services.store import SessionStore
from kits.durable_kit import DurableKit
from kits.durable_machine import a_world, schedule
from kits.postgres_server import PostgresServer, new_schema
from kits.store_kit import StoreKit

SCHEDULES = 50
STEPS = 50


class TestSessionsInPostgres(StoreKit):
    """Without what makes up hundreds of stores: that is about sessions, and the same on all storages."""

    test_it_does_what_a_dict_does = None  # type: ignore[assignment]
    test_every_state_that_is_kept_comes_back_as_it_was = None  # type: ignore[assignment]
    test_a_fork_is_a_replay_of_the_first_turns = None  # type: ignore[assignment]

    @pytest.fixture(autouse=True)
    def server(self, postgres_server: PostgresServer) -> None:
        self.postgres = postgres_server

    def store(self, turns_kept: int, states_kept: int) -> SessionStore:
        storage = PostgresStorage(self.postgres.url(), schema=new_schema())
        return DurableSessions(storage, turns_kept=turns_kept, states_kept=states_kept)


class TestProcessesOnPostgres(DurableKit):
    test_no_schedule_loses_or_doubles_a_turn = None  # type: ignore[assignment] # below, in one storage

    @pytest.fixture(autouse=True)
    def server(self, postgres_server: PostgresServer) -> None:
        self.postgres = postgres_server

    def clients(self) -> tuple[Storage, Storage]:
        schema = new_schema()
        one, other = (PostgresStorage(self.postgres.url(), schema=schema) for _ in range(2))
        return one, other


@pytest.mark.slow
async def test_no_schedule_of_a_sample_loses_or_doubles_a_turn(postgres_server: PostgresServer) -> None:
    storage = PostgresStorage(postgres_server.url(), schema=new_schema())
    async with a_world(storage) as world:
        for seed in range(SCHEDULES):
            await world.run(schedule(seed, STEPS), f"schedule {seed}", each=False)
        assert world.endings["written"] > SCHEDULES
        assert world.endings["refused"] > 0
