"""Of connections to PostgreSQL: answers that are lost, lines that go dead, poolers, and the tables' versions."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import asyncpg
import pytest

from greenroom.actors.errors import ConfigurationError, MissingDependency, StoreUnavailable
from greenroom.services.postgres import pool as postgres_pool
from greenroom.services.postgres import storage as postgres_storage
from greenroom.services.postgres.pool import Calls, Connections
from greenroom.services.postgres.schema import MIGRATIONS, migrate
from greenroom.services.postgres.storage import SWEPT_AT_ONCE, PostgresStorage
from greenroom.services.storage import NOT_THERE, Cell, Change, Conflict, FolderKey, Span
from kits.postgres_proxy import PostgresProxy, postgres_proxy
from kits.postgres_server import PostgresServer, new_schema
from kits.until import until_answered

KEY = FolderKey("session", "u", "s")
OTHER = FolderKey("session", "u", "other")


@asynccontextmanager
async def started(url: str, schema: str, **options: Any) -> AsyncIterator[PostgresStorage]:
    storage = PostgresStorage(url, schema=schema, **options)
    await storage.start()
    try:
        yield storage
    finally:
        await storage.stop()


@asynccontextmanager
async def asking(server: PostgresServer) -> AsyncIterator[Any]:
    """A connection of the test's own."""
    connect: Any = asyncpg.connect
    connection = await connect(server.url())
    try:
        yield connection
    finally:
        connection.terminate()


@asynccontextmanager
async def through_proxy(server: PostgresServer) -> AsyncIterator[tuple[PostgresProxy, PostgresStorage, Any]]:
    """A storage behind a proxy, with all statements known to its connection; and another straight to the server."""
    schema = new_schema()
    async with (
        postgres_proxy(server) as proxy,
        started(proxy.url(), schema) as storage,
        started(server.url(), schema) as other,
    ):
        await storage.write([Change(key=KEY)])
        await storage.write([Change(key=KEY, delete=True)])
        await storage.renew("me", 60)
        await storage.note("me", b"0")
        await storage.renew("me", 60)
        await storage.read(KEY)
        assert proxy.opened == 1
        yield proxy, storage, other


# ----------------------------------------------------------------------------------------------- an answer is lost


async def test_a_write_whose_answer_is_lost_is_not_done_twice(postgres_server: PostgresServer) -> None:
    async with through_proxy(postgres_server) as (proxy, storage, other):
        proxy.lose_an_answer()
        (first,) = await storage.write([Change(key=KEY, expected=NOT_THERE, take=True, head=b"1")])
        assert proxy.lost.is_set()
        assert first.revision == 1
        proxy.lose_an_answer()
        second, third = await storage.write(
            [
                Change(key=KEY, expected=first, take=True, head=b"2"),
                Change(key=OTHER, put=[(Cell("a", 1), b"x")]),
            ]
        )
        assert proxy.opened == 3
        assert (second.revision, third.revision) == (2, 1)
        found = await other.read(KEY)
        assert found is not None
        assert found.head.fence == second  # and not taken once more
        proxy.lose_an_answer()
        assert await storage.write([Change(key=KEY, expected=second, delete=True)]) == (NOT_THERE,)


async def test_what_was_done_is_not_guessed_when_others_wrote_since(postgres_server: PostgresServer) -> None:
    async with through_proxy(postgres_server) as (proxy, storage, other):
        (fence,) = await storage.write([Change(key=KEY)])
        for keys in ([KEY], [KEY, OTHER]):
            proxy.lose_an_answer()
            proxy.let_in.clear()
            changes = [Change(key=key, expected=fence if key == KEY else None) for key in keys]
            writing = asyncio.ensure_future(storage.write(changes))
            await proxy.lost.wait()
            (fence,) = await other.write([Change(key=KEY, head=b"another's")])
            proxy.let_in.set()
            with pytest.raises(StoreUnavailable, match="others have written since"):
                await writing
            found = await other.read(KEY)
            assert found is not None
            assert (found.head.fence, found.head.body) == (fence, b"another's")
        with pytest.raises(Conflict):  # nothing was lost, so it is known
            await storage.write([Change(key=KEY, expected=NOT_THERE)])


async def test_an_unconditional_write_whose_answer_is_lost_is_not_sent_again(
    postgres_server: PostgresServer,
) -> None:
    async with through_proxy(postgres_server) as (proxy, storage, other):
        proxy.lose_an_answer()
        with pytest.raises(StoreUnavailable, match="as a whole or not at all"):
            await storage.write([Change(key=KEY, head=b"1")])
        found = await other.read(KEY)
        assert found is not None
        assert (found.head.body, found.head.fence.revision) == (b"1", 1)
        assert (await storage.write([Change(key=KEY, expected=found.head.fence)]))[0].revision == 2


async def test_notes_of_a_renewal_whose_answer_is_lost_are_given_by_the_next_try(
    postgres_server: PostgresServer,
) -> None:
    async with through_proxy(postgres_server) as (proxy, storage, other):
        await other.note("me", b"1")
        await other.note("me", b"2")
        proxy.lose_an_answer()
        assert await storage.renew("me", 60) == (b"1", b"2")
        assert proxy.lost.is_set()
        await other.note("me", b"3")
        assert await other.renew("me", 60) == (b"3",)
        assert await storage.renew("me", 60) == ()
        proxy.lose_an_answer()
        assert await storage.renew("me", 60, "gone") == ()


async def test_a_line_that_went_dead_while_it_was_not_used_fails_no_call(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_pool, "PROBE_SECONDS", 0.0)
    monkeypatch.setattr(postgres_pool, "PROBE_ANSWER_SECONDS", 0.1)
    async with through_proxy(postgres_server) as (proxy, storage, _):
        proxy.be_silent()
        assert (await storage.write([Change(key=KEY)]))[0].revision == 1
        assert proxy.opened == 2


async def test_a_line_that_goes_dead_in_a_call_ends_it_in_time(postgres_server: PostgresServer) -> None:
    schema = new_schema()
    async with (
        postgres_proxy(postgres_server) as proxy,
        started(proxy.url(), schema, answer_seconds=0.3, pool_size=1) as storage,
    ):
        (fence,) = await storage.write([Change(key=KEY)])
        proxy.be_silent()
        with anyio.fail_after(5), pytest.raises(StoreUnavailable, match="did not answer in time"):
            await storage.write([Change(key=KEY, expected=fence)])
        found = await storage.read(KEY)
        assert found is not None
        assert found.head.fence == fence


# --------------------------------------------------------------------------------------------------------- the pool


class Line:
    """As much of a connection as the pool looks at."""

    def __init__(self) -> None:
        self.closed = False

    def is_closed(self) -> bool:
        return self.closed

    def terminate(self) -> None:
        self.closed = True


async def test_there_are_never_more_connections_than_allowed_and_none_gets_lost() -> None:
    made: list[Line] = []

    async def connect(seconds: float) -> Line:
        await asyncio.sleep(0)
        if len(made) % 5 == 4:
            made.append(Line())
            raise OSError("no")
        made.append(Line())
        return made[-1]

    async def use(number: int) -> None:
        line = await connections.get(asyncio.get_running_loop().time() + 60)
        now.add(line)
        most.append(len(now))
        try:
            await asyncio.sleep(0.001 * (number % 3))
            if number % 7 == 0:
                line.terminate()
        finally:
            now.remove(line)
            connections.give_back(line)

    now: set[Line] = set()
    most: list[int] = []
    connections = Connections(connect, 3)
    tasks = [asyncio.ensure_future(use(number)) for number in range(200)]
    for number, task in enumerate(tasks):
        if number % 4 == 0:
            await asyncio.sleep(0)
            task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(error) for error in ended} <= {type(None), asyncio.CancelledError, OSError}
    assert sum(error is None for error in ended) > 100
    assert max(most) == 3
    got = [await connections.get(asyncio.get_running_loop().time() + 1) for _ in range(3)]
    assert len(set(got)) == 3


async def test_a_connection_that_is_lost_while_it_asks_for_types_fails_no_call() -> None:
    lines: list[Line] = []

    class Asking(Line):
        async def fetchrow(self, statement: str, *arguments: object) -> tuple[str]:
            if self is lines[0]:
                self.terminate()
                raise AttributeError("'NoneType' object has no attribute 'get_settings'")
            return (statement,)

    async def connect(seconds: float) -> Line:
        lines.append(Asking())
        return lines[-1]

    calls = Calls(Connections(connect, 2), 5.0)
    assert await calls.call("SELECT 1", (), (), changes=False) == (("SELECT 1",), True)
    assert len(lines) == 2


async def test_a_connection_that_comes_as_who_waits_for_it_gives_up_goes_to_the_next() -> None:
    async def connect(seconds: float) -> Line:
        return Line()

    connections = Connections(connect, 1)
    deadline = asyncio.get_running_loop().time() + 60
    line = await connections.get(deadline)
    first, second = (asyncio.ensure_future(connections.get(deadline)) for _ in range(2))
    await asyncio.sleep(0)
    connections.give_back(line)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    assert await second is line


# --------------------------------------------------------------------------------------------------- behind a pooler


async def test_behind_a_pooler_nothing_outlives_a_transaction(postgres_server: PostgresServer) -> None:
    schema = new_schema()
    async with started(postgres_server.url(), schema, statement_cache_size=0, pool_size=1) as storage:
        (fence,) = await storage.write([Change(key=KEY, put=[(Cell("a", 1), b"x")], names=[(b"n", b"")])])
        (fence,) = await storage.write([Change(key=KEY, expected=fence)])
        found = await storage.read(KEY, [Span("a")])
        assert found is not None
        assert found.head.fence == fence
        assert await storage.lookup(b"n") is not None
        connection = await storage._server._connections.get(asyncio.get_running_loop().time() + 1)
        for left in ("pg_prepared_statements WHERE name <> ''", "pg_locks WHERE locktype = 'advisory'"):
            assert await connection.fetchval(f"SELECT count(*) FROM {left}") == 0
        assert await connection.fetchval("SHOW application_name") == ""
        storage._server._connections.give_back(connection)


async def test_a_database_of_a_stricter_level_is_used_as_well(postgres_server: PostgresServer) -> None:
    url = postgres_server.url(query="&default_transaction_isolation=serializable")
    async with started(url, new_schema(), statement_cache_size=0) as storage:
        keys = [KEY._replace(session_id=str(number % 3)) for number in range(30)]
        fences = await asyncio.gather(*(storage.write([Change(key=key)]) for key in keys))
        assert sorted(fence.revision for (fence,) in fences) == sorted([*range(1, 11)] * 3)


# ------------------------------------------------------------------------------------------------------- the tables


async def test_processes_that_start_together_make_the_tables_once(postgres_server: PostgresServer) -> None:
    schema = new_schema()
    storages = [PostgresStorage(postgres_server.url(), schema=schema) for _ in range(8)]
    await asyncio.gather(*(storage.start() for storage in storages))
    async with asking(postgres_server) as connection:
        assert await connection.fetchval(f"SELECT count(*) FROM {schema}.versions") == len(MIGRATIONS)
    await asyncio.gather(*(storage.stop() for storage in storages))


async def test_a_migration_is_done_as_a_whole_or_not_at_all(postgres_server: PostgresServer) -> None:
    schema = new_schema()
    async with started(postgres_server.url(), schema) as storage, asking(postgres_server) as connection:
        await storage.write([Change(key=KEY, head=b"1")])
        change = ("ALTER TABLE SCHEMA.folders ADD COLUMN more text",)
        with pytest.raises(asyncpg.PostgresError):
            await migrate(connection, schema, [*MIGRATIONS, (*change, "SELECT nothing")])
        assert (await storage.write([Change(key=KEY)]))[0].revision == 2
        await migrate(connection, schema, [*MIGRATIONS, change])
        await migrate(connection, schema, [*MIGRATIONS, change])
        assert await connection.fetchval(f"SELECT max(version) FROM {schema}.versions") == len(MIGRATIONS) + 1
        assert (await storage.write([Change(key=KEY)]))[0].revision == 3  # one of the version before goes on


async def test_tables_of_a_newer_version_are_left_alone(postgres_server: PostgresServer) -> None:
    schema = new_schema()
    async with started(postgres_server.url(), schema) as storage, asking(postgres_server) as connection:
        await migrate(connection, schema, [*MIGRATIONS, ("DROP FUNCTION SCHEMA.lookup_1",)])
        with pytest.raises(StoreUnavailable, match=f"version {len(MIGRATIONS) + 1}, which a newer Greenroom"):
            await PostgresStorage(postgres_server.url(), schema=schema).start()
        with pytest.raises(StoreUnavailable, match="a newer Greenroom may have changed them"):
            await storage.lookup(b"n")


async def test_schemas_are_apart(postgres_server: PostgresServer) -> None:
    async with (
        started(postgres_server.url(), new_schema()) as one,
        started(postgres_server.url(), new_schema()) as other,
    ):
        await one.write([Change(key=KEY, names=[(b"n", b"")])])
        assert await other.read(KEY) is None
        assert await other.lookup(b"n") is None


# ------------------------------------------------------------------------------------------------------ what is idle


async def test_what_is_idle_goes_by_itself_with_all_it_had(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_storage, "SWEEP_SECONDS", (0.05, 0.05))
    schema = new_schema()
    many = [KEY._replace(session_id=str(number)) for number in range(SWEPT_AT_ONCE * 2 + 1)]
    async with (
        asking(postgres_server) as connection,
        started(postgres_server.url(), schema, idle_seconds=0.4) as storage,
    ):
        await storage.write([Change(key=OTHER, open=True, put=[(Cell("a", 1), b"x")], names=[(b"n", b"")])])
        await storage.write(
            [
                Change(key=key, put=[(Cell("a", 1), b"x")], names=[(key.session_id.encode(), b"")])
                for key in many
            ]
        )
        for table in ("folders", "cells", "names"):
            query = f"SELECT count(*) = 1 FROM {schema}.{table}"
            await until_answered(partial(connection.fetchval, query))
        assert await storage.read(OTHER) is not None


async def test_where_nothing_is_ever_idle_other_things_go_by_themselves(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_storage, "SWEEP_SECONDS", (0.05, 0.05))
    schema = new_schema()
    async with (
        asking(postgres_server) as connection,
        started(postgres_server.url(), schema, idle_seconds=float("inf")) as storage,
    ):
        await storage.write([Change(key=KEY)])
        await connection.execute(f"UPDATE {schema}.folders SET used = used - interval '500 years'")
        await storage.renew("gone", 60.0)
        assert await storage.note("gone", b"x")
        await storage.renew("gone", 0.0, "gone")
        await connection.execute(f"INSERT INTO {schema}.notes VALUES ('\\x676f6e65', 1000000, 'x')")
        await until_answered(partial(connection.fetchval, f"SELECT count(*) = 0 FROM {schema}.notes"))
        assert await storage.read(KEY) is not None


# --------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "url",
    [
        *("mysql://h/d", "postgresql://u:secret/x@h/d", "postgresql://u:secret@x@h/d", "h/d", ""),
        *("postgresql://u:secret#x@h/d", "postgresql://u:secret?x@h/d", "postgresql://u:secret:x@h:y/d"),
    ],
)
def test_a_url_that_is_none_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match="the URL of PostgreSQL is postgresql://") as refused:
        PostgresStorage(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [{"schema": 'a"b'}, {"schema": ""}, {"pool_size": 0}, {"answer_seconds": 0.0}, {"schema": "a" * 64}],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        PostgresStorage("postgresql://h/d", **options)


def test_it_shows_where_it_is_but_no_password() -> None:
    url = "postgres://u:secret@one:5432,[::1]:5433/d?password=secret"
    assert (
        repr(PostgresStorage(url)) == "<PostgresStorage postgresql://one:5432,[::1]:5433/d, schema greenroom>"
    )


def test_without_asyncpg_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        name for name in sys.modules if name.startswith(("asyncpg", "greenroom.services.postgres."))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(MissingDependency, match=r"greenroom\[postgres\]"):
        PostgresStorage("postgresql://h/d")


def test_asyncpg_is_imported_when_it_is_used() -> None:
    code = "import sys, greenroom, greenroom.services.postgres.storage; assert 'asyncpg' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
