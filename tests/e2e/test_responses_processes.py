"""openai-python with two servers on one store: whichever is asked has the responses of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from greenroom.services.durable_conversations import KIND
from greenroom.services.storage import Fence, FolderKey
from greenroom.services.store_urls import storage_at
from greenroom.transports.json_checks import owner
from kits.sdk_answers import check_wire
from kits.sdk_clients import Wire, sdk
from kits.server_process import server
from kits.until import until_answered

pytestmark = pytest.mark.slow


@asynccontextmanager
async def two_servers(folder: Path) -> AsyncIterator[tuple[Any, Any]]:
    """Clients of two servers on one file."""
    state, wire = f"sqlite:///{folder}/sessions.db", Wire()
    async with (
        server("telling.py", "--state", state) as first,
        server("telling.py", "--state", state) as second,
        sdk(first.url, wire) as one,
        sdk(second.url, wire) as other,
    ):
        yield one, other
    check_wire(wire)


async def say(client: Any, text: str, **options: Any) -> Any:
    response = await client.responses.create(model="m", input=text, **options)
    assert response.status == "completed", response.error
    return response


async def test_a_response_is_continued_forked_and_deleted_on_either(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as (one, other):
        first = await say(one, "one")
        second = await say(other, "two", previous_response_id=first.id)
        assert second.output_text.split() == ["one", "two"]
        third = await say(one, "three", previous_response_id=second.id)
        assert third.output_text.split() == ["one", "two", "three"]
        fork = await say(other, "other", previous_response_id=first.id)
        assert fork.output_text.split() == ["one", "other"]
        await other.responses.delete(second.id)
        for client in (one, other):
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(second.id)
            assert (await client.responses.retrieve(third.id)).output_text == third.output_text


async def test_a_chain_is_one_conversation_whichever_server_is_asked(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as (one, other):
        conversation = await one.conversations.create()
        newest = await say(one, "0", conversation=conversation.id)
        for number, client in enumerate([other, one, other, other, one, one], 1):
            newest = await say(client, str(number), previous_response_id=newest.id)
            assert newest.conversation is not None
            assert newest.conversation.id == conversation.id
        assert newest.output_text.split() == list("0123456")


async def test_a_response_that_runs_elsewhere_is_followed_and_cancelled(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as (one, other):
        running = await one.responses.create(model="m", input="hold", background=True)
        found = await other.responses.retrieve(running.id)
        assert found.status in ("queued", "in_progress")
        half, told = asyncio.Event(), []

        async def follow() -> None:
            async for event in await other.responses.retrieve(running.id, stream=True):
                told.append(event.type)
                if event.type == "response.output_text.delta":
                    half.set()

        following = asyncio.create_task(follow())
        await asyncio.wait_for(half.wait(), 20)
        assert (await other.responses.cancel(running.id)).status == "cancelled"
        await asyncio.wait_for(following, 20)
        assert told[0] == "response.created"
        assert (await one.responses.retrieve(running.id)).status == "cancelled"


async def test_a_conversation_is_shared(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as (one, other):
        conversation = await one.conversations.create()
        changes = [
            (one, other)[number % 2].conversations.items.create(
                conversation.id, items=[{"type": "message", "role": "user", "content": str(number)}]
            )
            for number in range(10)
        ]
        await asyncio.gather(*changes)
        response = await say(other, "last", conversation=conversation.id)
        heard = response.output_text.split()
        assert sorted(heard[:-1]) == sorted(map(str, range(10)))
        assert heard[-1] == "last"
        response = await say(one, "more", conversation=conversation.id)
        assert response.output_text.split() == [*heard, "more"]


async def test_an_item_goes_to_one_turn_only_though_another_server_is_asked_meanwhile(tmp_path: Path) -> None:
    storage = storage_at(f"sqlite:///{tmp_path}/sessions.db")
    async with two_servers(tmp_path) as (one, other):
        item = {"type": "message", "role": "user", "content": "item"}
        conversation = await one.conversations.create(items=[item])
        holding = await one.responses.create(
            model="m", input="hold", conversation=conversation.id, background=True
        )
        await storage.start()
        key = FolderKey(KIND, owner(None, None, conversation.id), conversation.id)

        async def looked_at_since(fence: Fence) -> bool:
            folder = await storage.read(key)
            return folder is not None and folder.head.fence != fence

        before = await storage.read(key)
        assert before is not None
        waiting = asyncio.create_task(say(other, "next", conversation=conversation.id))
        await until_answered(lambda: looked_at_since(before.head.fence))
        await storage.stop()
        await one.responses.cancel(holding.id)
        assert (await asyncio.wait_for(waiting, 30)).output_text.split() == ["next"]
        more = await say(other, "more", conversation=conversation.id)  # the cancelled turn's item waits again
        assert more.output_text.split() == ["next", "item", "more"]
