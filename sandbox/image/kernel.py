"""The process that runs cells: ipykernel, which tells by a context variable which cell an output belongs to.

Threads do not inherit context variables before Python 3.14, and what a thread prints would belong to whatever cell runs
at the moment. So threads that cells start get the context of their cell.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from functools import partial
from typing import Any


def main() -> None:
    """Serve cells as the command line says (`-f <connection file>`)."""
    from ipykernel.kernelapp import IPKernelApp

    app: Any = IPKernelApp.instance()
    app.initialize()
    sys.path.insert(0, "")  # cells may import what lies beside them
    # Not before: the kernel's own threads read what subprocesses print, and that is the running cell's.
    app.shell.events.register("pre_execute", inherit_context)
    app.start()


def inherit_context() -> None:
    """From now on a new thread runs in a copy of the context in which it was started."""
    if threading.Thread.start is _START:
        threading.Thread.start = _start_in_context  # type: ignore[method-assign, assignment]


_START = threading.Thread.start


def _start_in_context(thread: threading.Thread) -> None:
    thread.run = partial(contextvars.copy_context().run, thread.run)  # type: ignore[method-assign]
    _START(thread)


if __name__ == "__main__":
    main()
