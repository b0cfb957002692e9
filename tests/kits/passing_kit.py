"""The part of the conformance kit of durable stores that is about sessions that go with the process that made them."""

from __future__ import annotations

from greenroom.actors.messages import SessionKey
from greenroom.services.durable import SessionTaken
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.passing import KIND
from kits.durable_endings_kit import KEY, OTHER, DurableEndingsKit, be_late, ending, turn, unkept

NONE: tuple[list[SessionKey], list[SessionKey]] = ([], [])


class PassingKit(DurableEndingsKit):
    """What is left of them when it is gone, and found."""

    async def test_a_session_that_goes_with_its_process_is_found_when_that_is_gone(self) -> None:
        async with self.processes() as (one, other):
            for number in (1, 2):
                await one.accept(turn(number, passing=True))
                await one.finish(KEY, ending(number))
            assert await other.passed(10) == NONE
            await be_late(one, other)
            assert await other.passed(10) == ([KEY], [])
            await other.forget(KEY)
            assert await left(other) == ()
            assert await other.passed(10) == NONE

    async def test_what_is_forgotten_in_time_leaves_no_mark(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1, passing=True))
            await one.finish(KEY, ending(1))
            await one.forget(KEY)
            await be_late(one, other)
            assert await other.passed(10) == NONE
            assert await other.storage.sessions(KIND, KEY.user_id) == ()

    async def test_a_turn_that_is_to_stay_has_its_session_stay(self) -> None:
        async with self.processes() as (one, other):
            for number, passing in ((1, True), (2, False), (3, None)):
                await one.accept(turn(number, passing=passing))
                await one.finish(KEY, ending(number))
            await be_late(one, other)
            assert await other.passed(10) == NONE
            assert await left(other) == (KEY.session_id,)

    async def test_while_a_turn_is_open_it_is_to_be_left_alone(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1, passing=True))
            await be_late(one, other)
            assert await other.passed(10) == ([], [KEY])
            assert len(await other.take(KEY)) == 1
            assert await other.passed(10) == ([], [KEY])
            await other.finish(KEY, ending(1))
            assert await other.passed(10) == ([KEY], [])

    async def test_a_fork_goes_with_its_process_until_a_turn_of_it_is_accepted_that_stays(self) -> None:
        for number, passing in ((1, None), (2, False)):
            async with self.processes() as (one, other):
                await one.accept(turn(1))
                await one.finish(KEY, ending(1))
                assert await one.fork(KEY, "turn-1", OTHER)
                assert await other.passed(10) == NONE
                if number == 2:
                    await one.accept(turn(2, OTHER, passing=passing))
                    await one.finish(OTHER, ending(2))
                await be_late(one, other)
                assert await other.passed(10) == (([OTHER], []) if number == 1 else NONE)
                assert await left(other) == (KEY.session_id, OTHER.session_id)

    async def test_a_fork_for_one_turn_alone_that_was_not_forgotten_is_found(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))
            await one.finish(KEY, ending(1))
            assert await one.fork(KEY, "turn-1", OTHER)
            await one.accept(unkept(2, key=OTHER, temporary=True))
            await one.finish(OTHER, ending(2, record=None, kept=False, events=[]))
            await be_late(one, other)
            assert await other.passed(10) == ([OTHER], [])

    async def test_a_process_that_began_anew_has_what_it_goes_on_with(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1, passing=True))
            await one.finish(KEY, ending(1))
            await be_late(one, other)
            assert not isinstance(await other.accept(turn(2, passing=True)), SessionTaken)
            await other.finish(KEY, ending(2))
            assert await other.passed(10) == NONE


async def left(store: DurableSessions) -> tuple[str, ...]:
    """Sessions that are kept."""
    return await store.storage.sessions("session", KEY.user_id)
