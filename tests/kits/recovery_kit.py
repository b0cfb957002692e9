"""What may become of server processes that share a store, whatever store that is: each scenario on a `Site`."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from kits.durable_servers import Site, free_port
from kits.rejoining import PAUSE, Told, once, turn
from kits.server_process import ServerProcess
from kits.until import until

SHORT, LONG = "1", "30"
"""Leases, seconds: shorter and longer than the faults here."""
LOST = "was not renewed in time"
"""What a server's log says that has lost its sessions."""
TEXT = "say:a nap:0.2 tool nap:0.2 say:b"


def text_of(told: Told) -> str:
    """The words of a turn that completed."""
    words = next(message for message in told.last["output"] if message["type"] == "message")
    return str(words["content"][0]["text"])


def url_of(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@asynccontextmanager
async def load(
    urls: list[str],
    text: str,
    *,
    clients: int,
    sessions: int,
    seconds: float = 60.0,
    turns: list[Told] | None = None,
) -> AsyncIterator[list[Told]]:
    """Clients that ask for one turn after the other, until the end; then each sees its last one through.

    `turns`: those of other clients, to which theirs are added.
    """
    turns = [] if turns is None else turns
    stop = asyncio.Event()

    async def client(name: int) -> None:
        while not stop.is_set():
            told = Told(f"turn_{len(turns)}", f"s{name % sessions}")
            turns.append(told)
            await turn(urls, told, text, seconds=seconds)

    async with asyncio.TaskGroup() as group:
        for name in range(clients):
            group.create_task(client(name))
        try:
            yield turns
        finally:
            stop.set()


@asynccontextmanager
async def asking_once(
    url: str, text: str, *, clients: int, turns: list[Told], refused: list[Told]
) -> AsyncIterator[None]:
    """Clients that ask for one turn after the other, each in a session of its own and each a single time.

    `turns`: those of other clients, to which theirs are added that are acknowledged, and `refused` has the others.
    """
    stop = asyncio.Event()
    names = (f"once_{number}" for number in itertools.count())

    async def client() -> None:
        while not stop.is_set():
            name = next(names)
            told = Told(name, name)
            await once(url, told, text)
            (turns if told.acknowledged else refused).append(told)
            await asyncio.sleep(PAUSE)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
        try:
            yield
        finally:
            stop.set()


def completed(turns: list[Told]) -> int:
    return sum(bool(told.frames) and told.status == "completed" for told in turns)


def refused(turns: list[Told]) -> int:
    """How often servers refused."""
    return sum(trouble.startswith("503: ") for told in turns for trouble in told.trouble)


async def more(count: Callable[[list[Told]], int], turns: list[Told], number: int) -> None:
    """Wait for so many more."""
    goal = count(turns) + number
    await until(lambda: count(turns) >= goal, 20.0)


# ------------------------------------------------------------------------------------------- faults under one server

Fault = Callable[[ServerProcess, list[Told]], Awaitable[None]]


async def seen_through(server: ServerProcess, fault: Fault, text: str = TEXT) -> list[Told]:
    """The turns of clients before, in and after a fault, through all of which one server runs."""
    async with load([server.url], text, clients=6, sessions=3) as turns:
        await more(completed, turns, 6)
        await fault(server, turns)
        await more(completed, turns, 6)
    troubles = [trouble for told in turns for trouble in told.trouble]
    assert not [trouble for trouble in troubles if trouble.startswith(("502", "504"))]
    return turns


async def nothing_lost(site: Site, server: ServerProcess, fault: Fault, text: str = TEXT) -> list[Told]:
    """The same; at its end the server stops, and what is in the store is as clients were told."""
    turns = await seen_through(server, fault, text)
    assert await server.stop() == 0
    await site.check(turns)
    return turns


@asynccontextmanager
async def refusing(server: ServerProcess, turns: list[Told], text: str = TEXT) -> AsyncIterator[None]:
    """Clients that come during a fault: they are refused. In the block it ends."""
    async with load([server.url], text, clients=3, sessions=3, turns=turns):
        await more(refused, turns, 6)
        yield


def failures(turns: list[Told]) -> list[tuple[str, str]]:
    """The turns that did not complete, and why."""
    return [(told.id, told.last["error"]["code"]) for told in turns if told.status != "completed"]


def not_interrupted(turns: list[Told]) -> list[tuple[str, str]]:
    """Those that failed for another reason than that they ran when sessions were lost."""
    return [failure for failure in failures(turns) if failure[1] != "turn_interrupted"]


# ------------------------------------------------------------------------------------------------------- the scenarios


async def dies_at(site: Site, point: str) -> None:
    """A server dies at a commit point, and another one is started in its place."""
    port = free_port()
    server = await site.server(port, DURABLE_AT=point)
    turns = [Told(f"turn_{number}", "s") for number in range(3)]
    clients = [asyncio.create_task(turn([url_of(port)], told, "say:a tool nap:0.3 say:b")) for told in turns]
    assert await server.ended() == -signal.SIGKILL, f"{point} was never reached"
    server = await site.server(port)
    await asyncio.gather(*clients)
    again = await turn([url_of(port)], Told("turn_later", "s"), "say:c")
    assert again.status == "completed", "the session takes the next turn"
    await server.stop()
    failed = [told for told in turns if told.status == "failed"]
    assert [told.last["error"]["code"] for told in failed] in ([], ["turn_interrupted"]), (
        "those that waited are run"
    )
    await site.check([*turns, again])


async def stopped_owner_goes_on(site: Site) -> None:
    """An owner is stopped until another process has its session, and goes on."""
    here, there = free_port(), free_port()
    first = await site.server(here, DURABLE_LEASE="1")
    second = await site.server(there, DURABLE_LEASE="1")
    held = Told("turn_held", "s")
    client = asyncio.create_task(turn([url_of(here), url_of(there)], held, "say:a nap:0.5 say:b"))
    await until(lambda: bool(site.begun()[held.id]))
    owner = first if str(first.process.pid) in site.trace.read_text() else second
    other, port = (second, there) if owner is first else (first, here)
    owner.process.send_signal(signal.SIGSTOP)
    after = await turn([url_of(port)], Told("turn_after", "s"), "say:c")
    assert after.status == "completed"
    owner.process.send_signal(signal.SIGCONT)
    await client
    assert (held.status, held.last["error"]["code"]) == ("failed", "turn_interrupted")
    back = await turn([url_of(here if owner is first else there)], Told("turn_back", "s"), "say:d")
    assert text_of(back) == "2 d", "what the other did meanwhile is known"
    for server in (owner, other):
        assert await server.stop() == 0
    await site.check([held, after, back])


async def rolled(site: Site, servers: dict[int, ServerProcess], times: int = 2) -> None:
    """Replace one server after the other, as a deploy does."""
    for port in [*servers] * times:
        assert await servers[port].stop() == 0
        servers[port] = await site.server(port)


async def rolling_restart(site: Site) -> None:
    """Two servers are replaced under load."""
    ports = [free_port(), free_port()]
    servers = {port: await site.server(port) for port in ports}
    async with load([*map(url_of, ports)], "say:a nap:0.1 tool say:b", clients=8, sessions=5) as turns:
        for _ in range(2):
            await more(completed, turns, 5)
            await rolled(site, servers, 1)
    for server in servers.values():
        await server.stop()
    assert {told.status for told in turns} == {"completed"}
    await site.check(turns)


async def stop_hands_over(site: Site) -> None:
    """A server is stopped while a turn runs that is too long for its drain, and others wait."""
    here, there = free_port(), free_port()
    first = await site.server(here, DURABLE_DRAIN="0.5")
    second = await site.server(there)
    where = [url_of(here)]
    long, *waiting = [Told("turn_long", "s"), *(Told(f"turn_{number}", "s") for number in range(3))]
    clients = [asyncio.create_task(turn(where, long, "say:a nap:30"))]
    await until(lambda: bool(site.begun()[long.id]))
    clients += [asyncio.create_task(turn(where, told, "say:b")) for told in waiting]
    await until(lambda: all(told.acknowledged for told in waiting))
    where[:] = [url_of(there)]
    assert await first.stop() == 0
    await asyncio.gather(*clients)
    await second.stop()
    assert (long.status, long.last["error"]["code"]) == ("failed", "turn_interrupted")
    assert [told.status for told in waiting] == ["completed"] * 3
    await site.check([long, *waiting])
