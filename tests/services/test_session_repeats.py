"""What repeats get of turns that are not kept: rounds of letting go, and what lies there that cannot be read."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from greenroom.actors.errors import SessionDamaged, StoreUnavailable
from greenroom.actors.messages import SessionKey
from greenroom.services.durable import TurnAccepted
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions import repeats
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.head import ENTRY
from greenroom.services.storage import Cell, Change, FolderKey
from kits.durable_endings_kit import KEY, OTHER, UNTIL, answered, nothing, turn, unkept


@pytest.fixture
async def store() -> AsyncIterator[DurableSessions]:
    store = DurableSessions(MemoryStorage())
    await store.start()
    yield store
    await store.stop()


async def answer(store: DurableSessions, number: int, until: float = UNTIL) -> None:
    sent = unkept(number, idempotency_key=str(number))
    await store.accept(sent)
    await store.finish(KEY, answered(sent, until=until))


async def left(store: DurableSessions) -> list[FolderKey]:
    return [head.key for head in await store.storage.orphans(repeats.KIND, 1_000)]


async def test_a_round_is_of_bounded_length(store: DurableSessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "AT_ONCE", 2)
    monkeypatch.setattr(repeats, "WRITES", 3)
    for number in range(8):
        await answer(store, number, UNTIL if number < 7 else UNTIL + 1)
    oldest_first = await left(store)
    assert not await store.forget_repeats(UNTIL, nothing)
    assert await left(store) == oldest_first[6:]
    assert await store.forget_repeats(UNTIL, nothing)
    assert await left(store) == oldest_first[7:]


async def test_one_whose_time_cannot_be_read_is_let_go(store: DurableSessions) -> None:
    for number in range(2):
        await answer(store, number)
    broken, whole = await left(store)
    await store.storage.write([Change(key=broken, head=b"\xc1")])
    assert await store.forget_repeats(UNTIL - 1, nothing)
    assert await left(store) == [whole]


async def test_one_that_cannot_be_read_is_refused_as_damaged_until_its_time_is_over(
    store: DurableSessions,
) -> None:
    await answer(store, 1)
    (key,) = await left(store)
    repeat = unkept(2, idempotency_key="1")
    for change in (
        Change(key=key, put=[(Cell(ENTRY, 0), b"\xc1")]),
        Change(key=key, drop=[Cell(ENTRY, 0)]),
    ):
        await store.storage.write([change])
        with pytest.raises(SessionDamaged):
            await store.accept(repeat)
    assert await store.forget_repeats(UNTIL, nothing)
    assert await store.accept(repeat) == TurnAccepted(1, True)


async def test_a_fork_that_cannot_be_forgotten_is_in_the_way_of_nothing(store: DurableSessions) -> None:
    for number in range(2):
        sent = unkept(number, idempotency_key=str(number), key=OTHER, temporary=True)
        await store.accept(sent)
        await store.finish(OTHER, answered(sent))
    await store.accept(turn(3, OTHER))
    asked = []

    async def forget(fork: SessionKey) -> None:
        asked.append(fork)
        raise StoreUnavailable("away") if len(asked) == 1 else OSError("broken")

    with pytest.raises(StoreUnavailable):
        await store.forget_repeats(UNTIL, forget)
    assert len(await left(store)) == 2, "it is tried again"
    assert await store.forget_repeats(UNTIL, forget)
    assert await left(store) == []
    assert asked == [OTHER] * 3
