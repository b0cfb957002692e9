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


async def test_it_names_the_turn_the_session_and_the_line_that_block() -> None:
    seen: list[LoopLag] = []
    reported = threading.Event()

    def report(lag: LoopLag) -> None:
        seen.append(lag)
        reported.set()

    async def rude(msgs: Any) -> AsyncIterator[str]:
        yield "before"
        hold_the_loop()
        yield "after"

    def hold_the_loop() -> None:
        assert reported.wait(10), "the watchdog did not bark"

    watchdog = Watchdog(0.02, report)
    watchdog.start()
    try:
        async with running_system(rude) as system:
            await (await system.submit(turn(session="the-session", id="the-turn"))).ended()
    finally:
        watchdog.stop()
    assert "the-turn" in seen[0].task
    assert "the-session" in seen[0].task
    assert "hold_the_loop" in seen[0].stack
    assert len(seen) == 1


class Heard(logging.Handler):
    """Keeps what is logged, and says when something was."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.once = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self.once.set()


async def test_it_logs_by_itself() -> None:
    heard = Heard()
    log = logging.getLogger("greenroom.watchdog")
    log.addHandler(heard)
    watchdog = Watchdog(0.02)
    watchdog.start()
    await asyncio.sleep(0)
    try:
        assert heard.once.wait(10)
    finally:
        watchdog.stop()
        log.removeHandler(heard)
    assert "the event loop has been blocked" in heard.messages[0]


async def test_it_is_silent_while_the_loop_answers() -> None:
    seen: list[LoopLag] = []
    watched = asyncio.Event()
    watchdog = Watchdog(0.005, seen.append)
    watchdog.start()
    asyncio.get_running_loop().call_later(0.1, watched.set)
    await watched.wait()
    watchdog.stop()
    assert [lag for lag in seen if lag.seconds > 0.05] == []
