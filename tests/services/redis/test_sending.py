"""Commands that are sent in parts are the same commands, and one that is broken off takes its connection along."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Connection, UnixDomainSocketConnection

from greenroom.services.redis import sending
from greenroom.services.redis.sending import parts_of, sending_in_parts
from greenroom.services.redis.storage import RedisStorage
from greenroom.services.storage import Cell, Change, FolderKey, Span
from kits.redis_server import RedisServer

PART = 1000
KEY = FolderKey("kind", "u", "s")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PART", PART)


@pytest.fixture
def storage(redis_server: RedisServer) -> RedisStorage:
    return RedisStorage(redis_server.url(), prefix=uuid.uuid4().hex, connections=1)


@given(command=st.lists(st.integers(0, 3 * PART).map(bytes), min_size=1, max_size=8))
def test_the_parts_are_the_command(command: list[bytes]) -> None:
    parts = list(parts_of(command))
    assert b"".join(b"".join(part) for part in parts) == b"".join(command)
    assert max(sum(map(len, part)) for part in parts) <= PART


def test_each_kind_of_connection_has_one_that_sends_in_parts() -> None:
    kinds = {sending_in_parts(kind) for kind in (Connection, UnixDomainSocketConnection, Connection)}
    assert len(kinds) == 2


async def test_no_step_sends_more_than_a_part(storage: RedisStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    sent, writelines = list[int](), asyncio.StreamWriter.writelines

    def noted(self: asyncio.StreamWriter, data: Any) -> None:
        data = list(data)
        sent.append(sum(map(len, data)))
        writelines(self, data)

    monkeypatch.setattr(asyncio.StreamWriter, "writelines", noted)
    put = [(Cell("one", 1), b"1" * (10 * PART)), (Cell("one", 2), b"2" * (3 * PART + 1))]
    await storage.start()
    await storage.write([Change(key=KEY, put=put)])
    folder = await storage.read(KEY, [Span("one")])
    await storage.stop()
    assert folder is not None
    assert folder.spans == (((1, put[0][1]), (2, put[1][1])),)
    assert sum(sent) > 13 * PART
    assert max(sent) <= PART


async def test_one_that_is_broken_off_is_not_gone_on_with(
    storage: RedisStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent again, whole, and done once."""
    await storage.start()
    parts, closing = sending.parts_of, True
    change = Change(key=KEY, put=[(Cell("one", 1), b"1" * (50 * PART))])

    def closed_between(command: list[bytes]) -> Any:
        nonlocal closing
        for number, part in enumerate(parts(command)):
            taken.append(number)
            yield part
            if closing and number == 1:
                closing = False
                link: Any = storage._link
                closed.append(asyncio.create_task(link._client.connection_pool.disconnect()))

    closed, taken = list[asyncio.Task[None]](), list[int]()
    monkeypatch.setattr(sending, "parts_of", closed_between)
    await storage.write([change])  # sent again, as the connection broke over it
    assert [task.done() for task in closed] == [True]
    assert taken.index(0, 1) < max(taken), "the first time it was not sent to its end"
    folder = await storage.read(KEY, [Span("one")])
    assert folder is not None
    assert folder.head.fence.revision == 1
    await storage.stop()
