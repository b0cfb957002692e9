"""Services in memory that follow a fork: the kit, and what it costs."""

from __future__ import annotations

import tracemalloc
from typing import Any

from greenroom.actors.messages import Message, SessionKey, Text
from greenroom.services.agent_state import InMemoryStateService
from greenroom.services.marks import standing
from greenroom.services.session_history import InMemorySessionHistoryService, Session
from kits.fork_kit import FORK, KEY, ForkKit
from kits.history_kit import said
from kits.in_turn import in_turn


class TestForksOfStates(ForkKit):
    actions = ("save", "overwrite")

    def service(self, turns_kept: int) -> Any:
        return InMemoryStateService(turns_kept=turns_kept, rounds_kept=3)

    async def write(self, service: Any, key: SessionKey, action: str, text: str) -> None:
        latest = await service.save_state(key.user_id, {"text": text}, key.session_id)
        if action == "overwrite":
            await service.save_state(key.user_id, {"again": text}, key.session_id, round_id=latest)

    async def read(self, service: Any, key: SessionKey) -> object:
        rounds = range(1, 60)
        return [await service.export_state(key.user_id, key.session_id, number) for number in rounds]


class TestForksOfHistories(ForkKit):
    actions = ("append", "replace", "create", "delete")
    final = ("delete",)

    def service(self, turns_kept: int) -> Any:
        return InMemorySessionHistoryService(turns_kept=turns_kept, messages_kept=3)

    async def write(self, service: Any, key: SessionKey, action: str, text: str) -> None:
        session = Session(key.session_id, key.user_id)
        if action == "append":
            await service.append_message(session, [said(text), said(text * 2)])
        elif action == "replace":
            await service.replace_messages(session, [said(text)])
        elif action == "create":
            await service.create_session(key.user_id, key.session_id)
        else:
            await service.delete_session(key.user_id, key.session_id)

    async def read(self, service: Any, key: SessionKey) -> object:
        listed = {session.id for session in await service.list_sessions(key.user_id)}
        if key.session_id not in listed:
            return None
        session = await service.get_session(key.user_id, key.session_id)
        return session.messages


def test_which_mark_stands() -> None:
    turns = ["3", "4", "5", "6", "7"]
    assert standing([], "5", turns) == -1
    assert standing(["3", "6"], "5", turns) == 0
    assert standing(["3", "6"], "6", turns) == 1
    assert standing(["6"], "5", turns) == -1
    assert standing(["1", "2"], "5", turns) == 1
    assert standing(["1", "2", "6"], "5", turns) == 1
    assert standing(["", "6"], "5", turns) == 0
    assert standing(["4", "8"], "7", turns) == 0


async def test_a_session_s_marks_do_not_copy_its_history() -> None:
    async with InMemorySessionHistoryService() as service:
        await service.append_message(Session("s", "u"), [said("x" * 100)] * 1_500)
        tracemalloc.start()
        try:
            for number in range(50):
                with in_turn(f"turn-{number}") as work:
                    await service.append_message(Session("s", "u"), said("hello"))
                    work.commit()
            grown = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert grown < 50 * 1_000


async def test_an_idle_session_of_one_turn_takes_less_than_a_kilobyte() -> None:
    sessions = 5_000
    question, answer = said("What is the capital of France?"), Message((Text("It is Paris."),), "assistant")
    async with InMemorySessionHistoryService() as service:
        tracemalloc.start()
        try:
            for number in range(sessions):
                with in_turn(f"turn-{number}") as work:
                    session = Session(f"session-{number}", f"user-{number}")
                    await service.append_message(session, [question, answer])
                    work.commit()
            each = tracemalloc.get_traced_memory()[0] / sessions
        finally:
            tracemalloc.stop()
    assert each < 1_000


async def test_what_only_marks_hold_is_counted_and_let_go() -> None:
    async with InMemorySessionHistoryService(messages_kept=2, turns_kept=3) as service:
        sizes = []
        for number in range(12):
            with in_turn(f"turn-{number}") as work:
                session = Session("s", "u")
                if number % 3:
                    await service.append_message(session, said("x" * 1_000))
                else:
                    await service.replace_messages(session, [said("x" * 1_000)])
                work.commit()
            sizes.append(int(repr(service).split()[-2]))
        assert max(sizes) < 6_000
        assert await service.fork(KEY, "turn-10", ["turn-10", "turn-11"], FORK)
        await service.forget(KEY)
        await service.forget(FORK)
        assert "0 sessions, 0 bytes" in repr(service)


async def test_over_a_session_s_bytes_earlier_turns_are_forgotten_first() -> None:
    turns = [f"turn-{number}" for number in range(6)]
    async with InMemorySessionHistoryService(session_bytes=3_000) as histories:
        async with InMemoryStateService(session_bytes=3_000, rounds_kept=2) as states:
            for turn_id in turns:
                with in_turn(turn_id) as work:
                    await histories.replace_messages(Session("s", "u"), [said(turn_id + "x" * 900)])
                    await states.save_state("u", {"text": "x" * 900}, "s")
                    work.commit()
            for service in (histories, states):
                assert not await service.fork(KEY, "turn-1", turns, FORK)
                assert await service.fork(KEY, "turn-5", turns, FORK)
        session = await histories.get_session("u", "s")
        assert session is not None
        assert session.messages == [said("turn-5" + "x" * 900)]


async def test_marks_do_not_cost_a_session_more_of_its_messages_than_its_bytes_do() -> None:
    async with InMemorySessionHistoryService(session_bytes=1_000) as service:
        for number in range(5):
            with in_turn(f"turn-{number}") as work:
                await service.append_message(Session("s", "u"), said(f"{number}" + "x" * 300))
                work.commit()
        session = await service.get_session("u", "s")
        assert session is not None
        assert session.messages == [said(f"{number}" + "x" * 300) for number in (3, 4)]


async def test_messages_that_are_replaced_give_back_their_room() -> None:
    async with InMemorySessionHistoryService() as service:
        sizes = []
        for _ in range(3):
            await service.replace_messages(Session("s", "u"), [said("x" * 1_000)])
            sizes.append(int(repr(service).split()[-2]))
        assert sizes[0] == sizes[2]
