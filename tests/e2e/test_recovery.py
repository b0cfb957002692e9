"""Real server processes on one store, killed, stopped and replaced: no acknowledged turn is lost, none runs twice."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import pytest

from kits.durable_servers import Site, free_port
from kits.rejoining import Told, turn
from kits.server_process import ServerProcess
from kits.until import until

pytestmark = pytest.mark.slow

POINTS = [
    "accept.before",
    "accept.written",
    "append.written",
    "finish.before",
    "finish.written",
]


def text_of(told: Told) -> str:
    """The words of a turn that completed."""
    words = next(message for message in told.last["output"] if message["type"] == "message")
    return str(words["content"][0]["text"])


@pytest.mark.parametrize("point", POINTS)
async def test_a_server_that_dies_at_a_commit_point_loses_and_doubles_nothing(
    point: str, tmp_path: Path
) -> None:
    site, port = Site(tmp_path), free_port()
    server = await site.server(port, DURABLE_AT=point)
    turns = [Told(f"turn_{number}", "s") for number in range(3)]
    clients = [
        asyncio.create_task(turn([f"http://127.0.0.1:{port}"], told, "say:a tool nap:0.3 say:b"))
        for told in turns
    ]
    assert await server.ended() == -signal.SIGKILL, f"{point} was never reached"
    server = await site.server(port)
    await asyncio.gather(*clients)
    again = await turn([f"http://127.0.0.1:{port}"], Told("turn_later", "s"), "say:c")
    assert again.status == "completed", "the session takes the next turn"
    await server.stop()
    failed = [told for told in turns if told.status == "failed"]
    assert [told.last["error"]["code"] for told in failed] in ([], ["turn_interrupted"]), (
        "those that waited are run"
    )
    await site.check([*turns, again])


async def test_an_idempotent_handler_is_begun_once_more(tmp_path: Path) -> None:
    site, port = Site(tmp_path), free_port()
    server = await site.server(port, DURABLE_IDEMPOTENT="1", DURABLE_AT="finish.before")
    told = Told("turn_1", "s")
    client = asyncio.create_task(turn([f"http://127.0.0.1:{port}"], told, "say:a tool say:b"))
    assert await server.ended() == -signal.SIGKILL
    server = await site.server(port, DURABLE_IDEMPOTENT="1")
    await client
    await server.stop()
    assert told.status == "completed"
    assert site.begun()[told.id] == 2
    await site.check([told], begun_once=False)


async def test_a_hundred_kills_under_load(tmp_path: Path) -> None:
    site, ports, dice = Site(tmp_path), [free_port() for _ in range(3)], random.Random(5)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    turns: list[Told] = []
    stop = asyncio.Event()

    async def client(name: int) -> None:
        while not stop.is_set():
            told = Told(f"turn_{len(turns)}", f"s{name % 3}")
            turns.append(told)
            await turn(urls, told, "say:a nap:0.02 tool nap:0.02 say:b", seconds=120)

    async def kill_and_start_again(port: int, times: int) -> ServerProcess:
        server = await site.server(port, DURABLE_LEASE="0.5")
        for _ in range(times):
            await asyncio.sleep(dice.uniform(0.0, 0.5))  # whatever it is doing then
            await server.stop(signal.SIGKILL)
            server = await site.server(port, DURABLE_LEASE="0.5")
        return server

    clients = [asyncio.create_task(client(name)) for name in range(6)]
    servers = await asyncio.gather(*map(kill_and_start_again, ports, (34, 33, 33)))
    stop.set()
    await asyncio.gather(*clients)
    for server in servers:
        await server.stop()
    await site.check(turns)
    assert sum(told.status == "completed" for told in turns) > 100


async def test_a_stopped_owner_writes_nothing_when_it_goes_on(tmp_path: Path) -> None:
    site, here, there = Site(tmp_path), free_port(), free_port()
    first = await site.server(here, DURABLE_LEASE="1")
    second = await site.server(there, DURABLE_LEASE="1")
    held = Told("turn_held", "s")
    urls = [f"http://127.0.0.1:{port}" for port in (here, there)]
    client = asyncio.create_task(turn(urls, held, "say:a nap:0.5 say:b"))
    await until(lambda: bool(site.begun()[held.id]))
    owner = first if str(first.process.pid) in site.trace.read_text() else second
    other, url = (second, there) if owner is first else (first, here)
    owner.process.send_signal(signal.SIGSTOP)
    after = await turn([f"http://127.0.0.1:{url}"], Told("turn_after", "s"), "say:c")
    assert after.status == "completed"
    owner.process.send_signal(signal.SIGCONT)
    await client
    assert (held.status, held.last["error"]["code"]) == ("failed", "turn_interrupted")
    back = await turn(
        [f"http://127.0.0.1:{here if owner is first else there}"], Told("turn_back", "s"), "say:d"
    )
    assert text_of(back) == "2 d", "what the other did meanwhile is known"
    for server in (owner, other):
        assert await server.stop() == 0
    await site.check([held, after, back])


async def rolled(site: Site, servers: dict[int, ServerProcess], port: int) -> None:
    """Replace one server by another, as a deploy does."""
    assert await servers[port].stop() == 0
    servers[port] = await site.server(port)


async def test_a_rolling_restart_under_load_is_not_noticed(tmp_path: Path) -> None:
    site, ports = Site(tmp_path), [free_port(), free_port()]
    servers = {port: await site.server(port) for port in ports}
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    turns: list[Told] = []
    stop = asyncio.Event()

    async def client(name: int) -> None:
        while not stop.is_set():
            told = Told(f"turn_{len(turns)}", f"s{name % 5}")
            turns.append(told)
            await turn(urls, told, "say:a nap:0.1 tool say:b")

    clients = [asyncio.create_task(client(name)) for name in range(8)]
    for port in ports * 2:
        await rolled(site, servers, port)
    stop.set()
    await asyncio.gather(*clients)
    for server in servers.values():
        await server.stop()
    assert {told.status for told in turns} == {"completed"}
    await site.check(turns)


async def test_a_stop_hands_over_what_it_cannot_end(tmp_path: Path) -> None:
    site, here, there = Site(tmp_path), free_port(), free_port()
    first = await site.server(here, DURABLE_DRAIN="0.5")
    second = await site.server(there)
    where = [f"http://127.0.0.1:{here}"]
    long, *waiting = [Told("turn_long", "s"), *(Told(f"turn_{number}", "s") for number in range(3))]
    clients = [asyncio.create_task(turn(where, long, "say:a nap:30"))]
    await until(lambda: bool(site.begun()[long.id]))
    clients += [asyncio.create_task(turn(where, told, "say:b")) for told in waiting]
    await until(lambda: all(told.acknowledged for told in waiting))
    where[:] = [f"http://127.0.0.1:{there}"]
    assert await first.stop() == 0
    await asyncio.gather(*clients)
    await second.stop()
    assert (long.status, long.last["error"]["code"]) == ("failed", "turn_interrupted")
    assert [told.status for told in waiting] == ["completed"] * 3
    await site.check([long, *waiting])
