"""openai-python: responses and conversations are there after the server was killed, and go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from greenroom.actors.events import TextDelta
from greenroom.services.durable import is_durable
from greenroom.services.store_urls import store_at
from kits.sdk_answers import check_wire
from kits.sdk_clients import Wire, sdk
from kits.server_process import server
from kits.stage import check_log
from kits.until import until_answered

pytestmark = pytest.mark.slow


@pytest.fixture
def state(tmp_path: Path) -> str:
    """A store in a file; a process that was killed is known to be gone soon."""
    return f"sqlite:///{tmp_path}/sessions.db?lease_seconds=2"


@asynccontextmanager
async def life(state: str) -> AsyncIterator[Any]:
    """A client of a server on that store, which is killed at the end."""
    wire = Wire()
    async with server("telling.py", "--state", state) as process, sdk(process.url, wire) as client:
        yield client
        process.process.kill()
        await process.ended()
        check_log(process.log)
    check_wire(wire)


async def say(client: Any, text: str, **options: Any) -> Any:
    response = await client.responses.create(model="m", input=text, **options)
    assert response.status == "completed", response.error
    return response


async def test_a_response_is_retrieved_continued_and_forked_after_a_kill(state: str) -> None:
    async with life(state) as client:
        first = await say(client, "one", metadata={"a": "b"}, user="alice")
        second = await say(client, "two", previous_response_id=first.id)
        deleted = await say(client, "lost")
        await client.responses.delete(deleted.id)
        unstored = await say(client, "gone", store=False)
    async with life(state) as client:
        again = await client.responses.retrieve(first.id)
        told = first.to_dict()
        del told["response"]  # which creating alone repeats, for the tutorial's step 7
        assert again.to_dict() == told
        assert (again.metadata, again.user) == ({"a": "b"}, "alice")
        items = [item.to_dict() async for item in await client.responses.input_items.list(second.id)]
        assert [item["content"][0]["text"] for item in items] == ["two"]
        third = await say(client, "three", previous_response_id=second.id)
        assert third.output_text.split() == ["one", "two", "three"]
        fork = await say(client, "other", previous_response_id=first.id)
        assert fork.output_text.split() == ["one", "other"]
        for identity in (deleted.id, unstored.id):
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(identity)
    async with life(state) as client:
        assert (await say(client, "last", previous_response_id=fork.id)).output_text.split() == [
            "one",
            "other",
            "last",
        ]
        assert (await say(client, "four", previous_response_id=third.id)).output_text.split() == [
            "one",
            "two",
            "three",
            "four",
        ]
        await client.responses.delete(first.id)
    async with life(state) as client:
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(first.id)
        assert (await client.responses.retrieve(second.id)).output_text.split() == ["one", "two"]


async def test_a_response_is_streamed_from_any_event_after_a_kill(state: str) -> None:
    async with life(state) as client:
        stream = await client.responses.create(model="m", input="one two", stream=True)
        told = [event.to_dict() async for event in stream]
    identity = told[0]["response"]["id"]
    async with life(state) as client:
        for after in (None, 0, len(told) // 2, len(told) - 2):
            options = {} if after is None else {"starting_after": after}
            stream = await client.responses.retrieve(identity, stream=True, **options)
            wanted = told if after is None else told[after + 1 :]
            assert [event.to_dict() async for event in stream] == wanted


async def test_a_response_that_ran_when_its_server_was_killed_has_failed_with_what_it_had_said(
    state: str,
) -> None:
    async with life(state) as client:
        first = await say(client, "one")
        stream = await client.responses.create(
            model="m", input="hold", previous_response_id=first.id, background=True, stream=True
        )
        told: list[dict[str, Any]] = []
        async for event in stream:
            told.append(event.to_dict())
            if event.type == "response.output_text.delta":
                break
        await written(state, told[0]["response"]["id"])
        await stream.close()
    identity = told[0]["response"]["id"]
    async with life(state) as client:
        rest = await client.responses.retrieve(
            identity, stream=True, starting_after=told[-1]["sequence_number"]
        )
        events = [event.to_dict() async for event in rest]
        assert [event["sequence_number"] for event in events] == list(
            range(told[-1]["sequence_number"] + 1, told[-1]["sequence_number"] + 1 + len(events))
        )
        assert events[-1]["type"] == "response.failed"
        failed = await client.responses.retrieve(identity)
        assert (failed.status, failed.output_text) == ("failed", "half")
        again = await say(client, "two", previous_response_id=first.id)
        assert again.output_text.split() == ["one", "two"]


async def test_a_response_that_was_deleted_while_it_ran_does_not_come_back_after_a_kill(state: str) -> None:
    async with life(state) as client:
        first = await say(client, "one")
        running = await client.responses.create(
            model="m", input="hold", previous_response_id=first.id, background=True
        )
        await written(state, running.id)
        await client.responses.delete(running.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(running.id)
    async with life(state) as client:

        async def gone() -> bool:
            try:
                await client.responses.retrieve(running.id)
            except openai.NotFoundError:
                return True
            return False

        await until_answered(gone)
        again = await say(client, "two", previous_response_id=first.id)
        assert again.output_text.split() == ["one", "two"]


async def written(state: str, identity: str) -> None:
    """Wait until what was said is in the store."""
    store = store_at(state)
    assert is_durable(store)
    await store.start()

    async def half() -> bool:
        entry = await store.find(identity, None)
        return entry is not None and any(isinstance(event, TextDelta) for event in entry.events)

    await until_answered(half)
    await store.stop()


async def test_a_conversation_is_there_after_a_kill(state: str) -> None:
    async with life(state) as client:
        waiting = {"type": "message", "role": "user", "content": "waiting"}
        conversation = await client.conversations.create(metadata={"topic": "kills"}, items=[waiting])
        first = await say(client, "one", conversation=conversation.id)
        assert first.output_text.split() == ["waiting", "one"]
        listed = await client.conversations.items.list(conversation.id, order="asc")
        items = [item.to_dict() async for item in listed]
        await client.conversations.items.create(
            conversation.id, items=[{"type": "message", "role": "user", "content": "also"}]
        )
        hidden = items[0]["id"]
        await client.conversations.items.delete(hidden, conversation_id=conversation.id)
        gone = await client.conversations.create()
        await client.conversations.delete(gone.id)
    async with life(state) as client:
        again = await client.conversations.retrieve(conversation.id)
        assert again.to_dict() == conversation.to_dict()
        listed = await client.conversations.items.list(conversation.id, order="asc")
        now = [item.to_dict() async for item in listed]
        assert now[:-1] == items[1:]
        assert now[-1]["content"][0]["text"] == "also"
        second = await say(client, "two", conversation=conversation.id)
        assert second.output_text.split() == ["waiting", "one", "also", "two"]
        with pytest.raises(openai.NotFoundError):
            await client.conversations.retrieve(gone.id)
