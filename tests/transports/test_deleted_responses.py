"""What is left of a response that was deleted: its session knows what was said, and nothing gives the response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from greenroom import InMemoryResponseStore
from greenroom.actors.errors import StoreUnavailable
from greenroom.services.response_store import ResponseRecord
from kits.memory_app import Memory
from kits.responses_http import ResponsesClient, responses_of
from kits.until import until, until_answered

KEY = {"Idempotency-Key": "key-1"}


@pytest.fixture(params=["memory", "file"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Of applications: where their sessions are."""
    return {} if request.param == "memory" else {"state": f"sqlite:///{tmp_path}/sessions.db"}


@asynccontextmanager
async def two_processes(path: Path) -> AsyncIterator[tuple[Memory, ResponsesClient, ResponsesClient]]:
    """Two applications on one file; the first one's `Memory`, and a client of each."""
    async with AsyncExitStack() as stack:
        one, other = (Memory(state=f"sqlite:///{path}/sessions.db") for _ in range(2))
        first = await stack.enter_async_context(responses_of(one.app))
        second = await stack.enter_async_context(responses_of(other.app))
        yield one, first, second


async def create(client: ResponsesClient, text: str, **fields: Any) -> dict[str, Any]:
    """A response that may be asked for again."""
    answer = await client.ask("POST", "/responses", json={"input": text, **fields}, headers=KEY)
    assert answer.status == 200, answer
    body: dict[str, Any] = answer.body
    return body


async def delete(client: ResponsesClient, response_id: str) -> int:
    return (await client.ask("DELETE", f"/responses/{response_id}")).status


async def asked_for(client: ResponsesClient, response_id: str) -> set[int]:
    """The statuses of all that shows a turn."""
    process = client.plain.url + "/process"
    asked = [
        ("GET", f"{client.url}/responses/{response_id}"),
        ("GET", f"{client.url}/responses/{response_id}/input_items"),
        ("GET", f"{process}/{response_id}"),
        ("GET", f"{process}/{response_id}/events"),
        ("GET", f"{process}/task/{response_id}"),
        ("POST", f"{process}/{response_id}/cancel"),
    ]
    statuses = set()
    for method, url in asked:
        async with client.http.request(method, url) as response:
            statuses.add(response.status)
            await response.read()
    return statuses


async def test_nothing_gives_a_deleted_response(options: dict[str, Any]) -> None:
    memory = Memory(**options)
    async with responses_of(memory.app) as client:
        made = await create(client, "x", conversation="c")
        assert await asked_for(client, made["id"]) == {200}
        assert await delete(client, made["id"]) == 200
        assert await asked_for(client, made["id"]) == {404}
        assert await delete(client, made["id"]) == 404
        assert (await client.create("y", conversation="c")).text == "x/y"  # the session knows it


async def test_a_request_that_is_repeated_after_the_deletion_is_a_new_one(options: dict[str, Any]) -> None:
    memory = Memory(**options)
    async with responses_of(memory.app) as client:
        made = await create(client, "x")
        assert (await create(client, "x"))["id"] == made["id"]
        await delete(client, made["id"])
        assert (await create(client, "x"))["id"] != made["id"]
    assert memory.runs["x"] == 2


async def test_what_was_deleted_while_it_ran_goes_with_its_end(options: dict[str, Any]) -> None:
    memory = Memory(**options)
    async with responses_of(memory.app) as client:
        stream = await client.stream("wait", background=True)
        await stream.until("response.output_text.delta")
        assert await delete(client, stream.id) == 200
        status, turn = await client.plain.json("GET", f"/process/{stream.id}")
        assert (status, turn["status"]) == (200, "in_progress")  # it runs, and can be cancelled
        memory.gate.set()
        await stream.rest()

        async def gone() -> bool:
            return await asked_for(client, stream.id) == {404}

        await until_answered(gone)


async def test_a_deletion_waits_for_the_store_to_have_it() -> None:
    class Slow(InMemoryResponseStore):
        def __init__(self) -> None:
            super().__init__()
            self.goes_on = asyncio.Event()

        async def put(self, record: ResponseRecord) -> None:
            await self.goes_on.wait()
            await super().put(record)

    responses = Slow()
    async with responses_of(Memory(responses=responses).app) as client:
        made = await create(client, "x")
        deleting = asyncio.ensure_future(delete(client, made["id"]))
        assert await asked_for(client, made["id"]) == {200}  # the deletion is on its way, and waits
        responses.goes_on.set()
        assert await deleting == 200
        assert await asked_for(client, made["id"]) == {404}


async def test_a_deletion_that_fails_can_be_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(InMemoryResponseStore):
        away = True

        async def delete(self, principal: str | None, turn_id: str) -> bool:
            if self.away:
                raise StoreUnavailable("away")
            return await super().delete(principal, turn_id)

    responses = Failing()
    memory = Memory(responses=responses)
    async with responses_of(memory.app) as client:
        made = await create(client, "x")
        assert await delete(client, made["id"]) == 503
        stream = await client.stream("wait", background=True)
        await stream.until("response.output_text.delta")
        assert await delete(client, stream.id) == 200
        memory.gate.set()
        await stream.rest()
        await until(lambda: f"response {stream.id}, deleted while it ran, is still kept" in caplog.text)
        responses.away = False
        for response_id in (made["id"], stream.id):
            assert await delete(client, response_id) == 200
            assert await asked_for(client, response_id) == {404}


async def test_who_runs_it_gives_it_no_more_when_another_process_has_deleted_it(tmp_path: Path) -> None:
    async with two_processes(tmp_path) as (memory, one, other):
        made = await create(one, "x")
        assert await delete(other, made["id"]) == 200
        for client in (one, other):
            assert await asked_for(client, made["id"]) == {404}
        again = await create(one, "x")
        assert again["id"] != made["id"]
        assert await delete(other, again["id"]) == 200
        assert (await create(one, "x"))["id"] not in (
            made["id"],
            again["id"],
        )  # nobody asked for it meanwhile
        assert memory.runs["x"] == 3
