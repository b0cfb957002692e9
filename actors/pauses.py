"""Pauses between two looks at what other processes do, seconds: short at first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

SHORTEST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 0.5


async def rest(pause: float, chance: Callable[[], float], longest: float = LONGEST_PAUSE) -> float:
    """Wait that long, or down to half of it, as `chance` has it (see `Sources`), and give the next pause: twice as
    long, up to the longest."""
    await asyncio.sleep(pause * (0.5 + chance() / 2))
    return min(2 * pause, longest)
