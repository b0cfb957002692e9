"""What was not to be stored is not found in the store when its server has been killed."""

from __future__ import annotations

import signal
import sqlite3
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kits.http_client import http_client
from kits.server_process import server
from kits.until import until_answered

pytestmark = pytest.mark.slow

PATH = "/compatible-mode/v1/responses"


def holds(path: Path, word: bytes) -> bool:
    """Whether the word is anywhere in the store."""
    with sqlite3.connect(path) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = (row for table in tables for row in db.execute(f'SELECT * FROM "{table}"'))
        return any(isinstance(cell, bytes) and word in cell for row in rows for cell in row)


async def respond(socket: aiohttp.ClientWebSocketResponse, **fields: Any) -> str:
    """A response that is not to be stored, by its id."""
    await socket.send_json({"type": "response.create", "store": False, **fields})
    while (event := await socket.receive_json())["type"] != "response.completed":
        assert event["type"] not in ("error", "response.failed"), event
    response_id: str = event["response"]["id"]
    return response_id


async def test_responses_of_a_socket_that_was_open(tmp_path: Path) -> None:
    store = tmp_path / "sessions.db"

    def process() -> Any:
        return server(
            "plain.py",
            "--state",
            f"sqlite:///{store}?lease_seconds=1",
            env={"NOTES": str(tmp_path / "notes")},
        )

    async def is_gone() -> bool:
        return not holds(store, b"secret")

    async with (
        process() as first,
        http_client(first.url) as client,
        client.http.ws_connect(client.url + PATH) as socket,
    ):
        made = await respond(socket, input="secret 1")
        await respond(socket, input="secret 2", previous_response_id=made)
        assert holds(store, b"secret")
        await first.stop(signal.SIGKILL)
    assert holds(store, b"secret")
    async with process() as second:
        await until_answered(is_gone)
        assert await second.stop() == 0, second.log
