"""Turns followed, and looked at, in another server process than the one that runs them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from kits.durable_servers import Site, free_port
from kits.http_client import HttpClient, body, http_client, next_chunk
from kits.webhook_receiver import SECRET, a_receiver

pytestmark = pytest.mark.slow

BASE = "/compatible-mode/v1"
UNKEPT = [
    (f"{BASE}/responses", {"input": "say:a nap:2.5 say:b", "stream": True, "store": False}),
    (
        f"{BASE}/chat/completions",
        {"messages": [{"role": "user", "content": "say:a nap:2.5 say:b"}], "stream": True, "model": "m"},
    ),
]
WEBHOOKS = {"GREENROOM_WEBHOOK_SECRET": SECRET, "GREENROOM_WEBHOOK_PRIVATE": "127.0.0.1"}


@asynccontextmanager
async def two_servers(site: Site) -> AsyncIterator[tuple[HttpClient, HttpClient]]:
    """A client for each of two servers on one store."""
    async with AsyncExitStack() as stack:
        servers = [await site.server(free_port(), **WEBHOOKS) for _ in range(2)]
        clients = [await stack.enter_async_context(http_client(server.url)) for server in servers]
        yield clients[0], clients[1]
        for server in servers:
            assert await server.stop() == 0
            assert "ERROR" not in server.log


@pytest.mark.parametrize(("path", "request_body"), UNKEPT, ids=["response", "chat"])
async def test_a_stream_of_what_is_not_kept_has_its_ending_in_another_process(
    path: str, request_body: dict[str, Any], site: Site
) -> None:
    async with (
        two_servers(site) as (here, there),
        here.http.post(f"{here.url}{path}", json=request_body) as response,
    ):
        found = re.search(rb'"id": ?"([^"]+)"', await next_chunk(response))
        assert found is not None
        back = await there.rejoin(found[1].decode())
        assert await back.ending() == ("completed", "0 a b")
        await response.read()


async def test_who_is_told_by_a_webhook_that_a_turn_has_ended_finds_it_so_everywhere(site: Site) -> None:
    async with two_servers(site) as (here, there), a_receiver() as receiver:
        seen = []

        async def look(_: web.Request) -> web.StreamResponse:
            turn_id = json.loads(receiver.received[-1].body)["data"]["id"]
            shown = await there.json("GET", f"/process/{turn_id}")
            task = await there.json("GET", f"/process/task/{turn_id}")
            seen.append((shown[1]["status"], task[1]["status"]))
            return web.Response(status=204)

        receiver.answers = [look] * 3
        for number, seconds in enumerate((2.0, 2.6, 3.3)):  # it is looked at each second there
            request = body(f"say:a nap:{seconds} say:b", f"s{number}", webhook=receiver.url)
            _, task = await here.json("POST", "/process/task", json=request)
            _, shown = await there.json("GET", f"/process/{task['task_id']}")
            assert shown["status"] == "in_progress"
        await receiver.have(3)
    assert seen == [("completed", "finished")] * 3
