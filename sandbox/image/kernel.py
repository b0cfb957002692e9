"""The process that runs cells: ipykernel, which tells by a context variable which cell an output belongs to.

Threads do not inherit context variables before Python 3.14, and what a thread prints would belong to whatever cell runs
at the moment. So threads that cells start get the context of their cell. And `exit()` ends the cell and not the kernel,
which would go a moment later, in the midst of the next cell.
"""

from __future__ import annotations

import contextvars
import sys
import threading
import warnings
from functools import partial
from typing import Any, NoReturn


def main() -> None:
    """Serve cells as the command line says (`-f <connection file>`)."""
    from ipykernel.kernelapp import IPKernelApp

    app: Any = IPKernelApp.instance()
    app.initialize()
    sys.path.insert(0, "")  # cells may import what lies beside them
    # Not before: the kernel's own threads read what subprocesses print, and that is the running cell's.
    app.shell.events.register("pre_execute", inherit_context)
    let_exit_end_the_cell(app.shell)
    app.start()


def let_exit_end_the_cell(shell: Any) -> None:
    """`exit`, `quit` and IPython's own way to leave raise `SystemExit`, as in any program; the kernel stays."""
    from IPython.core.autocall import ZMQExitAutocall

    class Exit(ZMQExitAutocall):
        def __call__(self, code: object = None, *, keep_kernel: bool = True) -> NoReturn:  # type: ignore[override]
            raise SystemExit(code)

    shell.exiter = shell.ask_exit = Exit(shell)  # type: ignore[no-untyped-call]
    shell.init_user_ns()  # where `exit` and `quit` are
    # It would be said of every `SystemExit`.
    warnings.filterwarnings("ignore", "To exit: use 'exit'", UserWarning)


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
