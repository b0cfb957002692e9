"""A box's tool server as a process of this machine, without a box around it: for tests of the server and its client."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from greenroom.sandbox.backend import API_SOCKET, TOKEN_FILE, BoxAddress
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.result import ToolResult

START_SECONDS = 60.0
END_SECONDS = 20.0


class BoxProcess:
    """A tool server that was started. `workspace` is what tools see; `directory` is the box's own."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes], token: str) -> None:
        self.directory = directory
        self.workspace = directory / "workspace"
        self.process = process
        self.token = token
        self.address = BoxAddress(token=token, socket=directory / API_SOCKET)
        self.client = BoxClient(self.address)

    @property
    def log(self) -> str:
        """What it has written so far."""
        return (self.directory / "log").read_text(encoding="utf-8")

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[BoxProcess]:
        """With a client of this event loop's."""
        self.client = BoxClient(self.address)
        await self.client.ready(START_SECONDS)
        try:
            yield self
        finally:
            await self.client.close()

    async def run(self, command: str, seconds: float = 20.0) -> ToolResult:
        """What a command answers."""
        return await self.client.call("run_shell_command", {"command": command}, seconds)

    async def shell(self, command: str, seconds: float = 20.0) -> str:
        """The output of a command that must succeed."""
        result = await self.run(command, seconds)
        assert not result.is_error, result.text
        return result.part("stdout")

    async def cell(self, code: str, seconds: float = 60.0) -> ToolResult:
        """What a cell of Python answers."""
        return await self.client.call("run_ipython_cell", {"code": code}, seconds)

    def ended(self) -> int:
        """End it as a backend would, and wait; the exit code."""
        self.process.terminate()
        return self.process.wait(END_SECONDS)


@contextmanager
def box_process(
    kind: str = "base", environ: Mapping[str, str] | None = None, exit_code: int = 0
) -> Iterator[BoxProcess]:
    """Start one; end it, and see that it ends by itself. `GREENROOM_BOX` in `environ`: its directory, made already, for
    what must be there before."""
    given = (environ or {}).get("GREENROOM_BOX")
    # A socket's path must be short, which pytest's folders are not.
    directory = Path(given or tempfile.mkdtemp(prefix="box-"))
    (directory / "workspace").mkdir()
    token = secrets.token_hex(16)
    (directory / TOKEN_FILE).write_text(token)
    box = BoxProcess(directory, _started(directory, kind, environ or {}), token)
    try:
        yield box
    finally:
        code = box.ended()
        log = box.log
        shutil.rmtree(directory)
    assert code == exit_code, log


def _started(directory: Path, kind: str, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "greenroom.sandbox.image"],
            stdout=log,
            stderr=log,
            env={
                **os.environ,
                "GREENROOM_BOX": str(directory),
                "GREENROOM_BOX_KIND": kind,
                "GREENROOM_BOX_RELAY": "0",
                "WORKSPACE_DIR": str(directory / "workspace"),
                **environ,
            },
        )


def running_with(word: str) -> list[int]:
    """Processes of this machine that have this word in their command line."""
    return [
        pid for pid, line, state, _ in _processes() if word.encode() in line.split(b"\0") and state != b"Z"
    ]


def dead_children_of(pid: int) -> list[int]:
    """Processes that have ended and that their parent has not taken notice of."""
    return [child for child, _, state, parent in _processes() if state == b"Z" and parent == pid]


def _processes() -> Iterator[tuple[int, bytes, bytes, int]]:
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                line = (path / "cmdline").read_bytes()
                fields = (path / "stat").read_bytes().rpartition(b") ")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            yield int(path.name), line, fields[0], int(fields[1])
