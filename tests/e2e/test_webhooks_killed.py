"""Webhooks of a server that is killed: the next one, on the same store, tells what that one had not."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from kits.http_client import body, http_client
from kits.server_process import server
from kits.webhook_receiver import SECRET, Receiver, a_receiver

pytestmark = pytest.mark.slow


def environment(folder: Path) -> Mapping[str, str]:
    return {
        "NOTES": str(folder / "notes"),
        "GREENROOM_WEBHOOK_SECRET": SECRET,
        "GREENROOM_WEBHOOK_PRIVATE": "127.0.0.1",
    }


def state(folder: Path) -> tuple[str, str]:
    return "--state", f"sqlite:///{folder}/sessions.db?lease_seconds=1"


async def begin(url: str, receiver: Receiver, session: str) -> str:
    """A turn in the background; its id."""
    async with http_client(url) as client:
        request = body("hello", session, webhook=receiver.url)
        status, task = await client.json("POST", "/process/task", json=request)
        assert status == 200, task
        return str(task["task_id"])


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("answer", [500, hang], ids=["refused", "hanging"])
async def test_a_killed_servers_webhooks_arrive_by_the_next(answer: Any, tmp_path: Path) -> None:
    turns = set()
    async with a_receiver() as receiver:
        receiver.answers = [answer] * 3
        async with server("plain.py", *state(tmp_path), env=environment(tmp_path)) as first:
            for number in range(3):
                turns.add(await begin(first.url, receiver, f"s{number}"))
            before = [*(await receiver.have(3))]
            await first.stop(signal.SIGKILL)
        async with server("plain.py", *state(tmp_path), env=environment(tmp_path)) as second:
            after = (await receiver.have(6))[3:]
            for received in after:
                received.check()
                assert received.event["type"] == "response.completed"
            assert {received.event["data"]["id"] for received in after} == turns
            assert {one.id: one.body for one in before} == {one.id: one.body for one in after}
            async with http_client(second.url) as client:
                for received in after:
                    status, response = await client.json("GET", received.event["data"]["url"])
                    assert (status, response["status"]) == (200, "completed")
            assert await second.stop() == 0, second.log
        assert len(receiver.received) == 6
