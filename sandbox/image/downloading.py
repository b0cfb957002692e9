"""Downloads of pages: kept in the workspace, and told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from playwright.async_api import Error

from greenroom.sandbox.image.answers import ToolError, one_line
from greenroom.sandbox.image.kept_files import keep_download

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Download

    from greenroom.sandbox.image.bell import Bell

MOST_DOWNLOADS: Final = 10
"""At a time."""
DOWNLOAD_SECONDS: Final = 3.0
"""How long an answer waits for them; what takes longer is told in a later one."""


class Downloads:
    """Those of all tabs."""

    def __init__(self, workspace: Path, notices: list[str], bell: Bell) -> None:
        self.begun = 0
        self._workspace = workspace
        self._notices = notices
        self._bell = bell
        self._under_way: dict[asyncio.Task[None], str] = {}

    def begin(self, download: Download) -> None:
        """A page downloads something."""
        self.begun += 1
        task = asyncio.create_task(self._keep(download))
        self._under_way[task] = one_line(download.suggested_filename)
        task.add_done_callback(self._done)
        self._bell.ring()

    async def settled(self) -> None:
        """Wait for what is under way, but not long."""
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=DOWNLOAD_SECONDS)

    def under_way(self) -> list[str]:
        """Lines for an answer."""
        return [
            f"- Downloading {name}; a later result says when it is saved."
            for name in self._under_way.values()
        ]

    async def shut(self) -> None:
        """Give up what is under way."""
        under_way = set(self._under_way)
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._bell.ring()

    async def _keep(self, download: Download) -> None:
        name = one_line(download.suggested_filename)
        try:
            if len(self._under_way) > MOST_DOWNLOADS:
                await download.cancel()
                raise ToolError(f"more than {MOST_DOWNLOADS} at a time")
            source = await download.path()  # waits until it is complete
            kept = await asyncio.to_thread(
                keep_download, self._workspace, download.suggested_filename, source
            )
            size = (await asyncio.to_thread(kept.stat)).st_size
            self._notices.append(f"- Downloaded {name}: saved as {kept} ({size} bytes).")
            await download.delete()
        except (Error, ToolError) as error:
            self._notices.append(f"- The download of {name} failed: {one_line(str(error))}")
