"""Turns that continue from one another in processes that share a store: one conversation, whichever is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from msgspec import structs

from greenroom.actors.errors import ContinuationNotFound, SessionBusy, SessionHeld, StoreUnavailable
from greenroom.actors.events import TurnFailed
from greenroom.actors.messages import SessionKey, Turn
from greenroom.services.durable import Acceptance
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.joining import Join
from greenroom.services.store import SessionRecord
from kits.sharing import KEY, LEASE, LIMITS, Diary, Process, new_diary, processes, words
from kits.system import asked, turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    Diary.begun.clear()


async def plain(msgs: Any, session: Any) -> AsyncIterator[str]:
    """A handler that keeps no agent warm."""
    told = [asked(record.input[-1]).split()[0] for record in await session.history()]
    yield " ".join([*told, asked(msgs[-1]).split()[0]])


KINDS = pytest.mark.parametrize(
    ("function", "agent"), [(new_diary, True), (plain, False)], ids=["agent", "query"]
)


@KINDS
@pytest.mark.parametrize("order", [[0, 1, 0, 1, 1, 0, 0, 1], [0, 0, 1, 1, 0], [0, 1, 2, 0, 2, 1]])
async def test_a_chain_is_one_session_wherever_its_links_are(
    function: Any, agent: bool, order: Sequence[int]
) -> None:
    async with processes(3, function=function, agent=agent) as found:
        newest = None
        for count, at in enumerate(order, 1):
            log = await found[at].tell(f"{count}", after=newest)
            assert log.turn.key == KEY
            assert words(log) == " ".join(map(str, range(1, count + 1)))
            newest = log.id


@KINDS
async def test_and_after_a_fork_too(function: Any, agent: bool) -> None:
    async with processes(function=function, agent=agent) as (first, second):
        one = await first.tell("1")
        two = await first.tell("2", after=one.id)
        fork = await second.tell("x", after=one.id)
        assert (words(fork), fork.turn.key == KEY) == ("1 x", False)
        three = await first.tell("3", after=two.id)
        four = await second.tell("4", after=three.id)
        assert (words(four), four.turn.key) == ("1 2 3 4", KEY)
        more = await first.tell("y", after=fork.id, session=fork.turn.key.session_id)
        assert (words(more), more.turn.key) == ("1 x y", fork.turn.key)


async def test_where_the_session_is_nothing_more_is_read() -> None:
    async with processes(1) as (only,):
        newest = (await only.tell("1")).id
        reads = only.storage.reads
        for text in "23":
            newest = (await only.tell(text, after=newest)).id
        assert only.storage.reads == reads


async def test_of_two_that_go_on_from_the_same_turn_in_two_processes_one_forks() -> None:
    async with processes() as found:
        one = await found[0].tell("1")
        await found[1].tell("other", session="other")
        logs = await asyncio.gather(*(process.tell("2", after=one.id) for process in found))
        assert sorted(log.turn.key == KEY for log in logs) == [False, True]
        assert [words(log) for log in logs] == ["1 2", "1 2"]


# -- from a turn that runs in another process --------------------------------------------------------------------------


async def test_behind_a_turn_that_runs_elsewhere_it_waits_its_place() -> None:
    async with processes() as (first, second):
        await first.tell("a")
        await first.system.submit(turn("b 2", id="b"))
        log = await second.tell("c", after="b")
        assert (words(log), log.turn.key) == ("a b c", KEY)


async def test_behind_one_that_waits_elsewhere_too() -> None:
    async with processes() as (first, second):
        await first.system.submit(turn("a 1"))
        await first.system.submit(turn("b 1", id="b"))
        log = await second.tell("c", after="b")
        assert (words(log), log.turn.key) == ("a b c", KEY)


async def test_it_forks_when_another_has_followed_meanwhile() -> None:
    async with processes() as (first, second):
        await first.system.submit(turn("a 1", id="a"))
        followed = await first.system.submit(turn("b 1", after="a"))
        fork = await second.tell("c", after="a")
        assert (words(fork), fork.turn.key == KEY) == ("a c", False)
        await followed.ended()
        record = await second.system.store.load(KEY)
        assert record is not None
        assert len(record.turns) == 2


async def test_it_does_not_wait_for_ever_nor_if_it_asked_not_to() -> None:
    async with processes() as (first, second):
        running = await first.system.submit(turn("a 60", id="a"))
        with pytest.raises(SessionBusy):
            await second.tell("b", after="a", overlap="reject")
        before = asyncio.get_running_loop().time()
        with pytest.raises(SessionHeld) as held:
            await second.tell("c", after="a")
        assert asyncio.get_running_loop().time() - before == pytest.approx(LIMITS.elsewhere_seconds, abs=1)
        assert held.value.retry_after
        await first.system.cancel("a")
        await running.ended()
        assert words(await second.tell("d", after="a")) == "d", "what it had said is kept, its state is not"
    assert Diary.begun == ["a 60", "d"]


async def test_what_never_was_is_refused_at_once() -> None:
    async with processes() as (first, second):
        await first.system.submit(turn("a 60"))
        async with asyncio.timeout(0.1):
            with pytest.raises(ContinuationNotFound):
                await second.tell("b", after="never")


async def test_what_a_dead_process_left_is_seen_before_a_turn_has_its_place() -> None:
    """The first has gone on from what the second knows as the newest turn, and is gone."""
    limits = structs.replace(LIMITS, elsewhere_seconds=4 * LEASE, recovery_seconds=3600.0)
    async with processes(limits=limits) as (first, second):
        one = await second.tell("1")
        await first.system.submit(turn("2 60", id="two", after=one.id))
        await asyncio.sleep(1)
        first.storage.cut = True
        await asyncio.sleep(LEASE)
        log = await second.tell("3", after=one.id)
        assert (words(log), log.turn.key == KEY) == ("1 3", False)
        assert isinstance((await second.system.locate("two")).terminal, TurnFailed)


async def test_behind_a_turn_whose_process_dies_it_is_behind_what_became_of_it() -> None:
    limits = structs.replace(LIMITS, elsewhere_seconds=4 * LEASE)
    async with processes(limits=limits) as (first, second):
        await first.system.submit(turn("a 60", id="a"))
        await first.system.submit(turn("b", id="b", after="a"))
        last = asyncio.create_task(_told(second, "c", after="b"))
        await asyncio.sleep(1)
        first.storage.cut = True
        assert await last == ("b c", KEY)


async def _told(process: Process, text: str, **options: Any) -> Any:
    log = await process.tell(text, **options)
    return words(log), log.turn.key


async def test_a_process_that_stops_while_it_looks_for_the_place_waits_for_no_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with processes() as (first, second):
        await first.tell("a", id="a")
        await second.tell("other", session="other")
        store = second.system.store
        assert isinstance(store, DurableSessions)
        accept = store.accept
        looking = asyncio.Event()

        async def accepted(turn: Turn, join: Join | None) -> Acceptance:
            answer = await accept(turn, join)
            monkeypatch.setattr(store, "load", hanging)
            second.storage.cut = True
            return answer

        async def hanging(key: SessionKey) -> SessionRecord | None:
            looking.set()
            await asyncio.sleep(10_000)
            raise AssertionError(f"{key} is waited for")

        monkeypatch.setattr(store, "accept", accepted)
        asking = asyncio.create_task(second.system.submit(turn("b", id="b", after="a")))
        await looking.wait()
        async with asyncio.timeout(10):
            await second.system.stop()
        with pytest.raises(StoreUnavailable):
            await asking
        await (await first.system.locate("b")).ended()


async def test_it_forks_where_another_processes_turn_has_joined_behind_the_one_it_goes_on_from() -> None:
    async with processes() as (owner, other):
        await owner.system.submit(turn("a 2", id="a"))
        joined = await other.system.submit(turn("b"))
        fork = await owner.tell("c", after="a")
        assert (words(fork), fork.turn.key == KEY) == ("a c", False)
        await joined.ended()
        assert words(joined) == "a b"


async def test_it_goes_on_from_one_that_has_joined_and_forks_where_another_one_is_behind_that() -> None:
    async with processes() as (owner, other):
        await owner.system.submit(turn("a 2", id="a"))
        await other.system.submit(turn("b", id="b"))
        log = await owner.tell("c", after="b")
        assert (words(log), log.turn.key) == ("a b c", KEY)
        await owner.system.submit(turn("d 2", id="d"))
        await other.system.submit(turn("e", id="e"))
        last = await other.system.submit(turn("f", id="f"))
        fork = await owner.tell("g", after="e")
        assert (words(fork), fork.turn.key == KEY) == ("a b c d e g", False)
        await last.ended()
        assert words(last) == "a b c d e f"


async def test_it_forks_when_the_one_it_goes_on_from_has_ended_however_long_others_go_on() -> None:
    async with processes() as (owner, other):
        await owner.system.submit(turn("a 1", id="a"))
        await owner.system.submit(turn("b 60"))
        fork = await other.tell("c", after="a")
        assert (words(fork), fork.turn.key == KEY) == ("a c", False)
