"""Clients that have seen more of a turn than its server had written down when it was killed: what they have put
together in the end is what the log has, and has an ending."""

from __future__ import annotations

import asyncio
import random

import pytest

from kits.durable_servers import Site, free_port
from kits.recovery_kit import url_of
from kits.rejoining import Told, turn

pytestmark = pytest.mark.slow

ROUNDS = 8
WORDS = "nap:0.1 " + " ".join(f"say:{word}" for word in "abcdefgh")


@pytest.mark.parametrize("handler", ["ordinary", "idempotent"])
async def test_what_a_client_has_put_together_is_what_the_log_has(handler: str, site: Site) -> None:
    dice, port = random.Random(7), free_port()
    environment = {"DURABLE_IDEMPOTENT": "1"} if handler == "idempotent" else {}
    server = await site.server(port, **environment)
    told = []
    for number in range(ROUNDS):
        one = Told(f"turn_{number}", f"s{number}")
        told.append(one)
        text = f"{WORDS} nap:{0.3 if handler == 'idempotent' else 60} say:i"
        client = asyncio.create_task(turn([url_of(port)], one, text))
        seen = dice.randrange(1, 12)
        async with asyncio.timeout(30):
            while len(one.frames) < seen:
                one.more.clear()
                await one.more.wait()
        server.process.kill()
        await server.ended()
        server = await site.server(port, **environment)
        await client
    await server.stop()
    assert {one.status for one in told} == {"completed" if handler == "idempotent" else "failed"}
    assert any("cursor_expired" in trouble for one in told for trouble in one.trouble), (
        "none was ever ahead of the store"
    )
    await site.check(told, begun_once=handler == "ordinary")
