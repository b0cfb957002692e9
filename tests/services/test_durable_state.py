"""Agent states in storages: the kits, and what several processes do to one session."""

from __future__ import annotations

import asyncio

import pytest

from greenroom.actors.errors import ConfigurationError, HandlerError
from greenroom.actors.messages import SessionKey
from greenroom.services.durable_state import DurableStateService
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.round_folder import KIND, SECTION
from greenroom.services.storage import FolderKey, Span, Storage
from kits.distant_storage import DistantStorage
from kits.fork_kit import FORK, KEY, ForkKit
from kits.in_turn import end, in_turn, outside
from kits.on_storage_kit import ForksOfStatesOnStorage, StatesOnStorage
from kits.state_kit import StateKit


class TestStatesInMemory(StatesOnStorage):
    test_it_does_what_a_dict_does = StateKit.test_it_does_what_a_dict_does

    def storage(self) -> Storage:
        return MemoryStorage()


class TestForksOfStatesInMemory(ForksOfStatesOnStorage):
    test_a_fork_is_a_replay_of_the_first_turns = ForkKit.test_a_fork_is_a_replay_of_the_first_turns

    def storage(self) -> Storage:
        return MemoryStorage()


async def test_rounds_that_two_processes_save_at_once_are_all_kept() -> None:
    storage = DistantStorage()
    one, other = DurableStateService(storage, rounds_kept=60), DurableStateService(storage, rounds_kept=60)
    async with one, other:
        saves = [(one, other)[number % 2].save_state("u", {"n": number}, "s") for number in range(50)]
        rounds = await asyncio.gather(*saves)
        assert sorted(rounds) == list(range(1, 51))
        for number, saved in enumerate(rounds):
            assert await one.export_state("u", "s", saved) == {"n": number}


async def test_what_others_saved_during_a_turn_stays_beside_what_the_turn_saved() -> None:
    storage = MemoryStorage()
    async with DurableStateService(storage) as one, DurableStateService(storage) as other:
        await one.save_state("u", {"by": "one"}, "s")
        with in_turn() as work:
            assert await one.save_state("u", {"by": "the turn"}, "s", round_id=7) == 7
            await outside(other.save_state("u", {"by": "other"}, "s", round_id=3))
            await end(work)
        for number, by in ((1, "one"), (3, "other"), (7, "the turn")):
            for service in (one, other):
                assert await service.export_state("u", "s", number) == {"by": by}


async def test_of_one_round_that_two_turns_save_the_one_that_commits_last_is_kept() -> None:
    storage = MemoryStorage()
    async with DurableStateService(storage) as one, DurableStateService(storage) as other:
        with in_turn("first") as first:
            assert await one.save_state("u", {"turn": 1}) == 1
            with in_turn("second") as second:
                assert await other.save_state("u", {"turn": 2}) == 1
                await end(second)
            await end(first)
        for service in (one, other):
            assert await service.export_state("u") == {"turn": 1}
            assert await service.export_state("u", None, 2) is None


async def test_another_process_exports_the_latest_round_wherever_it_lies() -> None:
    storage = MemoryStorage()
    async with DurableStateService(storage) as one, DurableStateService(storage) as other:
        for number in range(1, 30):
            assert await one.save_state("u", {"n": number}, "s") == number
            if number % 3 == 0:
                assert await other.export_state("u", "s") == {"n": number}
            if number == 10:
                await other.forget(SessionKey("u", "s"))
                assert await one.export_state("u", "s") is None
                for again in range(1, 11):
                    await one.save_state("u", {"n": again}, "s")


async def test_an_export_reads_a_folder_once_and_no_state_but_its_own() -> None:
    storage = DistantStorage()
    async with DurableStateService(storage) as service:
        for number in range(5):
            await service.save_state("u", {"n": number}, "s")
            storage.reads.clear()
            assert await service.export_state("u", "s") == {"n": number}
            assert storage.reads == [1]
        storage.reads.clear()
        with in_turn() as work:
            await service.export_state("u", "s")
            await service.save_state("u", {"n": 5}, "s")
            await end(work)
        assert storage.reads == [1]


async def test_over_a_session_s_bytes_marks_go_then_the_oldest_rounds_and_larger_states_are_refused() -> None:
    async with DurableStateService(MemoryStorage(), session_bytes=1_000) as service:
        for number in range(5):
            await service.save_state("u", {"n": number, "text": "x" * 300}, "s")
        assert await service.export_state("u", "s", 2) is None
        latest = await service.export_state("u", "s")
        assert latest is not None
        assert latest["n"] == 4
        with pytest.raises(HandlerError, match="more than a session may hold") as refused:
            await service.save_state("u", {"text": "x" * 1_000}, "s")
        assert refused.value.field == "state"


@pytest.mark.parametrize("number", [-1, 2**53, 2**70])
async def test_rounds_that_no_storage_can_number_are_refused(number: int) -> None:
    async with DurableStateService(MemoryStorage()) as service:
        with pytest.raises(HandlerError, match="rounds are numbered") as refused:
            await service.save_state("u", {}, "s", round_id=number)
        assert refused.value.field == "round_id"


async def test_a_folder_holds_only_what_its_session_and_its_marks_have() -> None:
    storage = MemoryStorage()
    async with DurableStateService(storage, rounds_kept=2, turns_kept=3) as service:
        for number in range(20):
            with in_turn(f"turn-{number}") as work:
                await service.save_state("u", {"n": number}, "s")
                await end(work)
        folder = await storage.read(FolderKey(KIND, "u", "s"), [Span(SECTION)])
        assert folder is not None
        assert [number for number, _ in folder.spans[0]] == [16, 17, 18, 19]
        head = len(folder.head.body)
        for number in range(20, 60):
            with in_turn(f"turn-{number}") as work:
                await service.save_state("u", {"n": number}, "s")
                await end(work)
        folder = await storage.read(FolderKey(KIND, "u", "s"))
        assert folder is not None
        assert len(folder.head.body) <= head + 8


async def test_states_outlive_the_service() -> None:
    storage = MemoryStorage()
    await storage.start()
    async with DurableStateService(storage) as service:
        await service.save_state("u", {"n": 1}, "s")
    async with DurableStateService(storage) as service:
        assert await service.export_state("u", "s") == {"n": 1}
    await storage.stop()
    with pytest.raises(ConfigurationError, match="not started"):  # the services have let go of it
        await storage.read(FolderKey(KIND, "u", "s"))


async def test_over_a_session_s_bytes_turns_are_forgotten_before_rounds() -> None:
    turns = [f"turn-{number}" for number in range(6)]
    async with DurableStateService(MemoryStorage(), rounds_kept=2, session_bytes=3_000) as service:
        for number, turn_id in enumerate(turns):
            with in_turn(turn_id) as work:
                await service.save_state("u", {"n": number, "text": "x" * 900}, "s")
                await end(work)
        assert await service.export_state("u", "s", 5) == {"n": 4, "text": "x" * 900}
        assert not await service.fork(KEY, "turn-1", turns, FORK)
        assert await service.fork(KEY, "turn-5", turns, FORK)
        assert await service.export_state("u", "fork") == {"n": 5, "text": "x" * 900}
