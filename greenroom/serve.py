"""Serving an application from the command line or from `app.run()`: signals, the banner, and words for what fails."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from greenroom.actors.errors import ConfigurationError
from greenroom.load import load_application, loading
from greenroom.logs import configure_logging
from greenroom.open_files import raise_open_files

if TYPE_CHECKING:
    from greenroom.app import AgentApp
    from greenroom.transports.aiohttp_server import AiohttpServer

__all__ = [
    "banner",
    "configure_logging",
    "load_application",
    "own_file",
    "run_application",
    "serve",
    "unseen",
    "url_of",
]

logger = logging.getLogger("greenroom")

ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104, RUF100 - it is only shown
PYTHONS_THRESHOLD: Final = gc.get_threshold()
THRESHOLD: Final = (50_000, 20, 100)
"""Of the garbage collector: what is new is looked at when it is some 10 MB, in a few milliseconds. A thousand streams
that begin at once are a hundred thousand objects, hardly any of them in cycles; with Python's own settings walking them
takes a fifth of the server's time, and doubles what the last of them waits for its first byte."""
LEAVE_SECONDS: Final = 2.0
"""How long a process that has stopped may take to leave."""
LONGEST_NAME: Final = 200
"""Bytes of an application's name in the name of its file: disks take 255, with what goes after them."""
WORKERS: Final = "AnyIO worker thread"
"""What threads that synchronous handlers and tools run in are called."""
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def run_application(
    app: AgentApp,
    host: str = "127.0.0.1",
    port: int | str = 8090,
    *,
    started: Callable[[str], None] | None = None,
    stopped: Callable[[], None] | None = None,
    **server: Any,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return. `server`: more for `AiohttpServer`; `started`: of `serve`.

    `stopped` is called when everything has been stopped, and answers for the process to end then. Without it what the
    program does after the return is waited for, and threads of its own, but not threads that handlers or tools block.
    Logs are set up if nobody has. A second signal kills the process.
    Raises what `AgentApp.start` raises, and `ConfigurationError` where an event loop runs already.
    """
    if loading.get():
        raise ConfigurationError(
            "the file serves its application while it is loaded; put `app.run(…)` under "
            '`if __name__ == "__main__":`, so that `greenroom serve` can do it'
        )
    _need_no_loop()
    if not logging.root.handlers:
        configure_logging()
    raise_open_files()
    settle()  # most of it now, while there is no loop to be kept waiting
    returned = threading.Event()
    stopped = stopped or partial(leave_with_program, returned)
    try:
        asyncio.run(serve(app, host, port, started=started, stopped=stopped, owns_process=True, **server))
    finally:
        returned.set()


def _need_no_loop() -> None:
    """Raise `ConfigurationError` where an event loop runs, in which another one cannot."""
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        raise ConfigurationError(
            "an event loop runs here already, as in every notebook, and app.run() makes one of its own; use that loop: "
            "`async with app:` and app.process(…) need no server, and `await app.start(AiohttpServer(port=8090))` "
            "serves over HTTP until `await app.stop()`"
        )


async def serve(
    app: AgentApp,
    host: str = "127.0.0.1",
    port: int | str = 8090,
    *,
    started: Callable[[str], None] | None = None,
    stopped: Callable[[], None] | None = None,
    owns_process: bool = False,
    **server: Any,
) -> None:
    """The same within a running loop. `started` gets the URL once turns are taken; without it a banner is shown.

    `owns_process`: nothing else of weight lives in this process, see `settle`.
    """
    from greenroom.transports.aiohttp_server import AiohttpServer

    own = [] if app.has_server() else [AiohttpServer(host, port, **server)]
    signals = StopSignals()
    with signals:
        if not await _started(app, own, signals.asked):
            logger.info("stopped while starting")
            return
        try:
            if owns_process:
                settle()
            _announce(app, own, started)
            await signals.asked.wait()
            logger.info("stopping; turns that run may end, a second signal kills them")
        finally:
            await app.stop()
    logger.info("stopped")
    if stopped is not None:
        stopped()


def leave_in_time() -> None:
    """See that the process ends, although Python waits for every thread: one that a tool blocks has no end."""
    timer = threading.Timer(LEAVE_SECONDS, _leave)
    timer.daemon = True
    timer.start()


def leave_with_program(returned: threading.Event) -> None:
    """The same in somebody's program, which may go on when its application has stopped: the process ends after the
    main thread, and the others that are not ours. `returned`: the event loop is gone; it waits for threads as well.
    """

    def watch() -> None:
        if returned.wait(LEAVE_SECONDS):
            threading.main_thread().join()
            for thread in _lasting_threads():
                if thread.name != WORKERS:
                    thread.join()
            deadline = time.monotonic() + LEAVE_SECONDS
            for thread in _lasting_threads():
                thread.join(max(0.0, deadline - time.monotonic()))
            if not _lasting_threads():
                return
        _leave()

    threading.Thread(target=watch, name="greenroom leaving", daemon=True).start()


def _lasting_threads() -> list[threading.Thread]:
    """The threads that Python waits for before it ends, besides the main one."""
    main = threading.main_thread()
    return [thread for thread in threading.enumerate() if not thread.daemon and thread is not main]


def _leave() -> None:
    logger.warning("leaving without the threads that synchronous handlers or tools still block")
    logging.shutdown()
    os._exit(0)


def settle() -> None:
    """Let the garbage collector forget what is alive now, and look at the rest less often.

    A process that serves keeps what it started with, such as the 200,000 objects of an agent framework, to its end.
    Each full collection would walk them all and stop every turn meanwhile, for 100 ms and more. Only for who owns the
    process: other programs' objects may die later, and their cycles would not be found.
    """
    gc.collect()
    gc.freeze()
    if gc.get_threshold() == PYTHONS_THRESHOLD:  # else somebody has chosen
        gc.set_threshold(*THRESHOLD)


def own_file(name: str) -> str:
    """Where the sessions of an application are kept that does not say where: `sqlite:///friday.db` for Friday. A name
    that is not ASCII, or makes no name of a file, has its beginning in it, and what tells it from others like it: disks
    differ in which letters they take for the same."""
    name = unicodedata.normalize("NFC", name)
    words = re.sub(r"[\W_]+", "-", name.lower()).strip("-") or "sessions"
    file = words.encode()[:LONGEST_NAME].decode(errors="ignore")
    if not name.isascii():
        file = f"{file}-{_tag(name)}"
    elif file != words:
        file = f"{file}-{_tag(words)}"
    return f"sqlite:///{file}.db"


def _tag(name: str) -> str:
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


async def _started(app: AgentApp, own: list[AiohttpServer], asked: asyncio.Event) -> bool:
    """Start, unless asked to stop before that is done."""
    starting = asyncio.ensure_future(app.start(*own))
    waiting = asyncio.ensure_future(asked.wait())
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        in_time = starting.done()
        starting.cancel()
        await asyncio.wait({starting})
    if in_time:
        starting.result()
    return in_time


class StopSignals:
    """SIGTERM and SIGINT: the first asks to stop, the second does what it does in any program."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        # Windows has no such handlers: there Ctrl-C cancels the task that serves, which stops the application as well.
        with suppress(NotImplementedError):
            for number in SIGNALS:
                self._loop.add_signal_handler(number, self._arrived, number)

    def __exit__(self, *_: object) -> None:
        with suppress(NotImplementedError):
            for number in SIGNALS:
                self._loop.remove_signal_handler(number)

    def _arrived(self, number: signal.Signals) -> None:
        if self.asked.is_set():
            self.__exit__()
            signal.raise_signal(number)
        self.asked.set()


def _announce(app: AgentApp, own: list[AiohttpServer], started: Callable[[str], None] | None) -> None:
    """Say that it serves, where, and where it keeps what it is told: in the log, and to who looks on."""
    if not own:
        logger.info("%s is served by its own transports, with its sessions in %s", app.app_name, app.kept_in)
        return
    url = url_of(own[0].host, own[0].port)
    logger.info("%s is served at %s with its sessions in %s", app.app_name, url, app.kept_in)
    if started is not None:
        started(url)
    else:
        sys.stderr.write(banner(app.app_name, url))
        sys.stderr.flush()


def unseen(_: str) -> None:
    """For `started`: no banner, as what reads standard error takes records of the log alone."""


def url_of(host: str, port: int) -> str:
    """Where a server is reached from this machine."""
    shown = ANY_ADDRESS.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def banner(name: str, url: str) -> str:
    """What is shown when the application serves."""
    return f"""
{name} is served at {url}  (Ctrl-C stops it)

  talk to it   greenroom chat {url}
  or           curl -N {url}/process -H 'Content-Type: application/json' \\
                 -d '{{"input": [{{"role": "user", "content": "Hello"}}]}}'

"""
