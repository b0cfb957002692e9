"""openai-python with two servers on one store: when they are replaced one after the other, behind one address, it is
told what may be sent again, and sends it; what it sends again of its own accord is not run again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kits.durable_servers import Site, free_port
from kits.nginx import nginx
from kits.recovery_kit import url_of
from kits.rejoining import Told, turn
from kits.sdk_answers import check_wire
from kits.sdk_clients import Wire, sdk
from kits.until import until

pytestmark = pytest.mark.slow

CLIENTS = 4
RETRIES = 8
"""Of a client, as docs/operating.md advises: more than its own two."""


@asynccontextmanager
async def asking(client: Any) -> AsyncIterator[list[str]]:
    """Clients that ask for one response after the other, half of them with keys; the ids of those that completed."""
    stop, answered, numbers = asyncio.Event(), list[str](), itertools.count()

    async def ask_on() -> None:
        while not stop.is_set():
            number = next(numbers)
            headers = {"Idempotency-Key": f"key-{number}"} if number % 2 else {}
            response = await client.responses.create(
                model="m", input="say:a nap:0.05 say:b", extra_headers=headers
            )
            assert response.status == "completed", response.error
            answered.append(response.id)

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(ask_on())
        try:
            yield answered
        finally:
            stop.set()


async def test_a_rolling_restart_is_not_noticed_by_openai_python(site: Site, tmp_path: Path) -> None:
    ports, wire = [free_port(), free_port()], Wire()
    servers = {port: await site.server(port) for port in ports}
    async with nginx(tmp_path, *ports) as url, sdk(url, wire, max_retries=RETRIES) as client:
        async with asking(client) as answered:
            for port in ports:
                long = Told(
                    f"turn_{port}", f"long_{port}"
                )  # which the server stops for only when it has ended
                follows = asyncio.create_task(turn([url_of(port)], long, "nap:2"))
                await until(lambda: bool(site.begun()[long.id]))  # noqa: B023 - it is over by then
                before = len(answered)
                assert await servers[port].stop() == 0
                assert len(answered) > before, "the other one answers meanwhile"
                servers[port] = await site.server(port)
                await follows
        for server in servers.values():
            assert await server.stop() == 0
    wire.answers = [
        answer for answer in wire.answers if answer.status != 502
    ]  # nginx's own, between stop and start
    assert 503 in {answer.status for answer in wire.answers}, "the restart met no request"
    check_wire(wire)
    begun = site.begun()
    assert {begun[response_id] for response_id in answered} == {1}
    assert begun == site.done()


async def test_a_client_that_loses_patience_with_a_session_of_another_server_has_one_run(site: Site) -> None:
    here, there = [await site.server(free_port()) for _ in range(2)]
    wire, held = Wire(), Told("turn_held", "s")
    follows = asyncio.create_task(turn([here.url], held, "nap:3"))
    await until(lambda: bool(site.begun()[held.id]))
    async with sdk(there.url, wire, max_retries=8, timeout=1.0) as client:
        asked = {"model": "m", "input": "say:a", "extra_body": {"session_id": "s"}}
        response = await client.responses.create(**asked)
    await follows
    assert response.output_text == "1 a"
    await wire.sent(2)
    assert site.begun() == {held.id: 1, response.id: 1}
    for server in (here, there):
        assert await server.stop() == 0
