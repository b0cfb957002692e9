"""A process as an owner of sessions: renewed in time, stopped in time, heard of at once. In virtual time."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from greenroom.actors.errors import ConfigurationError, SessionLost, StoreUnavailable
from greenroom.actors.messages import SessionKey
from greenroom.services import memory_storage
from greenroom.services.durable import TurnAccepted
from greenroom.services.durable_leases import DurableLeases
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.storage import Change, Fence, OwnerState, Storage
from kits.durable_endings_kit import KEY, OTHER, be_late, ending, turn
from kits.flaky_storage import FlakyStorage
from kits.virtual_time import virtual_time

pytestmark = virtual_time

LEASE = 15.0


class Cut(FlakyStorage):
    """A way to a storage that can be out of reach: it refuses, or does not answer. It counts the renewals."""

    def __init__(self) -> None:
        self.beyond = MemoryStorage(monotonic=asyncio.get_running_loop().time)
        super().__init__(self.beyond)
        self.refuses = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.renewals: list[float] = []
        self.seconds = 0.0
        """What a write takes."""

    async def renew(self, owner: str, seconds: float, state: OwnerState = "serving") -> tuple[bytes, ...]:
        await self._pass()
        self.renewals.append(asyncio.get_running_loop().time())
        return await super().renew(owner, seconds, state)

    async def write(self, changes: Sequence[Change]) -> tuple[Fence, ...]:
        await self._pass()
        await asyncio.sleep(self.seconds)
        return await super().write(changes)

    async def _pass(self) -> None:
        await self.answers.wait()
        if self.refuses:
            raise StoreUnavailable("out of reach")


@asynccontextmanager
async def process(storage: Storage, name: str) -> AsyncIterator[DurableSessions]:
    count = itertools.count(1)
    store = DurableSessions(
        storage,
        lease_seconds=LEASE,
        monotonic=asyncio.get_running_loop().time,
        new_owner=lambda: f"{name}{next(count)}",
    )
    await store.start()
    yield store
    await store.stop()


async def test_an_idle_process_renews_three_times_a_lease_and_keeps_its_name() -> None:
    storage = Cut()
    async with process(storage, "a") as store:
        name = store.owner
        await asyncio.sleep(62.0)
        assert storage.renewals == [0.0, *(5.0 * number for number in range(1, 13))]
        assert store.owner == name


async def test_a_cancel_is_heard_within_a_second_while_turns_are_open() -> None:
    storage = Cut()
    async with process(storage, "a") as one, process(storage, "b") as other:
        heard = asyncio.Event()
        one.when_asked(lambda *_: heard.set())
        await asyncio.sleep(2.5)
        await one.accept(turn(1))
        assert await other.ask_to_cancel("turn-1", None, "why")
        async with asyncio.timeout(1.01):
            await heard.wait()


async def test_what_was_noted_before_one_listens_is_heard_then_by_all_who_listen_at_once() -> None:
    storage = Cut()
    async with process(storage, "a") as one, process(storage.beyond, "b") as other:
        heard: list[str] = []
        one.when_asked(lambda _turn, _principal, why: heard.append(why))
        await one.accept(turn(1))
        before = len(storage.renewals)
        storage.answers.clear()
        listening = [asyncio.create_task(one.hear())]
        await asyncio.sleep(0)
        assert await other.ask_to_cancel("turn-1", None, "why")
        # They come after the renewal was begun, which may have been given its notes already.
        listening += [asyncio.create_task(one.hear()) for _ in range(9)]
        await asyncio.sleep(0)
        storage.answers.set()
        await asyncio.gather(*listening)
        assert heard == ["why"]
        assert len(storage.renewals) == before + 2


async def test_who_cannot_listen_is_told() -> None:
    storage = Cut()
    async with process(storage, "a") as one:
        storage.refuses = True
        with pytest.raises(StoreUnavailable):
            await one.hear()
        storage.refuses = False


async def test_what_open_turns_keep_is_kept_for_as_long_as_the_process_lives() -> None:
    storage = Cut()
    async with process(storage, "a") as one, process(storage, "b") as other:
        await one.accept(turn(1))
        await asyncio.sleep(3_600.0)
        assert await other.take(KEY) == ()
        await one.finish(KEY, ending(1))


@pytest.mark.parametrize("silent", [False, True])
async def test_who_cannot_renew_stops_before_others_may_take_what_he_has(
    silent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Cut()
    async with process(storage, "a") as one, process(storage.beyond, "b") as other:
        lost: list[float] = []
        one.when_lost(lambda: lost.append(asyncio.get_running_loop().time()))
        await one.accept(turn(1))
        name = one.owner
        if silent:
            storage.answers.clear()
        else:
            storage.refuses = True
        while not lost:
            assert await other.take(KEY) == ()
            await asyncio.sleep(0.1)
        assert LEASE * 0.6 < lost[0] < LEASE * 0.9
        assert await other.take(KEY) == ()  # not yet
        assert one.owner != name
        storage.refuses = False
        storage.answers.set()
        await asyncio.sleep(LEASE * 0.4)
        assert [entry.turn.id for entry in await other.take(KEY)] == ["turn-1"]
        with pytest.raises(SessionLost):
            await one.finish(KEY, ending(1))
        assert isinstance(await one.accept(turn(2, OTHER)), TurnAccepted)  # it lives again
        assert len(lost) == 1
    assert "was not renewed in time" in caplog.text


async def test_nothing_is_accepted_while_the_process_may_not_live(caplog: pytest.LogCaptureFixture) -> None:
    storage = Cut()
    async with process(storage, "a") as one:
        storage.refuses = True
        await asyncio.sleep(LEASE)
        storage.refuses = False
        with pytest.raises(StoreUnavailable, match="could not tell the others in time"):
            await one.accept(turn(1))
        await asyncio.sleep(1.0)
        assert isinstance(await one.accept(turn(1)), TurnAccepted)


async def test_who_slept_through_his_lease_is_another_owner_when_he_wakes() -> None:
    """As a process does that was stopped and goes on."""
    now = 0.0
    storage = Cut()
    store = DurableSessions(storage, lease_seconds=LEASE, monotonic=lambda: now)
    await store.start()
    lost: list[str] = []
    store.when_lost(lambda: lost.append(store.owner))
    await store.accept(turn(1))
    name = store.owner
    now = LEASE
    with pytest.raises(SessionLost):
        await store.append(KEY, "turn-1", 0, [])
    assert lost == [store.owner]
    assert store.owner != name
    await store.stop()


async def test_a_renewal_that_comes_through_too_late_does_not_bring_him_back() -> None:
    now = 0.0
    storage = Cut()
    store = DurableSessions(storage, lease_seconds=LEASE, monotonic=lambda: now)
    await store.start()
    storage.answers.clear()
    renewing = asyncio.ensure_future(store._life.beat())
    await asyncio.sleep(0)
    now = LEASE
    name = store.owner
    with pytest.raises(StoreUnavailable):
        await store.accept(turn(1))
    assert store.owner != name
    storage.answers.set()
    with pytest.raises(StoreUnavailable, match="did not answer in time"):
        await renewing
    with pytest.raises(StoreUnavailable):
        await store.accept(turn(1))
    await store._life.beat()
    assert isinstance(await store.accept(turn(1)), TurnAccepted)
    await store.stop()


async def test_who_was_late_by_the_storage_s_clock_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    storage = Cut()
    async with process(storage, "a") as one, process(storage, "b") as other:
        lost = asyncio.Event()
        one.when_lost(lost.set)
        await one.accept(turn(1))
        await be_late(one, other)
        assert len(await other.take(KEY)) == 1
        async with asyncio.timeout(1.01):
            await lost.wait()
        assert isinstance(await one.accept(turn(2, OTHER)), TurnAccepted)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_the_heart_goes_on_when_who_is_told_fails(caplog: pytest.LogCaptureFixture) -> None:
    storage = Cut()
    async with process(storage, "a") as one, process(storage, "b") as other:
        one.when_asked(lambda *_: 1 / 0)
        await one.accept(turn(1))
        await other.ask_to_cancel("turn-1", None, "why")
        await asyncio.sleep(LEASE * 2)
        await one.finish(KEY, ending(1))
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e6, float("inf"), float("nan")])
@pytest.mark.parametrize("owner", [DurableSessions, DurableLeases])
async def test_a_lease_that_never_ends_or_does_not_begin_is_refused_by_name(
    owner: type[DurableSessions | DurableLeases], seconds: float
) -> None:
    with pytest.raises(ConfigurationError, match=f"lease_seconds={seconds} (is not more than 0|cannot be)"):
        owner(MemoryStorage(), lease_seconds=seconds)


def session(number: int) -> SessionKey:
    return SessionKey("u1", str(number))


async def test_what_is_settled_after_an_outage_holds_up_no_renewal() -> None:
    storage = Cut()
    async with process(storage, "a") as store:
        name = store.owner
        for number in range(60):
            storage.fault = "unsure"
            with pytest.raises(StoreUnavailable):
                await store.accept(turn(number, session(number)))
        storage.seconds = 0.5
        await asyncio.sleep(LEASE)
        assert await store.find("turn-0", None) is None
        assert await store.find("turn-59", None) is not None, "one after another"
        await asyncio.sleep(2 * LEASE)
        assert await store.find("turn-59", None) is None
        assert store.owner == name


class Noting(Cut):
    """It counts the notes, and keeps them for the time being. `broken`: it refuses them."""

    def __init__(self) -> None:
        super().__init__()
        self.notes = 0
        self.noting = asyncio.Event()
        self.noting.set()
        self.broken = False

    async def note(self, owner: str, note: bytes) -> bool:
        self.notes += 1
        await self.noting.wait()
        if self.broken:
            raise StoreUnavailable("no notes today")
        return await super().note(owner, note)


@asynccontextmanager
async def followed(storage: Storage, count: int) -> AsyncIterator[tuple[DurableSessions, list[str]]]:
    """A process that follows so many turns of another one, and what that one heard."""
    async with process(storage, "a") as one, process(storage, "b") as other:
        heard: list[str] = []
        one.when_followed(lambda turn_id, *_: heard.append(turn_id))
        one.when_asked(lambda turn_id, *_: heard.append(f"cancel {turn_id}"))
        for number in range(count):
            await one.accept(turn(number, session(number)))
        yield other, heard


async def test_turns_that_are_followed_at_once_share_notes_and_push_no_other_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_storage, "NOTES", 50)
    storage = Noting()
    async with followed(storage, 600) as (other, heard):
        assert await other.ask_to_cancel("turn-7", None, "why")
        told = await asyncio.gather(*(other.tell_followed(f"turn-{n}", None, 15.0) for n in range(600)))
        assert all(told)
        await asyncio.sleep(1.1)
        assert sorted(heard) == sorted(["cancel turn-7", *(f"turn-{n}" for n in range(600))])
        assert storage.notes < 25


async def test_turns_that_are_cancelled_at_once_share_notes_and_push_no_other_out() -> None:
    storage = Noting()
    async with followed(storage, 5_000) as (other, heard):
        assert await other.tell_followed("turn-7", None, 15.0)
        asked = await asyncio.gather(*(other.ask_to_cancel(f"turn-{n}", None, "why") for n in range(5_000)))
        assert all(asked)
        await asyncio.sleep(1.1)
        assert sorted(heard) == sorted(["turn-7", *(f"cancel turn-{n}" for n in range(5_000))])
        assert storage.notes < 25


async def test_who_follows_does_not_wait_for_those_who_cancel() -> None:
    storage = Noting()
    async with followed(storage, 600) as (other, _):
        storage.noting.clear()
        asking = [asyncio.create_task(other.ask_to_cancel(f"turn-{n}", None, "why")) for n in range(600)]
        await asyncio.sleep(0.1)
        telling = asyncio.create_task(other.tell_followed("turn-7", None, 15.0))
        await asyncio.sleep(0.1)
        assert storage.notes == 2
        storage.noting.set()
        await asyncio.gather(telling, *asking)


async def test_few_that_are_followed_are_told_at_once() -> None:
    storage = Noting()
    async with followed(storage, 4) as (other, _):
        before = asyncio.get_running_loop().time()
        for number in range(4):
            assert await other.tell_followed(f"turn-{number}", None, 15.0)
            assert await other.tell_followed(f"turn-{number}", None, 0.0)
        assert asyncio.get_running_loop().time() == before


async def test_all_who_share_a_note_are_told_that_it_was_not_left() -> None:
    storage = Noting()
    async with followed(storage, 9) as (other, heard):
        storage.noting.clear()
        telling = [asyncio.create_task(other.tell_followed(f"turn-{n}", None, 15.0)) for n in range(9)]
        await asyncio.sleep(0.1)
        storage.broken = True
        storage.noting.set()
        outcomes = await asyncio.gather(*telling, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}
        assert storage.notes == 1
        assert not heard


async def test_what_is_given_up_is_not_said_and_keeps_nobody_else_from_being_told() -> None:
    storage = Noting()
    async with followed(storage, 4) as (other, heard):
        storage.noting.clear()
        telling = [asyncio.create_task(other.tell_followed(f"turn-{n}", None, 15.0)) for n in range(4)]
        await asyncio.sleep(0.1)
        telling[0].cancel()  # who says it
        telling[2].cancel()
        await asyncio.sleep(0.1)
        storage.noting.set()
        await asyncio.wait(telling)
        await asyncio.sleep(1.1)
        assert heard == ["turn-1", "turn-3"]
