"""States and histories of several processes: at once, and one after another was killed. In a file, on Redis, in
PostgreSQL."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest

from kits.committing import said
from kits.postgres_server import PostgresServer
from kits.redis_server import RedisServer
from kits.saving import saving

KILLS = 4
EACH = 25
FOREVER = 1_000_000

pytestmark = pytest.mark.slow


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place with nothing in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/friday.db"
    name = f"saving_{uuid.uuid4().hex}"
    if request.param == "redis":
        redis: RedisServer = request.getfixturevalue("redis_server")
        return redis.url(f"?prefix={name}")
    postgres: PostgresServer = request.getfixturevalue("postgres_server")
    there = postgres.url()
    return f"{there}{'&' if '?' in there else '?'}schema={name}"


async def told(url: str) -> tuple[dict[int, tuple[str, int]], list[tuple[str, int]]]:
    """What a new process finds: who saved each round, and who said what."""
    async with saving(url, "", 0) as process:
        lines = [line.split() for line in await said(process)]
        assert await process.wait() == 0
    rounds = {int(line[1]): (line[2], int(line[3])) for line in lines if line[0] == "round"}
    return rounds, [(line[1], int(line[2])) for line in lines if line[0] == "message"]


async def test_rounds_and_messages_of_two_processes_at_once_are_all_kept(url: str) -> None:
    async with saving(url, "one", EACH) as one, saving(url, "other", EACH) as other:
        heard = await asyncio.gather(said(one), said(other))
        assert await one.wait() == await other.wait() == 0
    rounds, messages = await told(url)
    promised = {
        int(line.split()[1]): (name, int(line.split()[2]))
        for name, lines in zip(("one", "other"), heard, strict=True)
        for line in lines
        if line.startswith("saved")
    }
    assert rounds == promised
    assert sorted(rounds) == list(range(1, 2 * EACH + 1))
    for name in ("one", "other"):
        assert [number for who, number in messages if who == name] == list(range(EACH))


async def test_what_a_killed_process_saved_the_next_one_exports(url: str) -> None:
    promised: dict[int, tuple[str, int]] = {}
    said_so: list[tuple[str, int]] = []
    for kill in range(KILLS):
        name = f"life{kill}"
        async with saving(url, name, FOREVER) as process:
            lines = await said(process, 4 + 7 * kill)
            process.kill()
            lines += await said(process)
        words = [line.split() for line in lines]
        promised |= {int(line[1]): (name, int(line[2])) for line in words if line[0] == "saved"}
        said_so += [(name, int(line[1])) for line in words if line[0] == "said"]
        rounds, messages = await told(url)
        assert promised.items() <= rounds.items()
        assert len(rounds) <= len(promised) + kill + 1  # one each that was done, and not said any more
        unsaid = [message for message in messages if message not in said_so]
        assert [message for message in messages if message in said_so] == said_so
        assert len(unsaid) <= kill + 1
