"""`greenroom serve` as a real process."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

START_SECONDS = 60.0
APPS = Path(__file__).parents[1] / "e2e" / "apps"


class Running(Protocol):
    """A process that was started: `asyncio.subprocess.Process` is one."""

    @property
    def pid(self) -> int: ...

    @property
    def stderr(self) -> asyncio.StreamReader | None: ...

    @property
    def returncode(self) -> int | None: ...

    def send_signal(self, signal: int, /) -> None: ...

    def kill(self) -> None: ...

    async def wait(self) -> int: ...


class ServerProcess:
    """A server that was started; `url` is where it listens."""

    def __init__(self, process: Running) -> None:
        self.process = process
        self.url = ""
        self._log: list[str] = []
        self._reader: asyncio.Task[None] | None = None

    @property
    def log(self) -> str:
        """What it has written so far."""
        return "".join(self._log)

    async def ready(self) -> None:
        """Read on until it says where it is served, and from then on beside. Raises when it ends before."""
        async with asyncio.timeout(START_SECONDS):
            while not self.url:
                line = await self._line()
                if found := re.search(r"served at (http://\S+)", line):
                    self.url = found[1]
        self._reader = asyncio.create_task(self._read_on())

    async def ended(self) -> int:
        """Wait for its end; the exit code."""
        if self._reader is None:
            await self._read_on()
        else:
            await self._reader
        return await self.process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it, and wait for its end."""
        self.process.send_signal(number)
        return await self.ended()

    async def _line(self) -> str:
        assert self.process.stderr is not None
        line = (await self.process.stderr.readline()).decode()
        if not line:
            raise AssertionError(f"the server ended before it served:\n{self.log}")
        self._log.append(line)
        return line

    async def _read_on(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self._log.append(line.decode())


def serve_arguments(path: Path, *options: str) -> list[str]:
    """Of `greenroom`, to serve an application on a free port, unless `options` name one."""
    return ["serve", str(path), "--port", "0", *options]


def environment_of(env: Mapping[str, str] | None) -> dict[str, str]:
    """What a server's environment has besides the test's own."""
    return {"PYTHONUNBUFFERED": "1", "GREENROOM_SESSIONS": "memory", **(env or {})}


async def start(
    app: str | Path,
    *options: str,
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    by_itself: bool = False,
) -> ServerProcess:
    """Start it on a free port. `app`: a path, or the name of a file in tests/e2e/apps. `prefix`: what runs it.
    `by_itself`: as `python app.py`, which is to call `app.run`.

    Its sessions are in memory unless `options` (`--state`) or the application say otherwise.
    """
    path = app if isinstance(app, Path) else APPS / app
    arguments = (
        [str(path), *options] if by_itself else ["-m", "greenroom.cli", *serve_arguments(path, *options)]
    )
    process = await asyncio.create_subprocess_exec(
        *(*prefix, sys.executable, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment_of(env)},
        limit=1 << 20,
    )
    return ServerProcess(process)


@asynccontextmanager
async def server(
    app: str | Path, *options: str, env: Mapping[str, str] | None = None, by_itself: bool = False
) -> AsyncIterator[ServerProcess]:
    """A server that serves, stopped at the end however the test goes."""
    running = await start(app, *options, env=env, by_itself=by_itself)
    try:
        await running.ready()
        yield running
    except BaseException:
        sys.stderr.write(running.log)
        raise
    finally:
        if running.process.returncode is None:
            running.process.kill()
        await running.ended()
