"""What repeats get of turns that are not kept: for how long, rounds of letting go, and what lies there that cannot be
read."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from greenroom.actors.errors import SessionDamaged
from greenroom.services.durable import TurnAccepted
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions import repeats
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.head import ENTRY
from greenroom.services.storage import Cell, Change, FolderKey
from kits.durable_endings_kit import KEY, answered, unkept

TIME = 80.0
"""Seconds that an answer is kept."""


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Place:
    """A storage, and two processes on it, each with a clock of its own."""

    def __init__(self) -> None:
        self.clock, self.own, self.other = Clock(1_000.0), Clock(50.0), Clock(9e9)
        self.storage = MemoryStorage(monotonic=self.clock)
        self.store, self.second = (
            DurableSessions(self.storage, lease_seconds=86_400.0, monotonic=clock)
            for clock in (self.own, self.other)
        )

    def pass_time(self, seconds: float) -> None:
        for clock in (self.clock, self.own, self.other):
            clock.now += seconds

    async def answer(self, number: int) -> None:
        sent = unkept(number, idempotency_key=str(number))
        await self.store.accept(sent)
        await self.store.finish(KEY, answered(sent, seconds=TIME))

    async def left(self) -> list[int]:
        """Answers that repeats get, of the first ten."""
        asked = [unkept(99, idempotency_key=str(number)) for number in range(10)]
        return [number for number, one in enumerate(asked) if await self.second.known(one) is not None]

    async def folders(self) -> list[FolderKey]:
        """Those of which the time is over, oldest first."""
        return [head.key for head in await self.storage.orphans(repeats.KIND, 1_000)]


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    place = Place()
    for store in (place.store, place.second):
        await store.start()
    yield place
    for store in (place.store, place.second):
        await store.stop()


async def test_an_answer_is_kept_for_its_time_by_the_storage_s_clock(place: Place) -> None:
    for number in range(6):
        await place.answer(number)
        place.pass_time(4.0)
    place.other.now += 1e6  # the sweeper's clock is wrong
    place.pass_time(TIME - 24.0 - 1.0)
    assert await place.second.forget_repeats()
    assert await place.left() == [0, 1, 2, 3, 4, 5]
    place.pass_time(0.25 * TIME)
    assert await place.second.forget_repeats()
    assert await place.left() == [3, 4, 5]
    place.pass_time(TIME / 4)
    assert await place.second.forget_repeats()
    assert await place.left() == []


async def test_answers_of_one_time_cost_no_trip_more(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    renewed = []
    renew = place.storage.renew

    async def counted(owner: str, seconds: float, *state: object) -> tuple[bytes, ...]:
        renewed.append(seconds)
        return await renew(owner, seconds, *state)  # type: ignore[arg-type]

    monkeypatch.setattr(place.storage, "renew", counted)
    for number in range(8):
        await place.answer(number)
        place.pass_time(TIME / 32)
    assert renewed == [TIME * 9 / 8] * 2


async def test_a_round_is_of_bounded_length(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "AT_ONCE", 2)
    monkeypatch.setattr(repeats, "WRITES", 3)
    for number in range(7):
        await place.answer(number)
    place.pass_time(2 * TIME)
    await place.answer(7)
    oldest_first = await place.folders()
    assert not await place.second.forget_repeats()
    assert await place.folders() == oldest_first[6:]
    assert await place.second.forget_repeats()
    assert await place.folders() == []
    assert await place.left() == [7]


async def test_one_that_cannot_be_read_is_refused_as_damaged_until_its_time_is_over(place: Place) -> None:
    await place.answer(1)
    repeat = unkept(2, idempotency_key="1")
    (session,) = await place.storage.sessions(repeats.KIND, KEY.user_id)
    key = FolderKey(repeats.KIND, KEY.user_id, session)
    for change in (
        Change(key=key, head=b"\xc1"),
        Change(key=key, put=[(Cell(ENTRY, 0), b"\xc1")]),
        Change(key=key, drop=[Cell(ENTRY, 0)]),
    ):
        await place.storage.write([change])
        with pytest.raises(SessionDamaged):
            await place.store.accept(repeat)
    place.pass_time(2 * TIME)
    assert await place.second.forget_repeats()
    assert await place.store.accept(repeat) == TurnAccepted(1, True)
