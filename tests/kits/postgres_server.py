"""A PostgreSQL server of the tests' own: in a private folder, on a private socket, run by an ordinary user.

The databases are made once in a run and copied for each server. What a crash of the machine would lose is of no matter
here, so the server does not wait for the disk.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Final

import pytest

MISSING: Final = "needs PostgreSQL: apt-get install postgresql"
PASSWORD: Final = "not-a-secret/@:?"
QUOTED: Final = "not-a-secret%2F%40%3A%3F"
PORT: Final = 5432
"""Of the socket in the private folder; no port of the network is taken."""
SETTINGS: Final = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "log_min_messages": "fatal",
    "timezone": "UTC",
}
START_SECONDS: Final = 60
_SCHEMAS: Final = itertools.count()


def new_schema() -> str:
    """Of the server that all tests share, a schema that no other test uses."""
    return f"test_{next(_SCHEMAS)}"


class PostgresServer:
    """A server. `folder`: where its socket, its databases and its log are."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self._settings = {**SETTINGS, **settings}
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, user: str = "postgres", password: str = QUOTED, query: str = "") -> str:
        """Where its database `postgres` is."""
        return f"postgresql://{user}:{password}@/postgres?host={self.folder}&port={PORT}{query}"

    @property
    def command(self) -> list[str]:
        """What starts it."""
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        return [program("postgres"), "-D", str(self.data), "-k", str(self.folder), "-p", str(PORT), *options]

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = start(self.command, log)
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            assert self._process.poll() is None, (self.folder / "log").read_text(encoding="utf-8")
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.01)

    def stop(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """SIGQUIT: as after a loss of power; SIGINT: connections are ended, then all is written."""
        if self._process is not None:
            self.signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(START_SECONDS)
            self._process = None

    def kill(self) -> None:
        """SIGKILL to all its processes."""
        assert self._process is not None
        self.signal(signal.SIGKILL)
        self._process.wait(START_SECONDS)
        self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes, the first one first: it must not replace those that die."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        for one in [process.pid, *children(process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, number)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def _ready(self) -> bool:
        assert self._process is not None
        return is_ready(self.data, self._process.pid)


def is_ready(data: Path, pid: int | None = None) -> bool:
    """Whether the server takes connections, by the file that it keeps among its databases. `pid`: its number."""
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return False
    return (pid is None or lines[:1] == [str(pid)]) and len(lines) >= 8 and lines[7].strip() == "ready"


def children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii")
    return [int(pid) for pid in listed.split()]


def program(name: str) -> str:
    """A program of PostgreSQL's. Skips where there is none."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    path = os.pathsep.join([*map(str, reversed(folders)), os.environ["PATH"]])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(MISSING)
    return found


def run(*command: str) -> None:
    """Run a program to its end."""
    with tempfile.TemporaryFile() as said:
        code = start(command, said).wait()
        said.seek(0)
        assert code == 0, said.read().decode()


def start(command: Sequence[str], said: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a program, as the user who may."""
    user = owner() if os.geteuid() == 0 else None
    groups: list[str | int] | None = None if user is None else []
    return subprocess.Popen(
        command,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=said,
        user=user,
        group=user,
        extra_groups=groups,
    )


@cache
def owner() -> int:
    """Who runs it: PostgreSQL refuses root, and `initdb` wants somebody whom the system knows by name."""
    if os.geteuid() != 0:
        return os.geteuid()
    known = {user.pw_name: user.pw_uid for user in pwd.getpwall()}
    return known["postgres"] if "postgres" in known else known["nobody"]


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that the server's user owns, by a short name: a socket's may have no more than 107 letters."""
    folder = Path(tempfile.mkdtemp(prefix="greenroom-postgres-", dir="/tmp"))
    try:
        os.chown(folder, owner(), -1)
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def made_databases() -> Iterator[Path]:
    """Databases as they are when they were just made."""
    initdb = program("initdb")
    with private_folder() as folder:
        secret = folder / "secret"
        secret.write_text(PASSWORD, encoding="utf-8")
        secret.chmod(0o644)
        data = folder / "data"
        run(
            *(initdb, "-D", str(data), "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={secret}"),
            *("-E", "UTF8", "--locale=C", "--no-sync"),
        )
        yield data


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[Path]:
    """One for all servers, which have copies."""
    with made_databases() as data:
        yield data


@contextmanager
def running_postgres(template: Path, **settings: str) -> Iterator[PostgresServer]:
    """A server that runs. `settings`: of its configuration."""
    with private_folder() as folder:
        run("cp", "-a", str(template), str(folder / "data"))
        server = PostgresServer(folder, settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgres_server(postgres_template: Path) -> Iterator[PostgresServer]:
    """One for all tests that leave it running; each uses a schema of its own."""
    with running_postgres(postgres_template) as server:
        yield server
