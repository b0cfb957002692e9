"""The session history in memory: the kit, and its bounds."""

import tracemalloc

import pytest

from greenroom.actors.errors import HandlerError
from greenroom.actors.messages import Message, Text
from greenroom.services.session_history import InMemorySessionHistoryService, Session, SessionHistoryService
from kits.history_kit import HELLO, HI, HistoryKit, said
from kits.in_turn import Clock, in_turn


class TestInMemorySessionHistoryService(HistoryKit):
    def service(self, messages_kept: int) -> SessionHistoryService:
        return InMemorySessionHistoryService(messages_kept=messages_kept)


async def test_stopping_forgets() -> None:
    service = InMemorySessionHistoryService()
    async with service:
        await service.append_message(Session("s", "u"), HELLO)
    async with service:
        assert await service.list_sessions("u") == []


async def test_an_unknown_session_is_created_by_asking_for_it() -> None:
    async with InMemorySessionHistoryService() as service:
        assert await service.get_session("u", "s") == Session("s", "u", [])
        assert await service.list_sessions("u") == [Session("s", "u", [])]


async def test_sessions_are_listed_in_the_order_of_their_creation() -> None:
    async with InMemorySessionHistoryService() as service:
        for name in ("b", "a", "c"):
            await service.create_session("u", name)
        await service.get_session("u", "b")
        with in_turn():
            await service.create_session("u", "d")
            assert [session.id for session in await service.list_sessions("u")] == ["b", "a", "c", "d"]


async def test_ids_come_from_where_it_is_told() -> None:
    async with InMemorySessionHistoryService(new_id=lambda: "fixed") as service:
        assert (await service.create_session("u")).id == "fixed"


async def test_idle_sessions_are_forgotten_and_not_listed() -> None:
    clock = Clock()
    async with InMemorySessionHistoryService(idle_seconds=100.0, monotonic=clock) as service:
        await service.append_message(Session("idle", "u"), HELLO)
        await service.append_message(Session("used", "u"), HELLO)
        clock.now += 60.0
        await service.append_message(Session("used", "u"), HI)
        clock.now += 60.0
        used = await service.get_session("u", "used")
        assert used is not None
        assert used.messages == [HELLO, HI]
        assert [session.id for session in await service.list_sessions("u")] == ["used"]
        idle = await service.get_session("u", "idle")
        assert idle is not None
        assert idle.messages == []


async def test_400_sessions_of_20_kb_leave_memory() -> None:
    clock = Clock()
    async with InMemorySessionHistoryService(idle_seconds=100.0, monotonic=clock) as service:
        await service.append_message(Session("s", "u"), HELLO)
        tracemalloc.start()
        try:
            for number in range(400):
                await service.append_message(
                    Session(f"session-{number}", f"user-{number}"), said("x" * 20_000)
                )
            full = tracemalloc.get_traced_memory()[0]
            clock.now += 120.0
            await service.get_session("u", "s")
            empty = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert full > 8_000_000
    assert empty < 200_000


async def test_an_idle_session_of_two_short_messages_takes_less_than_a_kilobyte() -> None:
    sessions = 10_000
    question, answer = said("What is the capital of France?"), Message((Text("It is Paris."),), "assistant")
    async with InMemorySessionHistoryService() as service:
        tracemalloc.start()
        try:
            for number in range(sessions):
                await service.append_message(
                    Session(f"session-{number}", f"user-{number}"), [question, answer]
                )
            each = tracemalloc.get_traced_memory()[0] / sessions
        finally:
            tracemalloc.stop()
    assert each < 1_000


async def test_over_the_bytes_of_all_the_session_used_longest_ago_goes() -> None:
    async with InMemorySessionHistoryService(max_bytes=1_000) as service:
        for name in ("a", "b", "c"):
            await service.append_message(Session(name, "u"), said("x" * 400))
        assert [session.id for session in await service.list_sessions("u")] == ["b", "c"]


async def test_over_a_session_s_bytes_the_oldest_go_and_larger_messages_are_refused() -> None:
    async with InMemorySessionHistoryService(session_bytes=1_000) as service:
        session = await service.create_session("u", "s")
        for number in range(5):
            await service.append_message(session, said(f"{number}" + "x" * 300))
        read = await service.get_session("u", "s")
        assert read is not None
        assert read.messages == [said(f"{number}" + "x" * 300) for number in (3, 4)]
        with pytest.raises(HandlerError, match="more than a session may hold") as refused:
            await service.append_message(session, [HELLO, said("x" * 1_000)])
        assert refused.value.field == "message[1]"


async def test_a_service_stopped_before_its_turn_s_end_takes_nothing() -> None:
    service = InMemorySessionHistoryService()
    await service.start()
    with in_turn() as work:
        await service.append_message(Session("s", "u"), HELLO)
        await service.stop()
        work.commit()
    assert not await service.health()


async def test_appending_costs_the_same_however_long_the_history_is() -> None:
    async with InMemorySessionHistoryService() as service:
        short = await _peak_of_appending(service)
        await service.append_message(Session("s", "u"), [said("x" * 2_000)] * 1_900)
        assert await _peak_of_appending(service) < short + 1_000


async def _peak_of_appending(service: SessionHistoryService) -> int:
    """Bytes allocated at once by one append; the least of a few, as a list makes room for several at a time."""
    peaks = []
    for _ in range(5):
        session = Session("s", "u")
        tracemalloc.start()
        try:
            await service.append_message(session, said("x" * 2_000))
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return min(peaks)
