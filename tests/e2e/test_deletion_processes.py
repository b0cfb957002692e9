"""A conversation that is deleted in another server than the one that works on it: nothing that was accepted is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from kits.http_client import HttpClient, body, http_client
from kits.server_process import server
from kits.webhook_receiver import SECRET, a_receiver

pytestmark = pytest.mark.slow

CONVERSATIONS = "/compatible-mode/v1/conversations"


async def begin(client: HttpClient, text: str, webhook: str) -> str:
    """A turn in the background; its id."""
    status, task = await client.json("POST", "/process/task", json=body(text, "s", webhook=webhook))
    assert status == 200, task
    return str(task["task_id"])


async def test_what_runs_in_it_is_cancelled_and_everybody_is_told(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    environment = {
        "NOTES": str(notes),
        "GREENROOM_WEBHOOK_SECRET": SECRET,
        "GREENROOM_WEBHOOK_PRIVATE": "127.0.0.1",
    }
    state = ("--state", f"sqlite:///{tmp_path}/sessions.db")
    async with (
        a_receiver() as receiver,
        server("plain.py", *state, env=environment) as first,
        server("plain.py", *state, env=environment) as second,
        http_client(first.url) as here,
        http_client(second.url) as there,
    ):
        assert await (await here.ask("hello", "s")).ending() == ("completed", "hello")
        running = await here.ask("stall", "s")
        assert await running.next_text() == "stalling"
        followed = await there.rejoin(running.id)
        waiting = [await begin(here, text, receiver.url) for text in ("stall", "never")]
        status, answer = await there.json("DELETE", f"{CONVERSATIONS}/s")
        assert (status, answer["deleted"]) == (200, True)
        for exchange in (running, followed):
            assert (await exchange.ending())[0] == "cancelled"
        told = await receiver.have(2)
        assert {(one.event["type"], one.event["data"]["id"]) for one in told} == {
            ("response.cancelled", turn_id) for turn_id in waiting
        }
        for turn_id in (running.id, *waiting):
            assert (await there.json("GET", f"/process/{turn_id}"))[0] == 404
        assert (await here.json("GET", f"{CONVERSATIONS}/s"))[0] == 404
        for client in (here, there):
            assert await (await client.ask("again", "s")).ending() == ("completed", "again")
        assert notes.read_text().split().count("cancelled") == 1, "what waited has not begun"
