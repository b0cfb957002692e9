"""Which processes belong to a call, and their end. They are known by a mark in their environment, which children
inherit, by their session, and by their parents: each alone can be shaken off, by accident too (`env -i`, `setsid`)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MARK: Final = "GREENROOM_BOX_MARK"

END_SECONDS: Final = 5.0
"""How long the killed may take to be gone: one that waits for a disk cannot die at once."""

LOOK_AGAIN_SECONDS: Final = 0.01


@dataclass(frozen=True)
class Process:
    """One process. `started`: clock ticks since the machine's start: with it a number given anew is noticed."""

    pid: int
    parent: int
    session: int
    started: int
    marks: bytes


def running() -> dict[int, Process]:
    """All processes that can be seen, but those that have ended and only wait to be counted. Reads files: call it in a
    thread."""
    found = (_process(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdecimal())
    return {process.pid: process for process in found if process is not None}


def _process(pid: int) -> Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        environ = _environ(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in brackets, may hold anything; the fields after it are numbers. The first is the state.
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in {b"Z", b"X"}:
        return None
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]), environ)


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except PermissionError:
        return b""  # another user's: none of ours


def ticks_now() -> int:
    """The clock that `Process.started` is of."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def belonging(processes: Mapping[int, Process], mark: str, leader: int | None = None) -> set[Process]:
    """Those that carry the mark, those of the leader's session, and all their descendants.

    An empty mark: those that carry any.
    """
    sought = f"{MARK}={mark}".encode() + (b"\0" if mark else b"")
    found = {
        process
        for process in processes.values()
        if process.marks.startswith(sought) or b"\0" + sought in process.marks or process.session == leader
    }
    pids = {process.pid for process in found}
    pids |= {leader} if leader is not None else set()
    more = True
    while more:
        children = {process for process in processes.values() if process.parent in pids} - found
        found |= children
        pids |= {process.pid for process in children}
        more = bool(children)
    return found


def end(which: Callable[[Mapping[int, Process]], Iterable[Process]]) -> bool:
    """Kill these until there are none, looking again for what they started meanwhile. Blocks: call it in a thread.

    False: some are still there after `END_SECONDS`.
    """
    own = os.getpid()
    deadline = time.monotonic() + END_SECONDS
    while True:
        left = [process for process in which(running()) if process.pid != own]
        if not left:
            return True
        if time.monotonic() > deadline:
            return False
        for process in left:
            _kill(process)
        time.sleep(LOOK_AGAIN_SECONDS)


def _kill(process: Process) -> None:
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        now = _process(process.pid)
        if now is not None and now.started == process.started:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(handle)
