"""Servers of stores that fail under the servers that use them: killed, stopped, full, read-only. As fixtures."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import asyncpg
import pytest
from anyio import to_thread

from kits.postgres_server import PASSWORD, PORT, PostgresServer, running_postgres
from kits.redis_server import RedisServer, running_redis
from kits.small_disk import SmallDisk, postgres_on_small_disk


class Store(Protocol):
    """A server of a store, to be broken. `url`: with patience for a second."""

    url: str

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def send(self, number: signal.Signals) -> None: ...

    async def refuse_writes(self, refuse: bool) -> None: ...


class Redis:
    """It writes all to the disk before it answers."""

    def __init__(self, server: RedisServer) -> None:
        self.url = server.url("?answer_seconds=1")
        self.start, self.kill, self.send = server.start, server.kill, server.send
        self._command = server.command

    async def refuse_writes(self, refuse: bool) -> None:
        """It is full: `maxmemory-policy` is `noeviction`."""
        self._command("CONFIG", "SET", "maxmemory", "1" if refuse else "0")


class Postgres:
    """It waits for the disk."""

    def __init__(self, server: PostgresServer) -> None:
        self.url = server.url(query="&answer_seconds=1")
        self.start, self.kill, self.send = server.start, server.kill, server.signal
        self._server = server

    async def refuse_writes(self, refuse: bool) -> None:
        """It may only be read."""
        connection = await connected(self._server)
        now = "on" if refuse else "off"
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {now}")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()


async def connected(server: PostgresServer) -> asyncpg.Connection:
    """A connection of the operator's."""
    return await asyncpg.connect(
        host=str(server.folder), port=PORT, user="postgres", password=PASSWORD, database="postgres"
    )


@pytest.fixture(params=["redis", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "redis":
        with running_redis() as redis:
            yield Redis(redis)
    else:
        template: Path = request.getfixturevalue("postgres_template")
        with running_postgres(template, fsync="on", full_page_writes="on") as postgres:
            yield Postgres(postgres)


class Full(Protocol):
    """A server of a store that has no room, for a while. `says`: what clients are told then."""

    url: str
    says: str

    async def fill(self) -> None: ...

    async def make_room(self) -> None: ...


class FullRedis:
    """It may take no more memory than it takes now, and very little more."""

    says = "it is full"

    def __init__(self, server: RedisServer) -> None:
        self.url = server.url()
        self._command = server.command

    async def fill(self) -> None:
        used = re.search(rb"used_memory:(\d+)", self._command("INFO", "memory"))
        assert used is not None
        self._command("CONFIG", "SET", "maxmemory", str(int(used[1]) + 100_000))

    async def make_room(self) -> None:
        self._command("CONFIG", "SET", "maxmemory", "0")


class FullPostgres:
    """Its disk is full. `stops`: as what it is about to do would not be in its log, it stops, and does not come up."""

    says = "disk is full"

    def __init__(self, server: PostgresServer, disk: SmallDisk, *, stops: bool) -> None:
        self.url = server.url(query="&answer_seconds=1")
        self._server, self._disk, self._stops = server, disk, stops
        if stops:
            self.says = "PostgreSQL cannot be reached"

    async def fill(self) -> None:
        await to_thread.run_sync(self._disk.fill)
        while self._stops and "PANIC" not in (self._server.folder / "log").read_text():
            with suppress(asyncpg.PostgresError, OSError):
                connection = await connected(self._server)
                await connection.execute("SELECT pg_switch_wal()")
                await connection.execute("SELECT pg_logical_emit_message(true, '', 'begins the next file')")

    async def make_room(self) -> None:
        await to_thread.run_sync(self._disk.make_room)


@pytest.fixture(params=["redis", "postgres", "postgres' log"])
def full(request: pytest.FixtureRequest) -> Iterator[Full]:
    if request.param == "redis":
        with running_redis() as redis:
            yield FullRedis(redis)
    else:
        template: Path = request.getfixturevalue("postgres_template")
        with postgres_on_small_disk(template, fsync="on", full_page_writes="on") as (postgres, disk):
            yield FullPostgres(postgres, disk, stops=request.param != "postgres")
