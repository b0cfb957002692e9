"""What may go wrong between us and a Redis server, and in it: nothing is done in part, and nothing twice."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from anyio import to_thread, wait_all_tasks_blocked

from greenroom.actors.errors import StoreUnavailable
from greenroom.services.redis.link import RedisLink
from greenroom.services.redis.storage import RedisStorage
from greenroom.services.storage import Cell, Conflict, Fence, FolderKey
from kits.redis_proxy import RedisProxy, redis_proxy
from kits.redis_server import QUOTED, RedisServer, running_redis
from kits.storage_owners_kit import KEY, OTHER, body_of, cells_of, change, fence_of, numbers_of
from kits.until import until

SLOW = 0.4
"""Seconds for an answer, where none comes."""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """One to be broken."""
    with running_redis() as server:
        yield server


@asynccontextmanager
async def started(
    url: str, answer_seconds: float = 20.0, connections: int = 4
) -> AsyncIterator[RedisStorage]:
    storage = RedisStorage(url, answer_seconds=answer_seconds, connections=connections)
    await storage.start()
    try:
        yield storage
    finally:
        await storage.stop()


def clients(server: RedisServer) -> list[str]:
    """The ids of the connections that are ours."""
    lines = server.command("CLIENT", "LIST").decode().splitlines()
    return [line.split()[0] for line in lines if "name=greenroom" in line]


# ---------------------------------------------------------------------------------------------------- the server goes


async def test_writes_wait_for_a_server_that_is_killed_and_started_anew_and_are_done_once(
    server: RedisServer,
) -> None:
    acknowledged = [0] * 4
    ending = asyncio.Event()

    async def write(storage: RedisStorage, name: int) -> None:
        """To two folders at a time, whatever they have."""
        keys = [FolderKey("session", str(name), side) for side in "ab"]
        while not ending.is_set():
            cell = Cell("a", acknowledged[name])
            await storage.write([change(key, put=[(cell, b"x")]) for key in keys])
            acknowledged[name] += 1

    async with started(server.url()) as storage:
        writing = [asyncio.ensure_future(write(storage, name)) for name in range(4)]
        for _ in range(5):
            goal = [number + 6 for number in acknowledged]
            await until(lambda goal=goal: all(n >= m for n, m in zip(acknowledged, goal, strict=True)))  # type: ignore[misc]
            await to_thread.run_sync(server.kill)
            await to_thread.run_sync(server.start)
        ending.set()
        await asyncio.gather(*writing)
        for name in range(4):
            for side in "ab":
                key = FolderKey("session", str(name), side)
                assert await numbers_of(storage, key) == list(range(acknowledged[name]))
                assert (await fence_of(storage, key)).revision == acknowledged[name]


async def test_a_server_that_stays_away_is_said_to_and_found_when_it_is_back(server: RedisServer) -> None:
    async with started(server.url(), SLOW) as storage:
        await storage.write([change(head=b"1")])
        server.kill()
        for call in (storage.read(KEY), storage.write([change(head=b"2")])):
            with pytest.raises(StoreUnavailable, match="it cannot be reached") as refused:
                await call
            assert refused.value.retry_after == 2.0
        await to_thread.run_sync(server.start)
        assert await body_of(storage) == b"1"


async def test_a_server_that_is_slow_is_given_up_in_time_and_does_nothing_late(server: RedisServer) -> None:
    async with started(server.url(), SLOW, connections=7) as storage:
        await storage.renew("me", 1_000.0)
        await storage.write([change(head=b"before")])
        server.send(signal.SIGSTOP)
        begun = asyncio.get_running_loop().time()
        calls = (
            *(storage.write([change(head=b"late")]), storage.write([change(OTHER)]), storage.read(KEY)),
            *(
                storage.note("me", b"late"),
                storage.renew("me", 2_000.0),
                storage.write([change(delete=True)]),
            ),
            storage.lookup(b"n"),
        )
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, StoreUnavailable)
            assert f"did not answer within {SLOW:g} seconds" in str(error)
        assert asyncio.get_running_loop().time() - begun < SLOW * 3
        server.send(signal.SIGCONT)
        assert await body_of(storage) == b"before"
        assert await storage.read(OTHER) is None
        assert await storage.renew("me", 1_000.0) == ()
        await storage.write([change(head=b"after")])
        assert await body_of(storage) == b"after"


async def test_calls_that_wait_for_others_are_said_not_to_have_been_done(server: RedisServer) -> None:
    async with started(server.url(), connections=1) as storage:
        server.send(signal.SIGSTOP)
        first = asyncio.ensure_future(storage.write([change()]))
        await wait_all_tasks_blocked()
        assert isinstance(storage._link, RedisLink)
        storage._link._answer_seconds = SLOW
        for error in await asyncio.gather(
            *(storage.write([change(OTHER)]) for _ in range(3)), return_exceptions=True
        ):
            assert "nothing was changed: calls before it took all of 0.4 seconds" in str(error)
        server.send(signal.SIGCONT)
        await first
        assert await storage.read(OTHER) is None


async def test_calls_come_in_their_order(server: RedisServer) -> None:
    async with started(server.url(), connections=2) as storage:
        done: list[int] = []

        async def write(number: int) -> None:
            await storage.write([change(KEY._replace(session_id=str(number)))])
            done.append(number)

        await asyncio.gather(storage.read(KEY), storage.read(KEY))  # there are two connections
        await asyncio.gather(*(write(number) for number in range(200)))
        assert max(abs(number - place) for place, number in enumerate(done)) < 20


async def test_no_server_at_all(tmp_path: Path) -> None:
    storage = RedisStorage(f"unix://:{QUOTED}@{tmp_path}/socket", answer_seconds=SLOW)
    with pytest.raises(StoreUnavailable, match="cannot be used: it cannot be reached") as refused:
        await storage.start()
    assert "not-a-secret" not in str(refused.value)
    await storage.stop()


# --------------------------------------------------------------------------------------------------- connections break


async def test_connections_that_are_cut_while_they_are_idle_fail_no_call(server: RedisServer) -> None:
    async with started(server.url()) as storage:
        for number in range(5):
            await asyncio.gather(*(storage.read(KEY) for _ in range(8)))
            assert len(clients(server)) == 4
            server.command("CLIENT", "KILL", "TYPE", "normal")
            await asyncio.gather(
                *(storage.write([change(put=[(Cell("n", 10 * number + n), b"")])]) for n in range(8))
            )
        assert await fence_of(storage) == ((await fence_of(storage)).epoch, 40)


@pytest.fixture
async def proxy(redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[RedisProxy]:
    redis_server.command("FLUSHALL")
    async with redis_proxy(redis_server.folder / "socket", tmp_path / "proxy") as proxy:
        yield proxy


async def test_a_write_whose_answer_is_lost_is_done_once(proxy: RedisProxy) -> None:
    async with started(proxy.url(), connections=1) as storage:
        (first,) = await storage.write([change()])
        proxy.cut_answers = 1
        assert await storage.write([change(put=[(Cell("a", 1), b"")])]) == (
            (first.epoch, first.revision + 1),
        )
        proxy.cut_answers = 1
        (taken,) = await storage.write([change(expected=Fence(first.epoch, first.revision + 1), take=True)])
        assert await fence_of(storage) == taken
        proxy.cut_answers = 1
        assert await storage.write([change(delete=True), change(OTHER)]) != ()
        proxy.cut_answers = 1
        with pytest.raises(Conflict):
            await storage.write([change(expected=taken)])
        assert await storage.read(KEY) is None


async def test_notes_whose_answer_is_lost_are_left_and_given_once(proxy: RedisProxy) -> None:
    async with started(proxy.url(), connections=1) as storage:
        await storage.renew("me", 1_000.0)
        proxy.cut_answers = 1
        assert await storage.note("me", b"1")
        proxy.cut_answers = 1
        assert await storage.renew("me", 1_000.0) == (b"1",)
        assert await storage.renew("me", 1_000.0) == ()


async def test_a_read_whose_answer_is_lost_is_done_again(proxy: RedisProxy) -> None:
    async with started(proxy.url(), connections=1) as storage:
        await storage.write([change(head=b"1")])
        proxy.cut_answers = 1
        assert await body_of(storage) == b"1"


async def test_a_request_that_arrives_after_it_was_sent_again_does_nothing(proxy: RedisProxy) -> None:
    async with started(proxy.url(), connections=1) as storage:
        await storage.write([change(head=b"0")])
        proxy.hold = 1
        (fence,) = await storage.write([change(head=b"1")])
        await storage.write([change(OTHER)])  # which is another call, on a connection that works
        assert await proxy.let_go()
        assert await fence_of(storage) == fence


async def test_a_write_whose_answers_are_all_lost_is_said_to_be_done_or_not(proxy: RedisProxy) -> None:
    async with started(proxy.url(), SLOW, connections=1) as storage:
        (before,) = await storage.write([change()])
        proxy.cut_answers = 1_000_000
        with pytest.raises(StoreUnavailable, match="it may have been done, as a whole") as caught:
            await storage.write([change(head=b"1")])
        assert not caught.value.nothing_kept
        proxy.cut_answers = 0
        assert await body_of(storage) == b"1"
        assert await fence_of(storage) == (before.epoch, before.revision + 1)


async def test_a_caller_that_gives_up_leaves_whole_writes_and_good_connections(server: RedisServer) -> None:
    async with started(server.url(), connections=4) as storage:
        await asyncio.gather(*(storage.read(KEY) for _ in range(8)))
        connected = clients(server)
        for number in range(200):
            keys = [FolderKey("session", str(number), side) for side in "ab"]
            writing = asyncio.ensure_future(storage.write([change(key, take=True) for key in keys]))
            for _ in range(number % 9):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        for number in range(200):
            assert (
                len({await storage.read(FolderKey("session", str(number), side)) is None for side in "ab"})
                == 1
            )
        assert clients(server) == connected


async def test_no_more_connections_than_it_may_have(server: RedisServer) -> None:
    async with started(server.url(), connections=3) as storage:
        await asyncio.gather(*(storage.write([change()]) for _ in range(60)))
        assert len(clients(server)) == 3
        assert (await fence_of(storage)).revision == 60


# ------------------------------------------------------------------------------------------------- the server refuses


async def test_a_server_that_is_full_takes_nothing_but_lets_owners_live_and_folders_go(
    server: RedisServer,
) -> None:
    async with started(server.url()) as storage:
        await storage.renew("me", 1_000.0)
        await storage.write([change(head=b"1", names=[(b"n", b"")], put=[(Cell("a", 1), b"1")])])
        server.command("CONFIG", "SET", "maxmemory", "1")
        for refused in (
            change(head=b"2"),
            change(OTHER, names=[(b"m", b"")]),
            change(take=True),
            change(drop=[Cell("a", 1)], put=[(Cell("a", 2), b"2")]),
            change(open=True),
            change(unname=[b"n"]),
        ):
            with pytest.raises(StoreUnavailable, match=r"nothing was changed: it is full.*maxmemory") as full:
                await storage.write([refused])
            assert full.value.retry_after == 30.0
        assert await body_of(storage) == b"1"
        assert await cells_of(storage, "a") == ((1, b"1"),)
        assert await storage.orphans("session", 9) == ()
        assert await storage.renew("me", 1_000.0) == ()
        await storage.write([change(delete=True)])
        assert await storage.lookup(b"n") is None
        server.command("CONFIG", "SET", "maxmemory", "0")
        await storage.write([change(head=b"2")])


async def test_a_server_that_cannot_write_to_its_disk_takes_nothing() -> None:
    with running_redis(**{"enable-protected-configs": "yes", "appendonly": "no", "save": "3600 1"}) as server:
        folder = server.folder / "gone"
        folder.mkdir()
        assert server.command("CONFIG", "SET", "dir", str(folder)) == b"+OK\r\n"
        async with started(server.url()) as storage:
            await storage.write([change()])
            shutil.rmtree(folder)
            server.command("BGSAVE")
            await until(lambda: b"rdb_last_bgsave_status:err" in server.command("INFO", "persistence"))
            with pytest.raises(StoreUnavailable, match="nothing was changed: it cannot write to its disk"):
                await storage.write([change(head=b"1")])
            assert await body_of(storage) == b""


async def test_a_replica_is_no_place_to_write(server: RedisServer) -> None:
    async with started(server.url()) as storage:
        await storage.write([change(head=b"1")])
        server.command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreUnavailable, match="nothing was changed: it is a replica"):
            await storage.write([change(head=b"2")])
        with pytest.raises(StoreUnavailable, match="cannot be used: it is a replica"):
            await RedisStorage(server.url()).start()
        server.command("REPLICAOF", "NO", "ONE")
        assert await body_of(storage) == b"1"
        await storage.write([change(head=b"2")])


async def test_a_server_that_forgot_the_scripts_is_taught_them(server: RedisServer) -> None:
    async with started(server.url()) as storage:
        for number in range(3):
            server.command("SCRIPT", "FLUSH")
            await storage.write([change(head=b"%d" % number)])
            assert await body_of(storage) == b"%d" % number
        assert (await fence_of(storage)).revision == 3


async def test_a_password_that_is_wrong_is_told_to_nobody(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    for url in (redis_server.url(password="hunter2"), redis_server.url(password="").replace(":@", "")):
        storage = RedisStorage(url)
        with pytest.raises(StoreUnavailable, match="refused the user or the password") as refused:
            await storage.start()
        for told in (str(refused.value), repr(storage), caplog.text):
            assert "hunter2" not in told
            assert "not-a-secret" not in told


async def test_a_server_with_as_many_clients_as_it_may_have(server: RedisServer) -> None:
    async with started(server.url(), connections=1) as storage:
        server.command("CONFIG", "SET", "maxclients", "1")
        with pytest.raises(StoreUnavailable, match=r"as many clients as it may|cannot be reached"):
            await RedisStorage(server.url()).start()
        await storage.write([change()])


# ------------------------------------------------------------------------------------------------------------- clocks


async def test_clocks_that_go_apart_are_brought_together(redis_server: RedisServer) -> None:
    async with started(redis_server.url()) as storage:
        assert isinstance(storage._link, RedisLink)
        (before,) = await storage.write([change()])
        for number, hours in enumerate((-30, 30, 0), 1):
            storage._link._monotonic = partial(_apart, hours)
            assert await storage.write([change()]) == ((before.epoch, before.revision + number),)


async def test_epochs_rise_when_the_server_has_lost_the_last(redis_server: RedisServer) -> None:
    async with started(redis_server.url()) as storage:
        highest = 0
        for lost in ("FLUSHALL", "FLUSHALL"):
            (fence,) = await storage.write([change(take=True)])
            assert fence.epoch > highest
            highest = fence.epoch
            redis_server.command(lost)


def _apart(hours: float) -> float:
    return time.monotonic() + hours * 3_600.0
