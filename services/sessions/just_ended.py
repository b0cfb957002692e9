"""Turns that ended lately and are followed in other processes: who follows one there reads it as it ends, and after."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from greenroom.actors.messages import SessionKey

LATELY_SECONDS: Final = 10.0
"""For so long they are kept over the bounds of what is kept of ended turns."""


class JustEnded:
    """By sessions, in the order in which they ended. `monotonic`: seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._all: deque[tuple[float, SessionKey]] = deque()
        """Until when each of them is one."""
        self._numbers: dict[SessionKey, deque[int]] = {}

    def __repr__(self) -> str:
        return f"<JustEnded: {len(self._all)} turns>"

    def add(self, key: SessionKey, number: int) -> None:
        """The session's turn of that number has ended."""
        self._forget()
        self._all.append((self._monotonic() + LATELY_SECONDS, key))
        self._numbers.setdefault(key, deque()).append(number)

    def first(self, key: SessionKey) -> int | None:
        """The number of the first one of the session; none: there is none."""
        self._forget()
        numbers = self._numbers.get(key)
        return None if numbers is None else numbers[0]

    def _forget(self) -> None:
        now = self._monotonic()
        while self._all and self._all[0][0] <= now:
            _, key = self._all.popleft()
            numbers = self._numbers[key]
            numbers.popleft()
            if not numbers:
                del self._numbers[key]
