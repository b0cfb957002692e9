"""Of the conformance kit of storages: owners and what is nobody's, and folders that were idle for long.

All of the kit is `storage_kit`; this is what goes with time.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest

from greenroom.services.storage import (
    NOT_THERE,
    Cell,
    Change,
    Conflict,
    Fence,
    FolderKey,
    Named,
    OwnerGone,
    Span,
    Storage,
)
from kits.in_turn import Clock

KEY = FolderKey("session", "u", "s")
OTHER = FolderKey("session", "u", "other")


def change(key: FolderKey = KEY, **fields: Any) -> Change:
    """A change to a folder."""
    return Change(key=key, **fields)


class StorageOwnersKit(ABC):
    """The laws of time. `unit`: so many seconds are long enough to be told from none."""

    unit: ClassVar[float] = 1.0

    @pytest.fixture(autouse=True)
    def time(self) -> None:
        self.clock = Clock()

    @abstractmethod
    def clients(self, idle_seconds: float) -> tuple[Storage, Storage]:
        """One new storage, which has nothing in it, as two processes see it; they may be one object."""

    async def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        self.clock.now += seconds

    @asynccontextmanager
    async def started(self, idle_units: float = 1e6) -> AsyncIterator[tuple[Storage, Storage]]:
        one, other = self.clients(idle_units * self.unit)
        await one.start()
        await other.start()
        try:
            yield one, other
        finally:
            await other.stop()
            await one.stop()

    # ------------------------------------------------------------------------------------------------------ the owners

    async def test_an_owner_lives_as_long_as_it_renews(self) -> None:
        async with self.started() as (one, other):
            await one.write([change(owner="me")])
            assert await head_of(other) == ("me", "gone", False)
            for _ in range(3):
                await one.renew("me", 5 * self.unit)
                await self.advance(3 * self.unit)
                assert await head_of(other) == ("me", "serving", False)
            await other.renew("me", 20 * self.unit, "draining")
            assert await head_of(one) == ("me", "draining", False)
            await one.renew("me", 20 * self.unit)
            assert await head_of(other) == ("me", "serving", False)
            await one.renew("me", 3 * self.unit)  # a shorter time counts from now as well
            await self.advance(6 * self.unit)
            assert await head_of(other) == ("me", "gone", False)

    async def test_who_was_late_or_has_gone_is_gone_for_good(self) -> None:
        async with self.started() as (one, other):
            await one.write([change(owner="late"), change(OTHER, owner="went")])
            await one.renew("late", self.unit)
            await one.renew("went", 100 * self.unit)
            await one.renew("went", 100 * self.unit, "gone")
            await self.advance(3 * self.unit)
            for owner, key in (("late", KEY), ("went", OTHER)):
                for _ in range(2):
                    with pytest.raises(OwnerGone):
                        await other.renew(owner, 100 * self.unit)
                    assert await head_of(other, key) == (owner, "gone", False)
            await one.renew("late again", 100 * self.unit)
            await one.write([change(owner="late again")])
            assert await head_of(other) == ("late again", "serving", False)

    async def test_notes_wait_for_their_owner_s_next_renewal_each_once(self) -> None:
        async with self.started() as (one, other):
            assert not await other.note("me", b"too early")
            assert await one.renew("me", 100 * self.unit) == ()
            assert await one.renew("you", 100 * self.unit) == ()
            for note in (b"1", b"\x00", b"", b"1"):
                assert await other.note("me", note)
            assert await one.renew("you", 100 * self.unit) == ()
            assert await one.renew("me", 100 * self.unit, "draining") == (b"1", b"\x00", b"", b"1")
            assert await one.renew("me", 2 * self.unit) == ()
            assert await other.note("me", b"last")
            await one.renew("you", 2 * self.unit, "gone")
            assert not await other.note("you", b"too late")
            await self.advance(4 * self.unit)
            assert not await other.note("me", b"too late")

    async def test_of_more_notes_than_may_wait_the_oldest_are_lost(self) -> None:
        async with self.started() as (one, other):
            await one.renew("me", 1_000 * self.unit)
            for start in range(0, 1_100, 100):  # in order, and not one by one
                leaving = [other.note("me", b"%d" % (start + number)) for number in range(100)]
                assert all(await asyncio.gather(*leaving))
            notes = await one.renew("me", 1_000 * self.unit)
            assert len(notes) == 1_000
            assert sorted(map(int, notes)) == list(range(100, 1_100))

    async def test_of_notes_left_while_it_renews_none_is_lost_or_given_twice(self) -> None:
        async with self.started() as (one, other):
            await one.renew("me", 1_000 * self.unit)
            leaving = [asyncio.ensure_future(other.note("me", b"%d" % number)) for number in range(200)]
            heard: list[bytes] = []
            while not all(note.done() for note in leaving):
                heard += await one.renew("me", 1_000 * self.unit)
                await asyncio.sleep(0)
            heard += await one.renew("me", 1_000 * self.unit)
            assert sorted(map(int, heard)) == list(range(200))

    async def test_orphans_are_open_and_nobody_s_those_open_for_longest_first(self) -> None:
        def named(number: int) -> FolderKey:
            return KEY._replace(session_id=str(number))

        async with self.started() as (one, other):
            for owner in ("lives", "drains", "late"):
                await one.renew(owner, (2 if owner == "late" else 100) * self.unit)
            await one.renew("drains", 100 * self.unit, "draining")
            for number, owner in enumerate(("late", "lives", "drains", "", "never", "")):
                await one.write([change(named(number), owner=owner, open=number != 5)])
            await one.write([change(KEY._replace(kind="log"), open=True)])
            assert await orphans_of(other) == ["3", "4"]
            await self.advance(4 * self.unit)
            assert await orphans_of(other) == ["0", "3", "4"]
            assert await orphans_of(other, 2) == ["0", "3"]
            (first, *_) = await other.orphans("session", 1)
            found = await other.read(named(0))
            assert found is not None
            assert first == found.head
            await one.write([change(named(0), take=True, owner="lives")])
            await one.write([change(named(3), head=b"written", open=True)])  # it has been open all the time
            assert await orphans_of(other) == ["3", "4"]
            await one.write([change(named(3), open=False)])
            await one.write([change(named(3), open=True)])
            assert await orphans_of(other) == ["4", "3"]
            await one.renew("lives", 100 * self.unit, "gone")
            assert await orphans_of(other) == ["0", "1", "4", "3"]

    # --------------------------------------------------------------------------------------------------- what is idle

    async def test_a_folder_nobody_wrote_to_for_long_is_forgotten_with_its_names(self) -> None:
        async with self.started(idle_units=10) as (one, other):
            names = [(b"n", b"1"), (b"k", b"1")]
            await one.write([change(head=b"1", put=[(Cell("a", 1), b"1")], names=names)])
            await one.write([change(OTHER, head=b"1", names=[(b"m", b"1")])])
            for _ in range(3):
                await self.advance(7 * self.unit)
                await one.write([change(OTHER)])
                await other.read(KEY)  # which is no use of it
            assert await other.read(KEY, [Span("a")]) is None
            assert await other.lookup(b"n") is None
            assert await other.sessions("session", "u") == ("other",)
            assert await body_of(other, OTHER) == b"1"
            assert await other.lookup(b"m") == Named(OTHER, b"1")
            await one.write([change(OTHER, names=[(b"n", b"2")])])
            await one.write([change(expected=NOT_THERE)])
            assert await body_of(other) == b""
            assert await cells_of(other, "a") == ()
            assert await other.lookup(b"k") is None

    async def test_where_nothing_is_ever_idle_nothing_is_forgotten(self) -> None:
        async with self.started(idle_units=float("inf")) as (one, other):
            (fence,) = await one.write([change(head=b"1", names=[(b"n", b"1")])])
            await one.write([change(OTHER, open=True)])
            await self.advance(30 * self.unit)
            await one.renew("me", 10 * self.unit)  # which looks for what is idle, on some
            assert await body_of(other) == b"1"
            assert await other.lookup(b"n") == Named(KEY, b"1")
            assert await other.sessions("session", "u") == ("other", "s")
            assert len(await other.write([change(expected=fence), change(OTHER, open=False)])) == 2

    async def test_one_that_is_forgotten_conflicts_as_one_that_is_not_there(self) -> None:
        async with self.started(idle_units=10) as (one, other):
            (before,) = await one.write([change(names=[(b"n", b"1")])])
            await self.advance(30 * self.unit)
            with pytest.raises(Conflict) as refused:
                await other.write([change(expected=before)])
            assert refused.value.found is None
            (fence,) = await other.write([change(names=[(b"n", b"2")])])
            assert fence > before

    async def test_an_open_folder_is_not_forgotten(self) -> None:
        async with self.started(idle_units=10) as (one, other):
            await one.write([change(head=b"1", open=True, put=[(Cell("a", 1), b"1")], names=[(b"n", b"1")])])
            await one.write([change(OTHER, names=[(b"m", b"1")])])
            for _ in range(3):
                await self.advance(30 * self.unit)
                assert await body_of(other) == b"1"
                assert await other.lookup(b"n") == Named(KEY, b"1")
                await one.write([change(KEY._replace(session_id="third"))])
                assert await cells_of(other, "a") == ((1, b"1"),)
                assert await orphans_of(other) == ["s"]
            assert await other.read(OTHER) is None
            await one.write([change(open=False)])
            assert await body_of(other) == b"1"  # its time begins now
            assert await other.lookup(b"n") == Named(KEY, b"1")
            await self.advance(30 * self.unit)
            assert await other.read(KEY) is None
            assert await other.lookup(b"n") is None


async def _read(storage: Storage, key: FolderKey, spans: Sequence[Span] = ()) -> Any:
    found = await storage.read(key, spans)
    assert found is not None
    return found


async def body_of(storage: Storage, key: FolderKey = KEY) -> bytes:
    body: bytes = (await _read(storage, key)).head.body
    return body


async def fence_of(storage: Storage, key: FolderKey = KEY) -> Fence:
    fence: Fence = (await _read(storage, key)).head.fence
    return fence


async def head_of(storage: Storage, key: FolderKey = KEY) -> tuple[str, str, bool]:
    head = (await _read(storage, key)).head
    return head.owner, head.owner_state, head.open


async def cells_of(storage: Storage, section: str, key: FolderKey = KEY) -> tuple[tuple[int, bytes], ...]:
    cells: tuple[tuple[int, bytes], ...] = (await _read(storage, key, [Span(section)])).spans[0]
    return cells


async def numbers_of(storage: Storage, key: FolderKey = KEY) -> list[int]:
    return [number for number, _ in await cells_of(storage, "a", key)]


async def orphans_of(storage: Storage, limit: int = 100) -> list[str]:
    return [head.key.session_id for head in await storage.orphans("session", limit)]
