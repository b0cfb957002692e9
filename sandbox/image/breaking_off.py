"""Work that must be tidied up when nobody waits for it any more: a command's processes, a kernel's cell.

A caller that goes away cancels the task that serves it. What that task had started must not be dropped where it is:
it is told to break off, and waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Halt:
    """When work must break off: at a moment of the loop's clock, or when nobody wants it any more."""

    def __init__(self, seconds: float) -> None:
        self.deadline = asyncio.get_running_loop().time() + seconds
        self.abandoned = asyncio.Event()

    @property
    def left(self) -> float:
        """Seconds until the deadline, 0 when it is over."""
        return max(0.0, self.deadline - asyncio.get_running_loop().time())

    async def before(self, awaitable: Awaitable[Any]) -> bool:
        """Wait for this. False: it was time to break off first, and the awaitable was cancelled.

        Raises what the awaitable raises.
        """
        waited = asyncio.ensure_future(awaitable)
        gone = asyncio.ensure_future(self.abandoned.wait())
        try:
            await asyncio.wait({waited, gone}, timeout=self.left, return_when=asyncio.FIRST_COMPLETED)
            in_time = waited.done()
        finally:
            waited.cancel()
            gone.cancel()
        await asyncio.wait({waited, gone})
        if in_time:
            await waited
        elif not waited.cancelled():
            waited.exception()  # it failed while it was being cancelled
        return in_time


class Calls:
    """Work under way."""

    def __init__(self) -> None:
        self._under_way: dict[asyncio.Future[Any], Halt] = {}

    async def run(self, work: Callable[[Halt], Coroutine[Any, Any, T]], seconds: float) -> T:
        """Run work that watches a `Halt` to its end, in a task of its own. When the caller is cancelled the work is
        told to break off, and the cancellation goes on when it has."""
        halt = Halt(seconds)
        task = asyncio.ensure_future(work(halt))
        self._under_way[task] = halt
        task.add_done_callback(self._under_way.pop)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            halt.abandoned.set()
            while not task.done():
                try:
                    await asyncio.shield(asyncio.wait({task}))
                except asyncio.CancelledError:
                    continue  # said once is enough: the work is breaking off, in a bounded time
            if not task.cancelled():
                task.exception()  # nobody is there to be told
            raise

    def break_off(self) -> None:
        """Tell all that is under way to break off."""
        for halt in self._under_way.values():
            halt.abandoned.set()

    async def ended(self) -> None:
        """Wait until nothing is under way."""
        while self._under_way:
            await asyncio.wait(set(self._under_way))
