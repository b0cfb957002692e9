"""Ids and wall-clock time, as values that are handed in, so that a test can own them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from msgspec import Struct


def uuid4_text() -> str:
    """A random UUID (RFC 9562, version 4) as text.

    The same as `str(uuid.uuid4())` at a third of its cost, which counts: every message of every turn has one.
    """
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


class Sources(Struct, frozen=True):
    """Where time and randomness come from. `now`: seconds since the epoch. `uuid`: a new unguessable id."""

    now: Callable[[], float] = time.time
    uuid: Callable[[], str] = uuid4_text
