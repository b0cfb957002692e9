"""A clock that the processes of one machine share: what one says about it, another may compare.

It is the system's monotonic clock. It counts from the machine's start, goes on evenly whatever is done to the time of
day, and stands still while the machine sleeps, as all do who would renew by it. Linux tells which start it was; on
other systems a time from before the last one is known by lying in the future, and otherwise taken for one of now.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class BootClock(NamedTuple):
    """`boot`: which start of the machine it counts from, `""` where that is not known. `now`: seconds since then."""

    boot: str
    now: Callable[[], float]


def boot_clock(path: Path = BOOT_ID) -> BootClock:
    """This machine's clock. Reads a small file of the system's: not for the event loop."""
    try:
        boot = path.read_text(encoding="ascii").strip()
    except OSError:
        boot = ""  # it is Linux that has one
    return BootClock(boot, time.monotonic)
