"""Looking at processes of other people's making: which are alive, which belong together; stopping and ending them.

A number alone names no process, numbers are used again: a process is its number and the moment it started at.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections import defaultdict
from pathlib import Path
from typing import Final, NamedTuple

PROC: Final = Path("/proc")

GONE: Final = frozenset("ZX")
STOPPED: Final = frozenset("Tt")

STOPPING_SECONDS: Final = 2.0
"""How long it may take until all processes of a box have stopped: some fork meanwhile."""


class Process(NamedTuple):
    """A process: its number, and when it started, in ticks since this machine did."""

    pid: int
    started: int


class Stat(NamedTuple):
    """What is of interest of `/proc/<pid>/stat`."""

    pid: int
    state: str
    parent: int
    started: int


def stat_of(pid: int) -> Stat | None:
    """None when there is no such process."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name may have spaces and parentheses in it
    return Stat(pid, fields[0], int(fields[1]), int(fields[19]))


def process_of(pid: int) -> Process | None:
    """The process that has the number now; none when it has ended."""
    stat = stat_of(pid)
    return None if stat is None or stat.state in GONE else Process(pid, stat.started)


def alive(process: Process) -> bool:
    """Whether it has not ended; one that waits for its parent to take note of its end has."""
    return process_of(process.pid) == process


def tree(pid: int) -> list[Stat]:
    """The process and all below it, parents first."""
    children: defaultdict[int, list[Stat]] = defaultdict(list)
    top: list[Stat] = []
    for entry in PROC.iterdir():
        stat = stat_of(int(entry.name)) if entry.name.isdecimal() else None
        if stat is not None and stat.pid == pid:
            top.append(stat)
        elif stat is not None:
            children[stat.parent].append(stat)
    for stat in top:  # grows while it is walked
        top += children[stat.pid]
    return top


def stop_all(process: Process) -> bool:
    """Stop the process and all below it; false when it is gone.

    By a signal and not by a freezer group: of version 1 of these, what is frozen cannot even be killed, and so would
    outlive the process that must take it along.
    """
    deadline = time.monotonic() + STOPPING_SECONDS
    while alive(process):
        running = [stat for stat in tree(process.pid) if stat.state not in GONE | STOPPED]
        if not running or time.monotonic() > deadline:
            return True
        for stat in running:
            _send(stat.pid, signal.SIGSTOP)
        time.sleep(0.001)  # in a thread; each takes note of the signal by itself
    return False


def continue_all(process: Process) -> bool:
    """Let them run on; false when the process is gone."""
    if not alive(process):
        return False
    for stat in reversed(tree(process.pid)):
        _send(stat.pid, signal.SIGCONT)
    return True


def end(process: Process, seconds: float) -> bool:
    """Kill the process, and wait for its end for so long; whether it has ended.

    The first process of a PID namespace ends after all others in there.
    """
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if not alive(process):  # looked at with the handle open: from here on the number cannot change hands
            reap(handle)
            return True
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return wait_for(handle, seconds)
    except ProcessLookupError:
        return True
    finally:
        os.close(handle)


def wait_for(handle: int, seconds: float) -> bool:
    """Wait for the end of the process behind a pidfd; whether it came in time."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    ended = bool(poll.poll(seconds * 1000))
    if ended:
        reap(handle)
    return ended


def reap(handle: int) -> int | None:
    """Take note of the end of the process behind a pidfd, if it is a child of this one and has ended; its exit status,
    if it was not killed."""
    try:
        found = os.waitid(os.P_PIDFD, handle, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None  # another's child, or somebody here has taken note
    return found.si_status if found is not None and found.si_code == os.CLD_EXITED else None


def marked(variable: str) -> list[Process]:
    """The processes that were started with this in their environment (`NAME=value`), as far as we may look."""
    wanted = variable.encode()
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            here = wanted in (entry / "environ").read_bytes().split(b"\0")
        except (OSError, ProcessLookupError):  # it has gone, or is none of ours
            continue
        process = process_of(int(entry.name)) if here else None
        if process is not None:
            found.append(process)
    return found


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
