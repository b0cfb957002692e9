"""A server whose store fails under it: killed and started again, stopped, full, read-only, locked. No turn is lost,
none runs twice, clients are refused so that they can come back, and the same server goes on when its store does."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from anyio import to_thread

from kits.durable_servers import Site, free_port
from kits.failing_stores import Full, Store
from kits.needs import needs_bubblewrap
from kits.postgres_server import children
from kits.preloaded import Preloaded
from kits.recovery_kit import (
    LONG,
    LOST,
    SHORT,
    asking_once,
    completed,
    failures,
    more,
    not_interrupted,
    nothing_lost,
    refusing,
    seen_through,
)
from kits.rejoining import Told, turn
from kits.server_process import ServerProcess
from kits.until import until

pytestmark = pytest.mark.slow

WORDS = random.Random(3).randbytes(2_000).hex()
"""Where a store is nearly full, what is small may fit in somewhere."""
UNWRITTEN = "what turns say is not written down for now"
"""What a server's log says when turns run that its store takes nothing of."""

# ----------------------------------------------------------------------------------------------- servers that fail


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
    turns = await seen_through(server, fault)
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

    turns = await seen_through(server, fault)
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
