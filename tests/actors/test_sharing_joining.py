"""Turns that come to a process which does not own their session: they join its one line, wherever others come in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from greenroom.actors.elsewhere import LONGEST_NEAR
from greenroom.actors.errors import (
    KeyReused,
    MailboxFull,
    SessionBusy,
    SessionHeld,
    StoreUnavailable,
    TurnNotFound,
)
from greenroom.actors.events import TurnAccepted, TurnCancelled, TurnCompleted
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Disconnect
from greenroom.services.sessions.just_ended import LATELY_SECONDS
from kits.grammar import check_events
from kits.sharing import KEY, LIMITS, Diary, Process, processes, repeatable, words
from kits.system import turn
from kits.virtual_time import VirtualTimeLoop, virtual_time

pytestmark = virtual_time

CANCEL = Disconnect("cancel")


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    Diary.begun.clear()


async def asked(process: Process, text: str, **options: Any) -> TurnLog:
    return await process.system.submit(turn(text, **options))


async def order(process: Process) -> list[str]:
    """The turns of the session's history, by what was asked."""
    record = await process.system.store.load(KEY)
    assert record is not None
    return [one.turn_id for one in record.turns]


# -- one line ----------------------------------------------------------------------------------------------------------


async def test_turns_run_in_the_order_in_which_they_came_wherever_they_came() -> None:
    async with processes(3) as (first, second, third):
        places = [first, second, first, third, second, third, first]
        logs = [await asked(place, f"{number} 0.5") for number, place in enumerate(places)]
        for log in logs:
            await log.ended()
            check_events(log.events())
        assert Diary.begun == [f"{number} 0.5" for number in range(7)]
        assert await order(third) == [log.id for log in logs]
        assert words(logs[-1]) == "0 1 2 3 4 5 6."


@pytest.mark.parametrize("kept", [True, False])
async def test_the_owner_runs_them_and_each_costs_one_write_where_it_came(kept: bool) -> None:
    async with processes() as (first, second):
        await asked(first, "a 2")
        writes = second.storage.writes
        log = await asked(second, "b", kept=kept)
        assert second.storage.writes - writes == 2, "one found the session elsewhere"
        await log.ended()
        assert second.storage.writes - writes == 2
        assert not second.system.statistics().open_turns


async def test_what_waits_in_the_line_is_in_the_store_and_not_with_the_owner() -> None:
    async with processes() as (first, second):
        await asked(first, "a 1")
        logs = [await asked(second, f"{number} 1") for number in range(3)]
        await asyncio.sleep(0.5)
        for number in range(3):
            await asyncio.sleep(1)
            assert Diary.begun[-1] == f"{number} 1"
            assert first.system.statistics().open_turns == 1
        await logs[-1].ended()


async def test_busy_clients_of_the_owner_do_not_starve_others() -> None:
    async with processes() as (first, second):
        done = asyncio.Event()

        async def busy(name: str) -> None:
            while not done.is_set():
                await first.tell(f"{name} 1")

        clients = [asyncio.create_task(busy(name)) for name in "xy"]
        await asyncio.sleep(0.5)
        await second.tell("b")
        done.set()
        assert Diary.begun.index("b") == 2, "behind the one that ran and the one that waited"
        await asyncio.gather(*clients)


async def test_one_that_waits_is_known_everywhere_at_once() -> None:
    async with processes(3) as (first, second, third):
        await asked(first, "a 30", id="a")
        await second.system.submit(repeatable("b", id="t"))
        for process in (second, third, first):
            assert isinstance((await process.system.locate("t")).events()[0], TurnAccepted)
            again = await process.system.submit(repeatable("b", id="other"))
            assert again.id == "t"
            with pytest.raises(KeyReused):
                await process.system.submit(repeatable("c", id="new"))
        await first.system.cancel("a")
        assert words(await third.tell("c")) == "b c"
    assert Diary.begun == ["a 30", "b", "c"]


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_one_that_waits_is_cancelled_from_everywhere_before_it_begins(place: int) -> None:
    async with processes(3) as places:
        await asked(places[0], "a 5")
        log = await asked(places[1], "b", id="t")
        last = await asked(places[2], "c")
        await places[place].system.cancel("t", reason="enough")
        ending = await log.ended()
        assert isinstance(ending, TurnCancelled)
        assert ending.reason == "enough"
        await last.ended()
        assert words(last) == "a c"
    assert Diary.begun == ["a 5", "c"]


async def test_nothing_is_kept_of_it_but_its_ending_where_it_is_not_to_be_kept() -> None:
    async with processes() as (first, second):
        await asked(first, "a 3")
        log = await asked(second, "b", id="t", kept=False)
        await log.ended()
        assert words(log) == "a b"
        await second.tell("c", id="c")
        assert "t" not in await order(first)


# -- who is refused ----------------------------------------------------------------------------------------------------


async def test_a_line_that_is_full_is_full_everywhere() -> None:
    limits = structs.replace(LIMITS, waiting_turns=2)
    async with processes(limits=limits) as (first, second):
        running = await asked(first, "a 9")
        await asked(second, "b")
        await asked(first, "c")
        for process, refusal, status in ((second, SessionHeld, 503), (first, MailboxFull, 429)):
            with pytest.raises(refusal, match="2 turns wait") as refused:
                await asked(process, "x", id="x", overlap="interrupt")
            assert (refused.value.status, refused.value.retry_after) == (status, 1.0)
            assert refused.value.nothing_kept
            with pytest.raises(SessionBusy, match="reject"):
                await asked(process, "y", overlap="reject")
            with pytest.raises(TurnNotFound):
                await process.system.locate("x")
        await asyncio.sleep(3)
        assert running.terminal is None, "who is refused interrupts nothing"
        assert words(await running_out(first)) == "a b c d"


async def running_out(process: Process) -> TurnLog:
    """One more turn, when there is room for it."""
    while True:
        try:
            return await process.tell("d")
        except MailboxFull:
            await asyncio.sleep(1)


async def test_a_line_is_full_of_bytes() -> None:
    limits = structs.replace(LIMITS, waiting_bytes=10_000)
    async with processes(limits=limits) as (first, second):
        await asked(first, "a 9")
        await asked(second, "b" * 8_000)
        with pytest.raises(SessionHeld, match="bytes"):
            await asked(second, "c" * 8_000)
        with pytest.raises(MailboxFull, match="bytes"):
            await asked(first, "c" * 8_000, overlap="queue")


async def test_an_interruption_ends_the_turn_that_runs_elsewhere_and_no_other() -> None:
    async with processes() as (first, second):
        running = await asked(first, "a 60")
        waiting = await asked(second, "b")
        log = await asked(second, "c", overlap="interrupt")
        ending = await asyncio.wait_for(running.ended(), 3.0)
        assert isinstance(ending, TurnCancelled)
        assert log.id in ending.reason
        await asyncio.gather(waiting.ended(), log.ended())
        assert (words(waiting), words(log)) == ("b", "b c")


# -- processes that go -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heard", [False, True])
async def test_an_owner_that_drains_runs_what_it_has_heard_of_and_leaves_the_rest(heard: bool) -> None:
    async with processes() as (first, second):
        await asked(first, "a 2")
        logs = [await asked(second, "b 1")]
        if heard:
            await asked(first, "own")  # which stands behind it
        draining = asyncio.create_task(first.system.drain(30))
        await asyncio.sleep(0.1)
        logs.append(await asked(second, "c"))
        await draining
        for log in logs:
            await log.ended()
        expected = ["a 2", "b 1", "own", "c"] if heard else ["a 2", "b 1", "c"]
        assert Diary.begun == expected
        assert words(logs[-1]) == ("a b own c" if heard else "a b c")
        assert second.system.statistics().accepted_turns == (1 if heard else 2), "where they were run"


async def test_at_the_end_of_a_drain_what_joined_goes_with_the_rest() -> None:
    async with processes() as (first, second):
        running = await asked(first, "a 60")
        log = await asked(second, "b")
        own = await asked(first, "own")
        late = await asked(second, "c")
        await first.system.drain(1)
        assert running.terminal is not None
        await asyncio.gather(log.ended(), late.ended())
        assert own.lost is not None
        assert Diary.begun == ["a 60", "b", "own", "c"]


async def test_what_joined_the_line_of_a_process_that_dies_is_run_once_in_order() -> None:
    async with processes(3) as (first, second, third):
        await asked(first, "a 60", id="a")
        logs = [await asked(place, text) for place, text in ((second, "b 1"), (third, "c"), (second, "d"))]
        first.storage.cut = True
        for log in logs:
            await log.ended()
        assert Diary.begun == ["a 60", "b 1", "c", "d"]
        assert words(logs[-1]).split()[-3:] == ["b", "c", "d"]


async def test_an_owner_that_was_refused_its_own_turn_runs_what_joined_behind_it() -> None:
    """Its acceptance was written and nobody told, so that it is taken back: then nothing of its own is open there."""
    async with processes() as (first, second):
        first.storage.lose_answers = 1
        with pytest.raises(StoreUnavailable):
            await asked(first, "x", id="x")
        log = await asked(second, "b")
        await log.ended()
        assert words(log) == "b"
        assert Diary.begun == ["b"]


# -- a store that is away ----------------------------------------------------------------------------------------------


async def test_one_of_which_it_is_not_known_whether_it_joined_is_found_out() -> None:
    async with processes() as (first, second):
        await asked(first, "a 3")
        second.storage.lose_answers = 1
        log = await asked(second, "b", id="t")
        assert log.id == "t"
        await log.ended()
        assert words(log) == "a b"
    assert Diary.begun == ["a 3", "b"]


@pytest.mark.parametrize("named", [False, True])
async def test_where_that_cannot_be_found_out_nobody_says_that_nothing_is_kept(named: bool) -> None:
    async with processes() as (first, second):
        await asked(first, "a 20")
        second.storage.lose_answers, second.storage.cut_then = 1, True
        with pytest.raises(StoreUnavailable, match=r"turn t .*may run.*/process/t ") as unsure:
            await second.system.submit(repeatable("b", id="t") if named else turn("b", id="t"))
        assert not unsure.value.nothing_kept
        assert ("joins it" in unsure.value.message) == named
        assert (unsure.value.status, unsure.value.retry_after) == ((503, 5.0) if named else (424, None))
        second.storage.cut = False
        assert (await second.system.locate("t")).id == "t"


# -- clients that go ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [CANCEL, Disconnect("grace", 3.0)], ids=lambda policy: policy.policy)
async def test_one_whose_client_leaves_while_it_waits_is_not_begun(policy: Disconnect) -> None:
    async with processes() as (first, second):
        await asked(first, "a 10")
        log = await asked(second, "b", disconnect=policy)
        log.watch(_told)
        await asyncio.sleep(0.5)
        log.unwatch(_told)
        second.system.client_left(log)
        await asyncio.sleep(6)
        assert isinstance(first.system.find(log.id).terminal, TurnCancelled)
        assert words(await second.tell("c")) == "a c"
    assert Diary.begun == ["a 10", "c"]


async def test_one_whose_client_stays_is_run_however_long_it_waits() -> None:
    async with processes() as (first, second):
        await asked(first, "a 60")
        log = await asked(second, "b 60", disconnect=CANCEL)
        log.watch(_told)
        await asyncio.sleep(130)
        assert words(log) == "a b."


def _told() -> None:
    """There is more."""


# -- any order ---------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["", " 0.3", " 2"]),
        st.sampled_from([None, "interrupt", "reject"]),
        st.sampled_from([0.0, 0.0, 0.01, 0.5, 3.0]),
    ),
    max_size=20,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_any_turns_by_any_processes_run_in_the_order_of_their_acceptance(steps: list[Any]) -> None:
    async def main() -> None:
        Diary.begun.clear()
        async with processes(3) as places:
            logs = []
            for number, (at, seconds, overlap, pause) in enumerate(steps):
                try:
                    logs.append(
                        await asked(places[at], f"{number}{seconds}", id=str(number), overlap=overlap)
                    )
                except SessionBusy:
                    assert overlap == "reject"
                await asyncio.sleep(pause)
            for log in logs:
                await log.ended()
            numbers = [int(text.split()[0]) for text in Diary.begun]
            assert numbers == sorted(numbers)
            # One that was interrupted before it began leaves nothing; its agent may have had no time to begin.
            kept = [int(one) for one in await order(places[0])] if logs else []
            assert kept == sorted(kept)
            assert set(numbers) <= set(kept)
            ended = [int(log.id) for log in logs if isinstance(log.terminal, TurnCompleted)]
            assert set(ended) <= set(numbers)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


async def test_one_that_has_joined_is_read_to_its_end_however_many_end_behind_it() -> None:
    async with processes(logs_kept=1) as (first, second):
        await asked(first, "a 8")
        log = await asked(second, "b")
        logs = [await asked(place, f"{number}") for number in range(6) for place in (first, second)]
        assert isinstance(await log.ended(), TurnCompleted)
        assert words(log) == "a b"
        for one in logs:
            assert isinstance(await one.ended(), TurnCompleted)
        await asyncio.sleep(2 * LATELY_SECONDS)
        await first.tell("last")
        with pytest.raises(TurnNotFound):
            await second.system.locate(log.id)


async def test_the_next_in_the_line_is_followed_closely() -> None:
    async with processes() as (first, second):

        async def behind(number: int) -> float:
            running = await asked(first, f"a {10 + number / 10}", session=f"{number}")
            log = await asked(second, "b", session=f"{number}")
            reading = asyncio.create_task(log.ended())
            await running.ended()
            before = asyncio.get_running_loop().time()
            await reading
            return asyncio.get_running_loop().time() - before

        waited = await asyncio.gather(*(behind(number) for number in range(20)))
        assert max(waited) <= 1.01 * LONGEST_NEAR
