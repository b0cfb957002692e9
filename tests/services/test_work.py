"""The unit of work with the real services in it: a turn's changes are made together, or not at all."""

import asyncio
from collections.abc import Callable

import pytest

from greenroom.actors.errors import TurnOver
from greenroom.services.agent_state import InMemoryStateService
from greenroom.services.session_history import InMemorySessionHistoryService, Session
from greenroom.services.work import Work, current_work
from kits.history_kit import HELLO, HI
from kits.in_turn import in_turn, outside


@pytest.mark.parametrize("good", [True, False])
async def test_two_services_and_two_sessions_change_together(good: bool) -> None:
    async with InMemoryStateService() as states, InMemorySessionHistoryService() as histories:
        with in_turn() as work:
            for name in ("a", "b"):
                await states.save_state("u", {"name": name}, name)
                await histories.append_message(Session(name, "u"), [HELLO, HI])
            assert await outside(states.export_state("u", "a")) is None
            assert await outside(histories.list_sessions("u")) == []
            if good:
                work.commit()
            else:
                work.roll_back()
        for name in ("a", "b"):
            assert await states.export_state("u", name) == ({"name": name} if good else None)
            session = await histories.get_session("u", name)
            assert session is not None
            assert session.messages == ([HELLO, HI] if good else [])


async def test_two_services_of_one_kind_do_not_share_their_staging() -> None:
    async with InMemoryStateService() as first, InMemoryStateService() as second:
        with in_turn() as work:
            await first.save_state("u", {"n": 1})
            assert await second.export_state("u") is None
            work.commit()
        assert await second.export_state("u") is None


async def test_a_task_that_outlives_its_turn_changes_nothing() -> None:
    over = asyncio.Event()

    async def late(states: InMemoryStateService) -> None:
        await over.wait()
        await states.save_state("u", {"n": 2})

    async with InMemoryStateService() as states:
        with in_turn("turn-7") as work:
            task = asyncio.create_task(late(states))
            await states.save_state("u", {"n": 1})
            work.commit()
        over.set()
        with pytest.raises(TurnOver, match=r"turn-7.*InMemoryStateService"):
            await task
        assert await states.export_state("u") == {"n": 1}


async def test_a_turn_s_own_tasks_write_to_the_turn() -> None:
    async with InMemoryStateService() as states:
        with in_turn() as work:
            await asyncio.gather(*(states.save_state("u", {"n": n}, f"s{n}") for n in range(10)))
            assert await outside(states.export_state("u", "s3")) is None
            work.roll_back()
        assert await states.export_state("u", "s3") is None


async def test_it_says_what_it_holds() -> None:
    async with InMemoryStateService() as states:
        with in_turn() as work:
            await states.save_state("u", {})
            assert repr(work) == "<Work of turn-1: 1 services>"
            work.commit()
        assert repr(work) == "<Work of turn-1: 0 services, closed>"
    assert current_work.get() is None
    assert repr(Work("t")) == "<Work of t: 0 services>"


@pytest.mark.parametrize("end", [Work.commit, Work.roll_back])
def test_it_tells_when_it_is_over(end: Callable[[Work], None]) -> None:
    work, told = Work("t"), list[str]()
    work.when_over(lambda: told.append("first"))
    work.when_over(lambda: told.append("second"))
    assert told == []
    end(work)
    assert told == ["first", "second"]
    work.when_over(lambda: told.append("late"))
    end(work)
    assert told == ["first", "second", "late"]
