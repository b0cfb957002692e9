"""The watchdog names what blocks the loop: the turn, the session, the line."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from greenroom.actors.watchdog import LoopLag, Watchdog
from kits.system import running_system, turn

pytestmark = pytest.mark.blocks_loop


class Reports:
    """What a watchdog reported, and a clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.seen: list[LoopLag] = []
        self.noticed, self.over = threading.Event(), threading.Event()
        self.watchdog = Watchdog(0.02, self, clock=lambda: self.now)

    def __call__(self, lag: LoopLag) -> None:
        self.seen.append(lag)
        (self.over if lag.over else self.noticed).set()

    async def whole(self) -> None:
        """Wait until it has said how long it was, without blocking the loop once more."""
        assert await asyncio.to_thread(self.over.wait, 10), "the watchdog did not say how long it was"


async def test_it_names_the_turn_the_session_and_the_line_that_block_and_for_how_long() -> None:
    reports = Reports()

    async def rude(msgs: Any) -> AsyncIterator[str]:
        yield "before"
        hold_the_loop()
        await reports.whole()
        yield "after"

    def hold_the_loop() -> None:
        assert reports.noticed.wait(10), "the watchdog did not bark"
        reports.now += 7.5

    async with running_system(rude) as system:
        log = await system.submit(turn(session="the-session", id="the-turn"))
        reports.watchdog.start()
        try:
            await log.ended()
        finally:
            reports.watchdog.stop()
    at_once, whole = reports.seen
    for lag in (at_once, whole):
        assert "the-turn" in lag.task
        assert "the-session" in lag.task
        assert "hold_the_loop" in lag.stack
    assert (at_once.seconds, at_once.over, whole.seconds, whole.over) == (0.0, False, 7.5, True)
    assert reports.watchdog.worst == 7.5


async def test_worst_is_the_longest() -> None:
    reports = Reports()
    reports.watchdog.start()
    for seconds in (2.0, 3.0, 1.0):
        reports.noticed.clear()
        reports.over.clear()
        await asyncio.sleep(0)
        assert reports.noticed.wait(10)
        reports.now += seconds
        await reports.whole()
    reports.watchdog.stop()
    assert [lag.seconds for lag in reports.seen if lag.over] == [2.0, 3.0, 1.0]
    assert reports.watchdog.worst == 3.0


class Heard(logging.Handler):
    """Keeps what is logged, and says when something was."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.once, self.twice = threading.Event(), threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        (self.twice if self.once.is_set() else self.once).set()


async def test_it_logs_by_itself() -> None:
    heard = Heard()
    log = logging.getLogger("greenroom.watchdog")
    log.addHandler(heard)
    watchdog = Watchdog(0.02)
    watchdog.start()
    await asyncio.sleep(0)
    try:
        assert heard.once.wait(10)
        assert await asyncio.to_thread(heard.twice.wait, 10)
    finally:
        watchdog.stop()
        log.removeHandler(heard)
    assert "the event loop has been blocked for " in heard.messages[0]
    assert "the event loop was blocked for at least " in heard.messages[1]


async def test_it_is_silent_while_the_loop_answers() -> None:
    seen: list[LoopLag] = []
    watched = asyncio.Event()
    watchdog = Watchdog(0.005, seen.append)
    watchdog.start()
    asyncio.get_running_loop().call_later(0.1, watched.set)
    await watched.wait()
    watchdog.stop()
    assert [lag for lag in seen if lag.seconds > 0.05] == []
