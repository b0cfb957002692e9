"""PostgreSQL keeps the laws of storages."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import pytest

from greenroom.services import postgres_storage
from greenroom.services.postgres_storage import PostgresStorage
from greenroom.services.storage import Storage
from kits.postgres_server import PostgresServer, new_schema
from kits.storage_kit import StorageKit


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
