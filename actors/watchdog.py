"""The watchdog: measures how long the loop was blocked, and names what blocked it (law 5).

A thread of its own asks the loop every so often. When no answer comes in time, the thread sees the stack the loop is
stuck in and the turn it belongs to, which nothing on the loop could, and says so at once. When the answer comes it says
how long that took. The loop may have been stuck for up to `threshold` seconds when it was asked, so it is "at least".
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable

from msgspec import Struct, structs

logger = logging.getLogger("greenroom.watchdog")

DEEPEST = 12
"""Frames of the blocking stack that are logged: the innermost say what blocks."""


class LoopLag(Struct, frozen=True):
    """One time the loop was blocked. `seconds`: how long it has been so far, or was when it is `over`. `task`: the name
    of the task that ran when it was seen; turns' tasks are named after their session and turn."""

    seconds: float
    task: str
    stack: str
    over: bool = False


class Watchdog:
    """Watches one loop. `report` is called from the watching thread, each time the loop is blocked: once as soon as it
    is seen, once when it is over. `worst`: the longest that was over, in seconds. `clock`: seconds, for tests."""

    def __init__(
        self,
        threshold: float = 0.25,
        report: Callable[[LoopLag], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.threshold = threshold
        self.worst = 0.0
        self._report = report or log_lag
        self._clock = clock
        self._stop = threading.Event()
        self._answered = threading.Event()
        self._answered_at = 0.0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch the running loop."""
        loop = asyncio.get_running_loop()
        ident = threading.get_ident()
        self._thread = threading.Thread(
            target=self._watch, args=(loop, ident), name="greenroom watchdog", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop watching. Returns at once; the thread ends by itself."""
        self._stop.set()
        self._answered.set()
        self._thread = None

    def _watch(self, loop: asyncio.AbstractEventLoop, ident: int) -> None:
        while not self._stop.wait(self.threshold):
            self._answered.clear()
            asked = self._clock()
            try:
                loop.call_soon_threadsafe(self._answer)
            except RuntimeError:  # the loop is closed: nothing is left to watch
                return
            if not self._answered.wait(self.threshold) and not self._stop.is_set():
                self._blocked(loop, ident, asked)

    def _answer(self) -> None:
        """On the loop."""
        self._answered_at = self._clock()
        self._answered.set()

    def _blocked(self, loop: asyncio.AbstractEventLoop, ident: int, asked: float) -> None:
        frame = sys._current_frames().get(ident)
        stack = "".join(traceback.format_stack(frame)[-DEEPEST:]) if frame is not None else "(no stack)"
        task = asyncio.current_task(loop)
        name = task.get_name() if task is not None else "(a callback, no task)"
        lag = LoopLag(self._clock() - asked, name, stack)
        self._report(lag)
        self._answered.wait()
        if self._stop.is_set():
            return
        lag = structs.replace(lag, seconds=self._answered_at - asked, over=True)
        self.worst = max(self.worst, lag.seconds)
        self._report(lag)


def log_lag(lag: LoopLag) -> None:
    """Log it: who blocked the loop, and where; then for how long."""
    if lag.over:
        logger.warning("the event loop was blocked for at least %.2f s by %s", lag.seconds, lag.task)
        return
    logger.warning(
        "the event loop has been blocked for %.2f s by %s; blocking calls belong in a worker thread "
        "(anyio.to_thread.run_sync) or in a synchronous handler or tool. It is here:\n%s",
        lag.seconds,
        lag.task,
        lag.stack,
    )
