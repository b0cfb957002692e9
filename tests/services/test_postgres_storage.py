"""PostgreSQL keeps the laws of storages, and sessions in it those of stores."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import pytest

from greenroom.services import postgres_storage
from greenroom.services.durable_store import DurableSessions
from greenroom.services.postgres_storage import PostgresStorage
from greenroom.services.storage import Storage
from greenroom.services.store import SessionStore
from kits.postgres_server import PostgresServer, new_schema
from kits.storage_kit import StorageKit
from kits.store_kit import StoreKit


class TestPostgresStorage(StorageKit):
    unit: ClassVar[float] = 0.05

    @pytest.fixture(autouse=True)
    def server(self, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.postgres = postgres_server
        # Who looks at an idle folder finds none, also when nobody has removed it yet.
        monkeypatch.setattr(postgres_storage, "SWEEP_SECONDS", (600.0, 600.0))

    def clients(self, idle_seconds: float) -> tuple[Storage, Storage]:
        schema = new_schema()
        one, other = (
            PostgresStorage(self.postgres.url(), schema=schema, idle_seconds=idle_seconds, pool_size=4)
            for _ in range(2)
        )
        return one, other

    async def advance(self, seconds: float) -> None:
        """The server's clock is nobody's to set."""
        await asyncio.sleep(seconds)


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
