"""Turns cancelled in another server than the one that has them, when both are killed: a third one takes them over."""

from __future__ import annotations

import signal

import pytest

from kits.durable_servers import Site, free_port
from kits.http_client import HttpClient, body, http_client
from kits.until import until, until_answered

pytestmark = pytest.mark.slow


async def begin(client: HttpClient, text: str) -> str:
    """A turn in the background; its id."""
    status, task = await client.json("POST", "/process/task", json=body(text, "s"))
    assert status == 200, task
    return str(task["task_id"])


@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_third_server_begins_nothing_that_was_cancelled(idempotent: bool, site: Site) -> None:
    environment = {"DURABLE_IDEMPOTENT": "1"} if idempotent else {}
    first, second = [await site.server(free_port(), **environment) for _ in range(2)]
    async with http_client(first.url) as here, http_client(second.url) as there:
        running = await begin(here, "say:a hold")
        waiting = [await begin(here, text) for text in ("say:b", "say:c", "say:d")]
        await until(lambda: site.begun()[running])
        await first.stop(signal.SIGKILL)
        for turn_id in (running, waiting[0], waiting[2]):
            assert (await there.json("POST", f"/process/{turn_id}/cancel"))[0] == 200
        await second.stop(signal.SIGKILL)
    third = await site.server(free_port(), **environment)
    async with http_client(third.url) as there:

        async def status_of(turn_id: str) -> str:
            _, turn = await there.json("GET", f"/process/{turn_id}")
            return str(turn["status"])

        async def are_all_over() -> bool:
            return {await status_of(turn_id) for turn_id in (running, *waiting)} <= {"canceled", "completed"}

        await until_answered(are_all_over)
        statuses = [await status_of(turn_id) for turn_id in (running, *waiting)]
        assert statuses == ["canceled", "canceled", "completed", "canceled"]
    assert site.begun() == {running: 1, waiting[1]: 1}
    assert await third.stop() == 0
