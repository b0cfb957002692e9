"""The part of the conformance kit of durable stores that is about logs and endings."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from greenroom.actors.errors import (
    HandlerError,
    TurnOver,
)
from greenroom.actors.events import Event, TextDelta, TurnCompleted
from greenroom.actors.events import TurnAccepted as Began
from greenroom.actors.messages import Data, Message, SessionKey, Turn
from greenroom.services.durable import (
    Ending,
    ForRepeats,
    TurnAccepted,
    TurnEntry,
    TurnKnown,
)
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.head import folder_of
from greenroom.services.sessions.repeats import AT_ONCE
from greenroom.services.sessions.turn_names import key_name
from greenroom.services.storage import Change, Conflict, Fence, FolderKey, Storage
from greenroom.services.store import SessionRecord
from kits.store_kit import record
from kits.turns import a_turn

KEY = SessionKey("u1", "s1")
OTHER = SessionKey("u1", "s2")
SERVICE = FolderKey("service", "u1", "")
SAID: list[Event] = [Began("t", 1.0), TextDelta("a"), TextDelta("b")]
LAST = TurnCompleted(2.0)
FOR_LONG = 3_600.0
"""Seconds that repeats get an answer: longer than a test."""


def turn(number: int, key: SessionKey = KEY, **changes: Any) -> Turn:
    """A turn with the id `turn-<number>`, as `record` has it."""
    return replace(a_turn(f"turn-{number}"), key=key, **changes)


def ending(number: int, state: bytes | None = None, **changes: Any) -> Ending:
    """A turn's good ending, with nothing said before it."""
    made = Ending(turn_id=f"turn-{number}", record=record(number), state=state, events=[*SAID, LAST])
    return replace(made, **changes)


def unkept(number: int, **changes: Any) -> Turn:
    """A turn of which nothing is kept, with a key."""
    return turn(number, **{"kept": False, "idempotency_key": "k", **changes})


def answered(sent: Turn, *, seconds: float = FOR_LONG, **changes: Any) -> Ending:
    """The good ending of such a turn. Its log is what was said, and the events that it ends with."""
    made = Ending(turn_id=sent.id, principal=sent.principal, events=[*SAID, LAST], kept=False)
    made = replace(made, **changes)
    log = [*SAID[: made.first], *made.events]
    return replace(made, for_repeats=ForRepeats(turn=sent, events=log, seconds=seconds))


class DurableEndingsKit(ABC):
    """What becomes of turns that were accepted."""

    @abstractmethod
    def clients(self) -> tuple[Storage, Storage]:
        """Two ways to one new storage, or the same twice."""

    @asynccontextmanager
    async def processes(self, **options: Any) -> AsyncIterator[tuple[DurableSessions, DurableSessions]]:
        """Two processes that share a storage."""
        async with AsyncExitStack() as stack:
            stores = []
            for client in self.clients():
                store = DurableSessions(client, lease_seconds=600.0, **options)
                await store.start()
                stack.push_async_callback(store.stop)
                stores.append(store)
            yield stores[0], stores[1]

    # ------------------------------------------------------------------------------------------------ logs and endings

    async def test_a_log_is_read_from_any_event_on(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))
            said: list[Event] = [TextDelta(str(number)) for number in range(7)]
            await one.append(KEY, "turn-1", 0, said[:2])
            await one.append(KEY, "turn-1", 2, said[2:5])
            await one.append(KEY, "turn-1", 5, ())
            await one.append(KEY, "turn-1", 5, said[5:])
            for first in range(9):
                entry = await other.find("turn-1", None, first)
                assert entry is not None
                assert entry.events == said[first:]
            await one.finish(KEY, ending(1, first=7, events=[LAST]))
            entry = await other.find("turn-1", None, 6)
            assert entry is not None
            assert entry.events == [said[6], LAST]

    async def test_what_is_written_again_replaces_what_was_there(self) -> None:
        async with self.processes() as (one, _):
            await one.accept(turn(1))
            for start in (0, 2, 4):
                await one.append(KEY, "turn-1", start, [TextDelta("old"), TextDelta("old")])
            await one.append(KEY, "turn-1", 3, [TextDelta("new")])
            assert await words_of(one, 1) == ["old"] * 3 + ["new"]
            await one.append(KEY, "turn-1", 0, [TextDelta("a"), TextDelta("b")])
            assert await words_of(one, 1) == ["a", "b"]
            await one.finish(KEY, ending(1, first=1, events=[LAST]))
            assert await words_of(one, 1) == ["a"]

    async def test_a_log_has_no_gaps(self) -> None:
        async with self.processes() as (one, _):
            await one.accept(turn(1))
            with pytest.raises(HandlerError, match="skips events"):
                await one.append(KEY, "turn-1", 1, SAID)
            with pytest.raises(HandlerError, match="skips events"):
                await one.finish(KEY, ending(1, first=3))
            assert await status_of(one, 1) == "running"

    async def test_an_ending_is_history_state_and_log_in_one(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))
            change = Change(key=SERVICE, head=b"staged")
            await one.finish(KEY, ending(1, b"state", changes=[change]))
            assert await other.load(KEY) == SessionRecord(KEY, 1, b"state", (record(1),))
            entry = await other.find("turn-1", None)
            assert entry == TurnEntry(
                turn=turn(1), number=1, status="ended", owned=True, events=[*SAID, LAST]
            )
            staged = await other.storage.read(SERVICE)
            assert staged is not None
            assert staged.head.body == b"staged"
            for call in (one.finish(KEY, ending(1)), one.append(KEY, "turn-1", 4, SAID)):
                with pytest.raises(TurnOver):
                    await call
            with pytest.raises(TurnOver):
                await one.finish(KEY, ending(9))

    async def test_an_ending_that_fails_changes_nothing(self) -> None:
        async with self.processes() as (one, _):
            await one.accept(turn(1))
            before = await one.storage.read(folder_of(KEY))
            broken = replace(record(1), input=(Message((Data({"a": object()}),)),))
            for bad in (ending(1, record=broken), ending(1, events=[TextDelta(5)])):  # type: ignore[arg-type]
                with pytest.raises(HandlerError):
                    await one.finish(KEY, bad)
            conflict = Change(key=SERVICE, expected=Fence(5, 5), head=b"")
            with pytest.raises(Conflict) as refused:
                await one.finish(KEY, ending(1, b"state", changes=[conflict]))
            assert refused.value.key == SERVICE
            assert await one.storage.read(folder_of(KEY)) == before
            assert await one.load(KEY) is None
            await one.finish(KEY, ending(1, b"state"))

    async def test_a_turn_that_is_not_kept_leaves_no_trace(self) -> None:
        async with self.processes() as (one, _):
            await one.accept(turn(1, idempotency_key="k"))
            await one.append(KEY, "turn-1", 0, SAID)
            await one.finish(KEY, ending(1, record=None, kept=False, first=3))
            assert await one.storage.read(folder_of(KEY)) is None
            assert await one.find("turn-1", None) is None
            assert await one.accept(turn(2, idempotency_key="k")) == TurnAccepted(1, True)
            await one.finish(KEY, ending(2, b"state"))
            before = await one.load(KEY)
            await one.accept(turn(3))
            await one.finish(KEY, ending(3, record=None, kept=False, events=[]))
            assert await one.load(KEY) == before
            assert await one.find("turn-3", None) is None

    async def test_a_repeat_of_a_turn_that_is_not_kept_gets_its_answer_everywhere(self) -> None:
        async with self.processes() as (one, other):
            sent = unkept(1, principal="Ada")
            await one.accept(sent)
            await one.append(KEY, "turn-1", 0, SAID)
            await one.finish(KEY, answered(sent, first=3, events=[LAST]))
            for store in (one, other):
                for repeat in (sent, replace(sent, id="turn-2"), replace(sent, id="turn-2", key=OTHER)):
                    entry = TurnEntry(turn=sent, number=1, status="ended", events=[*SAID, LAST])
                    assert await store.accept(repeat) == TurnKnown(entry)
                    assert await store.known(repeat) == entry
            assert await other.accept(unkept(3, principal="Eve")) == TurnAccepted(1, True)

    async def test_nothing_else_finds_a_turn_that_is_not_kept(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(unkept(1))
            await one.finish(KEY, answered(unkept(1)))
            for store in (one, other):
                assert await store.storage.read(folder_of(KEY)) is None
                assert await store.storage.sessions("session", KEY.user_id) == ()
                assert await store.orphans(10) == []
                assert await store.take(KEY) == ()
                assert await store.load(KEY) is None
                assert await store.find("turn-1", None) is None
                assert not await store.ask_to_cancel("turn-1", None, "why")
                assert not await store.remove("turn-1", None)
            assert await other.known(turn(1)) is None
            assert await other.known(unkept(1)) is not None

    async def test_it_changes_nothing_of_a_session_that_is_kept(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))
            await one.finish(KEY, ending(1, b"state"))
            before = await one.load(KEY)
            await one.accept(unkept(2))
            await one.finish(KEY, answered(unkept(2)))
            assert await other.load(KEY) == before
            assert isinstance(await other.accept(unkept(3)), TurnKnown)
            assert await other.fork(KEY, "turn-1", OTHER)
            assert not await other.fork(KEY, "turn-2", OTHER)
            await let_time_pass(one, unkept(2))
            assert await other.forget_repeats()
            assert await one.known(unkept(2)) is None
            assert await one.load(KEY) == before
            assert await status_of(one, 1) == "ended"

    async def test_one_that_was_taken_over_says_so(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(unkept(1))
            await one.append(KEY, "turn-1", 0, SAID)
            await be_late(one, other)
            await other.take(KEY)
            await other.finish(KEY, answered(unkept(1), first=3, events=[LAST]))
            entry = await one.known(unkept(2))
            assert entry is not None
            assert (entry.turn.id, entry.taken_at, entry.events) == ("turn-1", 3, [*SAID, LAST])

    async def test_one_without_a_key_leaves_its_ending_for_those_who_follow_it(self) -> None:
        first, second = (unkept(number, idempotency_key=None) for number in (1, 2))
        async with self.processes() as (one, other):
            for sent in (first, second):  # nobody follows the second
                await one.accept(sent)
            await one.append(KEY, first.id, 0, SAID)
            assert not await other.leave_ending(first.id, "Eve")
            assert await other.leave_ending(first.id, None)
            assert await words_of(other, 1) == ["a", "b"]
            await one.finish(KEY, answered(first, first=3, events=[LAST]))
            await one.finish(KEY, answered(second))
            for store in (one, other):
                entry = await store.find(first.id, None, 2)
                assert entry is not None
                assert (entry.turn, entry.status, entry.events) == (first, "ended", [SAID[2], LAST])
                assert await store.find(second.id, None) is None
                assert not await store.leave_ending(first.id, None)
                assert not await store.tell_followed(first.id, None, 1.0)
                assert not await store.ask_to_cancel(first.id, None, "too late")
            assert await one.load(KEY) is None

    async def test_so_does_one_that_was_taken_over(self) -> None:
        sent = unkept(1, idempotency_key=None)
        async with self.processes() as (one, other):
            await one.accept(sent)
            assert await other.leave_ending(sent.id, None)
            await be_late(one, other)
            await other.take(KEY)
            await other.finish(KEY, answered(sent))
            entry = await one.find(sent.id, None)
            assert entry is not None
            assert entry.events == [*SAID, LAST]

    async def test_what_repeats_get_is_let_go_when_its_time_is_over(self) -> None:
        async with self.processes() as (one, other):
            for number in (1, 2):
                sent = unkept(number, idempotency_key=str(number))
                await one.accept(sent)
                await one.finish(KEY, answered(sent, seconds=number * FOR_LONG))
            first, second = (unkept(8 + number, idempotency_key=str(number)) for number in (1, 2))
            assert await other.forget_repeats()
            assert await other.known(first) is not None
            await let_time_pass(other, first)
            assert await other.forget_repeats()
            assert await one.known(first) is None
            assert await one.known(second) is not None
            assert await one.accept(first) == TurnAccepted(1, True)
            await let_time_pass(one, second)
            assert await one.forget_repeats()
            assert await one.storage.orphans("repeat", 10) == ()
            assert await one.known(second) is None

    async def test_what_repeats_get_outlives_the_process_that_wrote_it(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(unkept(1))
            await one.finish(KEY, answered(unkept(1)))
            await be_late(one, other)
            assert await other.forget_repeats()
            assert isinstance(await other.accept(unkept(2)), TurnKnown)

    async def test_processes_let_go_at_once_of_more_than_goes_in_one_write(self) -> None:
        async with self.processes() as stores:
            for number in range(2 * AT_ONCE + 2):
                sent = unkept(number, idempotency_key=str(number))
                await stores[0].accept(sent)
                await stores[0].finish(KEY, answered(sent))
            await let_time_pass(stores[1], unkept(0, idempotency_key="0"))  # one owner for all
            while not all(await asyncio.gather(*(store.forget_repeats() for store in stores))):
                pass  # each round lets some go
            assert await stores[0].storage.orphans("repeat", 10) == ()

    async def test_an_answer_that_cannot_be_kept_is_refused_with_its_ending(self) -> None:
        async with self.processes() as (one, _):
            await one.accept(unkept(1))
            with pytest.raises(HandlerError):
                await one.finish(KEY, answered(unkept(1), events=[TextDelta(5), LAST]))  # type: ignore[arg-type]
            assert await status_of(one, 1) == "running"
            await one.finish(KEY, answered(unkept(1)))
            assert await one.known(unkept(1)) is not None

    async def test_an_ended_turn_can_be_removed_by_anybody(self) -> None:
        async with self.processes() as (one, other):
            for number in (1, 2):
                await one.accept(turn(number, idempotency_key=str(number)))
            assert not await other.remove("turn-1", None)
            await one.finish(KEY, ending(1, b"state"))
            assert not await other.remove("turn-1", "Eve")
            assert await other.remove("turn-1", None)
            assert not await one.remove("turn-1", None)
            assert await one.find("turn-1", None) is None
            assert await one.load(KEY) == SessionRecord(KEY, 1, b"state", (record(1),))
            await one.finish(KEY, ending(2))  # the other has written, but not taken
            assert await one.accept(turn(1, idempotency_key="1")) == TurnAccepted(3, False)

    async def test_ended_turns_over_the_bounds_are_forgotten_with_their_names(self) -> None:
        async with self.processes(logs_kept=3) as (one, other):
            for number in range(1, 100):
                store = one if number % 40 < 20 else other
                await store.accept(turn(number, idempotency_key=str(number)))
                await store.finish(KEY, ending(number))
                found = [
                    n for n in range(max(1, number - 5), number + 1) if await store.find(f"turn-{n}", None)
                ]
                assert found == list(range(max(1, number - 2), number + 1))
            assert await other.accept(turn(1, idempotency_key="1")) == TurnAccepted(100, True)

    async def test_logs_over_their_bytes_are_forgotten_but_never_the_newest(self) -> None:
        async with self.processes(log_bytes=5_000) as (one, _):
            for number in range(1, 5):
                await one.accept(turn(number))
                await one.finish(KEY, ending(number, events=[TextDelta("x" * 2_000), LAST]))
            assert [n for n in range(1, 5) if await one.find(f"turn-{n}", None)] == [3, 4]
            await one.accept(turn(5))
            await one.finish(KEY, ending(5, events=[TextDelta("x" * 9_000), LAST]))
            assert [n for n in range(1, 6) if await one.find(f"turn-{n}", None)] == [5]


async def let_time_pass(store: DurableSessions, sent: Turn) -> None:
    """What repeats of the turn get has been kept for its time, as far as the storage knows."""
    named = await store.storage.lookup(key_name(sent))
    assert named is not None
    folder = await store.storage.read(named.key)
    assert folder is not None
    await store.storage.renew(folder.head.owner, 0.0, "gone")


async def be_late(store: DurableSessions, other: DurableSessions) -> None:
    """The store's process was late to renew, as far as the storage knows."""
    await other.storage.renew(store.owner, 0.0, "gone")


async def status_of(store: DurableSessions, number: int) -> str:
    entry = await store.find(f"turn-{number}", None)
    assert entry is not None
    return entry.status


async def words_of(store: DurableSessions, number: int) -> list[str]:
    entry = await store.find(f"turn-{number}", None)
    assert entry is not None
    return [event.text for event in entry.events if isinstance(event, TextDelta)]
