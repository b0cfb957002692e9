"""Starting the processes of boxes so that they end with this one, however it ends.

The kernel can do that (`PR_SET_PDEATHSIG`), but it goes by the thread that started the process, not by the process: a
box started in a worker thread would die when the pool lets the thread go. So one thread starts them all, lives as long
as any of them, and meanwhile takes note of what they say and of their ends.
"""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import selectors
import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final, TypeAlias

from greenroom.sandbox.local.processes import Process, process_of, reap

log = logging.getLogger(__name__)

LAST_WORDS: Final = 8 * 1024
"""Bytes of what a box said last that are kept: they say why it ended."""

LOGGED: Final = 1024 * 1024
"""Bytes of what a box says that are logged, as of containers: what comes after is read and dropped."""

LOWEST: Final = 10
"""Files are handed on under their own numbers, which must leave the three usual ones free, and be easy to tell."""

LAUNCH: Final = """\
[ "$PPID" = "$1" ] || exit 1
shift
while [ "$1" != -- ]; do echo 0 > "$1" || exit 1; shift; done
shift
exec "$@"
"""
"""What is run first: it goes into the control groups, then becomes the command. A parent that died before it could be
named as the one to die with has been replaced by another."""

Ended: TypeAlias = Callable[[str], None]


class Child:
    """A process started for a box."""

    def __init__(self, lease: str, process: Process, handle: int, errors: int) -> None:
        self.lease = lease
        self.process = process
        self.handle = handle
        self.errors = errors
        self.said: deque[bytes] = deque()
        self.unlogged = LOGGED
        self.ended = threading.Event()
        self.status: int | None = None
        """Its exit status, once it has ended and was not killed."""

    def __repr__(self) -> str:
        return f"<Child {self.process.pid} of {self.lease[:8]}>"

    @property
    def last_words(self) -> str:
        """The end of what it wrote to its standard error."""
        return b"".join(self.said)[-LAST_WORDS:].decode(errors="replace").strip()

    def hear(self) -> bool:
        """Read what it says; false when it says no more."""
        try:
            data = os.read(self.errors, 65536)
        except BlockingIOError:
            return True
        self.said.append(data)
        while len(self.said) > 1 and sum(map(len, self.said)) - len(self.said[0]) > LAST_WORDS:
            self.said.popleft()
        if data and self.unlogged > 0 and log.isEnabledFor(logging.DEBUG):
            self.unlogged -= len(data)
            log.debug("box %s: %s", self.lease[:8], data.decode(errors="replace").rstrip())
        return bool(data)


class Spawner:
    """The thread that starts processes. It begins with the first and ends, once told to, after the last of them."""

    def __init__(self, ended: Ended) -> None:
        self._ended = ended
        self._asked: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._selector: selectors.BaseSelector
        self._thread: threading.Thread | None = None
        self._children: set[Child] = set()
        self._closing = False
        self._lock = threading.Lock()
        self._wake = -1

    def __repr__(self) -> str:
        return f"<Spawner of {len(self._children)} processes>"

    def start(
        self, lease: str, command: Sequence[str], *, environ: Mapping[str, str], groups: Sequence[str] = (),
        files: Sequence[int] = (), output: int | None = None,
    ) -> Future[Child]:  # fmt: skip
        """Start a command that ends with this process, in these control groups; `ended(lease)` will be called.

        `files`: what it is handed besides, under the same numbers; `output`: its standard output, none: nowhere.
        """
        future: Future[Child] = Future()
        self._ask(partial(self._start, future, lease, command, environ, groups, files, output))
        return future

    def close(self) -> None:
        """End the thread when no process of it is left."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                self._asked.put(self._close)
                os.write(self._wake, b"!")

    def _ask(self, what: Callable[[], None]) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():  # a fork leaves threads behind
                heard, self._wake = os.pipe()
                self._thread = threading.Thread(
                    target=self._run, args=(heard,), name="greenroom-boxes", daemon=True
                )
                self._thread.start()
            self._asked.put(what)
            os.write(self._wake, b"!")

    def _run(self, heard: int) -> None:
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(heard, selectors.EVENT_READ, partial(self._answer, heard))
        while not self._is_over(heard):
            for key, _ in self._selector.select():
                key.data()

    def _is_over(self, heard: int) -> bool:
        with self._lock:
            if not self._closing or self._children or not self._asked.empty():
                return False
            self._selector.close()
            os.close(heard)
            os.close(self._wake)
            self._thread = None
            return True

    def _answer(self, heard: int) -> None:
        os.read(heard, 1)
        self._asked.get()()

    def _close(self) -> None:
        self._closing = True

    def _start(
        self, future: Future[Child], lease: str, command: Sequence[str], environ: Mapping[str, str],
        groups: Sequence[str], files: Sequence[int], output: int | None,
    ) -> None:  # fmt: skip
        try:
            child = _spawn(lease, launching(command, groups), environ, files, output)
        except OSError as error:
            future.set_exception(error)
            return
        self._children.add(child)
        self._selector.register(child.errors, selectors.EVENT_READ, partial(self._hear, child))
        self._selector.register(child.handle, selectors.EVENT_READ, partial(self._end, child))
        future.set_result(child)

    def _hear(self, child: Child) -> None:
        if child in self._children and not child.hear():
            self._forget_errors(child)

    def _end(self, child: Child) -> None:
        child.status = reap(child.handle)
        self._selector.unregister(child.handle)
        os.close(child.handle)
        if child.errors >= 0:
            child.hear()
            self._forget_errors(child)
        self._children.discard(child)
        child.ended.set()
        log.debug("box %s ended", child.lease[:8])
        self._ended(child.lease)

    def _forget_errors(self, child: Child) -> None:
        self._selector.unregister(child.errors)
        os.close(child.errors)
        child.errors = -1


def launching(command: Sequence[str], groups: Sequence[str]) -> list[str]:
    """The command with what ties it to this process, and puts it into its groups, before it."""
    tie = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", LAUNCH, "greenroom-box", str(os.getpid())]
    return [*tie, *groups, "--", *command]


def high(file: int) -> int:
    """The file under a number that can be handed on as it is; the given number is closed."""
    higher = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, LOWEST)
    os.close(file)
    return higher


def _spawn(
    lease: str, command: list[str], environ: Mapping[str, str], files: Sequence[int], output: int | None
) -> Child:
    heard, said = (high(file) for file in os.pipe())
    nowhere = high(os.open(os.devnull, os.O_RDWR))
    try:
        pid = os.posix_spawnp(
            command[0],
            command,
            environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, nowhere, 0),
                (os.POSIX_SPAWN_DUP2, nowhere if output is None else output, 1),
                (os.POSIX_SPAWN_DUP2, said, 2),
                *((os.POSIX_SPAWN_DUP2, file, file) for file in files),  # to itself: it stays open
            ],
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
        )
    except BaseException:
        os.close(heard)
        raise
    finally:
        os.close(said)
        os.close(nowhere)
    process = process_of(pid) or Process(
        pid, 0
    )  # it has ended already; nobody can have its number before it is reaped
    os.set_blocking(heard, False)
    return Child(lease, process, os.pidfd_open(pid), heard)
