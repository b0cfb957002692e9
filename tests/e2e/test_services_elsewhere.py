"""The tutorial's services, in another place than the sessions: a server that has had no turn yet forks and deletes what
a session has in them, beside another one and after a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kits.redis_server import RedisServer
from kits.sdk_answers import check_wire
from kits.sdk_clients import Wire, sdk
from kits.server_process import server

pytestmark = pytest.mark.slow


@pytest.fixture(params=["file", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the services keep what they have."""
    if request.param == "file":
        return str(tmp_path / "services.db")
    redis: RedisServer = request.getfixturevalue("redis_server")
    return redis.url()


@asynccontextmanager
async def life(folder: Path, place: str) -> AsyncIterator[Any]:
    """A client of a server whose sessions are in a file."""
    wire = Wire()
    options = "counting.py", "--state", f"sqlite:///{folder}/sessions.db"
    async with server(*options, env={"COUNTING_AT": place}) as process, sdk(process.url, wire) as client:
        yield client
        assert await process.stop() == 0
    check_wire(wire)


async def say(client: Any, **options: Any) -> Any:
    response = await client.responses.create(model="m", input="hi", **options)
    assert response.status == "completed", response.error
    return response


async def test_a_server_that_has_had_no_turn_forks_and_deletes_what_services_have(
    tmp_path: Path, place: str
) -> None:
    async with life(tmp_path, place) as one:
        first = await say(one)
        second = await say(one, previous_response_id=first.id)
        third = await say(one, previous_response_id=second.id)
        assert third.output_text == "3 3"
        async with life(tmp_path, place) as other:
            assert (await say(other, previous_response_id=second.id)).output_text == "3 3"
            assert (await say(one, previous_response_id=third.id)).output_text == "4 4"
        conversation = await one.conversations.create()
        assert (await say(one, conversation=conversation.id)).output_text == "1 1"
    async with life(tmp_path, place) as one:
        assert (await say(one, previous_response_id=first.id)).output_text == "2 2"
    async with life(tmp_path, place) as one:
        await one.conversations.delete(conversation.id)
        assert (await say(one, extra_body={"session_id": conversation.id})).output_text == "1 1"
