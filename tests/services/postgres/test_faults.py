"""PostgreSQL fails in all its ways, really: what was acknowledged is there, once, and calls work again afterwards."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest

from greenroom.actors.errors import StoreUnavailable
from greenroom.services.postgres.storage import PostgresStorage
from greenroom.services.storage import NOT_THERE, Cell, Change, Fence, FolderKey, NameTaken, Span
from kits.postgres_server import PASSWORD, PostgresServer, running_postgres
from kits.until import LOOK_SECONDS, until, until_answered

KEY = FolderKey("session", "u", "s")
OTHER = FolderKey("session", "u", "other")


@pytest.fixture
def server(postgres_template: Path) -> Iterator[PostgresServer]:
    """One that a test may break."""
    with running_postgres(postgres_template) as server:
        yield server


@asynccontextmanager
async def started(url: str, **options: Any) -> AsyncIterator[PostgresStorage]:
    storage = PostgresStorage(url, **options)
    await storage.start()
    try:
        yield storage
    finally:
        await storage.stop()


@asynccontextmanager
async def asking(server: PostgresServer) -> AsyncIterator[Any]:
    """A connection of the test's own."""
    connect: Any = asyncpg.connect
    connection = await connect(server.url(), server_settings={"application_name": "test"})
    try:
        yield connection
    finally:
        connection.terminate()


@asynccontextmanager
async def held(server: PostgresServer) -> AsyncIterator[Any]:
    """Writers of the folder `KEY` wait meanwhile. Gives a connection to look at them with."""
    async with asking(server) as holding, asking(server) as looking, holding.transaction():
        query = "SELECT FROM greenroom.folders WHERE session_id = $1 FOR UPDATE"
        await holding.execute(query, KEY.session_id.encode())
        yield looking


async def waiting(connection: Any, other_than: int = 0) -> int:
    """The server's process that waits for a lock, once there is one."""
    query = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid <> $1"
    await until_answered(lambda: connection.fetchval(query, other_than))
    pid: int = await connection.fetchval(query, other_than)
    return pid


async def changed(storage: PostgresStorage, fence: Fence) -> Fence:
    """The folder's fence, once it is another."""

    async def is_changed() -> bool:
        return await fence_of(storage) != fence

    await until_answered(is_changed)
    return await fence_of(storage)


async def fence_of(storage: PostgresStorage, key: FolderKey = KEY) -> Fence:
    found = await storage.read(key)
    return NOT_THERE if found is None else found.head.fence


# --------------------------------------------------------------------------------------------------- the server dies


class Writer:
    """Writes two folders together, again and again, and checks what it finds after each failure."""

    def __init__(self, storage: PostgresStorage, name: str) -> None:
        self._storage = storage
        self._keys = [KEY._replace(session_id=f"{name} {number}") for number in range(2)]
        self.acknowledged = 0
        self.failed = 0

    async def write(self, stop: asyncio.Event) -> None:
        number, fences = 0, [NOT_THERE, NOT_THERE]
        while not stop.is_set():
            body = b"%d" % (number + 1)
            changes = [
                Change(key=key, expected=fence, head=body, put=[(Cell("a", number + 1), body)])
                for key, fence in zip(self._keys, fences, strict=True)
            ]
            try:
                fences = list(await self._storage.write(changes))
            except StoreUnavailable:
                self.failed += 1
                number, fences = await self._found(number)
            else:
                number += 1
                self.acknowledged += 1

    async def _found(self, number: int) -> tuple[int, list[Fence]]:
        """How things stand: the last write was done as a whole or not at all, and none before it is lost."""
        found = [await self._read(key) for key in self._keys]
        numbers = {0 if folder is None else int(folder.head.body) for folder in found}
        assert len(numbers) == 1
        assert numbers <= {number, number + 1}
        (number,) = numbers
        for folder in found:
            if folder is not None:
                assert folder.head.fence.revision == number  # each was done once
                assert [cell for cell, _ in folder.spans[0]] == list(range(1, number + 1))
        return number, [NOT_THERE if folder is None else folder.head.fence for folder in found]

    async def _read(self, key: FolderKey) -> Any:
        while True:
            try:
                return await self._storage.read(key, [Span("a")])
            except StoreUnavailable:
                await anyio.sleep(LOOK_SECONDS)

    async def check(self) -> None:
        number, _ = await self._found(self.acknowledged)
        assert number >= self.acknowledged


def have_written(writers: Sequence[Writer], count: int) -> bool:
    return sum(writer.acknowledged for writer in writers) >= count


@pytest.mark.slow
async def test_a_server_that_is_killed_and_started_again_loses_and_doubles_nothing(
    server: PostgresServer,
) -> None:
    chance = random.Random(5)
    async with started(server.url()) as storage:
        stop = asyncio.Event()
        writers = [Writer(storage, f"writer {number}") for number in range(6)]
        async with asyncio.TaskGroup() as tasks:
            for writer in writers:
                tasks.create_task(writer.write(stop))
            for _ in range(8):
                enough = sum(writer.acknowledged for writer in writers) + chance.randint(1, 60)
                await until(partial(have_written, writers, enough))
                await asyncio.to_thread(chance.choice([server.kill, server.stop]))
                await asyncio.to_thread(server.start)
            stop.set()
        for writer in writers:
            assert await storage.read(KEY._replace(session_id="never")) is None
            await writer.check()
        assert sum(writer.failed for writer in writers) > 0


async def test_a_server_that_does_not_answer_is_given_up_and_used_again(server: PostgresServer) -> None:
    async with started(server.url(), answer_seconds=0.5) as storage:
        (fence,) = await storage.write([Change(key=KEY)])
        server.signal(signal.SIGSTOP)
        calls = [
            storage.write([Change(key=KEY, expected=fence, head=b"x")]),
            storage.read(KEY),
            *(storage.lookup(b"%d" % number) for number in range(20)),
        ]
        with anyio.fail_after(5):
            ended = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(error, StoreUnavailable) for error in ended)
        assert all("did not answer in time" in str(error) for error in ended)
        assert "whether it was written is not known" in str(ended[0])
        assert isinstance(ended[0], StoreUnavailable)
        assert not ended[0].nothing_kept
        assert all("nothing was changed" in str(error) for error in ended[1:])
        assert getattr(ended[0], "retry_after", None) == 2.0
        server.signal(signal.SIGCONT)
        found = await storage.read(KEY)
        assert found is not None
        assert found.head.fence in {fence, Fence(fence.epoch, fence.revision + 1)}
        assert found.head.body == (b"" if found.head.fence == fence else b"x")


async def test_a_server_that_is_not_there_is_said_so(server: PostgresServer) -> None:
    async with started(server.url()) as storage:
        await asyncio.to_thread(server.stop, signal.SIGINT)
        with pytest.raises(StoreUnavailable, match="cannot be reached") as refused:
            await storage.note("me", b"x")
        assert "nothing was changed" in str(refused.value)
        with pytest.raises(StoreUnavailable, match="PostgreSQL at postgresql:///postgres cannot be used"):
            await PostgresStorage(server.url(), answer_seconds=0.5).start()
        await asyncio.to_thread(server.start)
        await storage.renew("me", 60)
        assert await storage.note("me", b"x")


# ---------------------------------------------------------------------------------------------- connections are cut


async def end_others(connection: Any) -> None:
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'greenroom'"
    await connection.execute(query)


async def test_connections_cut_between_calls_fail_no_call(server: PostgresServer) -> None:
    async with started(server.url(), pool_size=3) as storage, asking(server) as connection:
        (fence,) = await storage.write([Change(key=KEY)])
        for number in range(20):
            await asyncio.gather(*(storage.read(KEY) for _ in range(3)))
            await end_others(connection)
            if number % 2:  # sometimes the client's loop has heard of it, sometimes not
                await asyncio.sleep(0.01)
            (fence,) = await storage.write([Change(key=KEY, expected=fence)])
            assert fence.revision == number + 2
            await end_others(connection)
            assert await fence_of(storage) == fence


async def test_a_connection_cut_while_it_writes_is_written_again_if_that_is_not_twice(
    server: PostgresServer,
) -> None:
    async with started(server.url()) as storage:
        (fence,) = await storage.write([Change(key=KEY, head=b"old")])
        async with held(server) as looking:
            fenced = asyncio.ensure_future(
                storage.write([Change(key=OTHER), Change(key=KEY, expected=fence, head=b"new")])
            )
            pid = await waiting(looking)
            await looking.execute("SELECT pg_terminate_backend($1)", pid)
            await waiting(looking, other_than=pid)
        other, fence = await fenced
        assert (other.revision, fence.revision) == (1, 2)
        async with held(server) as looking:
            unfenced = asyncio.ensure_future(storage.write([Change(key=KEY, head=b"newer", take=True)]))
            pid = await waiting(looking)
            await looking.execute("SELECT pg_terminate_backend($1)", pid)
            with pytest.raises(StoreUnavailable, match="as a whole or not at all"):
                await unfenced
        assert await fence_of(storage) == fence


async def test_a_write_that_is_given_up_goes_on_and_leaves_the_pool_as_it_was(server: PostgresServer) -> None:
    async with started(server.url(), pool_size=2) as storage, asking(server) as connection:
        (fence,) = await storage.write([Change(key=KEY, head=b"0")])
        await asyncio.gather(*(storage.read(KEY) for _ in range(10)))
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'greenroom' ORDER BY pid"
        connections = await connection.fetch(query)
        assert len(connections) == 2
        for number in range(1, 5):
            async with held(server) as looking:
                changes = [
                    Change(key=KEY, expected=fence, head=b"%d" % number),
                    Change(key=OTHER, head=b"%d" % number),
                ]
                writing = asyncio.ensure_future(storage.write(changes))
                await waiting(looking)
                writing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await writing
                assert await storage.read(OTHER) is None or number > 1
            fence = await changed(storage, fence)
            found = await storage.read(OTHER)
            assert found is not None
            assert found.head.body == b"%d" % number
        assert await connection.fetch(query) == connections


async def test_a_lock_that_others_hold_for_too_long_ends_the_write_and_changes_nothing(
    server: PostgresServer,
) -> None:
    async with started(server.url(), answer_seconds=0.3) as storage:
        (fence,) = await storage.write([Change(key=KEY, head=b"old")])
        async with held(server) as looking:
            with pytest.raises(StoreUnavailable, match=r"in time|too long"):
                await storage.write([Change(key=KEY, head=b"new")])
            query = "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
            await until_answered(lambda: looking.fetchval(query))  # the server gives it up as well
        assert await fence_of(storage) == fence


async def test_writers_that_want_the_same_in_any_order_never_wait_in_a_circle(server: PostgresServer) -> None:
    chance = random.Random(7)
    keys = [KEY._replace(session_id=str(number)) for number in range(8)]

    def some() -> list[Change]:
        chosen = chance.sample(keys, 4)
        return [
            Change(
                key=key,
                delete=chance.random() < 0.2,
                put=[(Cell("a", 1), b"x")],
                names=[
                    (key.session_id.encode() + b"%d" % number, b"") for number in chance.sample(range(5), 3)
                ],
            )
            for key in chosen
        ]

    async with started(server.url()) as one, started(server.url()) as other, asking(server) as connection:
        await asyncio.gather(*((one, other)[number % 2].write(some()) for number in range(300)))
        assert await connection.fetchval("SELECT sum(deadlocks) FROM pg_stat_database") == 0


async def test_of_writers_that_found_a_name_free_at_the_same_moment_one_gets_it(
    server: PostgresServer,
) -> None:
    async with started(server.url()) as storage, asking(server) as looking:
        async with asking(server) as holding, holding.transaction():
            await holding.execute(
                "LOCK TABLE greenroom.names IN SHARE MODE"
            )  # it can be read, and not written
            writes = [
                asyncio.ensure_future(storage.write([Change(key=key, names=[(b"n", b"")])]))
                for key in (KEY, OTHER)
            ]
            query = "SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            await until_answered(lambda: looking.fetchval(query))
        ended = await asyncio.gather(*writes, return_exceptions=True)
        assert sum(isinstance(error, NameTaken) for error in ended) == 1
        assert sum(isinstance(fences, tuple) for fences in ended) == 1


# ---------------------------------------------------------------------------------------------- the server says no


async def test_with_fewer_connections_than_wanted_calls_wait_for_those_there_are(
    postgres_template: Path,
) -> None:
    limits = {"max_connections": "6", "superuser_reserved_connections": "0", "max_wal_senders": "0"}
    with running_postgres(postgres_template, **limits) as server:
        async with started(server.url(), pool_size=20) as storage, asking(server):
            written = await asyncio.gather(
                *(storage.write([Change(key=KEY._replace(session_id=str(number)))]) for number in range(50))
            )
            assert len(written) == 50
            other = PostgresStorage(server.url(), answer_seconds=1.0)
            with pytest.raises(StoreUnavailable, match="as many connections as it allows") as refused:
                await other.start()
            assert refused.value.retry_after == 2.0
        await other.start()
        await other.stop()


async def test_a_standby_is_not_written_to(server: PostgresServer, caplog: pytest.LogCaptureFixture) -> None:
    async with started(server.url()) as storage, asking(server) as connection:
        await storage.write([Change(key=KEY, head=b"1")])
        await connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await connection.execute("SELECT pg_reload_conf()")
        query = "SELECT current_setting('default_transaction_read_only') = 'on'"
        await until_answered(lambda: connection.fetchval(query))
        with pytest.raises(StoreUnavailable, match="may only be read"):
            await storage.write([Change(key=KEY, head=b"2")])
        found = await storage.read(KEY)
        assert found is not None
        assert found.head.body == b"1"
        with pytest.raises(StoreUnavailable, match="cannot be used: this PostgreSQL may only be read"):
            await PostgresStorage(server.url()).start()
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
        await connection.execute("SELECT pg_reload_conf()")
        await until_answered(lambda: written(storage))


async def written(storage: PostgresStorage) -> bool:
    try:
        await storage.write([Change(key=KEY, head=b"2")])
    except StoreUnavailable:
        return False
    return True


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("disk_full", "disk is full"),
        ("out_of_memory", "no memory left"),
        ("io_error", "disk does not work"),
        ("insufficient_privilege", "lacks a right"),
        ("undefined_function", "newer Greenroom"),
        ("serialization_failure", "too many wrote the same"),
        ("program_limit_exceeded", "refused it"),
    ],
)
async def test_what_the_server_refuses_is_said_in_words_and_changes_nothing(
    server: PostgresServer, code: str, words: str
) -> None:
    async with started(server.url()) as storage, asking(server) as connection:
        (fence,) = await storage.write([Change(key=KEY, head=b"1")])
        await connection.execute(f"""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{code}'; END $$
        """)
        await connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON greenroom.cells FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        with pytest.raises(StoreUnavailable, match=words) as refused:
            await storage.write([Change(key=KEY, head=b"2", put=[(Cell("a", 1), b"x")])])
        assert "nothing was changed" in str(refused.value)
        assert await fence_of(storage) == fence
        await storage.write([Change(key=KEY, head=b"2")])


async def test_wrong_passwords_databases_and_rights_are_told_and_no_password_is(
    server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = PostgresStorage(server.url(password="wrong-secret"))
    with pytest.raises(StoreUnavailable, match="refused the user name or the password") as refused:
        await wrong.start()
    nowhere = PostgresStorage(server.url().replace("/postgres?", "/nowhere?"))
    with pytest.raises(StoreUnavailable, match="CREATE DATABASE"):
        await nowhere.start()
    async with asking(server) as connection:
        await connection.execute("CREATE ROLE visitor LOGIN PASSWORD 'visitor'")
    with pytest.raises(StoreUnavailable, match="lacks a right"):
        await PostgresStorage(server.url("visitor", "visitor")).start()
    storage = PostgresStorage(server.url())
    await storage.start()
    await asyncio.to_thread(server.kill)
    with pytest.raises(StoreUnavailable):
        await storage.read(KEY)
    await storage.stop()
    said = caplog.text + repr((wrong, storage, storage.__dict__["_server"])) + str(refused.value)
    assert "wrong-secret" not in said
    assert PASSWORD not in said
