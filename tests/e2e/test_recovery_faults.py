"""A server whose store fails under it: killed and started again, stopped, full, read-only, locked. No turn is lost,
none runs twice, clients are refused so that they can come back, and the same server goes on when its store does."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Protocol

import asyncpg
import pytest
import pytest_asyncio
from anyio import to_thread

from kits.durable_servers import Site, free_port
from kits.needs import needs_bubblewrap
from kits.postgres_server import PASSWORD, PORT, PostgresServer, children, running_postgres
from kits.preloaded import Preloaded
from kits.recovery_kit import asking_once, completed, load, more, refused
from kits.redis_server import RedisServer, running_redis
from kits.rejoining import Told, turn
from kits.server_process import ServerProcess
from kits.small_disk import SmallDisk, postgres_on_small_disk
from kits.until import until

pytestmark = pytest.mark.slow

SHORT, LONG = "1", "30"
"""Leases, seconds: shorter and longer than the faults here."""
LOST = "was not renewed in time"
"""What a server's log says that has lost its sessions."""
TEXT = "say:a nap:0.2 tool nap:0.2 say:b"
WORDS = random.Random(3).randbytes(2_000).hex()
"""Where a store is nearly full, what is small may fit in somewhere."""
UNWRITTEN = "what turns say is not written down for now"
"""What a server's log says when turns run that its store takes nothing of."""

Fault = Callable[[ServerProcess, list[Told]], Awaitable[None]]


async def seen_through(site: Site, server: ServerProcess, fault: Fault) -> list[Told]:
    """The turns of clients before, in and after a fault, through all of which one server runs."""
    async with load([server.url], TEXT, clients=6, sessions=3) as turns:
        await more(completed, turns, 6)
        await fault(server, turns)
        await more(completed, turns, 6)
    troubles = [trouble for told in turns for trouble in told.trouble]
    assert not [trouble for trouble in troubles if trouble.startswith(("502", "504"))]
    return turns


async def nothing_lost(site: Site, server: ServerProcess, fault: Fault) -> list[Told]:
    turns = await seen_through(site, server, fault)
    assert await server.stop() == 0
    await site.check(turns)
    return turns


@asynccontextmanager
async def refusing(server: ServerProcess, turns: list[Told]) -> AsyncIterator[None]:
    """Clients that come during a fault: they are refused. In the block it ends."""
    async with load([server.url], TEXT, clients=3, sessions=3, turns=turns):
        await more(refused, turns, 6)
        yield


def failures(turns: list[Told]) -> list[tuple[str, str]]:
    """The turns that did not complete, and why."""
    return [(told.id, told.last["error"]["code"]) for told in turns if told.status != "completed"]


def not_interrupted(turns: list[Told]) -> list[tuple[str, str]]:
    """Those that failed for another reason than that they ran when sessions were lost."""
    return [failure for failure in failures(turns) if failure[1] != "turn_interrupted"]


# ----------------------------------------------------------------------------------------------- servers that fail


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


@pytest_asyncio.fixture
async def on_server(store: Store, preloaded: Preloaded, tmp_path: Path) -> AsyncIterator[Site]:
    """Servers on that store."""
    site = Site(tmp_path, store.url, preloaded)
    yield site
    await site.end()


async def test_a_store_that_is_killed_and_started_again(store: Store, on_server: Site) -> None:
    async def fault(server: ServerProcess, turns: list[Told]) -> None:
        await to_thread.run_sync(store.kill)
        await to_thread.run_sync(store.start)  # at once: calls wait for it
        await more(completed, turns, 3)
        await to_thread.run_sync(store.kill)
        async with refusing(server, turns):
            await to_thread.run_sync(store.start)

    server = await on_server.server(free_port(), DURABLE_LEASE=LONG)
    assert failures(await nothing_lost(on_server, server, fault)) == []
    assert LOST not in server.log


async def test_a_store_that_stands_still_for_longer_than_the_lease(store: Store, on_server: Site) -> None:
    async def fault(server: ServerProcess, turns: list[Told]) -> None:
        store.send(signal.SIGSTOP)
        await until(lambda: LOST in server.log)
        async with refusing(server, turns):
            store.send(signal.SIGCONT)

    server = await on_server.server(free_port(), DURABLE_LEASE=SHORT)
    assert not_interrupted(await nothing_lost(on_server, server, fault)) == []


async def test_a_store_that_refuses_writes_for_a_while(store: Store, on_server: Site) -> None:
    async def fault(server: ServerProcess, turns: list[Told]) -> None:
        await store.refuse_writes(True)
        async with refusing(server, turns):
            await store.refuse_writes(False)

    server = await on_server.server(free_port(), DURABLE_LEASE=LONG)
    assert failures(await nothing_lost(on_server, server, fault)) == []


# --------------------------------------------------------------------------------------------- servers that are full


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


@pytest_asyncio.fixture
async def on_full(full: Full, preloaded: Preloaded, tmp_path: Path) -> AsyncIterator[Site]:
    """Servers on that store."""
    site = Site(tmp_path, full.url, preloaded)
    yield site
    await site.end()


async def test_a_server_that_is_full_and_has_room_again(full: Full, on_full: Site) -> None:
    refused: list[Told] = []

    async def fault(server: ServerProcess, turns: list[Told]) -> None:
        long = Told("turn_long", "long")
        turns.append(long)
        async with asyncio.TaskGroup() as clients:
            clients.create_task(turn([server.url], long, f"say:{WORDS} nap:0.15 " * 20))
            await until(lambda: bool(on_full.begun()[long.id]))
            await full.fill()
            asking = asking_once(server.url, f"say:{WORDS * 5}", clients=6, turns=turns, refused=refused)
            async with asking:
                await until(lambda: len(refused) >= 12 and UNWRITTEN in server.log)
                await full.make_room()

    server = await on_full.server(free_port(), DURABLE_LEASE=LONG)
    turns = await seen_through(on_full, server, fault)
    assert await server.stop() == 0
    told = [trouble for one in refused for trouble in one.trouble]
    assert any(full.says in trouble for trouble in told), told
    # Of the others nobody knows: a server that stops may have written what it did not answer any more.
    unchanged = [one for one in refused if "nothing was changed" in one.trouble[0]]
    assert unchanged
    await on_full.check(turns, refused=unchanged)
    assert failures(turns) == []
    assert LOST not in server.log


# ------------------------------------------------------------------------------------------------- a file that fails

LOCK = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def locked(file: Path) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Another process holds the file's lock for writing, until it is let go."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LOCK, str(file), stdin=pipe, stdout=pipe
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"locked\n"
    let_go = partial(process.communicate, b"")
    try:
        yield let_go
    finally:
        if process.returncode is None:
            await let_go()


@pytest.mark.parametrize("lease", [SHORT, LONG])
async def test_a_file_that_another_process_locks(site: Site, lease: str) -> None:
    async def fault(server: ServerProcess, turns: list[Told]) -> None:
        async with locked(site.folder / "sessions.db") as let_go:
            if lease == SHORT:
                await until(lambda: LOST in server.log)
            async with refusing(server, turns):
                await let_go()

    state = f"sqlite:///{site.folder}/sessions.db?busy_seconds=0.3"
    server = await site.server(free_port(), DURABLE_STATE=state, DURABLE_LEASE=lease)
    turns = await nothing_lost(site, server, fault)
    assert (not_interrupted if lease == SHORT else failures)(turns) == []


async def test_a_disk_that_is_full_and_has_room_again(site: Site) -> None:
    """A small disk in the memory, which lasts as long as the server does."""
    needs_bubblewrap()
    disk = site.folder / "disk"
    disk.mkdir()
    site.state = f"sqlite:///{disk}/sessions.db"
    small = [
        "bwrap",
        "--die-with-parent",
        "--dev-bind",
        "/",
        "/",
        "--size",
        "20000000",
        "--tmpfs",
        str(disk),
        "--",
    ]
    server = await site.server(free_port(), prefix=small, DURABLE_LEASE=LONG)
    (inside,) = children(server.process.pid)
    seen = Path(f"/proc/{inside}/root{disk}")

    async def fault(server: ServerProcess, turns: list[Told]) -> None:
        await to_thread.run_sync(_fill, seen / "filler")
        async with refusing(server, turns):
            (seen / "filler").unlink()

    turns = await seen_through(site, server, fault)
    held = os.open(seen, os.O_RDONLY)  # the disk is there as long as somebody has it open
    os.kill(inside, signal.SIGTERM)
    assert await server.ended() == 0
    kept = shutil.copytree(f"/proc/self/fd/{held}", site.folder / "kept")
    os.close(held)
    site.state = f"sqlite:///{kept}/sessions.db"
    await site.check(turns)
    assert failures(turns) == []
    assert "is full" in "".join(trouble for told in turns for trouble in told.trouble)


def _fill(file: Path) -> None:
    """Write until there is no room."""
    with file.open("wb", buffering=0) as filler:
        try:
            while filler.write(bytes(1 << 16)):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
