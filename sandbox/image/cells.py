"""Cells of Python: one kernel, started by the first cell, which keeps its variables from cell to cell.

Cells run one after another. Each cell's output is what the kernel says belongs to it: what a thread of an earlier cell
still prints is in nobody's way. A cell that is stopped is interrupted, and what it had started is killed; a kernel that
does not heed that is ended, and the next cell gets a new one.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

from greenroom.sandbox.image.breaking_off import Calls, Halt
from greenroom.sandbox.image.cell_output import CellOutput
from greenroom.sandbox.image.output import Answer, told
from greenroom.sandbox.image.processes import MARK, Process, Processes, belonging, end, ticks_now

if TYPE_CHECKING:
    from jupyter_client.asynchronous.client import AsyncKernelClient
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

logger = logging.getLogger(__name__)

START_SECONDS: Final = 60.0
"""How long a kernel may take to answer for the first time."""
HEED_SECONDS: Final = 3.0
"""How long an interrupted cell may take to end."""
TICK_SECONDS: Final = 0.011
"""A little more than a tick of the clock that processes are dated by."""
LOOK_SECONDS: Final = 0.5
"""How often a kernel that is silent is looked at."""


class KernelEnded(Exception):
    """The kernel's process is gone."""


class Cells:
    """Runs cells in one kernel. The marks of what they start begin with `mark`."""

    def __init__(self, folder: Path, environ: Mapping[str, str], mark: str) -> None:
        self._folder = folder
        self._environ = environ
        self._mark = mark
        self.calls = Calls()
        self._one = asyncio.Lock()
        self._last = 0
        self._kernel: _Kernel | None = None

    async def run(self, code: str, seconds: float) -> Answer:
        """What the cell printed, the value of its last line, its traceback if it failed. Cancelling interrupts it."""
        return await self.calls.run(partial(self._in_turn, code, seconds), seconds)

    async def stop(self) -> None:
        """Wait for cells that break off, and end the kernel and all that cells had started."""
        await self.calls.ended()
        await self._drop()

    async def _drop(self) -> None:
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            await kernel.stop()

    async def _in_turn(self, code: str, seconds: float, halt: Halt) -> Answer:
        if not await halt.before(self._one.acquire()):
            return told(
                f"the cell was not run: one before it took more than {seconds:g} s; ask for more time"
            )
        try:
            return await self._run(code, seconds, halt)
        finally:
            self._last = ticks_now()
            self._one.release()

    async def _run(self, code: str, seconds: float, halt: Halt) -> Answer:
        if self._kernel is None:
            kernel = _Kernel(self._folder, self._environ, self._mark + token_hex(8))
            try:
                if not await halt.before(kernel.start()):
                    await kernel.stop()
                    return told(f"Python did not start within {seconds:g} s")
            except (ImportError, RuntimeError, OSError) as error:
                await kernel.stop()
                logger.exception("no kernel")
                return told(f"Python could not be started in the sandbox: {error}")
            self._kernel = kernel
        kernel = self._kernel
        if ticks_now() == self._last:
            await asyncio.sleep(
                TICK_SECONDS
            )  # what this cell starts can then be told from what the last one did
        since = ticks_now()
        output = CellOutput()
        try:
            reading = asyncio.ensure_future(kernel.execute(code, output))
            if not await halt.before(asyncio.shield(reading)):
                return output.answer(await self._broken_off(kernel, reading, since, seconds))
        except KernelEnded:
            await self._drop()
            return output.answer(
                "[Python ended in this cell, perhaps for want of memory: all variables are gone; the next cell starts "
                "anew]"
            )
        return output.answer()

    async def _broken_off(
        self, kernel: _Kernel, reading: asyncio.Future[None], since: int, seconds: float
    ) -> str:
        """Stop the cell; the answer says what was done."""
        await kernel.interrupt(since)
        done, _ = await asyncio.wait({reading}, timeout=HEED_SECONDS)
        if done and reading.exception() is None:
            await kernel.end_children(since)
            return f"[interrupted after {seconds:g} s: the cell had not ended; variables are kept]"
        reading.cancel()
        await asyncio.wait({reading})
        await self._drop()
        await kernel.end_children(since)
        return (
            f"[stopped after {seconds:g} s: the cell had not ended and did not heed its interruption, so Python was "
            "ended: all variables are gone; the next cell starts anew]"
        )


def _our_specs() -> KernelSpecManager:
    """What Jupyter looks up names of kernels in: ours is the only one."""
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

    class OurSpecs(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            # -P: what lies in the workspace must not stand in for what the kernel imports.
            command = [
                sys.executable,
                "-P",
                "-m",
                "greenroom.sandbox.image.kernel",
                "-f",
                "{connection_file}",
            ]
            return KernelSpec(argv=command, display_name="Python", language="python")

    return OurSpecs()


class _Kernel:
    """One process of ipykernel, spoken to by sockets in a folder that nobody else can enter."""

    def __init__(self, folder: Path, environ: Mapping[str, str], mark: str) -> None:
        self._folder = folder
        self._environ = environ
        self._mark = mark
        self._sockets: Path | None = None
        self._manager: AsyncKernelManager | None = None
        self._client: AsyncKernelClient | None = None

    async def start(self) -> None:
        """Raises `ImportError` where Jupyter is not installed, `RuntimeError` when the kernel does not start."""
        await asyncio.to_thread(importlib.import_module, "jupyter_client.asynchronous")
        await asyncio.to_thread(importlib.import_module, "jupyter_client.manager")
        from jupyter_client.manager import AsyncKernelManager

        self._sockets = sockets = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="kernel-"))
        manager = self._manager = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=_our_specs(),
            transport="ipc",
            connection_file=str(sockets / "kernel.json"),
        )
        environ = {
            **self._environ,
            MARK: self._mark,
            "IPYTHONDIR": str(sockets / "ipython"),
            "JUPYTER_PLATFORM_DIRS": "1",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        arguments = ["--HistoryManager.enabled=False", "--Application.log_level=40"]
        await manager.start_kernel(cwd=str(self._folder), env=environ, extra_arguments=arguments)
        self._client = manager.client()
        self._client.start_channels(stdin=False, hb=False)
        await self._client.wait_for_ready(timeout=START_SECONDS)

    async def stop(self) -> None:
        """End it and what its cells have started."""
        if self._client is not None:
            self._client.stop_channels()
        await asyncio.to_thread(end, partial(belonging, mark=self._mark, since=ticks_now()))
        if self._manager is not None and self._manager.has_kernel:
            await self._manager.shutdown_kernel(now=True)
        if self._sockets is not None:
            await asyncio.to_thread(shutil.rmtree, self._sockets, ignore_errors=True)

    async def execute(self, code: str, output: CellOutput) -> None:
        """Run a cell to its end. Raises `KernelEnded`."""
        client, manager = self._client, self._manager
        assert client is not None
        assert manager is not None
        cell = client.execute(code, allow_stdin=False, stop_on_error=False)
        replied = False
        while True:
            try:
                message = await client.get_iopub_msg(timeout=LOOK_SECONDS)
            except Empty:
                if replied:
                    return  # its last word was lost in a flood of output
                replied = await self._reply(client, cell, output)
                if not replied and not await manager.is_alive():
                    raise KernelEnded from None
                continue
            if message["parent_header"].get("msg_id") != cell:
                continue
            output.take(message["msg_type"], message["content"])
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        while not replied:
            replied = await self._reply(client, cell, output)
            if not replied and not await manager.is_alive():
                raise KernelEnded

    async def _reply(self, client: AsyncKernelClient, cell: str, output: CellOutput) -> bool:
        """Whether the kernel has answered that the cell is done."""
        try:
            message: dict[str, Any] = await client.get_shell_msg(timeout=LOOK_SECONDS)
        except Empty:
            return False
        if message["parent_header"].get("msg_id") != cell:
            return False
        output.take(message["msg_type"], message["content"])
        return True

    async def interrupt(self, since: int) -> None:
        """Ctrl-C for the kernel alone, and the end of what the cell has started and may wait for."""
        pid = self._pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        await self.end_children(since)

    async def end_children(self, since: int) -> None:
        """Kill what was started since, the kernel left out."""
        await asyncio.to_thread(end, partial(self._children, since=since))

    def _children(self, processes: Processes, since: int) -> list[Process]:
        return [
            process
            for process in belonging(processes, self._mark, since)
            if process.pid != self._pid and process.started >= since
        ]

    @property
    def _pid(self) -> int | None:
        pid: int | None = getattr(getattr(self._manager, "provisioner", None), "pid", None)
        return pid
