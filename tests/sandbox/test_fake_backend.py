"""The fake backend holds what backends hold: what tests of the keeper show is true of real ones."""

import asyncio
import shutil
from typing import Any

from greenroom.sandbox.backend import Backend
from greenroom.sandbox.result import ToolResult
from kits.backend_kit import BackendKit
from kits.fake_backend import FakeBackend, FakeBox, FakeEngine


async def shell(box: FakeBox, arguments: dict[str, Any]) -> ToolResult:
    """A shell of this machine: what runs in the fake's boxes is the test's own."""
    process = await asyncio.create_subprocess_exec(
        str(shutil.which("bash")), "-c", arguments["command"], stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    part = {"type": "text", "description": "stdout", "text": out.decode()}
    return ToolResult(meta=None, content=[part], isError=process.returncode != 0)


class TestFakeBackend(BackendKit):
    kind = "browser"

    # Its boxes are no processes: they have no network, and no environment of their own.
    test_only_who_shows_the_token_is_served_and_it_lies_nowhere = None  # type: ignore[assignment]
    test_the_socket_in_its_directory_is_the_way_out = None  # type: ignore[assignment]
    test_without_one_there_is_no_way_out = None  # type: ignore[assignment]

    def backend(self) -> Backend:
        if not hasattr(self, "engine"):
            self.engine = FakeEngine()
            self.engine.tools["run_shell_command"] = shell
        return FakeBackend(self.engine)

    async def kill(self, backend: Backend, lease: str) -> None:
        await self.engine.boxes[lease].die()
