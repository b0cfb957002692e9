"""Waking all who wait for something to change."""

from __future__ import annotations

import asyncio


class Bell:
    """Look at what you wait for; when it is not so, `await bell.rung()` and look again. Nothing is missed as long as
    there is no `await` between the look and the wait."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def ring(self) -> None:
        """Wake all who wait now."""
        self._next.set()
        self._next = asyncio.Event()

    async def rung(self) -> None:
        """Wait for the next ring."""
        await self._next.wait()
