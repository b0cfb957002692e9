"""The part of the conformance kit of durable stores that is about sessions that go with the process that made them."""

from __future__ import annotations

import pytest

from greenroom.actors.messages import SessionKey
from greenroom.services.durable import SessionTaken
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.passing import KIND, forgotten, unforgotten
from greenroom.services.storage import NOT_THERE, Change, Conflict, Fence, FolderKey
from kits.durable_endings_kit import KEY, OTHER, DurableEndingsKit, be_late, ending, turn, unkept

NONE: tuple[list[SessionKey], list[SessionKey]] = ([], [])


class PassingKit(DurableEndingsKit):
    """What is left of them when it is gone, and found."""

    async def test_a_session_that_goes_with_its_process_is_found_when_that_is_gone(self) -> None:
        async with self.processes() as (one, other):
            for number in (1, 2):
                await one.accept(turn(number, passing=True))
                await one.finish(KEY, ending(number))
            assert await passed(other) == NONE
            await be_late(one, other)
            assert await passed(other) == ([KEY], [])
            await other.forget(KEY)
            assert await left(other) == ()
            assert await passed(other) == NONE

    async def test_what_is_forgotten_in_time_leaves_no_mark(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1, passing=True))
            await one.finish(KEY, ending(1))
            await one.forget(KEY)
            await be_late(one, other)
            assert await passed(other) == NONE
            assert await other.storage.sessions(KIND, KEY.user_id) == ()

    async def test_a_turn_that_is_to_stay_has_its_session_stay(self) -> None:
        async with self.processes() as (one, other):
            for number, passing in ((1, True), (2, False), (3, None)):
                await one.accept(turn(number, passing=passing))
                await one.finish(KEY, ending(number))
            await be_late(one, other)
            assert await passed(other) == NONE
            assert await left(other) == (KEY.session_id,)

    async def test_while_a_turn_is_open_it_is_to_be_left_alone(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1, passing=True))
            await be_late(one, other)
            assert await passed(other) == ([], [KEY])
            assert len(await other.take(KEY)) == 1
            assert await passed(other) == ([], [KEY])
            await other.finish(KEY, ending(1))
            assert await passed(other) == ([KEY], [])

    async def test_a_fork_goes_with_its_process_until_a_turn_of_it_is_accepted_that_stays(self) -> None:
        for number, passing in ((1, None), (2, False)):
            async with self.processes() as (one, other):
                await one.accept(turn(1))
                await one.finish(KEY, ending(1))
                assert await one.fork(KEY, "turn-1", OTHER)
                assert await passed(other) == NONE
                if number == 2:
                    await one.accept(turn(2, OTHER, passing=passing))
                    await one.finish(OTHER, ending(2))
                await be_late(one, other)
                assert await passed(other) == (([OTHER], []) if number == 1 else NONE)
                assert await left(other) == (KEY.session_id, OTHER.session_id)

    async def test_a_fork_for_one_turn_alone_that_was_not_forgotten_is_found(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))
            await one.finish(KEY, ending(1))
            assert await one.fork(KEY, "turn-1", OTHER)
            await one.accept(unkept(2, key=OTHER, temporary=True))
            await one.finish(OTHER, ending(2, record=None, kept=False, events=[]))
            await be_late(one, other)
            assert await passed(other) == ([OTHER], [])

    async def test_a_process_that_began_anew_has_what_it_goes_on_with(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1, passing=True))
            await one.finish(KEY, ending(1))
            await be_late(one, other)
            assert not isinstance(await other.accept(turn(2, passing=True)), SessionTaken)
            await other.finish(KEY, ending(2))
            assert await passed(other) == NONE

    async def test_one_that_somebody_has_gone_on_with_since_is_not_forgotten(self) -> None:
        other_folder = FolderKey("other", *KEY)
        for passing in (True, False, None):
            async with self.processes() as (one, other):
                await one.accept(turn(1, passing=True))
                await one.finish(KEY, ending(1))
                await be_late(one, other)
                ((found,), _) = await other.passed(10)
                await other.storage.write([Change(key=other_folder, head=b"there")])
                await one.accept(turn(2, passing=passing))
                await one.finish(KEY, ending(2))
                with pytest.raises(Conflict):
                    await other.forget(KEY, found.standing, mark=found.mark, others=[_gone(other_folder)])
                assert await left(other) == (KEY.session_id,)
                assert await other.storage.read(other_folder) is not None

    async def test_one_that_was_forgotten_and_marked_anew_stays(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1, passing=True))
            await one.finish(KEY, ending(1))
            await be_late(one, other)
            ((found,), _) = await other.passed(10)
            await other.forget(KEY)
            with pytest.raises(Conflict):
                await other.forget(KEY, NOT_THERE, mark=found.mark)

    async def test_what_is_forgotten_with_it_goes_with_it(self) -> None:
        other_folder = FolderKey("other", *KEY)
        async with self.processes() as (one, other):
            await one.accept(turn(1, passing=True))
            await one.finish(KEY, ending(1))
            await be_late(one, other)
            await other.storage.write([Change(key=other_folder, head=b"there")])
            ((found,), _) = await other.passed(10)
            await other.forget(KEY, found.standing, mark=found.mark, others=[_gone(other_folder)])
            assert await left(other) == ()
            assert await passed(other) == NONE
            assert await other.storage.read(other_folder) is None

    async def test_one_that_went_is_found_until_services_elsewhere_have_forgotten_it(self) -> None:
        async with self.processes() as (one, other):
            await one.accept(turn(1))
            await one.finish(KEY, ending(1))
            owner, standing = one.owner, await one.standing(KEY)
            assert isinstance(standing, Fence)
            await one.forget(KEY, standing, others=[unforgotten(KEY, owner)])
            assert await left(other) == ()
            assert await passed(other) == NONE
            await be_late(one, other)
            ((found,), _) = await other.passed(10)
            assert (found.key, found.standing) == (KEY, NOT_THERE)
            again = unforgotten(KEY, other.owner, found.mark)
            await other.forget(KEY, found.standing, mark=found.mark, others=[again])
            assert await passed(other) == NONE
            await forgotten(other.storage, KEY, owner)
            assert await other.storage.sessions(KIND, KEY.user_id) == (KEY.session_id,)
            await forgotten(other.storage, KEY, other.owner)
            assert await other.storage.sessions(KIND, KEY.user_id) == ()

    async def test_one_that_went_and_began_anew_is_not_to_go(self) -> None:
        for passing in (None, False, True):
            async with self.processes() as (one, other):
                await one.forget(KEY, NOT_THERE, others=[unforgotten(KEY, one.owner)])
                await other.accept(turn(1, passing=passing))
                await be_late(one, other)
                assert await passed(other) == NONE
                await other.finish(KEY, ending(1))
                assert await passed(other) == NONE
                marks = await other.storage.sessions(KIND, KEY.user_id)
                assert marks == ((KEY.session_id,) if passing else ())
                assert await left(other) == (KEY.session_id,)


def _gone(key: FolderKey) -> Change:
    return Change(key=key, delete=True)


async def passed(store: DurableSessions) -> tuple[list[SessionKey], list[SessionKey]]:
    """Sessions that may be forgotten, and those to be left alone."""
    free, busy = await store.passed(10)
    return [found.key for found in free], list(busy)


async def left(store: DurableSessions) -> tuple[str, ...]:
    """Sessions that are kept."""
    return await store.storage.sessions("session", KEY.user_id)
