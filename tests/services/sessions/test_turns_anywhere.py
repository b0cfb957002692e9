"""A session that is deleted and begins anew while one of its turns is looked for: its numbers are other turns' then."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from greenroom.services.durable import Ending
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.storage import Named
from kits.cut_storage import CutStorage
from kits.durable_endings_kit import KEY, ending, turn


class Between(CutStorage):
    """`between`: what is done after the next look at a name."""

    between: Callable[[], Awaitable[None]] | None = None

    async def lookup(self, name: bytes) -> Named | None:
        found = await super().lookup(name)
        between, self.between = self.between, None
        if between is not None:
            await between()
        return found


@pytest.fixture
async def store() -> AsyncIterator[DurableSessions]:
    """One that is started, and has a turn that is asked for just before its session is deleted and begins anew."""
    storage = Between(MemoryStorage())
    store = DurableSessions(storage)
    await store.start()
    await store.accept(turn(1))

    async def begins_anew() -> None:
        await store.forget(KEY)
        await store.accept(turn(2))

    storage.between = begins_anew
    yield store
    await store.stop()


async def test_no_other_turn_is_found_in_its_place(store: DurableSessions) -> None:
    assert await store.find("turn-1", None) is None


async def test_nor_known_as_the_one_that_is_sent_again(store: DurableSessions) -> None:
    assert await store.known(turn(1)) is None


async def test_no_other_is_removed(store: DurableSessions) -> None:
    storage = store.storage
    assert isinstance(storage, Between)
    begins_anew = storage.between

    async def and_ends() -> None:
        assert begins_anew is not None
        await begins_anew()
        await store.finish(KEY, ending(2))

    storage.between = and_ends
    assert not await store.remove("turn-1", None)
    assert await store.find("turn-2", None) is not None


async def test_the_ending_of_no_other_is_left(store: DurableSessions) -> None:
    assert not await store.leave_ending("turn-1", None)
    await store.finish(KEY, Ending(turn_id="turn-2", kept=False))
    assert await store.find("turn-2", None) is None
