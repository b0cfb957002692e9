"""The unit of work with the real services in it: a turn's changes are made together, or not at all."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from greenroom.actors.errors import HandlerError, StoreUnavailable, TurnOver
from greenroom.services.agent_state import InMemoryStateService
from greenroom.services.durable_history import DurableSessionHistoryService
from greenroom.services.durable_state import DurableStateService
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.session_history import InMemorySessionHistoryService, Session
from greenroom.services.storage import Change, Conflict, Fence, FolderKey
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


class Notes:
    """A service of somebody else's: equal to any other of its kind, and so not hashable."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.kept: list[str] = []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Notes)

    def write(self, note: str) -> None:
        work = current_work.get()
        assert work is not None
        work.staging(self, StagedNotes).notes.append(note)


class StagedNotes:
    def __init__(self, service: Notes) -> None:
        self.service = service
        self.notes: list[str] = []

    def apply(self, turn_id: str) -> None:
        self.service.kept += [turn_id, *self.notes]


def test_services_are_told_apart_by_what_they_are_also_equal_ones_that_are_not_hashable() -> None:
    first, second = Notes(), Notes()
    with in_turn("turn-1") as work:
        first.write("a")
        second.write("b")
        first.write("c")
        assert [service is one for service, one in zip(work.services, (first, second), strict=True)] == [
            True,
            True,
        ]
        work.commit()
    assert (first.kept, second.kept) == (["turn-1", "a", "c"], ["turn-1", "b"])


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


async def test_services_on_one_storage_are_written_together_and_with_what_else_is_written() -> None:
    storage = MemoryStorage()
    async with DurableStateService(storage) as states, DurableSessionHistoryService(storage) as histories:
        with in_turn() as work:
            await states.save_state("u", {"n": 1}, "s")
            await histories.append_message(Session("s", "u"), [HELLO, HI])
            await work.write_elsewhere(storage)
            assert await outside(states.export_state("u", "s")) is None
            changes = work.changes_in(storage)
            assert {change.key.kind for change in changes} == {"rounds", "history"}
            ending = Change(key=FolderKey("session", "u", "s"), head=b"ended")
            await work.written(storage, lambda changes: storage.write([ending, *changes]))
            work.commit()
        assert await states.export_state("u", "s") == {"n": 1}
        session = await histories.get_session("u", "s")
        assert session is not None
        assert session.messages == [HELLO, HI]


async def test_a_conflict_over_another_folder_comes_out_and_nothing_is_written() -> None:
    storage = MemoryStorage()
    async with DurableStateService(storage) as states:
        with in_turn() as work:
            await states.save_state("u", {"n": 1}, "s")
            stale = Change(key=FolderKey("session", "u", "s"), expected=Fence(3, 3), head=b"ended")
            with pytest.raises(Conflict) as conflict:
                await work.written(storage, lambda changes: storage.write([stale, *changes]))
            assert conflict.value.key == stale.key
            work.roll_back()
        assert await states.export_state("u", "s") is None


async def test_a_folder_that_others_never_leave_alone_ends_in_words() -> None:
    storage = MemoryStorage()
    async with DurableStateService(storage) as states:
        with in_turn("turn-7") as work:
            await states.save_state("u", {"n": 1}, "s")

            async def too_late(changes: Sequence[Change]) -> None:
                await outside(states.save_state("u", {"n": 0}, "s"))
                await storage.write(changes)

            with pytest.raises(StoreUnavailable, match=r"turn-7 .*100 times"):
                await work.written(storage, too_late)
            work.roll_back()
        assert await states.export_state("u", "s") == {"n": 0}


async def test_what_lies_in_two_storages_is_written_to_both() -> None:
    async with (
        DurableStateService(MemoryStorage()) as states,
        DurableSessionHistoryService(MemoryStorage()) as histories,
    ):
        with in_turn() as work:
            await states.save_state("u", {"n": 1}, "s")
            await histories.append_message(Session("s", "u"), HELLO)
            await work.write_elsewhere(states.storage)
            assert await outside(states.export_state("u", "s")) is None
            assert [one.id for one in await outside(histories.list_sessions("u"))] == ["s"]
            await work.written(states.storage, states.storage.write)
            work.commit()
        assert await states.export_state("u", "s") == {"n": 1}


async def test_two_services_that_change_the_same_folder_in_one_turn_are_refused() -> None:
    storage = MemoryStorage()
    async with DurableStateService(storage) as one, DurableStateService(storage) as other:
        with in_turn() as work:
            await one.save_state("u", {"by": "one"}, "s")
            await other.save_state("u", {"by": "other"}, "s")
            with pytest.raises(HandlerError, match="one service"):
                await work.write_elsewhere(None)
