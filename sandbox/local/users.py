"""Who a box's processes are on the host, and what each of them may use at most.

Root's boxes are each a user of their own, whom nothing else belongs to: if one got out of its namespaces it would be
nobody here. An ordinary user's boxes are that user outside, and cannot be another.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from greenroom.sandbox.backend import MIB, BoxLimits
from greenroom.sandbox.scopes import Groups

RANGE: Final = range(1_879_100_000, 1_895_000_000)
"""User ids that neither systems nor container engines give out."""

SMALL_RANGE: Final = range(61_184, 65_520)
"""Where this process itself is in a user namespace that has only 65536: what systemd gives to passing users."""

LEAST_DATA: Final = 1024 * MIB
"""With less for itself, a JavaScript engine does not even start: it sets aside far more than it uses."""

MAP: Final = Path("/proc/self/uid_map")


def box_user(lease: str, mapped: Path = MAP) -> int | None:
    """The box's user id, from its lease; none: the user of this process, who is not root."""
    if os.geteuid() != 0:
        return None
    spans = [list(map(int, line.split())) for line in mapped.read_text().splitlines()]
    for users in (RANGE, SMALL_RANGE):
        if any(start <= users[0] and users[-1] < start + count for start, _, count in spans):
            return users[int(lease[:12], 16) % len(users)]
    return SMALL_RANGE[-1] + 15  # "nobody", who is always there


def bounds(limits: BoxLimits, groups: Groups | None, user: int | None) -> list[str]:
    """What goes before a box's command: bounds of each process, where groups do not bound them all; then the user."""
    there = groups.controllers if groups else ()
    command = ["prlimit", "--core=0"]
    if "pids" not in there:
        command.append(f"--nproc={limits.pids}:{limits.pids}")
    if "memory" not in there:
        most = max(limits.memory, LEAST_DATA)
        command.append(f"--data={most}:{most}")
    command.append("--")
    if user is not None:
        command += ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        command += ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]
    return command


def told_bounds(groups: Groups | None) -> str:
    """What bounds boxes here, for the log and for whoever looks into it."""
    there: Sequence[str] = [
        name for name in ("memory", "pids", "cpu") if groups and name in groups.controllers
    ]
    parts = [f"{groups.described} bound {', '.join(there)}"] if groups and there else []
    if "memory" not in there:
        parts.append("memory is bounded for each process and not for a box")
    if "pids" not in there:
        parts.append("processes are bounded by rlimit")
    if "cpu" not in there:
        parts.append("processor time is not bounded")
    return "; ".join(parts)
