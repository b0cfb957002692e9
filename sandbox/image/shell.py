"""Commands: each in a bash of its own, with a session of its own, in the workspace.

A command that ends by itself may leave something running in the background, a server say. One that is stopped, because
its time is over or its caller gone, leaves nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from greenroom.sandbox.image.breaking_off import Calls, Halt
from greenroom.sandbox.image.output import Answer, Kept, answered, text_part, told
from greenroom.sandbox.image.processes import MARK, Process, Processes, belonging, end, ticks_now

READ_BYTES: Final = 65536
"""A pipe holds no more: what a command wrote before it ended is in one reading."""


class Shell:
    """Runs commands, several at once if asked. Their marks begin with `mark`."""

    def __init__(self, folder: Path, environ: Mapping[str, str], mark: str) -> None:
        self.calls = Calls()
        self._folder = folder
        self._mark = mark
        self._environ = environ
        self._program = shutil.which("bash") or "/bin/sh"
        self._pipes: set[_Pipe] = set()
        self._endings: set[asyncio.Future[bool]] = set()

    async def run(self, command: str, seconds: float) -> Answer:
        """The command's outputs and exit code: it is an error when the code is not 0. Cancelling ends the command."""
        if "\0" in command:
            return told("a command cannot hold the character NUL")
        return await self.calls.run(partial(self._run, command, seconds), seconds)

    async def stop(self) -> None:
        """Wait for commands that break off, and let go of what still writes in the background."""
        await self.calls.ended()
        for pipe in list(self._pipes):
            pipe.close()

    async def _run(self, command: str, seconds: float, halt: Halt) -> Answer:
        while self._endings:  # orphans of a new command could be taken for those of one that is being ended
            if not await halt.before(asyncio.wait(self._endings)):
                return told("the command was not begun: an earlier one was still being ended")
        mark, since = self._mark + secrets.token_hex(8), ticks_now()
        out, err = _Pipe(self._pipes), _Pipe(self._pipes)
        try:
            process = await asyncio.create_subprocess_exec(
                self._program,
                "-c",
                command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out.writing,
                stderr=err.writing,
                cwd=self._folder,
                env={**self._environ, MARK: mark},
                start_new_session=True,
            )
        except OSError as error:
            out.close()
            err.close()
            return told(
                f"the command could not be started: {error.strerror}{_HINTS.get(error.errno or 0, '')}"
            )
        finally:
            out.started()
            err.started()
        ended = await halt.before(process.wait())
        its = partial(belonging, mark=mark, since=since, leader=process.pid)
        gone = ended or await self._end(its)
        if not ended and gone:
            await process.wait()
        return _result(process.returncode, out, err, "" if ended else _stopped(seconds, gone))

    async def _end(self, its: Callable[[Processes], Iterable[Process]]) -> bool:
        ending = asyncio.ensure_future(asyncio.to_thread(end, its))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        return await ending


_HINTS: Final = {
    errno.E2BIG: "; it is too long: write a script with many lines to a file and run that",
    errno.EAGAIN: "; the sandbox has as many processes as it may: end some (`ps`, `kill`)",
}


def _stopped(seconds: float, gone: bool) -> str:
    if not gone:
        return f"[stopped after {seconds:g} s; some of its processes could not be killed]"
    return (
        f"[stopped after {seconds:g} s: the command had not ended, so it and all it had started were killed]"
    )


def _result(code: int | None, out: _Pipe, err: _Pipe, stopped: str) -> Answer:
    errors = "\n".join(text for text in (err.text(), stopped) if text)
    parts = [text_part(out.text(), "stdout")]
    if errors:
        parts.append(text_part(errors, "stderr"))
    parts.append(text_part(str(code), "returncode"))
    return answered(parts, is_error=code != 0 or bool(stopped))


class _Pipe:
    """One output. It is read until all who can write to it have closed it; `text` gives what there is by then, and
    what comes later, from the background, is read and dropped so that its writer goes on."""

    def __init__(self, pipes: set[_Pipe]) -> None:
        self._reading, self.writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reading, False)
        self._kept: Kept | None = Kept()
        self._pipes = pipes
        self._open = True
        pipes.add(self)
        asyncio.get_running_loop().add_reader(self._reading, self._read)

    def started(self) -> None:
        """The command has the end to write to; ours must go, or there never is an end."""
        os.close(self.writing)

    def text(self) -> str:
        """What was written up to now."""
        kept = self._kept
        assert kept is not None, "asked for once"
        if self._open:
            self._read()
        self._kept = None
        return kept.text()

    def _read(self) -> None:
        try:
            data = os.read(self._reading, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self.close()
        elif self._kept is not None:
            self._kept.feed(data)

    def close(self) -> None:
        """Read no more."""
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._reading)
            os.close(self._reading)
            self._pipes.discard(self)
