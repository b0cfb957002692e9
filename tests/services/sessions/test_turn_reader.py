"""Turns read in parts: what is found is all that was written, whatever is written meanwhile, and no part is large."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.events import Event, TextDelta, TurnCompleted
from greenroom.services.durable import Ending, TurnEntry
from greenroom.services.durable_responses import NO_EVENTS
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions import aside, turn_reader
from greenroom.services.sessions import log as session_log
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.storage import Folder, FolderKey, Span
from kits.cut_storage import CutStorage
from kits.sharing import KEY
from kits.system import EPOCH, turn

LARGE = 100
"""Bytes."""
AROUND = 30
"""Bytes of what is around a text, at most."""
ENDING = TurnCompleted(EPOCH)
SIZES = st.lists(st.sampled_from([1, 1, 1, 40, 90, 300]), max_size=12)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks so small that all bounds are met."""
    monkeypatch.setattr(turn_reader, "LARGE", LARGE)
    monkeypatch.setattr(aside, "LARGE", 10 * LARGE)
    monkeypatch.setattr(session_log, "SINGLE", 8)
    monkeypatch.setattr(session_log, "CHUNK_BYTES", 60)


class Parts(CutStorage):
    """A storage that others write to while a turn is read. `parts`: the sizes of the chunks of each reading.
    `between`: what is done after each reading of a log, until there is nothing left."""

    def __init__(self) -> None:
        super().__init__(MemoryStorage())
        self.parts: list[list[int]] = []
        self.between: list[Callable[[], Awaitable[None]]] = []

    async def read(self, key: FolderKey, spans: Sequence[Span] = ()) -> Folder | None:
        folder = await super().read(key, spans)
        if len(spans) == 3:
            if folder is not None:
                self.parts.append([len(raw) for _, raw in folder.spans[1]])
            if self.between:
                await self.between.pop(0)()
        return folder


class Writer:
    """A turn, its owner, and the log it should have."""

    def __init__(self) -> None:
        self.storage = Parts()
        self.store = DurableSessions(MemoryStorage())
        self.log: list[Event] = []

    async def start(self) -> None:
        self.store = DurableSessions(self.storage)
        await self.store.start()
        await self.store.accept(turn(id="t"))

    async def say(self, size: int, back: bool = False) -> None:
        """Add an event. `back`: whether nobody knew that the one before was written: it is once more, with this one."""
        self.log.append(TextDelta("x" * size))
        first = max(0, len(self.log) - 1 - back)
        await self.store.append(KEY, "t", first, self.log[first:])

    async def end(self, back: bool = False) -> None:
        first = max(0, len(self.log) - back)
        self.log.append(ENDING)
        await self.store.finish(KEY, Ending(turn_id="t", first=first, events=self.log[first:]))

    async def read(self, first: int = 0) -> TurnEntry:
        entry = await self.store.find("t", None, first)
        assert entry is not None
        return entry


@given(sizes=SIZES, ended=st.booleans(), first=st.integers(0, 14))
async def test_a_log_is_read_in_parts_from_any_event_on(sizes: list[int], ended: bool, first: int) -> None:
    writer = Writer()
    await writer.start()
    for size in sizes:
        await writer.say(size)
    if ended:
        await writer.end()
    for start in (0, first, first):
        entry = await writer.read(start)
        assert entry.events == writer.log[start:]
        assert entry.status == ("ended" if ended else "running")
    for part in writer.storage.parts:
        assert sum(sorted(part)[:-1]) <= turn_reader.MOST * LARGE
    await writer.store.stop()


@given(sizes=SIZES, during=SIZES, back=st.booleans(), ended=st.booleans(), first=st.integers(0, 6))
async def test_whoever_writes_meanwhile_is_read_whole(
    sizes: list[int], during: list[int], back: bool, ended: bool, first: int
) -> None:
    """Also what is written again, as nobody knew that it was written."""
    writer = Writer()
    await writer.start()
    for size in sizes:
        await writer.say(size)
    await writer.read()
    writer.storage.between = [lambda size=size: writer.say(size, back) for size in during]  # type: ignore[misc]
    if ended:
        writer.storage.between.append(lambda: writer.end(back))
    found, read = list[Event](writer.log[:first]), True
    while read:
        entry = await writer.read(len(found))
        found += entry.events
        read = bool(writer.storage.between) or (entry.status != "ended" and ended)
        assert found == writer.log[: len(found)]
        assert entry.status != "ended" or found[-1:] == [ENDING]
    if not ended:
        await writer.say(1)  # after a large chunk that was written again it is seen only then
    found += (await writer.read(len(found))).events
    assert found == writer.log
    await writer.store.stop()


async def test_a_large_chunk_is_read_by_itself_and_not_again() -> None:
    writer = Writer()
    await writer.start()
    for size in (90, 300, 300, 300):
        await writer.say(size)
    assert (await writer.read()).events == writer.log
    assert [len(part) for part in writer.storage.parts] == [1, 1, 1, 1, 0]
    writer.storage.parts.clear()
    assert (await writer.read(4)).events == []
    assert writer.storage.parts == [[]], "nothing is new"
    await writer.say(1)
    await writer.end()
    assert (await writer.read(4)).events == writer.log[4:]
    assert max(map(sum, writer.storage.parts)) <= 300 + LARGE
    await writer.store.stop()


async def test_a_short_turn_that_has_ended_is_read_at_once() -> None:
    writer = Writer()
    await writer.start()
    await writer.say(1)
    await writer.end(back=True)
    assert (await writer.read()).events == writer.log
    assert len(writer.storage.parts) <= 2
    await writer.store.stop()


async def test_without_its_events_nothing_of_the_log_is_read() -> None:
    writer = Writer()
    await writer.start()
    for size in (1, 300, 1):
        await writer.say(size)
    entry = await writer.read(NO_EVENTS)
    assert (entry.status, list(entry.events)) == ("running", [])
    await writer.end()
    entry = await writer.read(NO_EVENTS)
    assert (entry.status, list(entry.events)) == ("ended", [])
    assert writer.storage.parts == [[], []]
    assert await writer.store.find("other", None, NO_EVENTS) is None
    await writer.store.stop()
