"""Turns of many MB: they are written and read in bounded parts, and no step on the loop takes long for them (law 5)."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from greenroom.actors.events import Event, Item, TextDelta, TurnAccepted, TurnCompleted, TurnStarted
from greenroom.actors.ledger import AT_ONCE
from greenroom.actors.limits import Limits
from greenroom.actors.messages import Text
from greenroom.services.durable import Ending
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.redis.storage import RedisStorage
from greenroom.services.sessions import aside
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.head import LOG
from greenroom.services.sessions.turn_codec import decode_events, encode_events
from greenroom.services.sqlite.storage import SqliteStorage
from greenroom.services.storage import Change, Fence, Storage
from greenroom.services.store import TurnRecord
from kits.cut_storage import CutStorage
from kits.redis_server import RedisServer
from kits.sharing import KEY
from kits.system import EPOCH, running_system, said, turn

MIB = 1024 * 1024
SIZE = 12 * MIB
ROOM = 64 * 1024
"""Bytes of what is around the text of a write."""


def telling(delta: int) -> Callable[[Any], AsyncIterator[str]]:
    """A handler that says `SIZE` in deltas of so many characters, and waits now and then."""

    async def tell(msgs: Any) -> AsyncIterator[str]:
        for start in range(0, SIZE, delta):
            yield "x" * delta
            if start % MIB == 0:
                await asyncio.sleep(0)

    return tell


class Weighed(CutStorage):
    """A storage that notes what each write puts into logs. `logs`: bytes, of writes that put nothing else. `others`: of
    all the others. `logged`: there was one of those."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.logs: list[int] = []
        self.others: list[int] = []
        self.logged = asyncio.Event()

    async def write(self, changes: Sequence[Change]) -> tuple[Fence, ...]:
        put = [(cell.section, len(value)) for change in changes for cell, value in change.put]
        sizes = self.logs if {section for section, _ in put} == {LOG} else self.others
        sizes.append(sum(size for _, size in put))
        if sizes is self.logs:
            self.logged.set()
        return await super().write(changes)


@pytest.mark.parametrize("delta", [8 * 1024, 4 * MIB])
async def test_no_write_adds_more_than_a_bound_or_one_event_to_the_log(delta: int) -> None:
    storage = Weighed(MemoryStorage())
    async with running_system(telling(delta), store=DurableSessions(storage)) as system:
        log = await system.submit(turn("t"))
        assert len(said(await log.ended())) == SIZE
    whole = SIZE + ROOM
    once = max(AT_ONCE, delta) + ROOM
    parts, large = (
        [size for size in storage.logs if size <= once],
        [size for size in storage.logs if size > once],
    )
    assert sum(parts) >= SIZE
    assert len(large) == 2, "the part that is done and the item, each in a write of its own"
    assert max(large) <= whole
    assert max(storage.others) <= 2 * whole, "an ending has itself and the record left"


async def test_what_a_turn_says_is_written_before_it_is_looked_at() -> None:
    """So its ending has little left, also when that comes soon."""
    storage = Weighed(MemoryStorage())
    goes_on = asyncio.Event()

    async def tell(msgs: Any) -> AsyncIterator[str]:
        yield "x" * (2 * AT_ONCE)
        await goes_on.wait()

    limits = Limits(journal_seconds=3600)
    async with running_system(tell, store=DurableSessions(storage), limits=limits) as system:
        log = await system.submit(turn("t"))
        async with asyncio.timeout(60):
            await storage.logged.wait()
        goes_on.set()
        await log.ended()


@contextmanager
def threads_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bool]]:
    """Notes of what is encoded in pieces whether it is on this thread."""
    here, seen = threading.get_ident(), dict[str, bool]()

    def noting(name: str) -> None:
        encode = getattr(aside, name)

        def noted(*args: Any) -> Any:
            seen[name] = threading.get_ident() == here
            return encode(*args)

        monkeypatch.setattr(aside, name, noted)

    for name in ("chunk_in_pieces", "turn_in_pieces", "encode_turn"):
        noting(name)
    yield seen


@pytest.mark.parametrize("size", [9, 3 * MIB])
async def test_what_is_large_is_encoded_off_the_loop(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store, sent = DurableSessions(MemoryStorage()), turn(id="t")
    items = (Item("i", "message", "assistant", (Text("x" * size),)),)
    ending = TurnCompleted(EPOCH, items)
    told: list[Event] = [TurnAccepted("t", EPOCH), TurnStarted(), TextDelta("x" * size, "i")]
    await store.start()
    with threads_of(monkeypatch) as seen:
        await store.accept(sent)
        await store.append(KEY, "t", 0, told)
        record = TurnRecord("t", "completed", EPOCH, sent.request.input, items)
        await store.finish(KEY, Ending(turn_id="t", record=record, first=3, events=[ending]))
    large = {"chunk_in_pieces": False, "turn_in_pieces": False}
    assert seen == (large if size > AT_ONCE else {"encode_turn": True})
    entry, kept = await store.find("t", None), await store.load(KEY)
    assert entry is not None
    assert list(entry.events) == [*told, ending]
    assert kept is not None
    assert kept.turns == (record,)
    await store.stop()


class Steps:
    """The longest step of the loop, in seconds of its thread's own time: what else the machine does is not in it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.longest = 0.0
        run, thread = asyncio.Handle._run, threading.get_ident()

        def timed(handle: asyncio.Handle) -> None:
            before = time.thread_time()
            run(handle)
            if threading.get_ident() == thread:
                self.longest = max(self.longest, time.thread_time() - before)

        monkeypatch.setattr(asyncio.Handle, "_run", timed)


@pytest.fixture(params=["memory", "file", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Storage]:
    """Gives ways to one storage."""
    if request.param == "memory":
        storage = MemoryStorage()
        return lambda: storage
    if request.param == "file":
        return lambda: SqliteStorage(tmp_path / "sessions.db")
    server: RedisServer = request.getfixturevalue("redis_server")
    prefix = uuid.uuid4().hex
    return lambda: RedisStorage(server.url(), prefix=prefix, answer_seconds=30)


async def test_no_step_takes_as_long_as_coding_it_all(
    place: Callable[[], Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where the turn runs, nor where it is followed, looked up when it has ended, and its session loaded."""
    async with (
        running_system(telling(64 * 1024), store=DurableSessions(place())) as system,
        running_system(telling(1), store=DurableSessions(place()), first_id=1000) as other,
    ):
        steps = Steps(monkeypatch)
        log = await system.submit(turn("t", id="t"))
        there = await other.locate("t")
        ending = await there.ended()
        assert said(ending) == said(await log.ended())
        assert len((await other.locate("t")).events()) == len(log.events())
        record = await other.store.load(KEY)
        assert record is not None
        assert record.turns[0].output == ending.output
        longest = steps.longest
    before = time.thread_time()
    decode_events(encode_events(log.events()))
    assert longest < time.thread_time() - before
