"""The conformance kit of durable stores: what `DurableStore` says, for sessions on any storage.

Subclass the kit and give it a new storage, not yet started, and more ways to it::

    class TestSessionsInMemory(DurableKit):
        def clients(self):
            storage = MemoryStorage()
            return storage, storage
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from greenroom.actors.errors import (
    InvalidRequest,
    NotServing,
    SessionHeld,
    SessionLost,
)
from greenroom.actors.messages import AgentRequest, SessionKey
from greenroom.services.durable import (
    SessionElsewhere,
    SessionTaken,
    TurnAccepted,
    TurnEntry,
    TurnKnown,
    TurnsOpen,
)
from greenroom.services.sessions.head import folder_of
from greenroom.services.storage import NOT_THERE, Change, Conflict, Fence
from greenroom.services.store import SessionRecord, TurnCommit
from kits.durable_endings_kit import (
    KEY,
    LAST,
    OTHER,
    SAID,
    SERVICE,
    be_late,
    ending,
    status_of,
    turn,
)
from kits.durable_machine import FAULTS, PROCESSES, SESSIONS, WEIGHTS, Step, a_world
from kits.joining_kit import JoiningKit
from kits.store_kit import record

STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(sorted(WEIGHTS)),
        st.integers(0, PROCESSES - 1),
        st.integers(0, SESSIONS - 1),
        st.none() | st.sampled_from(FAULTS),
        st.booleans(),
    ),
    max_size=30,
)


class DurableKit(JoiningKit):
    """The laws for sessions on any storage."""

    # ------------------------------------------------------------------------------------------------------- accepting

    async def test_a_turn_is_recorded_and_found_by_its_principal_everywhere(self) -> None:
        async with self.processes() as (one, other):
            sent = turn(1, principal="Ada", idempotency_key="k", fingerprint=b"f", echo={"model": "m"})
            assert await one.accept(sent) == TurnAccepted(1, True)
            assert await one.find("turn-1", "Ada") == TurnEntry(
                turn=sent, number=1, status="running", here=True, owned=True, events=[]
            )
            assert await other.find("turn-1", "Ada") == TurnEntry(
                turn=sent, number=1, status="running", owned=True, events=[]
            )
            for store in (one, other):
                assert await store.find("turn-1", None) is None
                assert await store.find("turn-1", "Eve") is None
                assert await store.find("turn-2", "Ada") is None

    async def test_turns_are_numbered_and_only_the_first_counts_as_begun(self) -> None:
        async with self.processes() as (one, _):
            for number in (1, 2, 3):
                assert await one.accept(turn(number)) == TurnAccepted(number, number == 1)
            assert [await status_of(one, number) for number in (1, 2, 3)] == ["running", "waiting", "waiting"]
            await one.finish(KEY, ending(1))
            assert [await status_of(one, number) for number in (1, 2, 3)] == ["ended", "running", "waiting"]
            entry = await one.find("turn-2", None)
            assert entry is not None
            assert entry.attempts == 1

    @pytest.mark.parametrize("ended", [False, True])
    async def test_a_repeat_is_known_by_its_id_or_its_key_in_every_process(self, ended: bool) -> None:
        async with self.processes() as stores:
            sent = turn(1, principal="Ada", idempotency_key="k")
            await stores[0].accept(sent)
            if ended:
                await stores[0].finish(KEY, ending(1, principal="Ada"))
            for store in stores:
                for repeat in (sent, turn(2, principal="Ada", idempotency_key="k"), replace(sent, key=OTHER)):
                    known = await store.accept(repeat)
                    assert isinstance(known, TurnKnown)
                    assert known.entry.turn == sent
                    assert known.entry.status == ("ended" if ended else "running")
                    assert known.entry.events == ([*SAID, LAST] if ended else [])
            assert await stores[1].load(OTHER) is None
            assert await stores[0].find("turn-2", "Ada") is None
            new = await stores[0].accept(turn(1, principal="Eve", idempotency_key="k"))
            assert isinstance(new, TurnAccepted)

    async def test_repeats_at_once_are_one_turn(self) -> None:
        async with self.processes() as stores:
            sent = [turn(number, idempotency_key="k") for number in range(6)]
            answers = await asyncio.gather(*(stores[place % 2].accept(one) for place, one in enumerate(sent)))
            accepted = [one for one in answers if isinstance(one, TurnAccepted)]
            known = [one for one in answers if isinstance(one, TurnKnown)]
            assert (len(accepted), len(known)) == (1, 5)
            assert len({one.entry.turn.id for one in known}) == 1

    async def test_turns_of_two_processes_at_once_are_one_s(self) -> None:
        async with self.processes() as stores:
            calls = [stores[number % 2].accept(turn(number)) for number in range(8)]
            answers = await asyncio.gather(*calls)
            owners = {number % 2 for number, one in enumerate(answers) if isinstance(one, TurnAccepted)}
            assert len(owners) == 1
            assert sum(isinstance(one, SessionElsewhere) for one in answers) == 4

    async def test_a_session_is_fresh_when_it_has_changed_hands(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))
            stands = await other.accept(turn(2))
            assert isinstance(stands, SessionElsewhere)
            assert (stands.owner, [line.turn_id for line in stands.turns]) == (one.owner, ["turn-1"])
            await one.finish(KEY, ending(1))
            assert await one.accept(turn(2)) == TurnAccepted(2, False)
            await one.finish(KEY, ending(2))
            assert await other.accept(turn(3)) == TurnAccepted(3, True)
            await other.finish(KEY, ending(3))
            assert await one.accept(turn(4)) == TurnAccepted(4, True)

    @pytest.mark.parametrize(
        ("broken", "field"),
        [
            ({"id": "\ud800"}, "id"),
            ({"principal": "\ud800"}, "principal"),
            ({"echo": object()}, "turn.echo"),
            ({"request": AgentRequest(input=(), extra={"a": object()})}, "turn.request.extra.a"),
        ],
    )
    async def test_a_turn_that_cannot_be_kept_is_refused(self, broken: dict[str, Any], field: str) -> None:
        async with self.processes() as (one, _):
            with pytest.raises(InvalidRequest) as refused:
                await one.accept(turn(1, **broken))
            assert refused.value.field == field
            assert await one.storage.read(folder_of(KEY)) is None

    # ---------------------------------------------------------------------------------------------------------- taking

    async def test_the_session_of_an_owner_that_is_gone_is_taken_with_its_turns(self) -> None:
        async with self.processes() as (one, other):
            for number in (1, 2):
                await one.accept(turn(number))
            await one.append(KEY, "turn-1", 0, SAID)
            await be_late(one, other)
            taken = await other.accept(turn(3))
            assert isinstance(taken, SessionTaken)
            here: dict[str, Any] = {"here": True, "owned": True}
            assert list(taken.turns) == [
                TurnEntry(turn=turn(1), number=1, status="running", events=SAID, taken_at=len(SAID), **here),
                TurnEntry(turn=turn(2), number=2, status="waiting", attempts=0, ahead=1, events=[], **here),
            ]
            assert await other.find("turn-3", None) is None
            again = await other.find("turn-1", None)
            assert again is not None
            assert again.attempts == 2
            assert await other.accept(turn(3)) == TurnAccepted(3, False)

    async def test_who_was_late_writes_nothing(self) -> None:
        async with self.processes() as (one, other):
            for number in (1, 2):
                await one.accept(turn(number))
            await be_late(one, other)
            assert len(await other.take(KEY)) == 2
            before = await other.storage.read(folder_of(KEY))
            change = Change(key=SERVICE, head=b"staged")
            for call in (
                one.append(KEY, "turn-1", 0, SAID),
                one.finish(KEY, ending(1, b"stale", changes=[change])),
                one.finish(KEY, ending(1, record=None, kept=False)),
                one.release(KEY, begun=True),
            ):
                with pytest.raises(SessionLost):
                    await call
            assert await other.storage.read(folder_of(KEY)) == before
            assert await other.storage.read(SERVICE) is None
            await other.append(KEY, "turn-1", 0, SAID)
            await other.finish(KEY, ending(1, first=3, events=[LAST]))
            await other.finish(KEY, ending(2))
            kept = await one.load(KEY)
            assert kept is not None
            assert kept.turns == (record(1), record(2))

    async def test_only_what_nobody_has_is_taken(self) -> None:
        async with self.processes() as (one, other):
            assert await other.take(KEY) == ()
            await one.accept(turn(1))
            assert await other.take(KEY) == ()
            assert await one.take(KEY) == ()
            assert await other.orphans(10) == []
            await one.finish(KEY, ending(1))
            await be_late(one, other)
            assert await other.take(KEY) == ()  # there is nothing to do

    async def test_sessions_of_those_that_are_gone_are_orphans(self) -> None:
        async with self.processes() as (one, other):
            for key in (OTHER, KEY):
                await one.accept(turn(int(key.session_id[1]), key))
            await one.accept(turn(3, SessionKey("u1", "s3")))
            await one.finish(SessionKey("u1", "s3"), ending(3))
            await be_late(one, other)
            assert await other.orphans(10) == [OTHER, KEY]
            assert await other.orphans(1) == [OTHER]
            await other.take(OTHER)
            assert await other.orphans(10) == [KEY]

    async def test_what_a_process_leaves_when_it_stops_is_an_orphan_at_once(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))
            await one.stop()
            assert await other.orphans(10) == [KEY]
            assert [entry.turn for entry in await other.take(KEY)] == [turn(1)]

    @pytest.mark.parametrize("again", [False, True])
    async def test_a_session_that_is_let_go_is_another_s(self, again: bool) -> None:
        async with self.processes() as (one, other):
            for number in (1, 2):
                await one.accept(turn(number))
            await one.append(KEY, "turn-1", 0, SAID)
            await one.release(KEY, begun=not again)
            with pytest.raises(SessionLost):
                await one.append(KEY, "turn-1", 3, SAID)
            entries = await other.take(KEY)
            assert [(entry.status, entry.attempts, entry.taken_at) for entry in entries] == [
                ("waiting", 0, None) if again else ("running", 0, len(SAID)),
                ("waiting", 0, None),
            ]
            assert await status_of(other, 1) == "running"

    async def test_a_turn_that_was_let_go_and_lost_then_is_taken_at_what_was_known_last(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))
            await one.append(KEY, "turn-1", 0, SAID[:2])
            await one.release(KEY, begun=False)
            await other.take(KEY)
            await other.append(KEY, "turn-1", 2, SAID[2:])
            await be_late(other, one)
            (entry,) = await one.take(KEY)
            assert (entry.status, entry.attempts, entry.taken_at) == ("running", 1, len(SAID))

    @pytest.mark.parametrize("begun", [False, True])
    async def test_who_takes_a_session_and_lets_it_go_leaves_it_as_it_was(self, begun: bool) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))
            if begun:
                await be_late(one, other)
            else:
                await one.release(KEY, begun=False)
            for _ in range(3):
                (entry,) = await other.take(KEY)
                assert (entry.status, entry.attempts) == (("running", 1) if begun else ("waiting", 0))
                await other.release(KEY, begun=begun)

    # -------------------------------------------------------------------------------------------------- being a store

    async def test_what_is_forgotten_does_not_come_back(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))
            await other.forget(KEY)
            assert await one.find("turn-1", None) is None
            for call in (one.append(KEY, "turn-1", 0, SAID), one.finish(KEY, ending(1, b"state"))):
                with pytest.raises(SessionLost):
                    await call
            assert await one.storage.read(folder_of(KEY)) is None
            assert await one.accept(turn(1)) == TurnAccepted(1, True)

    async def test_a_session_is_deleted_as_it_stood_or_not_at_all(self) -> None:
        async with self.processes() as (one, other):
            assert await other.standing(KEY) == NOT_THERE
            await one.accept(turn(1))
            await one.finish(KEY, ending(1, b"state"))
            standing = await other.standing(KEY)
            assert isinstance(standing, Fence)
            await one.accept(turn(2))
            for expected in (standing, NOT_THERE):
                with pytest.raises(Conflict):
                    await other.forget(KEY, expected)
            await one.finish(KEY, ending(2, b"more"))
            with pytest.raises(Conflict):
                await other.forget(KEY, standing)
            assert await other.load(KEY) == SessionRecord(KEY, 2, b"more", (record(1), record(2)))
            standing = await other.standing(KEY)
            assert isinstance(standing, Fence)
            await other.forget(KEY, standing)
            assert await one.load(KEY) is None
            assert await one.find("turn-1", None) is None
            assert await one.accept(turn(3)) == TurnAccepted(1, True)

    async def test_who_wants_to_delete_a_session_is_told_of_its_open_turns(self) -> None:
        async with self.processes() as (one, other):
            for sent in (turn(1, principal="Ada"), turn(2)):
                await one.accept(sent)
            before = await one.storage.read(folder_of(KEY))
            for store in (one, other):
                assert await store.standing(KEY) == TurnsOpen([("turn-1", "Ada"), ("turn-2", None)])
            assert await one.storage.read(folder_of(KEY)) == before
            await be_late(one, other)
            taken = await other.standing(KEY)
            assert isinstance(taken, SessionTaken)
            assert [(entry.turn.id, entry.status) for entry in taken.turns] == [
                ("turn-1", "running"),
                ("turn-2", "waiting"),
            ]
            with pytest.raises(SessionLost):
                await one.finish(KEY, ending(1, principal="Ada"))
            await other.finish(KEY, ending(1, principal="Ada"))
            assert await one.standing(KEY) == TurnsOpen([("turn-2", None)])

    async def test_a_process_that_is_ending_takes_no_session_to_delete_it(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))
            await other.drain()
            await be_late(one, other)
            assert await other.standing(KEY) == TurnsOpen([("turn-1", None)])
            assert await other.take(KEY) == ()

    async def test_a_session_that_another_process_works_on_can_be_read_and_forked_but_not_committed_to(
        self,
    ) -> None:
        async with self.processes() as (one, other):
            for number in (1, 2):
                await one.accept(turn(number))
                await one.finish(KEY, ending(number, b"%d" % number))
            await one.accept(turn(3))
            assert await other.fork(KEY, "turn-1", OTHER)
            assert await one.load(OTHER) == SessionRecord(OTHER, 1, b"1", (record(1),))
            with pytest.raises(SessionHeld):
                await other.commit(KEY, TurnCommit(record(9)))
            await one.commit(KEY, TurnCommit(record(4), b"4"))
            await one.finish(KEY, ending(3, b"3"))
            kept = await other.load(KEY)
            assert kept is not None
            assert kept.turns == tuple(record(number) for number in (1, 2, 4, 3))
            assert isinstance(await other.accept(turn(5, OTHER)), TurnAccepted)

    async def test_who_drains_takes_no_more_sessions(self) -> None:
        async with self.processes() as (one, other):
            for store, key, number in ((one, KEY, 1), (other, OTHER, 2)):
                await store.accept(turn(number, key))
                await store.finish(key, ending(number))
            await one.accept(turn(3))
            await one.drain()
            for key in (OTHER, SessionKey("u1", "new")):
                with pytest.raises(NotServing):
                    await one.accept(turn(9, key))
                assert await one.take(key) == ()
            assert await one.accept(turn(4)) == TurnAccepted(3, False)
            assert isinstance(await one.accept(turn(2)), TurnKnown)
            refused = await other.accept(turn(5))
            assert isinstance(refused, SessionElsewhere)
            assert refused.owner == one.owner
            for number in (3, 4):
                await one.finish(KEY, ending(number))
            assert await other.accept(turn(5)) == TurnAccepted(4, True)

    async def test_the_owner_of_a_turn_is_asked_to_cancel_it(self) -> None:
        async with self.processes() as (one, other):
            asked: list[tuple[str, str | None, str]] = []
            one.when_asked(lambda *what: asked.append(what))
            await one.accept(turn(1, principal="Ada"))
            assert not await other.ask_to_cancel("turn-1", None, "why")
            assert await other.ask_to_cancel("turn-1", "Ada", "why")
            await one._life.beat()
            assert asked == [("turn-1", "Ada", "why")]
            assert await one.ask_to_cancel("turn-1", "Ada", "here")
            assert asked[1:] == [("turn-1", "Ada", "why")]  # for which it was cancelled first
            await one.finish(KEY, ending(1, principal="Ada"))
            assert not await other.ask_to_cancel("turn-1", "Ada", "too late")
            await one.accept(turn(2))
            await be_late(one, other)
            assert not await other.ask_to_cancel("turn-2", None, "gone")

    async def test_a_cancellation_is_recorded_once_and_its_owner_writes_on(self) -> None:
        async with self.processes() as (one, other):
            for sent in (turn(1, principal="Ada"), turn(2), turn(3)):
                await one.accept(sent)
            await one.append(KEY, "turn-1", 0, SAID[:2])
            assert not await other.ask_to_cancel("turn-1", "Eve", "not hers")
            for turn_id, principal in (("turn-1", "Ada"), ("turn-2", None)):
                assert await other.ask_to_cancel(turn_id, principal, f"why {turn_id}")
                marked = await other.storage.read(folder_of(KEY))
                for store in (one, other):
                    assert await store.ask_to_cancel(turn_id, principal, "again")
                    entry = await store.find(turn_id, principal)
                    assert entry is not None
                    assert entry.cancelled == f"why {turn_id}"
                assert await other.storage.read(folder_of(KEY)) == marked
            await one.append(KEY, "turn-1", 2, SAID[2:])
            assert await one.accept(turn(4)) == TurnAccepted(4, False)
            await one.finish(KEY, ending(1, principal="Ada", first=3, events=[LAST]))
            entries = [
                await other.find(*found) for found in (("turn-1", "Ada"), ("turn-2", None), ("turn-3", None))
            ]
            assert [(entry.status, entry.cancelled) for entry in entries if entry is not None] == [
                ("ended", None),
                ("running", "why turn-2"),
                ("waiting", None),
            ]

    @pytest.mark.parametrize("gone", [False, True], ids=["before it was gone", "when it was gone"])
    async def test_who_takes_a_session_is_told_what_is_to_be_cancelled(self, gone: bool) -> None:
        async with self.processes() as (one, other):
            for number in (1, 2, 3):
                await one.accept(turn(number))
            if gone:
                await be_late(one, other)
            for number in (1, 3):
                assert await other.ask_to_cancel(f"turn-{number}", None, f"why {number}") is not gone
            if not gone:
                await be_late(one, other)
            (taken,) = [await other.take(KEY)]
            assert [(entry.status, entry.cancelled) for entry in taken] == [
                ("running", "why 1"),
                ("waiting", None),
                ("waiting", "why 3"),
            ]
            await be_late(other, one)
            again = await one.accept(turn(4))
            assert isinstance(again, SessionTaken)
            assert [entry.cancelled for entry in again.turns] == ["why 1", None, "why 3"]

    async def test_a_turn_that_is_let_go_is_to_be_cancelled_still(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))
            assert await other.ask_to_cancel("turn-1", None, "why")
            await one.release(KEY, begun=False)
            assert not await other.ask_to_cancel("turn-1", None, "again")
            (entry,) = await other.take(KEY)
            assert (entry.status, entry.cancelled) == ("waiting", "why")

    async def test_an_owner_that_writes_has_heard_what_is_to_be_cancelled(self) -> None:
        async with self.processes() as (one, other):
            asked: list[tuple[str, str | None, str]] = []
            one.when_asked(lambda *what: asked.append(what))
            writes: list[Callable[[], Awaitable[object]]] = [
                lambda: one.append(KEY, "turn-1", 0, SAID[:1]),
                lambda: one.accept(turn(6)),
                lambda: one.finish(KEY, ending(1, first=1)),
            ]
            for number in range(1, 6):
                await one.accept(turn(number))
            for number, write in enumerate(writes, 3):
                await other.ask_to_cancel(f"turn-{number}", None, "why")
                await write()
                assert asked[-1] == (f"turn-{number}", None, "why")
            heard = len(asked)
            await one.finish(KEY, ending(2))
            assert len(asked) == heard  # it knows

    async def test_the_reason_is_kept_as_text_of_bounded_length(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))
            assert await other.ask_to_cancel("turn-1", None, "\ud800" + 5_000 * "x")
            entry = await one.find("turn-1", None)
            assert entry is not None
            assert entry.cancelled == "?" + 999 * "x"

    async def test_the_owner_of_a_turn_is_told_where_it_is_followed(self) -> None:
        async with self.processes() as (one, other):
            told: list[tuple[str, str | None, str, float]] = []
            one.when_followed(lambda *what: told.append(what))
            await one.accept(turn(1, principal="Ada"))
            await one.accept(turn(2))
            assert not await other.tell_followed("turn-1", None, 9.0)
            assert await other.tell_followed("turn-1", "Ada", 9.0)
            assert await other.tell_followed("turn-1", "Ada", 0.0)
            assert await other.tell_followed("turn-2", None, 1.5)
            await one.hear()
            assert told == [
                ("turn-1", "Ada", other.owner, 9.0),
                ("turn-1", "Ada", other.owner, 0.0),
                ("turn-2", None, other.owner, 1.5),
            ]
            assert await one.tell_followed("turn-2", None, 2.0)
            assert told[3:] == [("turn-2", None, one.owner, 2.0)]
            await one.finish(KEY, ending(1, principal="Ada"))
            assert not await other.tell_followed("turn-1", "Ada", 9.0)
            await be_late(one, other)
            assert not await other.tell_followed("turn-2", None, 9.0)

    async def test_history_keeps_its_bounds_whoever_has_the_session(self) -> None:
        async with self.processes(turns_kept=3, states_kept=2) as stores:
            for number in range(1, 80):
                store = stores[number // 5 % 2]
                await store.accept(turn(number))
                await store.finish(KEY, ending(number, b"%d" % number))
                kept = await store.load(KEY)
                assert kept is not None
                assert kept.turns == tuple(record(n) for n in range(max(1, number - 2), number + 1))
            assert not await stores[0].fork(KEY, "turn-77", OTHER)
            assert await stores[0].fork(KEY, "turn-78", OTHER)

    # ---------------------------------------------------------------------------------------------------- by schedules

    @given(steps=STEPS)
    @settings(max_examples=30)
    async def test_no_schedule_loses_or_doubles_a_turn(self, steps: Sequence[Step]) -> None:
        storage, _ = self.clients()
        async with a_world(storage) as world:
            await world.run(steps, "schedule")
