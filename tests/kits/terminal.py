"""A terminal of the tests' own: a program's standard error is one, and what stands on its screen can be looked at."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio

COLUMNS: Final = 80
ROWS: Final = 24
WAIT_SECONDS: Final = 60.0

_PIECE: Final = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Screen:
    """What a terminal shows of what is written to it: as much of one as displays of progress need. It breaks lines that
    are too long; what it does not know fails."""

    def __init__(self) -> None:
        self.rows = [""]
        self.row = self.column = 0
        self.cursor_shown = True

    @property
    def text(self) -> str:
        """Its lines, without the empty ones at the end and spaces at theirs."""
        return "\n".join(row.rstrip() for row in self.rows).rstrip()

    def write(self, text: str) -> None:
        """Show it."""
        end = 0
        for piece in _PIECE.finditer(text):
            assert piece.start() == end, text[end:]
            end = piece.end()
            private, numbers, letter, control, written = piece.groups()
            if letter:
                self._obey(private + letter, numbers)
            elif control:
                self._move(control)
            else:
                self._show(written)
        assert end == len(text), text[end:]

    def _move(self, control: str) -> None:
        self.column = 0  # a terminal's own settings make a new line begin at its beginning
        if control == "\n":
            self.row += 1
            if self.row == len(self.rows):
                self.rows.append("")

    def _obey(self, command: str, numbers: str) -> None:
        match command:
            case "m":
                pass
            case "A":
                self.row -= int(numbers or 1)
                assert self.row >= 0
            case "K" if numbers == "2":
                self.rows[self.row] = ""
            case "?h" | "?l" if numbers == "25":
                self.cursor_shown = command == "?h"
            case _:
                raise AssertionError(f"a terminal of the tests' does not know {numbers}{command}")

    def _show(self, text: str) -> None:
        for letter in text:
            if self.column == COLUMNS:
                self._move("\n")
            row = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = row[: self.column] + letter + row[self.column + 1 :]
            self.column += 1


class OnTerminal:
    """A program whose standard error is a terminal; its standard output is not."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: asyncio.StreamReader) -> None:
        self.screen = Screen()
        self.seen: list[str] = []
        """All that stood on the screen, one after another."""
        self._process = process
        self._terminal = terminal
        self._rest = ""

    async def until(self, shown: Callable[[str], bool]) -> str:
        """Read on until the screen is as wanted; its text."""
        with anyio.move_on_after(WAIT_SECONDS):
            while not shown(self.screen.text):
                assert await self._read(), f"it ended, and this stood there:\n{self.screen.text}"
            return self.screen.text
        raise AssertionError(f"this stood there to the last:\n{self.screen.text}")

    async def end(self) -> tuple[int, str]:
        """Read on until it has ended: its exit code, and what it wrote to its standard output."""
        assert self._process.stdout is not None
        with anyio.fail_after(WAIT_SECONDS):
            while await self._read():
                pass
            output = await self._process.stdout.read()
            return await self._process.wait(), output.decode()

    async def _read(self) -> bool:
        try:
            piece = await self._terminal.read(65536)
        except OSError:  # how a terminal tells that nobody writes to it any more
            return False
        text = self._rest + piece.decode(errors="surrogateescape")
        whole = len(text) - len(re.search(r"(\x1b(\[[?\d;]*)?|[\udc80-\udcff]+)?\Z", text)[0])  # type: ignore[index]
        self._rest = text[whole:].encode(errors="surrogateescape").decode(errors="surrogateescape")
        self.screen.write(text[:whole])
        self.seen.append(self.screen.text)
        return bool(piece)


@asynccontextmanager
async def on_terminal(command: Sequence[str], environ: Mapping[str, str]) -> AsyncIterator[OnTerminal]:
    """Run it. What still runs at the end is killed."""
    ours, its = pty.openpty()
    try:
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**environ, "TERM": "xterm"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=its,
        )
    finally:
        os.close(its)
    terminal = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(terminal), os.fdopen(ours, "rb", buffering=0)
    )
    try:
        yield OnTerminal(process, terminal)
    finally:
        transport.close()
        if process.returncode is None:
            process.kill()
        with anyio.CancelScope(shield=True):
            await process.communicate()
