"""Waiting for what nothing tells of: another process, the disk, a peer's socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from anyio import to_thread

LOOK_SECONDS = 0.01


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Look again and again, in a thread, until it holds; fails when it takes too long."""
    with anyio.fail_after(seconds):
        while not await to_thread.run_sync(condition):  # noqa: ASYNC110 - see above
            await anyio.sleep(LOOK_SECONDS)


async def until_answered(ask: Callable[[], Awaitable[object]], seconds: float = 20.0) -> None:
    """Ask again and again, until the answer is yes; fails when it takes too long."""
    with anyio.fail_after(seconds):
        while not await ask():  # noqa: ASYNC110 - see above
            await anyio.sleep(LOOK_SECONDS)
