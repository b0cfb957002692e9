"""Disconnect policies of turns whose clients come and go in another server process than the one that runs them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from kits.durable_servers import Site, free_port
from kits.http_client import HttpClient, body, http_client
from kits.transport_kit import Exchange
from kits.until import until_answered

pytestmark = pytest.mark.slow


@asynccontextmanager
async def two_servers(site: Site) -> AsyncIterator[tuple[HttpClient, HttpClient]]:
    """A client for each of two servers on one store."""
    async with AsyncExitStack() as stack:
        servers = [await site.server(free_port()) for _ in range(2)]
        clients = [await stack.enter_async_context(http_client(server.url)) for server in servers]
        yield clients[0], clients[1]
        for server in servers:
            assert await server.stop() == 0
            assert "ERROR" not in server.log


async def heard(exchange: Exchange, word: str) -> None:
    """Read until the turn says this."""
    while (await exchange.next_text()).strip() != word:
        pass


async def test_a_client_that_comes_back_in_another_process_keeps_its_turn(site: Site) -> None:
    async with two_servers(site) as (here, there):
        asked = await here.ask("say:a nap:6 say:b", "s", disconnect="grace=1.5")
        await asked.leave()
        back = await there.rejoin(asked.id)
        assert await back.ending() == ("completed", "0 a b")


@pytest.mark.parametrize("policy", ["cancel", "grace=0.5"])
async def test_a_client_that_leaves_in_another_process_has_left(policy: str, site: Site) -> None:
    async with two_servers(site) as (here, there):
        asked = await here.ask("say:a nap:1 say:b nap:3 say:c hold", "s", disconnect=policy)
        other = await there.rejoin(asked.id)
        await heard(other, "b")
        await asked.leave()
        await heard(other, "c")  # nobody follows it where it runs
        await other.leave()

        async def is_cancelled() -> bool:
            _, turn = await here.json("GET", f"/process/{asked.id}")
            return bool(turn["status"] == "canceled")

        await until_answered(is_cancelled, 8.0)


WAITING = [
    ("/process", body("say:x", "s", disconnect="cancel")),
    ("/process", body("say:x", "s", disconnect="grace=0.2", stream=False)),
    ("/compatible-mode/v1/responses", {"input": "say:x", "conversation": "s", "disconnect": "cancel"}),
    (
        "/compatible-mode/v1/responses",
        {"input": "say:x", "conversation": "s", "disconnect": "cancel", "stream": True},
    ),
]


async def test_clients_that_leave_while_their_turns_wait_for_another_process_have_left(site: Site) -> None:
    async with two_servers(site) as (here, there):
        held = await here.ask("say:a nap:3 say:b", "s")

        async def leave(path: str, request: dict[str, Any]) -> None:
            timeout = aiohttp.ClientTimeout(0.5)
            with pytest.raises(TimeoutError):
                async with there.http.post(f"{there.url}{path}", json=request, timeout=timeout) as response:
                    await response.read()

        await asyncio.gather(*(leave(path, request) for path, request in WAITING))
        last = await there.ask("say:c", "s")
        assert await last.ending() == ("completed", "1 c")
        assert await held.ending() == ("completed", "0 a b")
        assert set(site.begun()) == {held.id, last.id}
