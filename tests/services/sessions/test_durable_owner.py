"""A process that is late, or not told, while it is in the middle of something: it never believes that a session is its
own which is not, and never has open turns that nobody knows of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from greenroom.actors.errors import SessionLost, StoreUnavailable
from greenroom.actors.events import TextDelta
from greenroom.services.durable import SessionTaken, TurnAccepted
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.head import folder_of
from greenroom.services.storage import Folder, FolderKey, Span, Storage
from kits.durable_endings_kit import KEY, ending, turn
from kits.flaky_storage import FlakyStorage


class SlowToRead(FlakyStorage):
    """Reads of cells wait at a gate."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.gate = asyncio.Event()
        self.reading = asyncio.Event()

    async def read(self, key: FolderKey, spans: Sequence[Span] = ()) -> Folder | None:
        if spans:
            self.reading.set()
            await self.gate.wait()
        return await super().read(key, spans)


@asynccontextmanager
async def started(link: FlakyStorage) -> AsyncIterator[DurableSessions]:
    store = DurableSessions(link, max_holds=1)
    await store.start()
    yield store
    await store.stop()


async def test_who_becomes_another_owner_amid_a_write_does_not_have_the_session() -> None:
    storage = MemoryStorage()
    link = SlowToRead(storage)
    async with started(link) as store:
        await store.accept(turn(1))
        store._owned.drop(KEY)
        writing = asyncio.create_task(store.append(KEY, "turn-1", 0, [TextDelta("a")]))
        await link.reading.wait()
        await storage.renew(store.owner, 0.0, "gone")
        await store._life.beat()
        link.gate.set()
        with pytest.raises(SessionLost):
            await writing
        assert isinstance(await store.accept(turn(2)), SessionTaken)
        folder = await storage.read(folder_of(KEY))
        assert folder is not None
        assert folder.head.owner == store.owner


async def test_a_session_that_was_taken_without_a_word_is_given_to_whoever_takes_it() -> None:
    storage = MemoryStorage()
    async with started(FlakyStorage(storage)) as gone:
        assert isinstance(await gone.accept(turn(1)), TurnAccepted)
        await storage.renew(gone.owner, 0.0, "gone")
        link = FlakyStorage(storage)
        async with started(link) as store:
            link.fault = "refused"
            with pytest.raises(StoreUnavailable):
                await store.accept(turn(2))
            link.fault = "unheard"
            taking = asyncio.create_task(store.take(KEY))
            await link.stuck.wait()
            settling = asyncio.create_task(store._acceptor.settle_all())
            await asyncio.sleep(0)  # it waits for what is under way
            taking.cancel()
            await asyncio.wait([taking, settling])
            assert await store.orphans(9) == [KEY]
            assert [entry.turn.id for entry in await store.take(KEY)] == ["turn-1"]
            assert isinstance(await store.accept(turn(2)), TurnAccepted)


async def test_a_turn_that_was_refused_and_taken_since_by_whoever_refused_it_is_not_removed() -> None:
    """Its acceptance was written, and nobody told; another process took it, and let it go."""
    storage = MemoryStorage()
    link = FlakyStorage(storage)
    async with started(link) as store, started(FlakyStorage(storage)) as other:
        link.fault = "unsure"
        with pytest.raises(StoreUnavailable):
            await store.accept(turn(1))
        await storage.renew(store.owner, 0.0, "gone")
        assert len(await other.take(KEY)) == 1
        await other.release(KEY, begun=True)
        assert len(await store.take(KEY)) == 1
        await store._acceptor.settle_all()
        await store.finish(KEY, ending(1))


async def test_an_ending_may_be_tried_again_after_another_was_tried_before_the_session_was_taken() -> None:
    link = FlakyStorage(MemoryStorage())
    async with started(link) as store:
        await store.accept(turn(1))
        link.fault = "refused"
        with pytest.raises(StoreUnavailable):
            await store.finish(KEY, ending(1, b"first"))
        await store.release(KEY, begun=True)
        assert await store.take(KEY)
        await end_at_second_try(store, link)


async def test_an_ending_may_be_tried_again_by_who_became_another_owner_amid_another() -> None:
    storage = MemoryStorage()
    link = FlakyStorage(storage)
    async with started(link) as store:
        await store.accept(turn(1))
        link.fault = "held"
        writing = asyncio.create_task(store.finish(KEY, ending(1, b"first")))
        await link.stuck.wait()
        await storage.renew(store.owner, 0.0, "gone")
        await store._life.beat()
        writing.cancel()
        await asyncio.wait([writing])
        assert store._here._tried == {}
        assert await store.take(KEY)
        await end_at_second_try(store, link)


async def end_at_second_try(store: DurableSessions, link: FlakyStorage) -> None:
    """It is written at the first, of which nobody is told."""
    link.fault = "unsure"
    with pytest.raises(StoreUnavailable):
        await store.finish(KEY, ending(1, b"second"))
    await store.finish(KEY, ending(1, b"second"))
    record = await store.load(KEY)
    assert record is not None
    assert record.state == b"second"
