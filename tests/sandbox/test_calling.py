"""Calls of a sandbox object: waited for in threads, under way in asyncio, always in order."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
from collections.abc import AsyncGenerator, Awaitable
from contextlib import suppress
from typing import Any, cast

import anyio.to_thread
import pytest

from greenroom.actors.errors import ConfigurationError, LeaseOver, SandboxBusy, SandboxLost
from greenroom.sandbox import calling
from greenroom.sandbox.browser_sandbox import BrowserSandbox
from greenroom.sandbox.calling import PendingCall, ToolAnswer
from greenroom.sandbox.leases import LeaseKey
from greenroom.sandbox.result import ToolResult
from kits.fake_keeper import FakeKeeper

KEY = LeaseKey("ann", "s1", "browser")


def leased(keeper: FakeKeeper) -> BrowserSandbox:
    return BrowserSandbox.leased(keeper, KEY)


async def test_awaited_calls_give_results() -> None:
    keeper = FakeKeeper()
    answer = await leased(keeper).browser_navigate("https://example.com/")
    assert answer.text == "browser_navigate {'url': 'https://example.com/'}"
    assert keeper.calls == [("browser_navigate", {"url": "https://example.com/"})]
    assert keeper.keys == [KEY]
    assert json.loads(json.dumps(answer))["isError"] is False


async def test_calls_nobody_awaits_are_carried_out_in_order() -> None:
    keeper = FakeKeeper()
    box = leased(keeper)
    _ = box.browser_navigate("https://example.com/")
    _ = box.browser_type("field", "e1", "hello")
    _ = box.browser_click("button", "e2")
    assert keeper.calls == []
    await box.settled()
    assert [tool for tool, _ in keeper.calls] == ["browser_navigate", "browser_type", "browser_click"]


async def test_a_later_call_that_is_awaited_waits_for_earlier_ones() -> None:
    keeper = FakeKeeper()
    box = leased(keeper)
    first = box.browser_navigate("https://example.com/")
    assert (await box.browser_snapshot()).text.startswith("browser_snapshot")
    assert [tool for tool, _ in keeper.done] == ["browser_navigate", "browser_snapshot"]
    assert (await first).text.startswith("browser_navigate")


async def test_gathered_calls_keep_their_order() -> None:
    keeper = FakeKeeper()
    box = leased(keeper)
    answers = await asyncio.gather(*(box.browser_press_key(str(number)) for number in range(9)))
    assert [answer.text for answer in answers] == [
        f"browser_press_key {{'key': '{number}'}}" for number in range(9)
    ]
    assert [arguments["key"] for _, arguments in keeper.calls] == [str(number) for number in range(9)]


async def test_errors_of_the_sandbox_are_raised_where_it_is_awaited() -> None:
    keeper = FakeKeeper()
    keeper.answers["browser_snapshot"] = SandboxLost("the browser is gone")
    box = leased(keeper)
    with pytest.raises(SandboxLost, match="the browser is gone"):
        await box.browser_snapshot()
    assert (await box.browser_tab_list()).text.startswith("browser_tab_list")


async def test_who_is_cancelled_cancels_the_call_and_no_other() -> None:
    keeper = FakeKeeper()
    keeper.gates["browser_navigate"] = asyncio.Event()
    box = leased(keeper)

    async def browse() -> None:
        await box.browser_navigate("https://example.com/")

    task = asyncio.create_task(browse())
    await keeper.begun.wait()
    later = box.browser_snapshot()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert keeper.done[0] == ("browser_navigate", "cancelled")
    assert (await later).text.startswith("browser_snapshot")


async def test_a_waiting_call_that_is_cancelled_lets_nobody_pass() -> None:
    keeper = FakeKeeper()
    gate = keeper.gates["browser_navigate"] = asyncio.Event()
    box = leased(keeper)
    _ = box.browser_navigate("https://example.com/")
    waiting = asyncio.ensure_future(cast("Awaitable[Any]", box.browser_click("button", "e1")))
    last = box.browser_snapshot()
    await keeper.begun.wait()
    waiting.cancel()
    await asyncio.wait([waiting])
    gate.set()
    await last
    assert keeper.done == [("browser_navigate", "answered"), ("browser_snapshot", "answered")]


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What sandboxes said; what earlier tests left may say something too when it is collected."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("greenroom.sandbox")]


async def test_a_failure_nobody_awaits_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    keeper = FakeKeeper()
    keeper.answers["browser_click"] = SandboxLost("the browser is gone")
    keeper.answers["browser_type"] = ToolResult.of_text("no such element", is_error=True)
    box = leased(keeper)
    with caplog.at_level(logging.WARNING, "greenroom.sandbox"):
        _ = box.browser_click("button", "e1")
        _ = box.browser_type("field", "e2", "x")
        kept = box.browser_click("button", "e3")
        await box.settled()
        gc.collect()
        assert len(logged(caplog)) == 1  # `_` and `kept` are still there to be awaited
        del _, kept
    assert logged(caplog) == [
        "browser_click() failed, and nobody awaited it",
        "browser_type() failed, and nobody awaited it: no such element",
        "browser_click() failed, and nobody awaited it",
    ]


async def test_a_failure_that_was_awaited_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    keeper = FakeKeeper()
    keeper.answers["browser_click"] = SandboxLost("the browser is gone")
    with caplog.at_level(logging.DEBUG, "greenroom.sandbox"), pytest.raises(SandboxLost):
        await leased(keeper).browser_click("button", "e1")
    gc.collect()
    assert not logged(caplog)


async def test_a_failure_leaves_no_circle() -> None:
    keeper = FakeKeeper()
    keeper.answers["browser_click"] = SandboxLost("the browser is gone")
    box = leased(keeper)
    gc.collect()
    gc.disable()
    try:
        pending = box.browser_click("button", "e1")
        with suppress(SandboxLost):
            await pending
        del pending
        await box.settled()
        keeper.answers.clear()
        assert not [found for found in gc.get_objects() if isinstance(found, PendingCall)]
    finally:
        gc.enable()


async def test_a_result_that_is_not_here_yet_says_so() -> None:
    box = leased(FakeKeeper())
    pending: Any = box.browser_snapshot()
    assert repr(pending) == "<browser_snapshot(…), under way: await it for its result>"
    with pytest.raises(TypeError, match=r"browser_snapshot\(\) is not here yet: await"):
        pending["content"]
    with pytest.raises(AttributeError, match=r"browser_snapshot\(\) is not here yet: await"):
        _ = pending.text
    await pending
    assert "done" in repr(pending)


async def test_so_many_calls_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "MOST_WAITING", 3)
    keeper = FakeKeeper()
    gate = keeper.gates["browser_snapshot"] = asyncio.Event()
    box = leased(keeper)
    waiting = [box.browser_snapshot() for _ in range(3)]
    await keeper.begun.wait()
    with pytest.raises(SandboxBusy, match="3 calls of this BrowserSandbox wait already"):
        await box.browser_snapshot()
    gate.set()
    assert len(await asyncio.gather(*waiting)) == 3


async def test_after_the_end_nothing_is_called() -> None:
    keeper = FakeKeeper()
    gate = keeper.gates["browser_navigate"] = asyncio.Event()
    box = leased(keeper)
    first = box.browser_navigate("https://example.com/")
    await keeper.begun.wait()
    waiting = box.browser_snapshot()
    box.end("its service was stopped")
    with pytest.raises(LeaseOver, match="its service was stopped"):
        _ = box.browser_snapshot()
    gate.set()
    assert (await first).text
    with pytest.raises(LeaseOver, match="its service was stopped"):
        await waiting
    assert [tool for tool, _ in keeper.calls] == ["browser_navigate"]


async def test_worker_threads_wait_for_results() -> None:
    keeper = FakeKeeper()
    box = leased(keeper)

    def work() -> str:
        first = box.browser_navigate("https://example.com/")
        assert isinstance(first, ToolAnswer)
        return box.browser_snapshot().text

    assert (await anyio.to_thread.run_sync(work)).startswith("browser_snapshot")
    keeper.answers["browser_click"] = SandboxLost("the browser is gone")
    with pytest.raises(SandboxLost):
        _ = await anyio.to_thread.run_sync(box.browser_click, "button", "e1")


async def test_code_of_another_loop_awaits_too() -> None:
    keeper = FakeKeeper()
    box = leased(keeper)

    async def elsewhere() -> str:
        _ = box.browser_navigate("https://example.com/")
        return (await box.browser_snapshot()).text

    assert (await anyio.to_thread.run_sync(lambda: asyncio.run(elsewhere()))).startswith("browser_snapshot")
    assert [tool for tool, _ in keeper.calls] == ["browser_navigate", "browser_snapshot"]


def test_where_it_is_not_started_it_says_how() -> None:
    with pytest.raises(ConfigurationError, match=r"with BrowserSandbox\(\) as box"):
        _ = BrowserSandbox().browser_snapshot()


def test_when_its_loop_has_ended_it_says_so() -> None:
    async def make() -> BrowserSandbox:
        return leased(FakeKeeper())

    box = asyncio.run(make())
    with pytest.raises(
        ConfigurationError, match="the event loop in which BrowserSandbox was started has ended"
    ):
        _ = box.browser_snapshot()


async def test_the_context_of_the_caller_is_the_calls() -> None:
    from contextvars import ContextVar

    whose: ContextVar[str] = ContextVar("whose", default="nobody")
    seen: list[str] = []

    class Looking(FakeKeeper):
        async def call(self, *args: Any, **kwargs: Any) -> ToolResult:
            seen.append(whose.get())
            return await super().call(*args, **kwargs)

    box = BrowserSandbox.leased(Looking(), KEY)
    whose.set("the turn")
    _ = await box.browser_snapshot()
    _ = await anyio.to_thread.run_sync(box.browser_snapshot)
    assert seen == ["the turn", "the turn"]


async def test_what_frameworks_see_is_a_stream() -> None:
    box = leased(FakeKeeper())
    pending: Any = box.browser_snapshot()
    assert issubclass(type(pending), AsyncGenerator)
    answer: Any = await pending
    assert issubclass(type(answer), AsyncGenerator)
    assert issubclass(type(answer), ToolResult)
    assert (await answer) is answer
    assert len([chunk async for chunk in pending]) == 1
    assert [chunk async for chunk in pending] == []
    await answer.aclose()
    assert [chunk async for chunk in answer] == []


async def test_the_portal_of_a_thread_may_be_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """`with` in a thread has a loop of its own; code of other threads and loops may use it meanwhile."""
    keeper = FakeKeeper()
    use_keeper(monkeypatch, keeper)

    def script() -> list[Any]:
        with BrowserSandbox() as box:
            first = box.browser_navigate("https://example.com/")
            seen: list[Any] = [first.text, box.list_tools()["playwright"].keys() >= {"browser_click"}]

            async def agent() -> str:
                pending = box.browser_snapshot()
                assert isinstance(pending, PendingCall)
                answer: ToolResult = await pending
                return answer.text

            seen.append(asyncio.run(agent()))
            thread = threading.Thread(target=lambda: seen.append(box.browser_tab_list().text))
            thread.start()
            thread.join()
        assert keeper.stopped
        with pytest.raises(LeaseOver, match="this BrowserSandbox was closed"):
            _ = box.browser_snapshot()
        return seen

    first, tools, snapshot, tabs = await anyio.to_thread.run_sync(script)
    assert first.startswith("browser_navigate")
    assert tools
    assert snapshot.startswith("browser_snapshot")
    assert tabs.startswith("browser_tab_list")


def use_keeper(monkeypatch: pytest.MonkeyPatch, keeper: FakeKeeper) -> None:
    """Let sandboxes that belong to no service have this keeper."""

    async def started(settings: object) -> FakeKeeper:
        del settings
        return keeper

    from greenroom.sandbox import standalone

    monkeypatch.setattr(standalone, "started_keeper", started)
