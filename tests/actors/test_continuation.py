"""Turns that continue from another one: where they go, what they find there, and what they leave alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from greenroom.actors.errors import (
    ContinuationNotFound,
    NotServing,
    Overloaded,
    SessionBusy,
    TurnExists,
    TurnOver,
)
from greenroom.actors.events import TurnCancelled, TurnCompleted, TurnFailed
from greenroom.actors.limits import Limits
from greenroom.actors.messages import SessionKey
from greenroom.actors.system import ActorSystem
from greenroom.services.agent_state import InMemoryStateService
from greenroom.services.memory_responses import InMemoryResponseStore
from greenroom.services.session_history import InMemorySessionHistoryService
from greenroom.services.sessions.memory_store import InMemoryStore
from greenroom.services.store import SessionRecord
from greenroom.services.work import current_work
from kits.remembering import SlowStore, Tutorial, heard, new_memory, tell
from kits.system import running_system, said, turn
from kits.virtual_time import virtual_time

KEY = SessionKey("u", "s")


async def test_from_the_newest_turn_it_goes_on_in_the_same_session() -> None:
    async with running_system(new_memory, agent=True) as system:
        await tell(system, "a")
        log = await tell(system, "b", after="a")
        assert (log.turn.key, heard(log)) == (KEY, "a b")
        assert system.statistics().active_sessions == 1


async def test_from_an_older_turn_it_forks_and_the_two_branches_never_meet() -> None:
    async with running_system(new_memory, agent=True) as system:
        for text in "abc":
            await tell(system, text)
        fork = await tell(system, "x", after="a")
        assert fork.turn.key.user_id == "u"
        assert fork.turn.key.session_id != "s"
        assert fork.turn.request.session_id == fork.turn.key.session_id
        assert fork.turn.request.user_id == "u"
        assert heard(fork) == "a x"
        assert heard(await tell(system, "d", after="c")) == "a b c d"
        assert heard(await tell(system, "y", session=fork.turn.key.session_id, after="x")) == "a x y"
        assert [one.turn_id for one in await history(system, fork.turn.key)] == ["a", "x", "y"]
        assert [one.turn_id for one in await history(system, KEY)] == ["a", "b", "c", "d"]


async def history(system: ActorSystem, key: SessionKey) -> Sequence[Any]:
    record = await system.store.load(key)
    return record.turns if record is not None else ()


async def test_a_fork_may_be_forked_again() -> None:
    async with running_system(new_memory, agent=True) as system:
        for text in "abc":
            await tell(system, text)
        fork = await tell(system, "x", after="b")
        session = fork.turn.key.session_id
        second = await tell(system, "y", session=session, after="a")
        assert heard(second) == "a y"
        assert second.turn.key.session_id not in {"s", session}


async def test_what_is_newest_is_known_after_passivation_too() -> None:
    limits = Limits(active_sessions=1)
    async with running_system(new_memory, agent=True, limits=limits) as system:
        for text in "ab":
            await tell(system, text)
        await tell(system, "other", session="t")
        log = await tell(system, "c", after="b")
        assert (log.turn.key, heard(log)) == (KEY, "a b c")
        await tell(system, "another", session="t")
        log = await tell(system, "x", after="a")
        assert (log.turn.key == KEY, heard(log)) == (False, "a x")


@virtual_time
async def test_of_two_turns_at_once_exactly_one_appends() -> None:
    for limits in (Limits(), Limits(active_sessions=2)):
        async with running_system(new_memory, agent=True, limits=limits, store=SlowStore()) as system:
            await tell(system, "a")
            system._roster.passivate_all()
            logs = await asyncio.gather(*(tell(system, text, after="a") for text in "xyz"))
            assert sum(log.turn.key == KEY for log in logs) == 1
            assert sorted(heard(log) for log in logs) == ["a x", "a y", "a z"]


@virtual_time
async def test_what_is_read_of_a_session_is_not_believed_when_a_turn_has_ended_meanwhile() -> None:
    class Stale(InMemoryStore):
        async def load(self, key: SessionKey) -> SessionRecord | None:
            record = await super().load(key)
            await asyncio.sleep(0.1 if current_work.get() is not None else 5)
            return record

    async with running_system(new_memory, agent=True, store=Stale()) as system:
        await tell(system, "a")
        system._roster.passivate_all()
        continued = asyncio.create_task(tell(system, "x", after="a"))
        await asyncio.sleep(1)
        assert heard(await tell(system, "b")) == "a b"
        log = await continued
        assert (log.turn.key == KEY, heard(log)) == (False, "a x")


@virtual_time
async def test_behind_the_newest_turn_it_waits_in_line_also_while_that_runs_or_waits_itself() -> None:
    async with running_system(new_memory, agent=True) as system:
        first = await system.submit(turn("wait", id="1"))
        second = await system.submit(turn("b", id="2", after="1"))
        third = await system.submit(turn("c", id="3", after="2"))
        assert {log.turn.key for log in (first, second, third)} == {KEY}
        assert said(await third.ended()) == "wait b c"


@virtual_time
async def test_behind_a_turn_that_runs_and_is_not_the_newest_it_waits_for_its_end_and_forks() -> None:
    async with running_system(new_memory, agent=True) as system:
        await system.submit(turn("wait", id="1"))
        second = await system.submit(turn("b", id="2"))
        fork = await tell(system, "x", after="1")
        assert fork.turn.key != KEY
        assert heard(fork) == "wait x"
        assert said(await second.ended()) == "wait b"


@virtual_time
async def test_it_appends_after_all_when_what_was_newer_never_began() -> None:
    async with running_system(new_memory, agent=True) as system:
        await system.submit(turn("wait", id="1"))
        await system.submit(turn("b", id="2"))
        waiting = asyncio.create_task(system.submit(turn("x", id="3", after="1")))
        await asyncio.sleep(1)
        await system.cancel("2")
        log = await waiting
        assert log.turn.key == KEY
        assert said(await log.ended()) == "wait x"
        with pytest.raises(ContinuationNotFound):
            await system.submit(turn("y", after="2"))


async def test_a_turn_that_is_cancelled_before_it_begins_was_never_there() -> None:
    async with running_system(new_memory, agent=True) as system:
        await tell(system, "a")
        blocking = await system.submit(turn("wait", id="blocking"))
        await asyncio.sleep(0)
        await system.submit(turn("b", id="b"))
        await system.cancel("b")
        await system.cancel("blocking")
        await blocking.ended()
        log = await tell(system, "c", after="blocking")
        assert (log.turn.key, heard(log)) == (KEY, "a c")


@virtual_time
async def test_after_a_turn_that_failed_or_was_cancelled_the_state_is_the_last_good_one() -> None:
    async with running_system(new_memory, agent=True) as system:
        await tell(system, "a")
        assert isinstance((await tell(system, "fail", after="a")).terminal, TurnFailed)
        cancelled = await system.submit(turn("wait", id="wait", after="fail"))
        await asyncio.sleep(1)
        await system.cancel("wait")
        assert isinstance(await cancelled.ended(), TurnCancelled)
        appended = await tell(system, "b", after="wait")
        assert (appended.turn.key, heard(appended)) == (KEY, "a b")
        for after in ("fail", "wait"):
            fork = await tell(system, f"x{after[0]}", after=after)
            assert (fork.turn.key == KEY, heard(fork)) == (False, f"a x{after[0]}")


async def test_what_is_not_kept_any_more_is_refused_with_the_way_out() -> None:
    store = InMemoryStore(states_kept=2)
    async with running_system(new_memory, agent=True, store=store) as system:
        for text in "abc":
            await tell(system, text)
        for after in ("a", "never was"):
            with pytest.raises(ContinuationNotFound, match=r"no longer kept.*states_kept") as refused:
                await system.submit(turn("x", after=after))
            assert refused.value.code == "previous_response_not_found"
            assert (refused.value.status, refused.value.field) == (400, "previous_response_id")
        with pytest.raises(ContinuationNotFound):
            await system.submit(turn("x", session="unknown", after="a"))
        assert heard(await tell(system, "x", after="b")) == "a b x"
        assert system.statistics().open_turns == 0


async def test_another_user_s_turn_is_not_continued() -> None:
    async with running_system(new_memory, agent=True) as system:
        await tell(system, "a")
        with pytest.raises(ContinuationNotFound):
            await system.submit(turn("x", user="eve", after="a"))


async def test_a_turn_that_is_refused_in_the_end_leaves_no_fork() -> None:
    forks: list[SessionKey] = []

    class Counting(InMemoryStore):
        async def fork(self, source: SessionKey, turn_id: str, target: SessionKey) -> bool:
            forks.append(target)
            drain = asyncio.create_task(system.drain(0))
            await asyncio.sleep(0)
            await drain
            return await super().fork(source, turn_id, target)

    store = Counting()
    async with running_system(new_memory, agent=True, store=store) as system:
        for text in "ab":
            await tell(system, text)
        with pytest.raises(NotServing):
            await system.submit(turn("x", after="a"))
        assert [await store.load(key) for key in forks] == [None]


@virtual_time
async def test_turns_that_wait_for_a_place_count_as_turns() -> None:
    async with running_system(new_memory, agent=True, limits=Limits(turns=3)) as system:
        await system.submit(turn("wait", id="1"))
        await system.submit(turn("b", id="2"))
        waiting = asyncio.create_task(tell(system, "x", after="1"))
        await asyncio.sleep(1)
        with pytest.raises(Overloaded):
            await system.submit(turn("c", session="other"))
        assert heard(await waiting) == "wait x"
        await tell(system, "c", session="other")


@virtual_time
async def test_who_leaves_while_a_session_is_forked_for_him_leaves_no_fork() -> None:
    forks: list[SessionKey] = []

    class Slow(InMemoryStore):
        async def fork(self, source: SessionKey, turn_id: str, target: SessionKey) -> bool:
            forks.append(target)
            forked = await super().fork(source, turn_id, target)
            await asyncio.sleep(5)
            return forked

    store = Slow()
    async with running_system(new_memory, agent=True, store=store) as system:
        for text in "ab":
            await tell(system, text)
        submitting = asyncio.create_task(system.submit(turn("x", after="a")))
        await asyncio.sleep(1)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        assert [await store.load(key) for key in forks] == [None]
        assert heard(await tell(system, "c", after="b")) == "a b c"


async def test_an_id_that_is_taken_is_refused_before_anything_is_forked() -> None:
    async with running_system(new_memory, agent=True) as system:
        for text in "ab":
            await tell(system, text)
        with pytest.raises(TurnExists):
            await system.submit(turn("x", id="b", after="a"))
        assert system.statistics().active_sessions == 1


# -- services ----------------------------------------------------------------------------------------------------------


async def test_services_of_the_tutorial_follow_a_fork() -> None:
    tutorial = Tutorial()
    await tutorial.start()
    async with running_system(tutorial.answer) as system:
        for text in ("a", "forgetful", "b", "fail", "c"):
            await tell(system, text)
        fork = await tell(system, "x", after="forgetful")
        assert heard(fork) == "a x | a forgetful x"
        assert heard(await tell(system, "y", after="fail")) == "a b y | a forgetful b y"
        assert heard(await tell(system, "d", after="c")) == "a b c d | a forgetful b c d"
        assert heard(await tell(system, "z", session=fork.turn.key.session_id, after="x")) == (
            "a x z | a forgetful x z"
        )


async def test_what_a_service_knows_no_more_is_refused_and_nothing_is_left_of_the_try() -> None:
    tutorial = Tutorial()
    tutorial.histories = InMemorySessionHistoryService(turns_kept=2)
    await tutorial.start()
    store = InMemoryStore()
    async with running_system(tutorial.answer, store=store) as system:
        for text in "abcd":
            await tell(system, text)
        before = (repr(store), repr(tutorial.states), repr(tutorial.histories))
        with pytest.raises(ContinuationNotFound):
            await system.submit(turn("x", after="a"))
        assert (repr(store), repr(tutorial.states), repr(tutorial.histories)) == before


async def test_a_service_that_cannot_follow_is_named() -> None:
    class Area:
        def __init__(self, service: object) -> None:
            pass

        def apply(self, turn_id: str) -> None:
            pass

    class Notes:
        def write(self) -> None:
            work = current_work.get()
            assert work is not None
            work.staging(self, Area)

    notes = Notes()

    async def answer(msgs: Any) -> str:
        notes.write()
        return "noted"

    async with running_system(answer) as system:
        for text in "ab":
            await tell(system, text)
        await tell(system, "c", after="b")
        with pytest.raises(ContinuationNotFound, match=r"Notes.*Forkable"):
            await system.submit(turn("x", after="a"))


# -- turns of which nothing stays --------------------------------------------------------------------------------------


async def test_of_a_turn_that_is_not_kept_nothing_stays() -> None:
    tutorial = Tutorial()
    await tutorial.start()
    async with running_system(tutorial.answer) as system:
        await tell(system, "a")
        assert heard(await tell(system, "secret", kept=False, after="a")) == "a secret | a secret"
        assert isinstance((await tell(system, "fail", kept=False)).terminal, TurnFailed)
        assert heard(await tell(system, "b", after="a")) == "a b | a b"
        assert [one.turn_id for one in await history(system, KEY)] == ["a", "b"]
        for after in ("secret", "fail"):
            with pytest.raises(ContinuationNotFound):
                await system.submit(turn("x", after=after))


@virtual_time
async def test_while_a_turn_that_is_not_kept_runs_the_one_before_it_is_the_newest() -> None:
    async with running_system(new_memory, agent=True) as system:
        await tell(system, "a")
        unkept = await system.submit(turn("wait", kept=False))
        log = await tell(system, "b", after="a")
        assert (log.turn.key, heard(log)) == (KEY, "a b")
        assert said(await unkept.ended()) == "a wait"


async def test_late_code_of_a_turn_that_is_not_kept_changes_nothing() -> None:
    async def late(states: InMemoryStateService) -> None:
        await over.wait()
        await states.save_state("u", {"late": True}, "s")

    async def answer() -> str:
        tasks.append(asyncio.create_task(late(states)))
        return "soon"

    over = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []
    async with InMemoryStateService() as states, running_system(answer) as system:
        await tell(system, "a", kept=False)
        over.set()
        with pytest.raises(TurnOver):
            await tasks[0]
        assert await states.export_state("u", "s") is None


async def test_a_warm_agent_forgets_a_turn_that_is_not_kept() -> None:
    store = InMemoryStore()
    async with running_system(new_memory, agent=True, store=store) as system:
        assert heard(await tell(system, "gone", session="fresh", kept=False)) == "gone"
        assert repr(store) == "<InMemoryStore: 0 sessions, 0 bytes>"
        assert heard(await tell(system, "a", session="fresh")) == "a"
        assert heard(await tell(system, "secret", session="fresh", kept=False)) == "a secret"
        assert heard(await tell(system, "b", session="fresh", after="a")) == "a b"


async def test_a_session_forked_for_a_turn_that_is_not_kept_goes_with_it() -> None:
    tutorial = Tutorial()
    await tutorial.start()
    store = InMemoryStore()
    async with running_system(tutorial.answer, store=store) as system:
        for text in "ab":
            await tell(system, text)
        log = await tell(system, "x", after="a", kept=False)
        assert heard(log) == "a x | a x"
        await system._aftermath.done()
        assert await store.load(log.turn.key) is None
        assert await tutorial.states.export_state(*log.turn.key) is None
        assert "1 sessions" in repr(tutorial.histories)


async def test_an_actor_of_turns_that_are_not_kept_is_let_go_at_once() -> None:
    async with running_system(new_memory, agent=True) as system:
        await tell(system, "a")
        for number in range(3):
            await tell(system, "x", id=f"x{number}", session=f"fresh{number}", kept=False)
        assert system.statistics().idle_sessions == 1


# -- responses ---------------------------------------------------------------------------------------------------------


async def test_a_response_is_stored_when_its_turn_ends_however_it_ends() -> None:
    responses = InMemoryResponseStore()
    await responses.start()
    limits = Limits(kept_turns=0)  # the log is let go at once
    async with running_system(new_memory, agent=True, responses=responses, limits=limits) as system:
        await tell(system, "a", stored=True, principal="ada")
        await tell(system, "fail", stored=True, principal="ada")
        await tell(system, "unstored", principal="ada")
        fork = await tell(system, "x", after="a", stored=True, principal="ada")
        await system._aftermath.done()
        for turn_id, ending, key in (
            ("a", TurnCompleted, KEY),
            ("fail", TurnFailed, KEY),
            ("x", TurnCompleted, fork.turn.key),
        ):
            record = await responses.get("ada", turn_id)
            assert record is not None
            assert record.key == key == record.turn.key
            assert isinstance(record.events[-1], ending)
            assert len(record.events) > 2
            assert await responses.get(None, turn_id) is None
        assert await responses.get("ada", "unstored") is None


async def test_a_system_that_stops_has_stored_its_responses(caplog: pytest.LogCaptureFixture) -> None:
    class Slow(InMemoryResponseStore):
        async def put(self, record: Any) -> None:
            for _ in range(10):
                await asyncio.sleep(0)
            if record.turn.id == "b":
                raise OSError("disk full")
            await super().put(record)

    responses = Slow()
    await responses.start()
    async with running_system(new_memory, agent=True, responses=responses) as system:
        await tell(system, "a", stored=True)
        assert isinstance((await tell(system, "b", stored=True)).terminal, TurnCompleted)
        waiting = await system.submit(turn("wait", id="c", stored=True))
        await asyncio.sleep(0)
    assert isinstance(waiting.terminal, TurnCancelled | TurnFailed)
    assert await responses.get(None, "a") is not None
    assert await responses.get(None, "c") is not None
    assert "keeping the response of turn b failed" in caplog.text


# -- deleting ----------------------------------------------------------------------------------------------------------


@virtual_time
async def test_deleting_a_session_cancels_its_turns_and_leaves_nothing() -> None:
    store = InMemoryStore()
    async with running_system(new_memory, agent=True, store=store) as system:
        await tell(system, "a")
        running = await system.submit(turn("wait", id="1"))
        queued = await system.submit(turn("b", id="2"))
        await asyncio.sleep(1)
        await system.forget(KEY)
        for log in (running, queued):
            assert isinstance(log.terminal, TurnCancelled)
            assert log.terminal.reason == "its session is deleted"
        assert await store.load(KEY) is None
        for after in ("a", "1", "2"):
            with pytest.raises(ContinuationNotFound):
                await system.submit(turn("x", after=after))
        assert heard(await tell(system, "c")) == "c"
        await system.forget(SessionKey("u", "unknown"))


@virtual_time
async def test_a_session_that_is_being_deleted_takes_no_turns() -> None:
    class Slow(InMemoryStore):
        async def forget(self, key: SessionKey) -> None:
            await asyncio.sleep(5)
            await super().forget(key)

    async with running_system(new_memory, agent=True, store=Slow()) as system:
        await tell(system, "a")
        deleting = [asyncio.create_task(system.forget(KEY)) for _ in range(2)]
        await asyncio.sleep(1)
        with pytest.raises(SessionBusy, match="being deleted"):
            await system.submit(turn("b"))
        deleting[0].cancel()  # whoever asked may go: it is deleted all the same
        await deleting[1]
        assert await history(system, KEY) == ()
        assert heard(await tell(system, "c")) == "c"


async def test_deleting_a_session_empties_the_services_too() -> None:
    tutorial = Tutorial()
    await tutorial.start()
    async with running_system(tutorial.answer) as system:
        await tell(system, "a")
        await tell(system, "b", session="other")
        await system.forget(KEY)
        assert await tutorial.states.export_state(*KEY) is None
        assert [one.id for one in await tutorial.histories.list_sessions("u")] == ["other"]
