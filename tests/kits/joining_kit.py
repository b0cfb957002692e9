"""The part of the conformance kit of durable stores that is about turns that join the line of another process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from greenroom.actors.errors import MailboxFull, SessionLost
from greenroom.actors.messages import SessionKey, Turn
from greenroom.services.durable import (
    Acceptance,
    InLine,
    SessionElsewhere,
    SessionTaken,
    TurnAccepted,
    TurnEntry,
    TurnJoined,
    TurnKnown,
)
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.passing import KIND
from kits.durable_endings_kit import KEY, LAST, SAID, be_late, ending, status_of, turn
from kits.passing_kit import PassingKit


class JoiningKit(PassingKit):
    """Whose turn is whose, and who hears of it."""

    async def test_a_turn_joins_the_line_of_a_session_that_is_elsewhere(self) -> None:
        async with self.processes() as (one, other):
            heard = hears(one)
            await one.accept(turn(1))
            seen: list[SessionElsewhere] = []
            answer = await other.accept(turn(2, principal="Ada"), seen.append)
            entry = TurnEntry(
                turn=turn(2, principal="Ada"),
                number=2,
                status="waiting",
                attempts=0,
                ahead=1,
                owned=True,
                events=[],
            )
            assert isinstance(answer, TurnJoined)
            assert (answer.entry, [answer.elsewhere]) == (entry, seen)
            assert (seen[0].owner, ids(seen[0].turns)) == (one.owner, ["turn-1"])
            assert seen[0].turns[0].size > 0
            assert await other.find("turn-2", "Ada") == entry
            assert heard == []
            await one.finish(KEY, ending(1))
            assert [(key, ids(turns)) for key, turns in heard] == [(KEY, ["turn-2"])]
            (found,) = await one.line(KEY, anything)
            assert (found.turn, found.number, found.here) == (entry.turn, 2, True)
            await one.append(KEY, "turn-2", 0, SAID)
            await one.finish(KEY, ending(2, first=3, events=[LAST], principal="Ada"))
            assert len(heard) == 1
            record = await other.load(KEY)
            assert record is not None
            assert [one.turn_id for one in record.turns] == ["turn-1", "turn-2"]

    async def test_the_line_is_one_wherever_turns_come_in(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))
            await joined(other, turn(2))
            after = await one.accept(turn(3))
            assert isinstance(after, TurnAccepted)
            assert (after.number, after.fresh, ids(after.joined)) == (3, False, ["turn-2"])
            await joined(other, turn(4))
            seen: list[SessionElsewhere] = []
            await other.accept(turn(5), seen.append)
            assert ids(seen[0].turns) == [f"turn-{number}" for number in (1, 2, 3, 4)]
            entries = await one.line(KEY, lambda turn_id, _: turn_id in ("turn-2", "turn-4"))
            assert [entry.turn.id for entry in entries] == ["turn-2", "turn-4"]
            (entry,) = await one.line(KEY, anything, 1)
            assert entry.turn.id == "turn-2"
            for number in range(1, 6):
                assert await status_of(other, number) == "running"
                await one.finish(KEY, ending(number))
            assert isinstance(await other.accept(turn(6)), TurnAccepted)

    async def test_turns_of_all_processes_at_once_are_in_one_line(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(0))
            stores = (one, other)
            answers: list[Acceptance] = await asyncio.gather(
                *(stores[number % 2].accept(turn(number), anywhere) for number in range(1, 13))
            )
            kinds = [TurnAccepted if number % 2 == 0 else TurnJoined for number in range(1, 13)]
            assert [type(answer) for answer in answers] == kinds
            numbers = [
                answer.number if isinstance(answer, TurnAccepted) else answer.entry.number
                for answer in answers
                if isinstance(answer, TurnAccepted | TurnJoined)
            ]
            assert sorted(numbers) == list(range(2, 14))
            entries = await one.line(KEY, anything)
            assert [entry.number for entry in entries] == sorted(entry.number for entry in entries)
            assert len(entries) == 6

    async def test_who_is_refused_a_place_in_the_line_leaves_nothing(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))

            def full(stands: SessionElsewhere) -> None:
                raise MailboxFull("no")

            with pytest.raises(MailboxFull):
                await other.accept(turn(2), full)
            assert await one.find("turn-2", None) is None
            assert not await one.line(KEY, anything)

    async def test_a_repeat_joins_nothing(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1, idempotency_key="k"))
            for number in (1, 2):
                known = await other.accept(turn(number, idempotency_key="k"), anywhere)
                assert isinstance(known, TurnKnown)
                assert known.entry.turn.id == "turn-1"
            await joined(other, turn(3, idempotency_key="l"))
            for store in (one, other):
                known = await store.accept(turn(4, idempotency_key="l"), anywhere)
                assert isinstance(known, TurnKnown)
                assert known.entry.turn.id == "turn-3"

    async def test_where_nobody_is_at_work_a_turn_has_the_session(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))
            await one.finish(KEY, ending(1))
            assert await other.accept(turn(2), anywhere) == TurnAccepted(2, True)
            await be_late(other, one)
            assert isinstance(await one.accept(turn(3), anywhere), SessionTaken)

    async def test_the_line_of_an_owner_that_is_gone_is_taken_with_all_that_joined(self) -> None:
        async with self.processes() as (one, other):
            heard = hears(other)
            await one.accept(turn(1))
            await joined(other, turn(2))
            await be_late(one, other)
            assert [entry.turn.id for entry in await other.take(KEY)] == ["turn-1", "turn-2"]
            accepted = await other.accept(turn(3))
            assert accepted == TurnAccepted(3, False), "those that were taken are known"
            await other.finish(KEY, ending(1))
            assert heard == []
            for call in (one.finish(KEY, ending(1)), one.line(KEY, anything)):
                with pytest.raises(SessionLost):
                    await call

    async def test_what_joined_goes_with_a_session_that_is_let_go(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))
            await joined(other, turn(2))
            await one.finish(KEY, ending(1))
            await one.release(KEY, begun=False)
            (entry,) = await other.take(KEY)
            assert (entry.turn.id, entry.status) == ("turn-2", "waiting")

    async def test_a_session_that_is_to_go_with_its_process_goes_with_its_owner(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))
            await joined(other, turn(2, passing=True))
            for number in (1, 2):
                await one.finish(KEY, ending(number))
            assert await one.storage.sessions(KIND, KEY.user_id) == (KEY.session_id,)
            assert await other.passed(10) == ([], [])
            await be_late(one, other)
            found, _ = await other.passed(10)
            assert [passed.key for passed in found] == [KEY]


def anything(turn_id: str, principal: str | None) -> bool:
    return True


def anywhere(stands: SessionElsewhere) -> None:
    """There is always room."""


async def joined(store: DurableSessions, one: Turn) -> TurnJoined:
    answer = await store.accept(one, anywhere)
    assert isinstance(answer, TurnJoined)
    return answer


def ids(turns: Sequence[InLine]) -> list[str]:
    return [one.turn_id for one in turns]


def hears(store: DurableSessions) -> list[tuple[SessionKey, Sequence[InLine]]]:
    """What the store says of lines, from now on."""
    heard: list[tuple[SessionKey, Sequence[InLine]]] = []
    store.when_joined(lambda key, turns: heard.append((key, turns)))
    return heard
