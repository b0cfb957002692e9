"""The conversations in memory: the kit, and their bounds."""

import pytest
from msgspec import structs

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.messages import SessionKey
from greenroom.services.conversation_store import ConversationStore, InMemoryConversations, PendingItem
from kits.conversation_store_kit import FULL, KEY, ConversationStoreKit, becomes
from kits.in_turn import Clock


class TestInMemoryConversations(ConversationStoreKit):
    def store(self) -> ConversationStore:
        return InMemoryConversations()


async def test_idle_conversations_are_forgotten_and_used_ones_are_not() -> None:
    clock = Clock()
    store = InMemoryConversations(idle_seconds=100.0, monotonic=clock)
    await store.start()
    idle = SessionKey("u", "idle")
    await store.change(idle, becomes(FULL))
    await store.change(KEY, becomes(FULL))
    for _ in range(3):
        clock.now += 60.0
        assert await store.get(KEY) is not None
    assert await store.get(idle) is None


async def test_over_the_bound_of_all_the_one_used_longest_ago_goes() -> None:
    store = InMemoryConversations(max_conversations=2)
    await store.start()
    for session_id in "abc":
        await store.change(SessionKey("u", session_id), becomes(FULL))
    assert [await store.get(SessionKey("u", session_id)) is not None for session_id in "abc"] == [
        False,
        True,
        True,
    ]


async def test_a_conversation_over_its_bound_is_refused_and_stays_as_it_was() -> None:
    store = InMemoryConversations(conversation_bytes=2_000)
    await store.start()
    await store.change(KEY, becomes(FULL))
    big = structs.replace(FULL, pending=(PendingItem("msg_9", b"x" * 2_000),))
    with pytest.raises(InvalidRequest, match="let a response take up") as refused:
        await store.change(KEY, becomes(big))
    assert refused.value.field == "items"
    assert await store.get(KEY) == FULL


async def test_what_is_removed_takes_no_room() -> None:
    store = InMemoryConversations()
    await store.start()
    await store.change(KEY, becomes(FULL))
    assert "0 bytes" not in repr(store)
    await store.change(KEY, becomes(None))
    assert "0, 0 bytes" in repr(store)
