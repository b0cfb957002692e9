"""Conversations in storages: the kit, and what several processes do to one conversation."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs

from greenroom.actors.errors import InvalidRequest
from greenroom.services.conversation_store import Conversation, PendingItem
from greenroom.services.durable_conversations import DurableConversations
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.storage import Storage
from kits.conversation_store_kit import FULL, KEY, becomes, named
from kits.distant_storage import DistantStorage
from kits.on_storage_kit import ConversationsOnStorage


class TestConversationsInMemory(ConversationsOnStorage):
    def storage(self) -> Storage:
        return MemoryStorage()


async def test_changes_from_two_processes_are_all_made() -> None:
    storage = DistantStorage()
    one, other = DurableConversations(storage), DurableConversations(storage)
    async with one, other:
        changes = [(one, other)[number % 2].change(KEY, named(number)) for number in range(40)]
        await asyncio.gather(*changes)
        kept = await one.get(KEY)
    assert kept is not None
    assert set(kept.metadata) == {str(number) for number in range(40)}


async def test_a_change_that_changes_nothing_is_not_written() -> None:
    async with DurableConversations(MemoryStorage()) as store:
        assert await store.change(KEY, lambda before: before) is None
        await store.change(KEY, becomes(FULL))
        assert await store.change(KEY, lambda before: before) == FULL


async def test_over_a_conversation_s_bytes_it_is_refused_and_stays_as_it_was() -> None:
    items = tuple(PendingItem(f"msg_{number}", b"x" * 100) for number in range(100))

    def adds(before: Conversation | None) -> Conversation:
        assert before is not None
        return structs.replace(before, pending=items)

    async with DurableConversations(MemoryStorage(), conversation_bytes=10_000) as store:
        await store.change(KEY, becomes(FULL))
        with pytest.raises(InvalidRequest, match="may hold 10000") as refused:
            await store.change(KEY, adds)
        assert refused.value.field == "items"
        assert await store.get(KEY) == FULL
