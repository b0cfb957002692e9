"""The session actor: one writer, one ending, agreement (laws 1 to 3)."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest

import kits.system
from greenroom.actors.errors import HandlerError, MailboxFull, SessionBusy
from greenroom.actors.events import (
    ArgumentsDelta,
    ItemStarted,
    PartDone,
    ToolProgress,
    TurnCancelled,
    TurnCompleted,
    TurnFailed,
)
from greenroom.actors.limits import Limits
from greenroom.actors.messages import Image, SessionKey, Text, ToolCall, ToolOutput
from greenroom.actors.session import Session
from greenroom.services.sessions.memory_store import InMemoryStore
from greenroom.services.store import TurnCommit
from greenroom.services.work import current_work
from kits.grammar import check_events
from kits.system import asked, running_system, said, turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time
KEY = SessionKey("u", "s")


async def echo(msgs: Any) -> AsyncIterator[str]:
    for word in asked(msgs[-1]).split():
        yield word


class Counter:
    """An agent whose state is how often it has answered. It waits in every answer, so that turns could overlap."""

    def __init__(self) -> None:
        self.count = 0

    async def reply(self, msgs: Any) -> AsyncIterator[str]:
        before = self.count
        await asyncio.sleep(1)
        self.count = before + 1
        text = asked(msgs[-1])
        if text == "fail":
            yield "so far "
            raise RuntimeError("secret text")
        if text == "wait":
            yield "partial"
            await asyncio.sleep(1000)
        yield str(self.count)

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]


async def new_counter() -> Counter:
    return Counter()


async def test_a_turn_is_answered_and_its_events_keep_the_order() -> None:
    async with running_system(echo) as system:
        log = await system.submit(turn("one two"))
        events = [event async for event in log.read()]
    check_events(events)
    ending = events[-1]
    assert isinstance(ending, TurnCompleted)
    assert said(ending) == "onetwo"


async def test_ten_turns_at_once_on_one_session_count_to_ten_in_the_order_they_came() -> None:
    store = InMemoryStore()
    async with running_system(new_counter, agent=True, store=store) as system:
        logs = [await system.submit(turn(f"q{number}")) for number in range(10)]
        endings = [await log.ended() for log in logs]
        record = await store.load(KEY)
    assert [said(ending) for ending in endings] == [str(number) for number in range(1, 11)]
    assert record is not None
    assert record.state == b'{"count":10}'
    assert [(asked(kept.input[0]), said(kept.output)) for kept in record.turns] == [
        (f"q{number}", str(number + 1)) for number in range(10)
    ]


async def test_sessions_run_beside_one_another() -> None:
    async with running_system(new_counter, agent=True) as system:
        logs = [await system.submit(turn("q", session=f"s{number}")) for number in range(50)]
        for log in logs:
            await log.ended()
        assert asyncio.get_running_loop().time() == 1.0


async def test_keys_are_tuples_whatever_the_ids_contain() -> None:
    async with running_system(new_counter, agent=True) as system:
        for user, session in (
            ("a", "b_c"),
            ("a_b", "c"),
            ("a_b_c", ""),
            ("", "a_b_c"),
            ("a\0b", "c"),
            ("a", "b\0c"),
        ):
            log = await system.submit(turn("q", user=user, session=session))
            assert said(await log.ended()) == "1"


async def test_a_failed_turn_leaves_the_last_good_state_and_keeps_what_was_said_marked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = InMemoryStore()
    async with running_system(new_counter, agent=True, store=store) as system:
        await (await system.submit(turn("q"))).ended()
        log = await system.submit(turn("fail"))
        events = [event async for event in log.read()]
        check_events(events)
        ending = events[-1]
        assert isinstance(ending, TurnFailed)
        assert said(ending) == "so far "
        assert not ending.output[0].complete
        assert ending.error.code == "RuntimeError"
        assert ending.error.id is not None
        assert "secret" not in ending.error.message
        assert ending.error.id in caplog.text
        assert "secret text" in caplog.text
        assert said(await (await system.submit(turn("q"))).ended()) == "2"
        record = await store.load(KEY)
    assert record is not None
    assert record.state == b'{"count":2}'
    assert [kept.status for kept in record.turns] == ["completed", "failed", "completed"]
    assert said(record.turns[1].output) == "so far "


async def test_debug_puts_the_exception_on_the_wire() -> None:
    async with running_system(new_counter, agent=True, debug=True) as system:
        ending = await (await system.submit(turn("fail"))).ended()
    assert isinstance(ending, TurnFailed)
    assert "secret text" in ending.error.message


async def test_a_cancelled_turn_leaves_the_last_good_state_and_keeps_what_was_said_marked() -> None:
    store = InMemoryStore()
    async with running_system(new_counter, agent=True, store=store) as system:
        await (await system.submit(turn("q"))).ended()
        log = await system.submit(turn("wait"))
        await asyncio.sleep(2)
        await system.cancel(log.id)
        ending = await log.ended()
        assert isinstance(ending, TurnCancelled)
        assert said(ending) == "partial"
        assert said(await (await system.submit(turn("q"))).ended()) == "2"
        record = await store.load(KEY)
    assert record is not None
    assert record.state == b'{"count":2}'
    assert [kept.status for kept in record.turns] == ["completed", "cancelled", "completed"]


async def test_cancelling_twice_or_late_or_the_wrong_turn_changes_nothing() -> None:
    async with running_system(new_counter, agent=True) as system:
        first = await system.submit(turn("q"))
        await first.ended()
        second = await system.submit(turn("q"))
        await asyncio.sleep(0)
        await system.cancel(first.id)
        assert said(await second.ended()) == "2"
        third = await system.submit(turn("wait"))
        await asyncio.sleep(2)
        for _ in range(3):
            await system.cancel(third.id, reason="first reason")
        await third.ended()
        await system.cancel(third.id, reason="second reason")
        assert isinstance(third.terminal, TurnCancelled)
        assert third.terminal.reason == "first reason"


async def test_a_turn_cancelled_while_it_waits_never_enters_the_history() -> None:
    store = InMemoryStore()
    async with running_system(new_counter, agent=True, store=store) as system:
        first, second, third = [await system.submit(turn(text)) for text in ("a", "b", "c")]
        await system.cancel(second.id)
        events = [event async for event in second.read()]
        check_events(events)
        assert isinstance(events[-1], TurnCancelled)
        assert said(await first.ended()) == "1"
        assert said(await third.ended()) == "2"
        record = await store.load(KEY)
    assert record is not None
    assert [asked(kept.input[0]) for kept in record.turns] == ["a", "c"]


async def test_a_turn_cancelled_before_its_first_step_ends_too() -> None:
    store = InMemoryStore()
    async with running_system(new_counter, agent=True, store=store) as system:
        log = await system.submit(turn("a"))
        await system.cancel(log.id)
        assert isinstance(await log.ended(), TurnCancelled)
        assert said(await (await system.submit(turn("b"))).ended()) == "1"
        record = await store.load(KEY)
    assert record is not None
    assert [asked(kept.input[0]) for kept in record.turns] == ["b"]


async def test_overlap_reject_refuses_while_the_session_works() -> None:
    async with running_system(new_counter, agent=True, overlap="reject") as system:
        first = await system.submit(turn("q"))
        with pytest.raises(SessionBusy):
            await system.submit(turn("q"))
        queued = await system.submit(turn("q", overlap="queue"))
        assert said(await first.ended()) == "1"
        assert said(await queued.ended()) == "2"
        assert said(await (await system.submit(turn("q"))).ended()) == "3"


async def test_overlap_interrupt_ends_the_running_turn_keeps_what_it_said_and_runs() -> None:
    store = InMemoryStore()
    async with running_system(new_counter, agent=True, store=store) as system:
        first = await system.submit(turn("wait"))
        await asyncio.sleep(2)
        second = await system.submit(turn("q", overlap="interrupt"))
        assert said(await second.ended()) == "1"
        assert isinstance(first.terminal, TurnCancelled)
        assert second.id in first.terminal.reason
        record = await store.load(KEY)
    assert record is not None
    assert [(kept.status, said(kept.output)) for kept in record.turns] == [
        ("cancelled", "partial"),
        ("completed", "1"),
    ]


async def test_a_full_mailbox_refuses_and_keeps_nothing_of_what_it_refused() -> None:
    async with running_system(new_counter, agent=True, limits=Limits(waiting_turns=2)) as system:
        logs = [await system.submit(turn("q")) for _ in range(3)]
        with pytest.raises(MailboxFull) as refused:
            await system.submit(turn("q"))
        assert refused.value.retry_after
        assert refused.value.status == 429
        with pytest.raises(MailboxFull):  # and an interruption that cannot be taken in interrupts nothing
            await system.submit(turn("q", overlap="interrupt"))
        assert [said(await log.ended()) for log in logs] == ["1", "2", "3"]
        assert system.statistics().accepted_turns == 3


async def test_a_handler_that_swallows_cancellation_is_ended_over_its_head(
    caplog: pytest.LogCaptureFixture,
) -> None:
    released = asyncio.Event()
    late: list[str] = []

    async def stubborn(msgs: Any) -> AsyncIterator[str]:
        if asked(msgs[-1]) == "next":
            yield "next"
            return
        yield "before"
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                late.append("swallowed")
        yield "after"

    store = InMemoryStore()
    async with running_system(stubborn, store=store, limits=Limits(cancel_seconds=3)) as system:
        log = await system.submit(turn("stubborn"))
        waiting = await system.submit(turn("next"))
        await asyncio.sleep(1)
        await system.cancel(log.id)
        ending = await log.ended()
        assert isinstance(ending, TurnCancelled)
        assert asyncio.get_running_loop().time() == 4.0
        assert said(ending) == "before"
        assert said(await waiting.ended()) == "next"
        assert late == ["swallowed"]
        assert "did not stop" in caplog.text
        released.set()
        await asyncio.sleep(1)
        assert log.terminal is ending
        assert said(await (await system.submit(turn("next"))).ended()) == "next"
        record = await store.load(KEY)
    assert record is not None
    kept = [(turn.status, said(turn.output)) for turn in record.turns]
    assert kept == [("cancelled", "before"), ("completed", "next"), ("completed", "next")]


async def test_a_handler_that_finishes_in_spite_of_its_cancellation_is_cancelled_all_the_same() -> None:
    async def polite(msgs: Any) -> AsyncIterator[str]:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            yield "I noticed that you interrupted me"

    async with running_system(polite) as system:
        log = await system.submit(turn())
        await asyncio.sleep(1)
        await system.cancel(log.id)
        assert isinstance(await log.ended(), TurnCancelled)


async def test_a_turn_that_takes_too_long_fails(caplog: pytest.LogCaptureFixture) -> None:
    async with running_system(new_counter, agent=True, limits=Limits(turn_seconds=5)) as system:
        ending = await (await system.submit(turn("wait"))).ended()
        assert isinstance(ending, TurnFailed)
        assert ending.error.code == "turn_timeout"
        assert "Limits.turn_seconds" in ending.error.message
        assert ending.error.id is not None
        (line,) = [line for line in caplog.messages if ending.error.id in line]
        assert "session 's'" in line
        assert said(ending) == "partial"
        assert asyncio.get_running_loop().time() == 5.0
        assert said(await (await system.submit(turn("q"))).ended()) == "1"


async def test_a_turn_that_says_too_much_fails() -> None:
    async def endless(msgs: Any) -> AsyncIterator[str]:
        while True:
            yield "x" * 100

    async with running_system(endless, limits=Limits(turn_bytes=10_000)) as system:
        ending = await (await system.submit(turn())).ended()
    assert isinstance(ending, TurnFailed)
    assert ending.error.code == "turn_too_large"
    assert "turn_bytes" in ending.error.message
    assert len(said(ending)) == 10_000


async def test_a_handler_that_never_waits_lets_others_run() -> None:
    async def chatter(msgs: Any) -> AsyncIterator[str]:
        for _ in range(3000):
            yield "x"

    async with running_system(chatter) as system:
        log = await system.submit(turn())
        turns_of_the_loop = 0
        while log.terminal is None:
            await asyncio.sleep(0)
            turns_of_the_loop += 1
    assert turns_of_the_loop > 8


async def test_what_a_handler_yields_must_mean_something() -> None:
    async def confused(msgs: Any) -> AsyncIterator[object]:
        yield "fine"
        yield Image("data:image/png;base64,")
        yield object()

    async with running_system(confused) as system:
        ending = await (await system.submit(turn())).ended()
    assert isinstance(ending, TurnFailed)
    assert ending.error.code == "handler_error"
    assert "yielded something of type object" in ending.error.message


async def test_a_cancellation_from_within_is_a_failure_not_a_silence() -> None:
    async def careless(msgs: Any) -> AsyncIterator[str]:
        task = asyncio.create_task(asyncio.sleep(10))
        task.cancel()
        await task
        yield "never"

    async with running_system(careless) as system:
        ending = await (await system.submit(turn())).ended()
    assert isinstance(ending, TurnFailed)
    assert ending.error.code == HandlerError.code


class FailingStore(InMemoryStore):
    """Refuses the commits of completed turns while `full`."""

    full = True

    async def commit(self, key: SessionKey, turn: TurnCommit) -> None:
        if self.full and turn.record.status == "completed":
            raise OSError("disk full")
        await super().commit(key, turn)


async def test_a_commit_that_fails_is_a_failed_turn_and_changes_nothing() -> None:
    store = FailingStore()
    staged: list[object] = []

    class Area:
        def __init__(self, service: object) -> None:
            pass

        def apply(self, turn_id: str) -> None:
            staged.append("applied")

    class Keeping(Counter):
        async def reply(self, msgs: Any) -> AsyncIterator[str]:
            work = current_work.get()
            assert work is not None
            work.staging(self, Area)
            async for word in super().reply(msgs):
                yield word

    async def new_keeping() -> Counter:
        return Keeping()

    async with running_system(new_keeping, agent=True, store=store) as system:
        ending = await (await system.submit(turn("q"))).ended()
        assert isinstance(ending, TurnFailed)
        assert said(ending) == "1"
        assert staged == []
        store.full = False
        assert said(await (await system.submit(turn("q"))).ended()) == "1"
        assert staged == ["applied"]


async def test_each_turn_runs_in_the_context_it_was_submitted_in() -> None:
    colour: ContextVar[str] = ContextVar("colour", default="none")

    async def tell(msgs: Any) -> AsyncIterator[str]:
        yield colour.get()
        colour.set("the handler's")

    async with running_system(tell) as system:
        logs = []
        for name in ("red", "green"):
            colour.set(name)
            logs.append(await system.submit(turn()))
        assert [said(await log.ended()) for log in logs] == ["red", "green"]
        assert colour.get() == "green"


async def test_a_warm_agent_is_kept_and_a_passivated_one_restored() -> None:
    made: list[Counter] = []

    async def warm(session: Session) -> Counter:
        made.append(Counter())
        return made[-1]

    async with running_system(warm, agent=True, limits=Limits(idle_seconds=60)) as system:
        for expected in ("1", "2"):
            assert said(await (await system.submit(turn("q"))).ended()) == expected
        assert len(made) == 1
        await asyncio.sleep(120)
        assert system.statistics().active_sessions == 0
        assert said(await (await system.submit(turn("q"))).ended()) == "3"
        assert len(made) == 2


def test_a_loop_torn_down_around_a_turn_still_gives_each_turn_its_ending(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logs = []

    async def main() -> None:
        system = running_system(new_counter, agent=True)
        running = await system.__aenter__()
        logs.extend([await running.submit(turn("wait")), await running.submit(turn("q"))])
        await asyncio.sleep(0.01)

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    if kits.system.kind == "memory":
        assert [type(log.terminal) for log in logs] == [TurnCancelled, TurnCancelled]
    else:  # what could not be written down is for the next process to end
        assert all(log.terminal is not None or log.lost is not None for log in logs)


@pytest.mark.parametrize("kind", ["progress", "picture"])
async def test_every_kind_of_output_counts_against_the_turns_bound(kind: str) -> None:
    async def endless(msgs: Any) -> AsyncIterator[object]:
        yield ItemStarted("t", "tool_output", "tool", "c", "tool")
        while True:
            yield Image("x" * 1000) if kind == "picture" else ToolProgress("t", (Text("x" * 1000),))

    async with running_system(endless, limits=Limits(turn_bytes=10_000)) as system:
        ending = await (await system.submit(turn())).ended()
    assert isinstance(ending, TurnFailed)
    assert ending.error.code == "turn_too_large"
    assert "turn_bytes" in ending.error.message


async def test_a_turn_cancelled_among_its_tools_leaves_no_call_without_a_result() -> None:
    started = asyncio.Event()

    async def tools(msgs: Any) -> AsyncIterator[object]:
        for name in ("finished", "running", "reporting", "half-written"):
            yield ItemStarted(name, "tool_call", "assistant", f"call-{name}", name)
            yield ArgumentsDelta("{" if name == "half-written" else "{}", name)
            if name != "half-written":
                yield PartDone(ToolCall(f"call-{name}", name, "{}"), name)
        yield ItemStarted("result", "tool_output", "tool", "call-finished", "finished")
        yield PartDone(ToolOutput("call-finished", "finished", (Text("42"),)), "result")
        yield ItemStarted("report", "tool_output", "tool", "call-reporting", "reporting")
        yield ToolProgress("report", (Text("half"),))
        started.set()
        await asyncio.sleep(1000)

    async with running_system(tools) as system:
        log = await system.submit(turn())
        await started.wait()
        await system.cancel(log.id)
        ending = await log.ended()
        check_events(log.events())
    outputs = [part for item in ending.output for part in item.parts if isinstance(part, ToolOutput)]
    told = {part.name: [text.text for text in part.output if isinstance(text, Text)] for part in outputs}
    assert told == {
        "finished": ["42"],
        "running": ["interrupted, outcome unknown"],
        "reporting": ["half", "interrupted, outcome unknown"],
        "half-written": ["interrupted before it was called"],
    }


async def test_a_handler_whose_clean_up_hangs_fails_its_turn_all_the_same() -> None:
    async def hanging(msgs: Any) -> AsyncIterator[object]:
        try:
            yield object()
        finally:
            await asyncio.sleep(10_000)

    async with running_system(hanging, limits=Limits(cancel_seconds=3)) as system:
        ending = await (await system.submit(turn())).ended()
        assert isinstance(ending, TurnFailed)
        assert asyncio.get_running_loop().time() == 3.0


async def broken(msgs: Any) -> AsyncIterator[object]:
    yield "half"
    raise ValueError("it broke")


@pytest.mark.parametrize("handler", [echo, broken])
async def test_a_turn_that_is_over_leaves_nothing_to_the_garbage_collector(
    handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "greenroom")  # a record that is captured holds what broke
    async with running_system(handler) as system:
        await (await system.submit(turn("warm up"))).ended()
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                await (await system.submit(turn("hello"))).ended()
            await asyncio.sleep(1)
            assert gc.collect() == 0
        finally:
            gc.enable()
