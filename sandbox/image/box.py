"""What lives in a box: a shell, a kernel, files, a way out and, if it is of that kind, a browser."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from greenroom.sandbox.image.cells import Cells
from greenroom.sandbox.image.options import BoxOptions
from greenroom.sandbox.image.output import Answer, told
from greenroom.sandbox.image.processes import belonging, bury, dead_orphans, end
from greenroom.sandbox.image.relay import Relay
from greenroom.sandbox.image.shell import Shell
from greenroom.sandbox.image.workspace import Workspace

if TYPE_CHECKING:
    from greenroom.sandbox.image.browser import BrowserTools

logger = logging.getLogger(__name__)

OWN_VARIABLES: Final = ("GREENROOM_BOX", "SECRET_TOKEN")
"""What begins like these is the tool server's, not for the programs it runs."""

NOTICED_SECONDS: Final = 1.0
"""After so long a dead child is nobody's who would wait for it."""

REASON_LENGTH: Final = 2000
"""A driver tells all of a browser's last words."""


class BrowserFailed(Exception):
    """The browser could not be started, and why."""


class Box:
    """Everything that one tool server drives."""

    def __init__(self, options: BoxOptions, relay: Relay | None) -> None:
        self.options = options
        self._relay = relay
        self._mark = secrets.token_hex(8)  # boxes may share a machine's processes
        self.workspace = Workspace(os.fspath(options.workspace))
        environ = for_programs(os.environ, None if relay is None else relay.url)
        self.shell = Shell(options.workspace, environ, self._mark)
        self.cells = Cells(options.workspace, environ, self._mark)
        self.browser: BrowserTools | None = None
        self._starting: asyncio.Task[None] | None = None
        self._burying: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._burying.set_result(None)

    @classmethod
    async def opened(cls, options: BoxOptions) -> Self:
        """One that is ready for calls; its browser goes on starting, and calls for it wait.

        Raises `OSError` when the port of the way out is taken.
        """
        relay = None if options.egress is None else Relay(options.egress, options.relay_port)
        if relay is not None:
            await relay.start()
        box = cls(options, relay)
        if options.kind == "browser":
            box._starting = asyncio.create_task(box._start_browser())
        return box

    async def _start_browser(self) -> None:
        from greenroom.sandbox.image.browser import BrowserOptions, BrowserTools

        browser = BrowserTools(
            BrowserOptions(
                workspace=self.options.workspace,
                executable=self.options.browser,
                proxy=None if self._relay is None else self._relay.url,
                trusted_keys=self.options.trusted_keys,
                chromium_sandbox=self.options.chromium_sandbox,
            )
        )
        self.browser = browser
        await browser.start()

    async def stop(self) -> None:
        """End all that runs."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        if self.browser is not None:
            await self.browser.stop()
        await self._end_programs()
        self._burying.cancel()
        if self._relay is not None:
            await self._relay.stop()
        self.workspace.close()

    async def reset(self) -> None:
        """As after the start: no page, variable, file or process of before."""
        await self._end_programs()
        if self.browser is not None:
            await self.started_browser()
            await self.browser.reset()
        await asyncio.to_thread(self.workspace.clear)

    async def _end_programs(self) -> None:
        self.shell.calls.break_off()
        self.cells.calls.break_off()
        if not await asyncio.to_thread(end, partial(belonging, mark=self._mark, since=0)):
            logger.warning("some processes could not be killed")
        await self.shell.stop()
        await self.cells.stop()

    async def started_browser(self) -> BrowserTools:
        """The browser, when it is up. Raises `BrowserFailed`."""
        if self._starting is None:
            raise BrowserFailed("this sandbox has no browser: its kind is base")
        await asyncio.wait({self._starting})
        self.check()
        assert self.browser is not None
        return self.browser

    def check(self) -> None:
        """Raises `BrowserFailed` when it is known that calls for the browser cannot work."""
        starting = self._starting
        if starting is not None and starting.done():
            error = None if starting.cancelled() else starting.exception()
            if error is not None:
                why = (str(error) or type(error).__name__)[:REASON_LENGTH]
                raise BrowserFailed(f"the browser could not be started: {why}") from error

    async def call(self, tool: str, arguments: Mapping[str, Any], seconds: float) -> Answer:
        """Run a tool. Raises `KeyError` for one that there is not, `TypeError` for arguments that do not fit."""
        if tool in BASE:
            return await self._call_base(tool, arguments, seconds)
        from greenroom.sandbox.image.tool_schemas import BROWSER_TOOLS

        if self._starting is None or tool not in BROWSER_TOOLS:
            raise KeyError(tool)
        before = asyncio.get_running_loop().time()
        try:
            browser = await asyncio.wait_for(self.started_browser(), seconds)
        except BrowserFailed as failed:
            return told(str(failed))
        except TimeoutError:
            return told(f"the browser did not start within {seconds:g} s")
        left = seconds - (asyncio.get_running_loop().time() - before)
        return await browser.call(tool, dict(arguments), left)

    async def _call_base(self, tool: str, arguments: Mapping[str, Any], seconds: float) -> Answer:
        name = BASE[tool]
        text = arguments.get(name)
        if not isinstance(text, str) or not text.strip():
            raise TypeError(f"{tool} needs `{name}`, a text")
        try:
            if tool == "run_ipython_cell":
                return await self.cells.run(text, seconds)
            return await self.shell.run(text, seconds)
        finally:
            if self._burying.done():
                self._burying = asyncio.create_task(_bury_orphans())


async def _bury_orphans() -> None:
    dead = await asyncio.to_thread(dead_orphans)
    if dead:
        await asyncio.sleep(NOTICED_SECONDS)
        bury(dead & await asyncio.to_thread(dead_orphans))


BASE: Final = {"run_ipython_cell": "code", "run_shell_command": "command"}
"""Tools that every box has, and their argument."""


def for_programs(environ: Mapping[str, str], proxy: str | None) -> dict[str, str]:
    """The environment of commands and cells: nothing of the tool server's own, and the way out."""
    kept = {name: value for name, value in environ.items() if not name.startswith(OWN_VARIABLES)}
    if proxy is not None:
        for name in ("http_proxy", "https_proxy"):
            kept[name] = kept[name.upper()] = proxy
        kept["no_proxy"] = kept["NO_PROXY"] = "localhost,127.0.0.1,::1"
    return kept
