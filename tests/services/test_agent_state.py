"""The state service in memory: the kit, and its bounds."""

import tracemalloc

import pytest

from greenroom.actors.errors import HandlerError
from greenroom.services.agent_state import InMemoryStateService, StateService
from kits.in_turn import Clock, in_turn
from kits.state_kit import StateKit


class TestInMemoryStateService(StateKit):
    def service(self, rounds_kept: int) -> StateService:
        return InMemoryStateService(rounds_kept=rounds_kept)


async def test_stopping_forgets() -> None:
    service = InMemoryStateService()
    async with service:
        await service.save_state("u", {"n": 1})
    async with service:
        assert await service.export_state("u") is None


async def test_idle_sessions_are_forgotten_and_used_ones_are_not() -> None:
    clock = Clock()
    async with InMemoryStateService(idle_seconds=100.0, monotonic=clock) as service:
        await service.save_state("u", {"n": 1}, "idle")
        await service.save_state("u", {"n": 2}, "used")
        for _ in range(3):
            clock.now += 60.0
            assert await service.export_state("u", "used") == {"n": 2}
        assert await service.export_state("u", "idle") is None
        assert "1 sessions" in repr(service)


async def test_400_sessions_of_20_kb_leave_memory() -> None:
    clock = Clock()
    async with InMemoryStateService(idle_seconds=100.0, monotonic=clock) as service:
        await service.save_state("u", {})
        tracemalloc.start()
        try:
            for number in range(400):
                await service.save_state(f"user-{number}", {"text": "x" * 20_000}, f"session-{number}")
            full = tracemalloc.get_traced_memory()[0]
            clock.now += 120.0
            await service.export_state("u")
            empty = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert full > 8_000_000
    assert empty < 100_000


async def test_over_the_count_the_one_used_longest_ago_goes() -> None:
    async with InMemoryStateService(max_sessions=2) as service:
        await service.save_state("u", {"n": 1}, "a")
        await service.save_state("u", {"n": 2}, "b")
        await service.export_state("u", "a")
        await service.save_state("u", {"n": 3}, "c")
        assert await service.export_state("u", "b") is None
        assert await service.export_state("u", "a") == {"n": 1}
        assert await service.export_state("u", "c") == {"n": 3}


async def test_over_a_session_s_bytes_the_oldest_rounds_go_and_larger_states_are_refused() -> None:
    async with InMemoryStateService(session_bytes=1_000) as service:
        for number in range(5):
            await service.save_state("u", {"n": number, "text": "x" * 300}, "s")
        assert await service.export_state("u", "s", 2) is None
        latest = await service.export_state("u", "s")
        assert latest is not None
        assert latest["n"] == 4
        with pytest.raises(HandlerError, match="more than a session may hold") as refused:
            await service.save_state("u", {"text": "x" * 1_000}, "s")
        assert refused.value.field == "state"


async def test_a_service_stopped_before_its_turn_s_end_takes_nothing() -> None:
    service = InMemoryStateService()
    await service.start()
    with in_turn() as work:
        await service.save_state("u", {"n": 1})
        await service.stop()
        work.commit()
    assert not await service.health()


async def test_saving_costs_the_same_however_many_rounds_there_are() -> None:
    state: dict[str, object] = {"messages": [{"text": "x" * 2_000, "n": n} for n in range(20)]}
    async with InMemoryStateService() as service:
        peaks = [await _peak_of_saving(service, state) for _ in range(40)]
    assert peaks[-1] < 1.2 * peaks[1]


async def _peak_of_saving(service: StateService, state: dict[str, object]) -> int:
    """Bytes allocated at once by one save."""
    tracemalloc.start()
    try:
        await service.save_state("u", state, "s")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
