"""Pauses between two looks at what other processes do, seconds: short at first."""

from __future__ import annotations

import asyncio
import random
from typing import Final

SHORTEST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 0.5


async def rest(pause: float) -> float:
    """Wait that long, more or less, and give the next pause."""
    await asyncio.sleep(pause * random.uniform(0.5, 1.0))
    return min(2 * pause, LONGEST_PAUSE)
