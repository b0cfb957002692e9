"""Session histories in storages: the kits, and what several processes do to one session."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greenroom.actors.errors import HandlerError
from greenroom.actors.messages import Message, SessionKey
from greenroom.services.durable_history import DurableSessionHistoryService
from greenroom.services.history_cache import HistoryCache, Known
from greenroom.services.history_folder import GONE, KIND, SECTION, decode_messages
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.session_history import Session, SessionHistoryService
from greenroom.services.storage import Cell, Change, FolderKey, Span, Storage
from kits.distant_storage import DistantStorage
from kits.fork_kit import FORK, KEY, ForkKit
from kits.history_kit import HELLO, HI, HistoryKit, said
from kits.in_turn import end, in_turn, outside
from kits.on_storage_kit import ForksOfHistoriesOnStorage, HistoriesOnStorage


class TestHistoriesInMemory(HistoriesOnStorage):
    test_it_does_what_a_dict_of_lists_does = HistoryKit.test_it_does_what_a_dict_of_lists_does

    def storage(self) -> Storage:
        return MemoryStorage()


class TestForksOfHistoriesInMemory(ForksOfHistoriesOnStorage):
    test_a_fork_is_a_replay_of_the_first_turns = ForkKit.test_a_fork_is_a_replay_of_the_first_turns

    def storage(self) -> Storage:
        return MemoryStorage()


async def messages(service: SessionHistoryService, name: str = "s") -> list[Message]:
    session = await service.get_session("u", name)
    assert session is not None
    return session.messages


async def test_messages_that_two_processes_append_at_once_are_all_kept() -> None:
    storage = DistantStorage()
    async with DurableSessionHistoryService(storage) as one, DurableSessionHistoryService(storage) as other:
        appends = [
            (one, other)[number % 2].append_message(Session("s", "u"), said(str(number)))
            for number in range(50)
        ]
        await asyncio.gather(*appends)
        kept = await messages(one)
        assert kept == await messages(other)
        assert sorted(map(repr, kept)) == sorted(repr(said(str(number))) for number in range(50))


async def test_what_others_appended_during_a_turn_stays_before_what_the_turn_did() -> None:
    storage = MemoryStorage()
    async with DurableSessionHistoryService(storage) as one, DurableSessionHistoryService(storage) as other:
        with in_turn() as work:
            await one.append_message(Session("s", "u"), HI)
            await outside(other.append_message(Session("s", "u"), HELLO))
            await end(work)
        for service in (one, other):
            assert await messages(service) == [HELLO, HI]


async def test_a_session_that_another_process_deletes_during_a_turn_begins_with_what_the_turn_did() -> None:
    storage = MemoryStorage()
    async with DurableSessionHistoryService(storage) as one, DurableSessionHistoryService(storage) as other:
        await one.append_message(Session("s", "u"), HELLO)
        with in_turn() as work:
            await one.append_message(Session("s", "u"), HI)
            await outside(other.delete_session("u", "s"))
            await end(work)
        assert await messages(other) == [HI]


async def test_a_session_that_a_turn_deletes_is_listed_nowhere_until_it_is_written_to() -> None:
    storage = MemoryStorage()
    async with DurableSessionHistoryService(storage) as one, DurableSessionHistoryService(storage) as other:
        for name in ("a", "b"):
            await one.append_message(Session(name, "u"), HELLO)
        with in_turn() as work:
            await one.delete_session("u", "a")
            await end(work)
        assert [session.id for session in await other.list_sessions("u")] == ["b"]
        await other.append_message(Session("a", "u"), HI)
        assert [session.id for session in await one.list_sessions("u")] == ["a", "b"]
        assert await messages(one, "a") == [HI]
        assert await storage.sessions(GONE, "u") == ()


async def test_a_fork_of_a_deleted_session_is_not_listed() -> None:
    async with DurableSessionHistoryService(MemoryStorage()) as service:
        await service.append_message(Session("s", "u"), HELLO)
        with in_turn("turn-1") as work:
            await service.delete_session("u", "s")
            await end(work)
        assert await service.fork(SessionKey("u", "s"), "turn-1", ["turn-1"], SessionKey("u", "fork"))
        assert await service.list_sessions("u") == []


async def test_over_a_session_s_bytes_the_oldest_go_and_larger_messages_are_refused() -> None:
    async with DurableSessionHistoryService(MemoryStorage(), session_bytes=1_000) as service:
        session = await service.create_session("u", "s")
        for number in range(5):
            await service.append_message(session, said(f"{number}" + "x" * 300))
        assert await messages(service) == [said(f"{number}" + "x" * 300) for number in (3, 4)]
        with pytest.raises(HandlerError, match="more than a session may hold") as refused:
            await service.append_message(session, [HELLO, said("x" * 1_000)])
        assert refused.value.field == "message[1]"


async def test_marks_do_not_cost_a_session_more_of_its_messages_than_its_bytes_do() -> None:
    async with DurableSessionHistoryService(MemoryStorage(), session_bytes=1_000) as service:
        for number in range(5):
            with in_turn(f"turn-{number}") as work:
                await service.append_message(Session("s", "u"), said(f"{number}" + "x" * 300))
                await end(work)
        assert await messages(service) == [said(f"{number}" + "x" * 300) for number in (3, 4)]


async def test_over_a_session_s_bytes_earlier_turns_are_forgotten_first() -> None:
    turns = [f"turn-{number}" for number in range(6)]
    async with DurableSessionHistoryService(MemoryStorage(), session_bytes=3_000) as service:
        for turn_id in turns:
            with in_turn(turn_id) as work:
                await service.replace_messages(Session("s", "u"), [said(turn_id + "x" * 900)])
                await end(work)
        assert not await service.fork(KEY, "turn-1", turns, FORK)
        assert await service.fork(KEY, "turn-5", turns, FORK)
        assert await messages(service, "fork") == [said("turn-5" + "x" * 900)]


async def test_messages_that_only_turns_have_go_before_those_the_session_has() -> None:
    async with DurableSessionHistoryService(MemoryStorage(), session_bytes=3_000) as service:
        for number, text in enumerate(("old", "new")):
            with in_turn(f"turn-{number}") as work:
                await service.replace_messages(Session("s", "u"), [said(text + "x" * 900)])
                await end(work)
        for text in ("newer", "newest"):
            await service.append_message(Session("s", "u"), said(text + "x" * 900))
        assert await messages(service) == [said(text + "x" * 900) for text in ("new", "newer", "newest")]


@given(steps=st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 4)), max_size=30))
@settings(suppress_health_check=[HealthCheck.differing_executors])
async def test_a_folder_holds_what_its_head_says_and_no_more_than_its_bounds(
    steps: list[tuple[bool, bool, int]],
) -> None:
    storage = MemoryStorage()
    async with DurableSessionHistoryService(
        storage, messages_kept=6, turns_kept=3, session_bytes=900
    ) as service:
        for number, (inside, fresh, count) in enumerate(steps):
            added = [said("x" * (50 * place)) for place in range(count)]
            write = service.replace_messages if fresh else service.append_message
            if inside:
                with in_turn(f"turn-{number}") as work:
                    await write(Session("s", "u"), added)
                    await end(work)
            else:
                await write(Session("s", "u"), added)
            folder = await storage.read(FolderKey(KIND, "u", "s"), [Span(SECTION)])
            assert folder is not None
            head = decode_messages(folder.head.body)
            sizes = {one.first + place: size for one in head.held for place, size in enumerate(one.sizes)}
            assert {number: len(raw) for number, raw in folder.spans[0]} == sizes
            assert sum(sizes.values()) <= 900
            assert len(head.marks) <= 3
            assert set(range(head.start, head.next)) <= set(sizes)
            assert head.next - head.start <= 6


async def test_only_messages_that_are_not_known_yet_are_read() -> None:
    storage = DistantStorage()
    async with DurableSessionHistoryService(storage) as one, DurableSessionHistoryService(storage) as other:
        await one.append_message(Session("s", "u"), [HELLO] * 50)
        assert await messages(one) == [HELLO] * 50
        for service in (one, other, one):
            await service.append_message(Session("s", "u"), HI)
        for writes in (0, 1, 2):
            for _ in range(writes):
                await other.append_message(Session("s", "u"), HI)
            storage.reads.clear()
            read = await messages(one)
            assert storage.reads == [1 + (writes or 3)]
            assert read == await messages(other)


async def test_what_is_known_of_a_session_that_others_made_anew_counts_no_more() -> None:
    storage = MemoryStorage()
    async with DurableSessionHistoryService(storage) as one, DurableSessionHistoryService(storage) as other:
        for again in range(3):
            told = [*(said(f"{again} {number}") for number in range(5)), HI]
            await other.append_message(Session("s", "u"), told)
            assert await messages(one) == told
            await other.delete_session("u", "s")
        for number in range(3):
            with in_turn(f"turn-{number}") as work:
                await other.replace_messages(Session("s", "u"), [said(f"{number}"), HI])
                await end(work)
        for number in (0, 2, 1, 0):
            assert await other.fork(KEY, f"turn-{number}", ["turn-0", "turn-1", "turn-2"], FORK)
            assert await messages(one, "fork") == [said(f"{number}"), HI]
            await other.append_message(Session("fork", "u"), HELLO)
            assert await messages(one, "fork") == [said(f"{number}"), HI, HELLO]


async def test_what_is_known_of_messages_that_their_server_lost_counts_no_more() -> None:
    storage = MemoryStorage()
    async with DurableSessionHistoryService(storage) as one, DurableSessionHistoryService(storage) as other:
        await one.append_message(Session("s", "u"), [said(f"{number}") for number in range(5)])
        before = await storage.read(FolderKey(KIND, "u", "s"))
        assert before is not None
        await one.append_message(Session("s", "u"), [HELLO, HI])
        assert len(await messages(one)) == 7
        # As a server is that kept nothing of the last write.
        lost = [Cell(SECTION, 5), Cell(SECTION, 6)]
        await storage.write([Change(key=before.head.key, head=before.head.body, drop=lost)])
        assert await messages(one) == [said(f"{number}") for number in range(5)]
        await one.append_message(Session("s", "u"), [HELLO, HI])
        assert len(await messages(one)) == 7
        await storage.write([Change(key=before.head.key, head=before.head.body, drop=lost)])
        await other.append_message(Session("s", "u"), [HI, HELLO, HELLO])
        assert await messages(one) == await messages(other)


def test_what_is_known_has_its_bounds() -> None:
    cache = HistoryCache(1_000)
    for number in range(30):
        cache.keep(SessionKey("u", str(number)), Known(1, 0, [b"x" * 100] * 2))
        assert cache.find(SessionKey("u", "0")) is not None
    assert repr(cache) == "<HistoryCache: 3 sessions, 900 bytes>"
    assert cache.find(SessionKey("u", "27")) is None
    cache.keep(SessionKey("u", "29"), None)
    cache.keep(SessionKey("u", "0"), Known(2, 0, []))
    assert repr(cache) == "<HistoryCache: 1 sessions, 300 bytes>"
    cache.keep(SessionKey("u", "large"), Known(1, 0, [b"x" * 1_000]))
    assert repr(cache) == "<HistoryCache: 0 sessions, 0 bytes>"
