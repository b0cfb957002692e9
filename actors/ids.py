"""Ids and wall-clock time, as values that are handed in, so that a test can own them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from msgspec import Struct

DRAWN = 64
"""Ids' worth of randomness that is drawn at once: asking the system costs more than the rest of making an id."""

_DIGITS = 32
_drawn: list[str] = []
os.register_at_fork(after_in_child=_drawn.clear)  # or the child would give its parent's next ids


def uuid4_text() -> str:
    """A random UUID (RFC 9562, version 4) as text.

    The same as `str(uuid.uuid4())` at a sixth of its cost, which counts: every message of every turn has one.
    """
    try:
        return _drawn.pop()
    except IndexError:
        _draw()
        return _drawn.pop()


def _draw() -> None:
    digits = os.urandom(DRAWN * _DIGITS // 2).hex()
    for start in range(0, len(digits), _DIGITS):
        one = digits[start : start + _DIGITS]
        variant = "89ab"[int(one[16], 16) & 3]
        _drawn.append(f"{one[:8]}-{one[8:12]}-4{one[13:16]}-{variant}{one[17:20]}-{one[20:]}")


class Sources(Struct, frozen=True):
    """Where time and randomness come from. `now`: seconds since the epoch. `uuid`: a new unguessable id."""

    now: Callable[[], float] = time.time
    uuid: Callable[[], str] = uuid4_text
