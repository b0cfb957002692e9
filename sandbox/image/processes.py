"""Which processes belong to a call, and their end.

They are known by a mark in their environment, which children inherit, by their session, and by their parents. Each can
be shaken off, by accident too (`env -i`, `setsid`, a parent that ends), so all are looked at. Who shakes off all three
becomes a child of this server, which adopts orphans, and is known by that.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MARK: Final = "GREENROOM_BOX_MARK"

END_SECONDS: Final = 5.0
"""How long the killed may take to be gone: one that waits for a disk cannot die at once."""

LOOK_AGAIN_SECONDS: Final = 0.01

DEAD: Final = {b"Z", b"X"}


@dataclass(frozen=True)
class Process:
    """One process. `started`: clock ticks since the machine's start: with it a number given anew is noticed."""

    pid: int
    parent: int
    session: int
    started: int
    state: bytes
    environ: bytes

    def carries(self, mark: str) -> bool:
        """Whether it has a mark that begins like this."""
        sought = f"{MARK}={mark}".encode()
        return self.environ.startswith(sought) or b"\0" + sought in self.environ


Processes = Mapping[int, Process]


@dataclass(frozen=True)
class Look:
    """What one look at all processes found. It takes a while, and one that ends meanwhile may have started another,
    which is in no list yet: `gone` of those listed were not there any more, `dead` have ended."""

    alive: Processes
    dead: frozenset[Process]
    gone: int


def look() -> Look:
    """Look at all processes that can be seen. Reads files: call it in a thread."""
    listed = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    found = [process for process in map(_process, listed) if process is not None]
    alive = {process.pid: process for process in found if process.state not in DEAD}
    dead = frozenset(process for process in found if process.state in DEAD)
    return Look(alive, dead, len(listed) - len(found))


def _process(pid: int) -> Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        environ = _environ(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in brackets, may hold anything; the fields after it are single words. The first is the state.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]), fields[0], environ)


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except (PermissionError, ProcessLookupError):
        return b""  # another user's, or closed to us, as we are to others; or dead


def ticks_now() -> int:
    """The clock that `Process.started` is of."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def belonging(processes: Processes, mark: str, since: int, leader: int | None = None) -> set[Process]:
    """Those that carry a mark that begins like this, those of the leader's session, orphans since that have hidden, and
    all their descendants. Orphans of another call of the same time cannot be told apart, and are found too."""
    found = {
        process
        for process in processes.values()
        if process.session == leader or process.carries(mark) or _hiding(process, since)
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


def _hiding(process: Process, since: int) -> bool:
    """Whether it was adopted and has no mark. The server's own children are of its session, or have a mark; before they
    begin their own program they are called as it is."""
    return (
        _adopted(process)
        and process.started >= since
        and not process.carries("")
        and _command_line(process.pid) != _command_line(os.getpid())
    )


def _command_line(pid: int) -> bytes:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _adopted(process: Process) -> bool:
    return process.parent == os.getpid() and process.session != os.getsid(0)


def end(which: Callable[[Processes], Iterable[Process]]) -> bool:
    """Kill these until there are none, looking again for what they started meanwhile. Blocks: call it in a thread.

    False: some are still there after `END_SECONDS`.
    """
    own = os.getpid()
    deadline = time.monotonic() + END_SECONDS
    dead: frozenset[Process] = frozenset()
    while True:
        seen = look()
        left = [process for process in which(seen.alive) if process.pid != own]
        # One that ended under the look may have been the parent of one that no look has seen.
        if not left and not seen.gone and seen.dead <= dead:
            return True
        # Parents first: a script whose command is killed under it would go on with its next one.
        for process in sorted(left, key=lambda process: (process.started, process.pid)):
            _kill(process)
        if time.monotonic() > deadline:
            return not left
        dead = seen.dead
        time.sleep(LOOK_AGAIN_SECONDS)


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(process.pid)
        try:
            now = _process(process.pid)
            if now is not None and now.started == process.started:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def dead_orphans() -> set[Process]:
    """Dead children of this process. Those that it started itself are among them for a moment only, until who waits for
    them has noticed. Reads files: call it in a thread."""
    return {process for process in look().dead if _adopted(process)}


def bury(dead: Iterable[Process]) -> None:
    """Take notice of the adopted that have died, or they count as processes for ever."""
    for process in dead:
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG)
