"""Folders on a Redis server: the kit on a real one, what lies there, and what is told of it."""

from __future__ import annotations

import asyncio
import re
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from greenroom.actors.errors import ConfigurationError, MissingDependency, StoreUnavailable
from greenroom.services.redis import folders as redis_folders
from greenroom.services.redis import scripts as redis_scripts
from greenroom.services.redis.scripts import TRY, Script
from greenroom.services.redis.storage import RedisStorage
from greenroom.services.redis.words import flaws, shown
from greenroom.services.storage import NOT_THERE, Cell, Named, Storage
from greenroom.services.store import TurnCommit
from greenroom.services.store_urls import store_at
from kits.example_site import make_certificates
from kits.redis_server import QUOTED, RedisServer, running_redis
from kits.remote_box import free_port
from kits.storage_kit import StorageKit
from kits.storage_owners_kit import KEY, OTHER, body_of, change
from kits.store_kit import KEY as SESSION
from kits.store_kit import record
from kits.until import until


def prefix() -> str:
    """One that no other test has."""
    return uuid.uuid4().hex


@asynccontextmanager
async def started(url: str, of_this: str, idle_seconds: float = 1e6) -> AsyncIterator[RedisStorage]:
    storage = RedisStorage(url, prefix=of_this, idle_seconds=idle_seconds)
    await storage.start()
    try:
        yield storage
    finally:
        await storage.stop()


class TestRedisStorage(StorageKit):
    unit = 0.08

    @pytest.fixture(autouse=True)
    def server(self, redis_server: RedisServer) -> None:
        self.url = redis_server.url()

    def clients(self, idle_seconds: float) -> tuple[Storage, Storage]:
        of_this = prefix()
        one, other = (RedisStorage(self.url, prefix=of_this, idle_seconds=idle_seconds) for _ in range(2))
        return one, other

    async def advance(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # the server has a clock of its own


# ------------------------------------------------------------------------------------------------------ what lies there


def keys(server: RedisServer, of_this: str) -> dict[str, int]:
    """All keys of a deployment, without the prefix, and for how long they live in ms: -1 for ever."""
    found = [word for word in server.command("KEYS", f"{of_this}:*").decode().split("\r\n") if ":" in word]
    return {key.removeprefix(of_this): int(server.command("PTTL", key)[1:-2]) for key in found}


async def test_a_folder_lives_as_long_as_nobody_writes_to_it_and_one_that_is_open_for_ever(
    redis_server: RedisServer,
) -> None:
    of_this = prefix()
    async with started(redis_server.url(), of_this, idle_seconds=100.0) as storage:
        folder = ":f:7:session1:u1:s"
        for opened, longest in ((None, 100_000), (True, -1), (None, -1), (False, 100_000)):
            await storage.write([change(open=opened, put=[(Cell("a", 1), b"1")])])
            life = keys(redis_server, of_this)[folder]
            assert (life == longest) if longest < 0 else (90_000 < life <= longest)


async def test_an_owner_of_many_open_folders_is_looked_at_once_when_it_is_looked_for_orphans(
    redis_server: RedisServer,
) -> None:
    async with started(redis_server.url(), prefix()) as storage:
        await storage.renew("lives", 1_000.0)
        many = [
            change(KEY._replace(session_id=str(number)), owner="lives", open=True) for number in range(600)
        ]
        await storage.write(many)
        before = calls_of(redis_server, "hmget")
        assert await storage.orphans(KEY.kind, 10) == ()
        assert calls_of(redis_server, "hmget") - before < 10


def calls_of(server: RedisServer, command: str) -> int:
    """How often it was carried out, in scripts too."""
    found = re.search(rf"cmdstat_{command}:calls=(\d+)", server.command("INFO", "commandstats").decode())
    return int(found[1]) if found else 0


async def test_nothing_is_left_of_folders_that_were_forgotten(redis_server: RedisServer) -> None:
    of_this = prefix()
    async with started(redis_server.url(), of_this, idle_seconds=0.05) as storage:
        await storage.write([change(open=True, owner="me", head=b"1", names=[(b"n", b"1")])])
        await storage.write([change(open=False)])
        await storage.write([change(OTHER, names=[(b"m", b"1")])])
        assert {":idle", ":n:n", ":n:m", ":u:7:session1:u"} <= set(keys(redis_server, of_this))
        await until(lambda: not any(":f:" in key for key in keys(redis_server, of_this)))
        await storage.renew("me", 100.0)
        await asyncio.sleep(0.06)  # one that was written to later may not have been looked at yet
        await storage.renew("me", 100.0)
        left = keys(redis_server, of_this)
        assert {key for key in left if not key.startswith(":r:")} == {":a:me", ":epoch", ":version"}
        endless = {key for key, life in left.items() if life < 0}
        assert endless == {":epoch", ":version"}


async def test_a_name_that_led_to_a_forgotten_folder_stays_with_whom_has_it_now(
    redis_server: RedisServer,
) -> None:
    of_this = prefix()
    async with (
        started(redis_server.url(), of_this, idle_seconds=0.05) as short,
        started(redis_server.url(), of_this, idle_seconds=1_000.0) as storage,
    ):
        await short.write([change(names=[(b"n", b"1"), (b"m", b"1")])])
        await until(lambda: ":f:7:session1:u1:s" not in keys(redis_server, of_this))
        await storage.write([change(OTHER, names=[(b"n", b"2")])])
        await storage.write([change(delete=True)])
        assert await storage.lookup(b"n") == Named(OTHER, b"2")
        assert await storage.lookup(b"m") is None


async def test_names_of_a_forgotten_folder_do_not_lead_to_one_that_is_made_anew(
    redis_server: RedisServer,
) -> None:
    of_this = prefix()
    async with started(redis_server.url(), of_this, idle_seconds=0.05) as storage:
        await storage.write([change(names=[(b"n", b"1")])])
        await until(lambda: ":f:7:session1:u1:s" not in keys(redis_server, of_this))
        await storage.write([change(open=True)])
        assert await storage.lookup(b"n") is None


async def test_a_crowd_that_went_idle_together_is_forgotten_a_part_at_a_time(
    redis_server: RedisServer,
) -> None:
    of_this = prefix()
    async with started(redis_server.url(), of_this, idle_seconds=0.05) as storage:
        await storage.write([change(KEY._replace(session_id=str(number))) for number in range(600)])
        await until(lambda: not any(":f:" in key for key in keys(redis_server, of_this)))
        listed = [int(redis_server.command("ZCARD", f"{of_this}:idle")[1:-2])]
        for _ in range(3):
            await storage.renew("me", 100.0)
            listed.append(int(redis_server.command("ZCARD", f"{of_this}:idle")[1:-2]))
        assert listed == [600, 344, 88, 0]


async def test_deployments_share_a_server_by_their_prefixes(redis_server: RedisServer) -> None:
    of_this = prefix()
    async with (
        started(redis_server.url(), of_this) as one,
        started(redis_server.url(), f"{of_this}.b") as other,
    ):
        await one.write([change(head=b"1", names=[(b"n", b"1")])])
        assert await other.read(KEY) is None
        await other.write([change(expected=NOT_THERE, names=[(b"n", b"2")])])
        assert await one.lookup(b"n") == Named(KEY, b"1")


# --------------------------------------------------------------------------------------------------- what is told of it


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"appendonly": "no"}, r"set appendonly yes"),
        ({"appendfsync": "no"}, r"set appendfsync everysec, which loses a second or two, or always"),
        ({"maxmemory-policy": "allkeys-lru"}, r"set maxmemory-policy noeviction"),
        ({}, None),
    ],
)
async def test_settings_that_may_lose_sessions_are_warned_of(
    settings: dict[str, str], told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with running_redis(**settings) as server:
        for forbidden in (False, True):
            if forbidden:  # as where servers are rented
                server.command("ACL", "SETUSER", "default", "-config")
                if "appendfsync" in settings:
                    continue  # nobody else tells of it
            caplog.clear()
            async with started(server.url(), prefix()):
                pass
            assert [told in message for message in caplog.messages if told] == [True] * (told is not None)
            assert told or not caplog.messages


async def test_a_server_that_will_not_do_is_said_to_be_one() -> None:
    with (
        running_redis(**{"cluster-enabled": "yes", "databases": "1"}) as server,
        pytest.raises(StoreUnavailable, match="it is part of a cluster"),
    ):
        await RedisStorage(server.url()).start()
    assert list(flaws({"redis_version": "6.0.20", "role": "master"})) == [
        "it is Redis 6.0.20, and 6.2 is the oldest that will do"
    ]
    assert list(flaws({"redis_version": "10.0.1", "role": "master"})) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"prefix": "a:b"}, "letters, digits"),
        ({"prefix": ""}, "letters, digits"),
        ({"idle_seconds": 0.0}, "idle_seconds"),
        ({"idle_seconds": float("nan")}, "idle_seconds"),
        ({"answer_seconds": 100.0}, "answer_seconds"),
        ({"connections": 0}, "connections"),
        ({"url": "redis://localhost/?idle=5"}, "redis://localhost/: idle: there is no such option"),
        ({"url": "http://:hunter2@localhost"}, r"http://localhost names no Redis server"),
        ({"url": "redis://:hunter2/x@localhost:port"}, r"redis://localhost:port names no Redis server"),
        ({"url": "hunter2"}, r"this URL names no Redis server"),
        ({"url": None}, "a URL or a client"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as refused:
        RedisStorage(**{"url": "redis://localhost", **arguments})
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_it_is_shown_without_its_password() -> None:
    for url in (
        "redis://me:hunter2@example.org:6380/3?ssl_ca_certs=x",
        "rediss://:hunter2@[::1]",
        "unix://:hunter2@/s",
    ):
        assert repr(RedisStorage(url)) == f"<RedisStorage {shown(url)} greenroom>"
        assert "hunter2" not in shown(url)
        assert shown(url).startswith(url.partition("://")[0])


async def test_a_client_of_somebody_s_is_used_and_left_open(redis_server: RedisServer) -> None:
    async with Redis.from_url(redis_server.url(), driver_info=None) as client:
        storage = RedisStorage(client=client, prefix=prefix())
        await storage.start()
        await storage.write([change(head=b"1")])
        await storage.stop()
        assert await client.ping()
    async with Redis.from_url(redis_server.url(), driver_info=None, decode_responses=True) as client:
        with pytest.raises(ConfigurationError, match="decode_responses"):
            RedisStorage(client=client)


def test_without_redis_py_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    monkeypatch.delitem(sys.modules, "greenroom.services.redis.link")
    with pytest.raises(MissingDependency, match=r"pip install 'greenroom\[redis\]'"):
        RedisStorage("redis://localhost")


async def test_a_user_with_few_rights_will_do(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """As the operator's guide has it."""
    rules = ("on", ">secret", "~greenroom:*", "+@all", "-@dangerous", "+info")
    assert redis_server.command("ACL", "SETUSER", "friday", *rules) == b"+OK\r\n"
    url = redis_server.url().replace(f":{QUOTED}@", "friday:secret@")
    async with started(url, "greenroom", idle_seconds=0.01) as storage:
        await storage.renew("me", 100.0)
        await storage.note("me", b"")
        await storage.write([change(owner="me", open=True, names=[(b"n", b"1")], put=[(Cell("a", 1), b"1")])])
        await storage.write([change(open=False, take=True, drop=[Cell("a", 1)], unname=[b"n"])])
        await storage.orphans("session", 1)
        await storage.sessions("session", "u")
        await asyncio.sleep(0.02)
        assert await storage.renew("me", 100.0) == (b"",)
        assert await storage.lookup(b"n") is None
    assert caplog.messages == []
    with pytest.raises(StoreUnavailable, match="cannot be used: its user may not do what is needed"):
        await RedisStorage(url, prefix="another").start()
    redis_server.command("ACL", "SETUSER", "friday", "-zrem")
    with pytest.raises(StoreUnavailable, match="cannot be used: its user may not do what is needed"):
        await RedisStorage(url).start()
    assert [key for key in keys(redis_server, "greenroom") if key.startswith(":try")] == []


def test_all_that_scripts_do_is_tried_at_start() -> None:
    """Redis would find out what a user may not do in the middle of a write."""
    texts = {
        script.text
        for module in (redis_scripts, redis_folders)
        for script in vars(module).values()
        if isinstance(script, Script)
    }
    called = {word for text in texts for word in re.findall(r"(?:call|in_parts)\('([A-Z]+)'", text)}
    assert called - set(re.findall(r"'([A-Z]{3,})'", TRY.text)) == set()
    assert len(called) > 20


async def test_a_url_says_all_that_a_store_is_made_with(redis_server: RedisServer) -> None:
    of_this = prefix()
    query = f"?db=1&prefix={of_this}&turns_kept=2&idle_seconds=1000&answer_seconds=7.5&connections=3"
    store = store_at(redis_server.url(query))
    await store.start()
    for number in range(3):
        await store.commit(SESSION, TurnCommit(record(number)))
    kept = await store.load(SESSION)
    await store.stop()
    assert kept is not None
    assert kept.turns == (record(1), record(2))
    assert keys(redis_server, of_this) == {}  # which looks into the database with the number 0
    with pytest.raises(ConfigurationError, match="idle: there is no such option") as refused:
        store_at(redis_server.url("?idle=5"))
    assert "not-a-secret" not in str(refused.value)


async def test_over_the_network_and_with_tls(tmp_path: Path) -> None:
    authority, certificate, key = make_certificates(tmp_path)
    plain, secret = free_port(), free_port()
    tls = {"tls-cert-file": str(certificate), "tls-key-file": str(key), "tls-auth-clients": "no"}
    with running_redis(port=str(plain), **{"tls-port": str(secret), "bind": "127.0.0.1"}, **tls) as server:
        urls = (
            f"redis://:{QUOTED}@127.0.0.1:{plain}/1",
            f"rediss://:{QUOTED}@127.0.0.1:{secret}/1?ssl_check_hostname=no&ssl_ca_certs={authority}",
        )
        for number, url in enumerate(urls):
            async with started(url, "greenroom") as storage:
                for _ in range(2):
                    await storage.write([change(head=b"%d" % number)])
                    server.command("CLIENT", "KILL", "TYPE", "normal")
                    assert await body_of(storage) == b"%d" % number
        for trust in (
            "ssl_check_hostname=no",
            f"ssl_ca_certs={authority}",
        ):  # not its authority, not its name
            with pytest.raises(StoreUnavailable, match="cannot be used: its certificate is not from"):
                await RedisStorage(f"rediss://:{QUOTED}@127.0.0.1:{secret}/1?{trust}").start()
