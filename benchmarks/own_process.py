"""What a measured process does for the benchmark: keep to its core, say what it uses, end with its parent."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import sys
import time


def pin(core: int) -> None:
    """Keep to one core, where the system knows of such a thing and has one to spare."""
    if sys.platform == "linux" and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {core})


def go_first() -> None:
    """Take a core whenever there is something to do, this process and those it starts. Raises `PermissionError`."""
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def go_as_others() -> None:
    """Take back `go_first`, for this process and those it starts from now on."""
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def memory() -> int:
    """Bytes resident now (without /proc: at the most so far), and nothing that only waits for the collector."""
    gc.collect()
    try:
        with open("/proc/self/statm", encoding="ascii") as pages:  # noqa: PTH123 - read in one go, never grows
            return int(pages.read().split()[1]) * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def cpu_seconds() -> float:
    """CPU time used so far."""
    return time.process_time()


async def input_ended() -> None:
    """Wait, in a server, until its parent has closed its input, or is no more."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        await reader.read()
    finally:
        transport.close()
