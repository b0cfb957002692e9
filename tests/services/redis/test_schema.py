"""Versions of what lies on a Redis server: from the first to the newest, and those that are not ours."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from greenroom.actors.errors import StoreUnavailable
from greenroom.services.redis.schema import MIGRATIONS, VERSION, start_body
from greenroom.services.redis.scripts import script
from greenroom.services.redis.storage import RedisStorage
from greenroom.services.redis.wire import Call
from kits.redis_server import RedisServer
from kits.storage_owners_kit import KEY, change


@pytest.fixture
def prefix() -> str:
    """One that no other test has."""
    return uuid.uuid4().hex


@asynccontextmanager
async def started(server: RedisServer, prefix: str) -> AsyncIterator[RedisStorage]:
    storage = RedisStorage(server.url(), prefix=prefix)
    await storage.start()
    try:
        yield storage
    finally:
        await storage.stop()


def start(server: RedisServer, prefix: str, migrations: Sequence[str]) -> bytes:
    """What a process does at its start that knows these. Gives the server's answer."""
    text = script(start_body(migrations)).text
    return server.command("EVAL", text, "0", prefix, *Call((), ()).arguments())


def version(server: RedisServer, prefix: str) -> bytes:
    return server.command("GET", f"{prefix}:version").split()[-1]


def everything(server: RedisServer, prefix: str) -> list[bytes]:
    """All keys behind the prefix, and what is in the folders."""
    names = sorted(server.command("KEYS", f"{prefix}:*").split()[2::2])
    return [*names, *(server.command("HGETALL", name) for name in names if b":f:" in name)]


async def test_what_is_new_is_of_the_newest_version(redis_server: RedisServer, prefix: str) -> None:
    async with started(redis_server, prefix):
        assert int(version(redis_server, prefix)) == VERSION
    async with started(redis_server, prefix):
        assert int(version(redis_server, prefix)) == VERSION


async def test_what_was_written_before_there_were_versions_is_of_the_first(
    redis_server: RedisServer, prefix: str
) -> None:
    async with started(redis_server, prefix) as storage:
        await storage.write([change(head=b"1")])
    redis_server.command("DEL", f"{prefix}:version")
    async with started(redis_server, prefix) as storage:
        found = await storage.read(KEY)
        assert found is not None
        assert found.head.body == b"1"
    assert int(version(redis_server, prefix)) == VERSION


def test_each_migration_is_run_once_in_order(redis_server: RedisServer, prefix: str) -> None:
    said = [f"redis.call('RPUSH', PREFIX .. 'ran', '{number}')" for number in (1, 2)]
    later = [*MIGRATIONS, *said]
    for count in (1, VERSION, VERSION + 1, VERSION + 1, len(later), VERSION):
        start(redis_server, prefix, later[:count])
    ran = redis_server.command("LRANGE", f"{prefix}:ran", "0", "-1")
    assert ran.split()[2::2] == [b"1", b"2"]
    assert int(version(redis_server, prefix)) == len(later)


async def test_what_a_newer_one_has_made_is_refused_with_what_to_do_and_stays_as_it_is(
    redis_server: RedisServer, prefix: str
) -> None:
    async with started(redis_server, prefix) as storage:
        await storage.write([change(head=b"1")])
    start(redis_server, prefix, [*MIGRATIONS, "redis.call('SET', PREFIX .. 'more', 'x')"])
    before = everything(redis_server, prefix)
    with pytest.raises(StoreUnavailable, match=f"version {VERSION + 1}, which a newer Greenroom") as refused:
        await RedisStorage(redis_server.url(), prefix=prefix).start()
    assert "run the newer one" in str(refused.value)
    assert everything(redis_server, prefix) == before


async def test_what_a_newer_process_migrates_under_way_is_written_no_more(
    redis_server: RedisServer, prefix: str
) -> None:
    async with started(redis_server, prefix) as storage:
        await storage.write([change(head=b"1", open=True, owner="me")])
        await storage.renew("me", 100.0)
        start(redis_server, prefix, [*MIGRATIONS, "redis.call('SET', PREFIX .. 'more', 'x')"])
        before = everything(redis_server, prefix)
        for call in (
            storage.write([change(head=b"2")]),
            storage.renew("me", 100.0),
            storage.note("me", b"note"),
        ):
            with pytest.raises(StoreUnavailable, match="newer Greenroom"):
                await call
        found = await storage.read(KEY)
        assert found is not None
        assert found.head.body == b"1"
        assert everything(redis_server, prefix) == before
