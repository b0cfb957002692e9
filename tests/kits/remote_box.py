"""A box that somebody runs elsewhere: our tool server as a process of its own, at a port of this machine."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from greenroom.sandbox.settings import SandboxSettings

TOKEN = "the-token-of-the-remote-box"


@dataclass
class RemoteBox:
    """It runs, or did. `settings`: those of a backend that uses it."""

    url: str
    process: asyncio.subprocess.Process

    @property
    def settings(self) -> SandboxSettings:
        return SandboxSettings(backend=self.url, token=TOKEN)

    async def kill(self) -> None:
        """End it as a fault would."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def remote_box(folder: Path, **environ: str) -> AsyncIterator[RemoteBox]:
    """One of ours, of the kind `base` unless told otherwise; its workspace is in `folder`."""
    port = free_port()
    (folder / "workspace").mkdir()
    given: Mapping[str, str] = {
        **os.environ,
        "GREENROOM_BOX_LISTEN": f"127.0.0.1:{port}",
        "GREENROOM_BOX_KIND": "base",
        "SECRET_TOKEN": TOKEN,
        "WORKSPACE_DIR": str(folder / "workspace"),
        **environ,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "greenroom.sandbox.image", env=given, stdin=asyncio.subprocess.DEVNULL
    )
    box = RemoteBox(f"http://127.0.0.1:{port}", process)
    try:
        yield box
    finally:
        await box.kill()
