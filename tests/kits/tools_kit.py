"""What the base tools must hold in real boxes, where they run as somebody who may do little: with every backend.

Subclass the kit and give it the backend, not yet started.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from greenroom.sandbox.backend import BOX_SECONDS, Backend, BoxSpec
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.result import ToolResult

LOOK_SECONDS = 15.0

HARD_TO_FIND = {
    "child": "sleep {word} & wait",
    "own session": "setsid sleep {word} & sleep {word}",
    "orphan": "(sleep {word} &); sleep {word}",
    "orphan of its own session": "(setsid nohup sleep {word} > /dev/null 2>&1 &); sleep {word}",
    "orphan without a mark": "(setsid env -i sleep {word} &); sleep {word}",
    "orphan's child": "(setsid env -i sh -c 'sleep {word} & wait' &); sleep {word}",
    "deaf": "trap '' TERM INT HUP; sleep {word}; sleep {word}",
}
"""Commands whose processes are not found by looking at the first one's group alone."""


class ToolBox:
    """A box, and what its base tools answer."""

    def __init__(self, client: BoxClient) -> None:
        self.client = client

    async def run(self, command: str, seconds: float = 60.0) -> ToolResult:
        """What a command answers."""
        return await self.client.call("run_shell_command", {"command": command}, seconds)

    async def cell(self, code: str, seconds: float = 60.0) -> ToolResult:
        """What a cell of Python answers."""
        return await self.client.call("run_ipython_cell", {"code": code}, seconds)

    async def running(self, word: str) -> int:
        """How many of its processes have this word in their command line."""
        hidden = f"[{word[0]}]{word[1:]}"  # finds the word, and not this command itself
        found = await self.run(
            f"cat /proc/[0-9]*/cmdline 2> /dev/null | tr '\\0' '\\n' | grep -c '^{hidden}$'"
        )
        return int(found.part("stdout"))

    async def until(self, word: str, *, there: bool) -> None:
        """Wait until there are such processes, or none."""
        deadline = time.monotonic() + LOOK_SECONDS
        while bool(await self.running(word)) is not there:
            assert time.monotonic() < deadline, f"processes of {word}: {await self.running(word)}"


class ToolsKit(ABC):
    """The tests."""

    @abstractmethod
    def backend(self) -> Backend:
        """One, not yet started."""

    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        """Where the box's directory is."""
        path = Path(tempfile.mkdtemp(prefix="gr-"))
        path.chmod(0o711)
        yield path
        shutil.rmtree(path)

    @asynccontextmanager
    async def box(self, folder: Path) -> AsyncIterator[ToolBox]:
        """A box that answers."""
        backend = self.backend()
        await backend.start()
        lease = secrets.token_hex(16)
        (folder / lease).mkdir(mode=0o700)
        spec = BoxSpec(
            lease=lease,
            owner="tools-kit",
            kind="base",
            token=secrets.token_hex(16),
            directory=folder / lease,
        )
        try:
            client = BoxClient(await backend.create(spec))
            try:
                await client.ready(BOX_SECONDS)
                yield ToolBox(client)
            finally:
                await client.close()
        finally:
            with anyio.CancelScope(shield=True):
                await backend.remove(lease)
                await backend.stop()

    async def test_a_stopped_command_leaves_no_process(self, folder: Path) -> None:
        async with self.box(folder) as box:
            for number, command in enumerate(HARD_TO_FIND.values()):
                word = f"360{number}.5"
                result = await box.run(command.format(word=word), 0.7)
                assert result.part("returncode") == "-9", (command, result)
                assert await box.running(word) == 0, command
            for number, command in enumerate(HARD_TO_FIND.values()):
                word = f"361{number}.5"
                call = asyncio.create_task(box.run(command.format(word=word)))
                await box.until(word, there=True)
                call.cancel()
                await asyncio.wait({call})
                await box.until(word, there=False)

    async def test_what_stays_in_the_background_goes_on(self, folder: Path) -> None:
        async with self.box(folder) as box:
            assert not (await box.run("setsid sleep 3620.5 > /dev/null 2>&1 & sleep 3620.5 &")).is_error
            await box.run("sleep 60", 0.3)
            assert await box.running("3620.5") == 2

    async def test_python_keeps_its_variables_through_an_interruption_and_an_exit(self, folder: Path) -> None:
        async with self.box(folder) as box:
            await box.cell("kept = 40 + 2")
            hiding = "(setsid env -i sleep 3630.5 &); sleep 3630.5"
            stopped = await box.cell(f"import subprocess\nsubprocess.run(['sh', '-c', '{hiding}'])", 1.0)
            assert stopped.is_error
            assert "variables are kept" in stopped.part("stderr"), stopped
            assert await box.running("3630.5") == 0
            assert "42" in (await box.cell("kept")).part("stdout")
            assert "with exit code 3;" in (await box.cell("exit(3)")).part("stderr")
            assert "42" in (await box.cell("kept")).part("stdout")

    async def test_the_tool_server_is_closed_to_what_it_runs(self, folder: Path) -> None:
        async with self.box(folder) as box:
            look = (
                "import os, pathlib\n"
                "for path in pathlib.Path('/proc').iterdir():\n"
                "    if not path.name.isdecimal(): continue\n"
                "    words = (path / 'cmdline').read_bytes().split(b'\\0')\n"
                "    if b'greenroom.sandbox.image' in words and b'python' in words[0]:\n"
                "        for name in ('environ', 'mem', 'maps', 'fd'):\n"
                "            try:\n"
                "                os.listdir(path / name) if name == 'fd' else open(path / name, 'rb').read(1)\n"
                "                print(name, 'open')\n"
                "            except PermissionError:\n"
                "                print(name, 'closed')\n"
            )
            said = (await box.cell(look)).part("stdout").splitlines()
            assert set(said) == {"environ closed", "mem closed", "maps closed", "fd closed"}, said

    async def test_orphans_that_ended_do_not_stay(self, folder: Path) -> None:
        async with self.box(folder) as box:
            await box.run("for i in 1 2 3 4 5; do (setsid env -i sh -c 'exit 0' &); done")
            deadline = time.monotonic() + LOOK_SECONDS
            count = "grep -lE '^State:.Z' /proc/[0-9]*/status 2> /dev/null | wc -l; sleep 0.2"
            while int((await box.run(count)).part("stdout")):
                assert time.monotonic() < deadline, "the dead are still counted"
