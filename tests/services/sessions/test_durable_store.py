"""Sessions on storages: the kits, and what is not the same on all."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from greenroom.actors.errors import ConfigurationError
from greenroom.actors.events import TextDelta
from greenroom.actors.messages import SessionKey
from greenroom.services.durable import TurnAccepted
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sqlite.storage import SqliteStorage
from greenroom.services.storage import Folder, FolderKey, Span, Storage
from greenroom.services.store import SessionStore
from kits.durable_endings_kit import KEY, LAST, SAID, ending, turn
from kits.durable_kit import DurableKit
from kits.flaky_storage import FlakyStorage
from kits.store_kit import StoreKit


class TestSessionsInMemoryAsAStore(StoreKit):
    def store(self, turns_kept: int, states_kept: int) -> SessionStore:
        return DurableSessions(MemoryStorage(), turns_kept=turns_kept, states_kept=states_kept)


class TestSessionsInMemory(DurableKit):
    def clients(self) -> tuple[Storage, Storage]:
        storage = MemoryStorage()
        return storage, storage


class TestSessionsInAFile(DurableKit):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.files = (tmp_path / f"{number}.db" for number in itertools.count())

    def clients(self) -> tuple[Storage, Storage]:
        file = next(self.files)
        return SqliteStorage(file), SqliteStorage(file)


class Counting(FlakyStorage):
    """Counts the cells that are read."""

    cells = 0

    async def read(self, key: FolderKey, spans: Sequence[Span] = ()) -> Folder | None:
        folder = await super().read(key, spans)
        if folder is not None:
            self.cells += sum(len(span) for span in folder.spans)
        return folder


async def test_whoever_follows_a_turn_reads_what_is_new() -> None:
    storage = Counting(MemoryStorage())
    store = DurableSessions(storage)
    await store.start()
    await store.accept(turn(1))
    for number in range(50):
        await store.append(KEY, "turn-1", number, [TextDelta(str(number))])
        before = storage.cells
        entry = await store.find("turn-1", None, number)
        assert entry is not None
        assert entry.events == [TextDelta(str(number))]
        assert storage.cells - before <= 3
    await store.append(KEY, "turn-1", 20, [TextDelta("again")])
    for first, words in ((50, []), (20, ["again"]), (18, ["18", "19", "again"])):
        entry = await store.find("turn-1", None, first)
        assert entry is not None
        assert entry.events == [TextDelta(word) for word in words]
    await store.stop()


async def test_a_turn_costs_two_writes_and_no_read() -> None:
    storage = Counting(MemoryStorage())
    store = DurableSessions(storage, turns_kept=10, states_kept=5, logs_kept=10)
    await store.start()
    reads = 0
    for number in range(200):
        assert await store.accept(turn(number)) == TurnAccepted(number + 1, number == 0)
        await store.finish(KEY, ending(number, b"%d" % number))
        reads += storage.cells
        storage.cells = 0
    assert reads == 0
    await store.stop()


async def test_idle_sessions_are_remembered_within_bounds() -> None:
    store = DurableSessions(MemoryStorage(), max_holds=10, hold_bytes=1_000)
    await store.start()
    keys = [SessionKey("u1", str(number)) for number in range(30)]
    for number, key in enumerate(keys):
        await store.accept(turn(number, key))
        await store.finish(key, ending(number, b"s" * 300))
    assert len(store._owned) == 3
    assert len(store._owned.locks) == 0
    for number, key in enumerate(keys):
        assert await store.accept(turn(100 + number, key)) == TurnAccepted(2, False)
        await store.finish(key, ending(100 + number, b"t" * 300))
        kept = await store.load(key)
        assert kept is not None
        assert kept.state == b"t" * 300
    await store.stop()


@pytest.mark.parametrize(
    "bounds",
    [
        {"turns_kept": 0},
        {"states_kept": 0},
        {"logs_kept": 0},
        {"lease_seconds": 0.0},
        {"lease_seconds": -1.0},
    ],
)
def test_bounds_that_make_no_sense_are_refused(bounds: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(bounds))):
        DurableSessions(MemoryStorage(), **bounds)


async def test_named_points_are_reached_in_order() -> None:
    """Where faults are put."""
    reached: list[str] = []
    store = DurableSessions(MemoryStorage(), reached=reached.append)
    await store.start()
    await store.accept(turn(1))
    await store.append(KEY, "turn-1", 0, SAID)
    await store.finish(KEY, ending(1, first=3, events=[LAST]))
    await store.accept(turn(2))
    await store.release(KEY, begun=True)
    await store.take(KEY)
    await store.forget(KEY)
    await store.stop()
    assert reached == [
        *("accept.before", "accept.written", "append.before", "append.written"),
        *("finish.before", "finish.written", "accept.before", "accept.written"),
        *("release.written", "take.written", "forget.written"),
    ]
