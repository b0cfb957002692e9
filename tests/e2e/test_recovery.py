"""Real server processes on one store, killed, stopped and replaced: no acknowledged turn is lost, none runs twice."""

from __future__ import annotations

import asyncio
import random
import re
import signal
from pathlib import Path

import pytest

from greenroom import services
from kits import recovery_kit as kit
from kits.commit_points import SCENARIOS
from kits.durable_servers import Site, free_port
from kits.recovery_kit import completed, load, url_of
from kits.rejoining import Told, turn
from kits.server_process import ServerProcess

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("point", SCENARIOS)
async def test_a_server_that_dies_at_a_commit_point_loses_and_doubles_nothing(point: str, site: Site) -> None:
    await SCENARIOS[point](site)


def test_these_are_all_there_are() -> None:
    folder = Path(services.__file__).parent
    text = "\n".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    assert set(re.findall(r'_reached\("([a-z.]+)"\)', text)) == set(SCENARIOS)


async def test_an_idempotent_handler_is_begun_once_more(site: Site) -> None:
    port = free_port()
    server = await site.server(port, DURABLE_IDEMPOTENT="1", DURABLE_AT="finish.before")
    told = Told("turn_1", "s")
    client = asyncio.create_task(turn([url_of(port)], told, "say:a tool say:b"))
    assert await server.ended() == -signal.SIGKILL
    server = await site.server(port, DURABLE_IDEMPOTENT="1")
    await client
    await server.stop()
    assert told.status == "completed"
    assert site.begun()[told.id] == 2
    await site.check([told], begun_once=False)


async def test_a_hundred_kills_under_load(site: Site) -> None:
    ports, dice = [free_port() for _ in range(3)], random.Random(5)
    text = "say:a nap:0.02 tool nap:0.02 say:b"

    async def kill_and_start_again(port: int, times: int) -> ServerProcess:
        server = await site.server(port, DURABLE_LEASE="0.5")
        for _ in range(times):
            await asyncio.sleep(dice.uniform(0.0, 0.5))  # whatever it is doing then
            await server.stop(signal.SIGKILL)
            server = await site.server(port, DURABLE_LEASE="0.5")
        return server

    async with load([*map(url_of, ports)], text, clients=6, sessions=3, seconds=120) as turns:
        servers = await asyncio.gather(*map(kill_and_start_again, ports, (34, 33, 33)))
    for server in servers:
        await server.stop()
    await site.check(turns)
    assert completed(turns) > 100


async def test_a_stopped_owner_writes_nothing_when_it_goes_on(site: Site) -> None:
    await kit.stopped_owner_goes_on(site)


async def test_a_rolling_restart_under_load_is_not_noticed(site: Site) -> None:
    await kit.rolling_restart(site)


async def test_a_stop_hands_over_what_it_cannot_end(site: Site) -> None:
    await kit.stop_hands_over(site)
