"""Ids, wall-clock time and chance, as values that are handed in, so that a test can own them."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

from msgspec import Struct

DRAWN = 256
"""Ids that are made at once: asking the system for randomness each time costs more than all the rest."""

_BLANK = b"00000000-0000-4000-8000-000000000000\n"  # version 4; the variant is one of 8, 9, a and b
_VARIANT = _BLANK.index(b"8")
_VARIANTS = bytes.maketrans(b"0123456789abcdef", b"89ab" * 4)
_DIGITS = tuple(place for place, digit in enumerate(_BLANK) if digit == ord("0"))
_drawn: list[str] = []
os.register_at_fork(after_in_child=_drawn.clear)  # or the child would give its parent's next ids


def uuid4_text() -> str:
    """A random UUID (RFC 9562, version 4) as text.

    The same as `str(uuid.uuid4())` at a tenth of its cost, which counts: every message of every turn has one.
    """
    try:
        return _drawn.pop()
    except IndexError:
        _drawn.extend(_draw())
        return _drawn.pop()


def _draw() -> list[str]:
    """All ids digit by digit: the first digit of each, the second of each, and so on."""
    digits = os.urandom(DRAWN * 16).hex().encode()
    ids = bytearray(_BLANK * DRAWN)
    for number, place in enumerate(_DIGITS):
        ids[place :: len(_BLANK)] = digits[number::32]
    ids[_VARIANT :: len(_BLANK)] = digits[31::32].translate(_VARIANTS)
    return ids.decode().splitlines()


class Sources(Struct, frozen=True):
    """Where time and randomness come from. `now`: seconds since the epoch. `uuid`: a new unguessable id. `chance`: a
    number from 0 up to 1, but not 1, by which those that wait for the same thing do not all look at once."""

    now: Callable[[], float] = time.time
    uuid: Callable[[], str] = uuid4_text
    chance: Callable[[], float] = random.random
