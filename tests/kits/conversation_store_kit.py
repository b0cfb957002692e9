"""The conformance kit of conversation stores: what every `ConversationStore` must hold.

Subclass the kit and give it the store, not yet started::

    class TestInMemoryConversations(ConversationStoreKit):
        def store(self): return InMemoryConversations()
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import starmap

import pytest
from msgspec import structs

from greenroom.actors.errors import ConfigurationError
from greenroom.actors.messages import SessionKey
from greenroom.services.conversation_store import Conversation, ConversationStore, PendingItem
from kits.in_turn import TRICKY_KEYS

KEY = SessionKey("u", "conv_1")
FULL = Conversation(
    created_at=1_795_328_012.25,
    metadata={"topic": "ä\x00\U0001f600"},
    pending=(
        PendingItem("msg_1", b'{"type":"message"}'),
        PendingItem("msg_2", b'{"type":"message"}', "resp_1"),
    ),
    hidden=frozenset({"msg_0"}),
)


def becomes(conversation: Conversation | None) -> Callable[[Conversation | None], Conversation | None]:
    """The change to this, whatever there was."""
    return lambda before: conversation


def named(number: int) -> Callable[[Conversation | None], Conversation | None]:
    """The change that notes a number."""

    def change(before: Conversation | None) -> Conversation | None:
        before = before or Conversation(created_at=0.0)
        return structs.replace(before, metadata={**before.metadata, str(number): "x"})

    return change


class ConversationStoreKit(ABC):
    """What a conversation store must hold."""

    @abstractmethod
    def store(self) -> ConversationStore:
        """A new one, not started."""

    @asynccontextmanager
    async def started(self) -> AsyncIterator[ConversationStore]:
        store = self.store()
        await store.start()
        yield store
        await store.stop()

    async def test_what_was_put_comes_back_whole(self) -> None:
        async with self.started() as store:
            assert await store.get(KEY) is None
            assert await store.change(KEY, becomes(FULL)) == FULL
            assert await store.get(KEY) == FULL

    async def test_a_change_sees_what_there_was(self) -> None:
        seen: list[Conversation | None] = []

        def looks(before: Conversation | None) -> Conversation | None:
            seen.append(before)
            return FULL

        async with self.started() as store:
            for _ in range(2):
                await store.change(KEY, looks)
        assert seen == [None, FULL]

    async def test_a_conversation_can_be_removed_twice(self) -> None:
        async with self.started() as store:
            await store.change(KEY, becomes(FULL))
            for _ in range(2):
                assert await store.change(KEY, becomes(None)) is None
                assert await store.get(KEY) is None

    async def test_what_a_change_raises_comes_out_and_changes_nothing(self) -> None:
        def fails(before: Conversation | None) -> Conversation | None:
            raise KeyError("no")

        async with self.started() as store:
            await store.change(KEY, becomes(FULL))
            with pytest.raises(KeyError):
                await store.change(KEY, fails)
            assert await store.get(KEY) == FULL

    async def test_changes_at_once_are_all_made(self) -> None:
        async with self.started() as store:
            await asyncio.gather(*(store.change(KEY, named(number)) for number in range(16)))
            kept = await store.get(KEY)
        assert kept is not None
        assert set(kept.metadata) == {str(number) for number in range(16)}

    async def test_keys_that_differ_are_different_conversations(self) -> None:
        async with self.started() as store:
            for number, key in enumerate(starmap(SessionKey, TRICKY_KEYS)):
                await store.change(key, named(number))
            for number, key in enumerate(starmap(SessionKey, TRICKY_KEYS)):
                kept = await store.get(key)
                assert kept is not None
                assert kept.metadata == {str(number): "x"}

    async def test_it_is_not_used_before_its_start_or_after_its_end(self) -> None:
        store = self.store()
        with pytest.raises(ConfigurationError, match="not started"):
            await store.get(KEY)
        await store.start()
        await store.stop()
        with pytest.raises(ConfigurationError, match="not started"):
            await store.change(KEY, becomes(FULL))
