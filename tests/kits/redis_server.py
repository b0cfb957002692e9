"""A Redis server of the tests' own: in a private folder, on a private socket, with a password.

Debian's package `redis-tools` has the program, under the name of another it can be as well, and starts no server.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

MISSING: Final = "needs Redis: apt-get install redis-tools"
PASSWORD: Final = "not-a-secret/@:?"
QUOTED: Final = "not-a-secret%2F%40%3A%3F"
SETTINGS: Final = {
    "port": "0",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "always",
    "requirepass": PASSWORD,
    "databases": "2",
}
START_SECONDS: Final = 60


class RedisServer:
    """A server. `folder`: where its socket, what it keeps and its log are."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self._settings = {**SETTINGS, **settings}
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, query: str = "", password: str = QUOTED) -> str:
        """Where it is."""
        return f"unix://:{password}@{self.folder}/socket{query}"

    def start(self) -> None:
        settings = {**self._settings, "dir": str(self.folder), "unixsocket": str(self.folder / "socket")}
        options = [word for name, value in settings.items() for word in (f"--{name}", value)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["redis-server", *options],
                executable=program(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            assert self._process.poll() is None, (self.folder / "log").read_text(encoding="utf-8")
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.01)

    def stop(self) -> None:
        """End it; it writes what it keeps."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def command(self, *words: str | bytes) -> bytes:
        """Have it carry out a command, on a connection of its own; what it answers, as it is on the wire."""
        with self._connected() as connection:
            _send(connection, "AUTH", self._settings["requirepass"])
            assert connection.recv(100) == b"+OK\r\n"
            _send(connection, *words)
            return connection.recv(1_000_000)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(START_SECONDS)
            self._process = None
            (self.folder / "socket").unlink(missing_ok=True)

    def _ready(self) -> bool:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return not self.command("PING").startswith(b"-LOADING")
        return False

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(START_SECONDS)
            connection.connect(str(self.folder / "socket"))
            yield connection


def _send(connection: socket.socket, *words: str | bytes) -> None:
    encoded = [word.encode() if isinstance(word, str) else word for word in words]
    parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded]
    connection.sendall(b"*%d\r\n%b" % (len(parts), b"".join(parts)))


def program() -> str:
    """The server's program, by either of its names. Skips where there is none."""
    found = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    if found is None:
        pytest.skip(MISSING)
    return found


@contextmanager
def running_redis(**settings: str) -> Iterator[RedisServer]:
    """A server that runs. `settings`: of its configuration."""
    # By a short name: a socket's may have no more than 107 letters.
    with tempfile.TemporaryDirectory(prefix="greenroom-redis-", dir="/tmp") as folder:
        server = RedisServer(Path(folder), settings)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One for all tests that leave it running; each uses a prefix of its own."""
    with running_redis(appendfsync="everysec") as server:
        yield server
