"""Pauses between two looks at what other processes do, or at whether a store is back, seconds: short at first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from greenroom.actors.errors import StoreUnavailable

SHORTEST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 0.5
LONGEST_AWAY: Final = 2.0
"""Between two tries to reach a store that is away, for an ending or what is left to do after one."""


async def rest(pause: float, chance: Callable[[], float], longest: float = LONGEST_PAUSE) -> float:
    """Wait that long, or down to half of it, as `chance` has it (see `Sources`), and give the next pause: twice as
    long, up to the longest."""
    await asyncio.sleep(pause * (0.5 + chance() / 2))
    return min(2 * pause, longest)


async def until_back(attempt: Callable[[], Awaitable[object]], chance: Callable[[], float]) -> None:
    """Do it, again and again while its store is away. Whoever is to be free of that cancels it."""
    pause = SHORTEST_PAUSE
    while True:
        try:
            await attempt()
            return
        except StoreUnavailable:
            pause = await rest(pause, chance)
