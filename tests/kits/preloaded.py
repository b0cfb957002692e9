"""Servers that are there in a moment: one process imports what they need, and forks each of them from there.

Such a server is a process like another, with an exit code and signals of its own; a test that kills a hundred does not
wait a hundred times for imports. Run as a script it is that one process: `python -m kits.preloaded SOCKET`.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from kits.server_process import APPS, ServerProcess, environment_of, serve_arguments

MODULES: Final = (
    "greenroom.cli",
    "greenroom.serve",
    "greenroom.transports.aiohttp_server",
    "greenroom.services.durable_state",
    "greenroom.services.sessions.durable_store",
    "greenroom.services.postgres.storage",
    "greenroom.services.redis.storage",
    "greenroom.services.sqlite.store",
)
LARGEST: Final = 1 << 16
"""Of a request, bytes."""


class Forked:
    """A process that was forked for us, as `asyncio.subprocess.Process` shows one. `told`: says how it ended."""

    def __init__(self, pid: int, stderr: asyncio.StreamReader, told: asyncio.StreamReader) -> None:
        self.pid = pid
        self.stderr = stderr
        self.returncode: int | None = None
        self._told = told

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        if self.returncode is None:
            self.returncode = int(await self._told.read())
        return self.returncode


class Preloaded:
    """Starts servers through the process at the other end of `asking`."""

    def __init__(self, asking: socket.socket) -> None:
        self._asking = asking

    async def start(
        self, app: str | Path, *options: str, env: Mapping[str, str] | None = None
    ) -> ServerProcess:
        """As `server_process.start`."""
        path = app if isinstance(app, Path) else APPS / app
        said, says = os.pipe()
        told, tells = os.pipe()
        request = serve_arguments(path, *options), environment_of(env)
        socket.send_fds(self._asking, [json.dumps(request).encode()], [says, tells])
        os.close(says)
        os.close(tells)
        stderr, ending = await _reader(said), await _reader(told)
        return ServerProcess(Forked(int(await ending.readline()), stderr, ending))


async def _reader(pipe: int) -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb", buffering=0)
    )
    return reader


@contextmanager
def preloading() -> Iterator[Preloaded]:
    """While it lasts, servers can be started so."""
    asking, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(asking):
        with closing(theirs):
            process = subprocess.Popen(
                [sys.executable, "-m", "kits.preloaded", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONUNBUFFERED": "1"},
            )
        yield Preloaded(asking)
    assert process.wait(60) == 0


# -------------------------------------------------------------------------------------------------- on its own side


def _next_server(asked: socket.socket) -> list[str] | None:
    """Fork servers for as long as somebody asks for them. In each of them: its command line; at the end: none."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits here for those who wait for servers
    while True:
        request, pipes, _, _ = socket.recv_fds(asked, LARGEST, 2)
        if not request:
            return None
        if os.fork() == 0:
            asked.close()
            return _watched_server(*json.loads(request), *pipes)
        for pipe in pipes:
            os.close(pipe)


def _watched_server(arguments: list[str], environment: dict[str, str], says: int, tells: int) -> list[str]:
    """Fork the server, stay behind to tell how it ends, and go on as the server only."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    server = os.fork()
    if server:
        os.close(says)
        os.write(tells, b"%d\n" % server)
        _, status = os.waitpid(server, 0)
        os.write(tells, b"%d" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    os.dup2(says, 2)
    os.close(says)
    os.close(tells)
    os.environ.update(environment)
    return arguments


def main() -> None:
    for name in MODULES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as asked:
        arguments = _next_server(asked)
    if arguments is not None:
        from greenroom.cli import main as greenroom

        greenroom(arguments)


if __name__ == "__main__":
    main()
