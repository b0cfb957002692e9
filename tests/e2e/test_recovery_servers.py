"""The scenarios of `test_recovery` on a Redis and a PostgreSQL server, behind nginx, with clocks that jump, and under a
storm of clients that drop."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from kits import recovery_kit as kit
from kits.commit_points import SCENARIOS
from kits.durable_servers import Site, free_port
from kits.http_client import body
from kits.nginx import nginx
from kits.recovery_kit import completed, load, more, rolled, text_of, url_of
from kits.rejoining import Told, turn
from kits.until import until, until_answered

pytestmark = pytest.mark.slow

SERVERS = pytest.mark.parametrize("site", ["redis", "postgres"], indirect=True)
ALL = pytest.mark.parametrize("site", ["sqlite", "redis", "postgres"], indirect=True)


# -------------------------------------------------------------------------------------------------- processes that go


@SERVERS
@pytest.mark.parametrize("point", SCENARIOS)
async def test_a_server_that_dies_at_a_commit_point_loses_and_doubles_nothing(point: str, site: Site) -> None:
    await SCENARIOS[point](site)


@SERVERS
async def test_a_stopped_owner_writes_nothing_when_it_goes_on(site: Site) -> None:
    await kit.stopped_owner_goes_on(site)


@SERVERS
async def test_a_rolling_restart_under_load_is_not_noticed(site: Site) -> None:
    await kit.rolling_restart(site)


@SERVERS
async def test_a_stop_hands_over_what_it_cannot_end(site: Site) -> None:
    await kit.stop_hands_over(site)


async def test_a_rolling_restart_behind_nginx_is_not_noticed(site: Site, tmp_path: Path) -> None:
    """By clients that know one address and follow the protocol."""
    ports = [free_port(), free_port()]
    servers = {port: await site.server(port) for port in ports}
    async with nginx(tmp_path, *ports) as url:
        async with load([url], "say:a nap:0.1 tool say:b", clients=8, sessions=5) as turns:
            await more(completed, turns, 5)
            await rolled(site, servers)
            await more(completed, turns, 5)
        for server in servers.values():
            assert await server.stop() == 0
    assert {told.status for told in turns} == {"completed"}
    assert any(told.trouble for told in turns), "the restart met no request"
    await site.check(turns)


# ------------------------------------------------------------------------------------------------- clocks that jump


class WallClock:
    """The time of day of processes that were started with `environment`. Their monotonic clock goes on evenly."""

    def __init__(self, file: Path) -> None:
        library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
        if library is None:
            pytest.skip("needs faketime: apt-get install faketime")
        self._file = file
        self.jump(0)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds: int) -> None:
        """Show a time that is so far from the real one."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)


def taken_in(turns: Sequence[Told], hours: int) -> bool:
    """Whether one was taken in when a server's clock was wrong by so much."""
    now = time.time()
    return any(round((told.frames[0]["created_at"] - now) / 3_600) == hours for told in turns if told.frames)


@ALL
async def test_a_clock_that_jumps_an_hour_costs_no_lease_and_no_turn(site: Site, tmp_path: Path) -> None:
    clock, ports = WallClock(tmp_path / "clock"), [free_port(), free_port()]
    jumping = await site.server(ports[0], DURABLE_LEASE="10", **clock.environment)
    steady = await site.server(ports[1], DURABLE_LEASE="10")
    async with load([*map(url_of, ports)], "say:a nap:0.2 tool say:b", clients=6, sessions=4) as turns:
        long = Told("turn_long", "long")
        seen = asyncio.create_task(turn([url_of(ports[0])], long, "say:a nap:3 tool say:b"))
        await until(lambda: long.acknowledged)
        for hours in (1, -1, 0):
            clock.jump(3_600 * hours)
            await more(completed, turns, 6)
            await until(partial(taken_in, turns, hours))
        await seen
    for server in (jumping, steady):
        assert await server.stop() == 0
        assert "was not renewed in time" not in server.log, server.log
    assert {told.status for told in [*turns, long]} == {"completed"}
    await site.check([*turns, long])


# -------------------------------------------------------------------------------------------------- clients that drop

STORM = 500
"""Clients of one storm; there are two."""
AT_ONCE = 50
RESET = struct.pack("ii", 1, 0)
"""Lets `close` break a connection off instead of ending it."""
MEGABYTE = 1024 * 1024


class Process:
    """What a server's process holds."""

    def __init__(self, pid: int, url: str) -> None:
        self._folder = Path(f"/proc/{pid}")
        self._url = url

    def files(self) -> int:
        return sum(1 for _ in (self._folder / "fd").iterdir())

    def resident_bytes(self) -> int:
        pages = (self._folder / "statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    async def tasks(self) -> int:
        async with aiohttp.ClientSession() as client, client.get(f"{self._url}/tasks") as answer:
            return int((await answer.json())["tasks"])


async def ask_and_drop(url: str, told: Told, number: int, at_once: asyncio.Semaphore) -> None:
    """Ask for a turn, and go when its first event comes, or before; some come back and go again."""
    async with at_once, aiohttp.ClientSession() as client:
        request = body("say:a nap:0.02 say:b", told.session, id=told.id)
        async with client.post(f"{url}/process", json=request) as answer:
            assert answer.status == 200, await answer.text()
            told.acknowledged = True
            await answer.content.read(1)
            _break_off(answer, number)
        if number % 3 == 0:
            async with client.get(f"{url}/process/{told.id}/events") as answer:
                assert answer.status == 200, await answer.text()
                _break_off(answer, number)


def _break_off(answer: aiohttp.ClientResponse, number: int) -> None:
    if number % 2 and answer.connection is not None and answer.connection.transport is not None:
        open_socket = answer.connection.transport.get_extra_info("socket")
        open_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    answer.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux: looks into /proc")
async def test_a_thousand_streams_that_drop_lose_no_turn_and_leave_nothing(site: Site) -> None:
    server = await site.server(free_port())
    process = Process(server.process.pid, server.url)
    at_once = asyncio.Semaphore(AT_ONCE)
    turns: list[Told] = []
    before: tuple[int, int] | None = None
    sizes: list[int] = []

    async def at_rest() -> bool:
        return before is None or (process.files() <= before[0] and await process.tasks() <= before[1])

    for clients in (AT_ONCE, STORM, STORM):
        storm = [Told(f"turn_{len(turns) + number}", f"s{number % 20}") for number in range(clients)]
        turns += storm
        await asyncio.gather(
            *(ask_and_drop(server.url, told, number, at_once) for number, told in enumerate(storm))
        )
        await until(lambda: not {told.id for told in turns} - set(site.done()))  # noqa: B023 - it is over by then
        await until_answered(at_rest)
        if before is None:
            await asyncio.gather(*(turn([server.url], told, "") for told in turns))
            before = process.files(), await process.tasks()
        sizes.append(process.resident_bytes())
    await asyncio.gather(*(turn([server.url], told, "") for told in turns))
    assert {text_of(told).endswith(" a b") for told in turns} == {True}
    assert await server.stop() == 0
    assert "ERROR" not in server.log
    await site.check(turns)
    assert sizes[2] - sizes[1] < 20 * MEGABYTE, f"it grows: {[size // MEGABYTE for size in sizes]}"
