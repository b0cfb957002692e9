"""PostgreSQL keeps the laws of storages."""

from __future__ import annotations

from typing import Any, ClassVar

import asyncpg
import pytest

from greenroom.services.postgres import storage as postgres_storage
from greenroom.services.postgres.storage import PostgresStorage
from greenroom.services.storage import Storage
from kits.postgres_server import PostgresServer, new_schema
from kits.storage_kit import StorageKit


class TestPostgresStorage(StorageKit):
    unit: ClassVar[float] = 60.0

    @pytest.fixture(autouse=True)
    def server(self, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.postgres = postgres_server
        # Who looks at an idle folder finds none, also when nobody has removed it yet.
        monkeypatch.setattr(postgres_storage, "SWEEP_SECONDS", (600.0, 600.0))

    def clients(self, idle_seconds: float) -> tuple[Storage, Storage]:
        self.schema = new_schema()
        self.ahead = 0.0
        one, other = (
            PostgresStorage(self.postgres.url(), schema=self.schema, idle_seconds=idle_seconds, pool_size=4)
            for _ in range(2)
        )
        return one, other

    async def advance(self, seconds: float) -> None:
        """The server's clock goes on by so much, for this schema."""
        self.ahead += seconds
        connect: Any = asyncpg.connect
        connection = await connect(self.postgres.url())
        await connection.execute(
            f"CREATE OR REPLACE FUNCTION {self.schema}.now_1() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
            f"$$ SELECT clock_timestamp() + make_interval(secs => {self.ahead}) $$"
        )
        await connection.close()
