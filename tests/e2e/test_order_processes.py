"""The line of a session, where its turns come to two servers: one order, known and kept from the acceptance on."""

from __future__ import annotations

import asyncio
import signal

import pytest

from kits.durable_servers import Site, free_port
from kits.http_client import body, http_client
from kits.recovery_kit import text_of, url_of
from kits.rejoining import Told, turn
from kits.until import until

pytestmark = pytest.mark.slow

ALL = pytest.mark.parametrize("site", ["sqlite", "redis", "postgres"], indirect=True)


async def line(
    site: Site, here: str, there: str, count: int, first: str
) -> tuple[list[Told], list[asyncio.Task[Told]]]:
    """Turns of one session that are sent to the servers by turns, each when the one before it is acknowledged."""
    turns = [Told(f"turn_{number}", "s") for number in range(count)]
    clients = []
    for number, told in enumerate(turns):
        where = [here if number % 2 == 0 else there]
        text = first if number == 0 else f"say:{number}"
        clients.append(asyncio.create_task(turn(where, told, text)))
        await until(lambda told=told: told.acknowledged)  # type: ignore[misc]
        if number == 0:
            await until(lambda: bool(site.begun()["turn_0"]))
    return turns, clients


@ALL
async def test_turns_that_come_to_two_servers_run_in_the_order_of_their_acceptance(site: Site) -> None:
    ports = free_port(), free_port()
    servers = [await site.server(port) for port in ports]
    turns, clients = await line(site, url_of(ports[0]), url_of(ports[1]), 9, "say:0 nap:3")
    await asyncio.gather(*clients)
    assert [text_of(told) for told in turns] == [f"{number} {number}" for number in range(9)]
    assert not any(told.trouble for told in turns)
    for server in servers:
        assert await server.stop() == 0
        assert "ERROR" not in server.log
    await site.check(turns)


@ALL
async def test_the_line_goes_on_in_its_order_where_its_owner_dies(site: Site) -> None:
    ports = free_port(), free_port()
    owner, other = [await site.server(port) for port in ports]
    here, there = map(url_of, ports)
    turns, clients = await line(site, here, there, 7, "say:0 hold")
    await owner.stop(signal.SIGKILL)
    again = await site.server(ports[0])
    await asyncio.gather(*clients)
    assert (turns[0].status, turns[0].last["error"]["code"]) == ("failed", "turn_interrupted")
    assert [text_of(told) for told in turns[1:]] == [f"{number} {number}" for number in range(1, 7)]
    for server in (again, other):
        assert await server.stop() == 0
    await site.check(turns)


async def test_what_waits_behind_another_servers_turn_is_answered_at_once_found_and_cancelled(
    site: Site,
) -> None:
    ports = free_port(), free_port()
    servers = [await site.server(port) for port in ports]
    async with http_client(url_of(ports[0])) as here, http_client(url_of(ports[1])) as there:
        _, running = await here.json("POST", "/process/task", json=body("say:a hold", "s"))
        await until(lambda: bool(site.begun()[running["task_id"]]))
        waiting = []
        for _ in range(2):
            status, task = await there.json("POST", "/process/task", json=body("say:b", "s"))
            assert (status, task["status"]) == (200, "submitted")
            waiting.append(task["task_id"])
        for client in (here, there):
            for task_id in waiting:
                status, shown = await client.json("GET", f"/process/{task_id}")
                assert (status, shown["status"]) == (200, "in_progress")
        await there.cancel(waiting[0])
        await there.cancel(running["task_id"])
        for client in (there, here):
            back = await client.rejoin(waiting[1])
            assert await back.ending() == ("completed", "1 b")
            _, shown = await client.json("GET", f"/process/{waiting[0]}")
            assert shown["status"] == "canceled"
    assert not site.begun()[waiting[0]]
    for server in servers:
        assert await server.stop() == 0
