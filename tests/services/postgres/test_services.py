"""Services in a PostgreSQL database keep the laws."""

from __future__ import annotations

import uuid

import pytest

from greenroom.services.postgres.storage import PostgresStorage
from greenroom.services.storage import Storage
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
from kits.postgres_server import PostgresServer


class InPostgres(OnStorage):
    """Each storage has a schema of its own."""

    @pytest.fixture(autouse=True)
    def server(self, postgres_server: PostgresServer) -> None:
        self.postgres = postgres_server

    def storage(self) -> Storage:
        return self.client(uuid.uuid4().hex)

    def client(self, place: str) -> Storage:
        return PostgresStorage(self.postgres.url(), schema=f"services_{place}", pool_size=4)


class TestStatesInPostgres(InPostgres, StatesOnStorage): ...


class TestForksOfStatesInPostgres(InPostgres, ForksOfStatesOnStorage): ...


class TestHistoriesInPostgres(InPostgres, HistoriesOnStorage): ...


class TestForksOfHistoriesInPostgres(InPostgres, ForksOfHistoriesOnStorage): ...


class TestConversationsInPostgres(InPostgres, ConversationsOnStorage): ...


class TestResponsesInPostgres(InPostgres, ResponsesOnStorage): ...


class TestLeasesInPostgres(InPostgres, LeasesOnStorage): ...
