"""A browser for tests in this process, with its own sandbox on, also where the tests run as root."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from greenroom.sandbox.image.browser import BrowserOptions, BrowserTools
from greenroom.sandbox.result import ToolResult

BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")

# Chromium's sandbox refuses to work for root: who is root gives the browser to nobody in particular, and to that user
# the folder that the driver made for its profile.
AS_NOBODY = """#!/bin/sh
for argument in "$@"; do
    case "$argument" in --user-data-dir=*) chown 65534:65534 "${argument#--user-data-dir=}" ;; esac
done
exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs env HOME=/tmp BROWSER "$@"
"""


def browser_path(folder: Path) -> str:
    """What to start as the browser; a folder of the test's is needed for a script. Skips where there is none."""
    found = os.environ.get("GREENROOM_SANDBOX_BROWSER") or next(
        filter(None, map(shutil.which, BROWSERS)), None
    )
    if found is None:
        pytest.skip("needs a browser: apt-get install chromium-headless-shell")
    if os.geteuid() != 0:
        return found
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv to run a browser as root: apt-get install util-linux")
    script = folder / "browser-as-nobody"
    script.write_text(AS_NOBODY.replace("BROWSER", found))
    script.chmod(0o755)
    return str(script)


class Browsing:
    """A box's tools, called as the server calls them."""

    def __init__(self, tools: BrowserTools) -> None:
        self.tools = tools

    async def __call__(self, tool: str, seconds: float = 30.0, **arguments: Any) -> ToolResult:
        """`browse("click", ref="e2")` calls `browser_click`."""
        return ToolResult(await self.tools.call(f"browser_{tool}", arguments, seconds))

    async def good(self, tool: str, seconds: float = 30.0, **arguments: Any) -> str:
        """The text of a call that must succeed."""
        result = await self(tool, seconds, **arguments)
        assert not result.is_error, result.text
        return result.text

    async def bad(self, tool: str, seconds: float = 30.0, **arguments: Any) -> str:
        """The text of a call that must fail."""
        result = await self(tool, seconds, **arguments)
        assert result.is_error, result.text
        return result.text


@asynccontextmanager
async def browsing(folder: Path, **options: Any) -> AsyncIterator[Browsing]:
    """A browser whose workspace is `folder / "workspace"`."""
    workspace = folder / "workspace"
    workspace.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as unfinished:  # tmp_path is root's alone
        Path(unfinished).chmod(0o777)
        tools = BrowserTools(
            BrowserOptions(
                workspace=workspace, executable=browser_path(folder), unfinished=Path(unfinished), **options
            )
        )
        await tools.start()
        try:
            yield Browsing(tools)
        finally:
            await tools.stop()


def ref_of(snapshot: str, mark: str) -> str:
    """The ref in the first line of a snapshot that contains `mark`, for example `button "Send"`."""
    line = next((line for line in snapshot.splitlines() if mark in line and "[ref=" in line), None)
    assert line is not None, f"{mark!r} is not in\n{snapshot}"
    return line.partition("[ref=")[2].partition("]")[0]
