"""The browser of a box, as tools: one Chromium, one context, one call at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greenroom.sandbox.image.tool_schemas import BROWSER_TOOLS

if TYPE_CHECKING:
    from aiohttp import web


@dataclass(frozen=True, kw_only=True)
class BrowserOptions:
    """How the browser runs. `executable`: path of Chromium or of its headless shell; none: Playwright's own.
    `proxy`: its only way out, loopback addresses included; none: the network as it is. `trusted_keys`: base64 SHA-256
    hashes of public keys (SPKI) whose certificates are good, separated by commas. `chromium_sandbox`: false only by
    explicit choice of the user: pages then run with all rights of this process. `arguments`: more of Chromium's."""

    workspace: Path
    executable: str | None = None
    proxy: str | None = None
    trusted_keys: str = ""
    chromium_sandbox: bool = True
    arguments: tuple[str, ...] = ()


class BrowserTools:
    """Tools by name. A call is answered as the protocol says, errors of pages too; only misuse of this class raises."""

    names: frozenset[str] = frozenset(BROWSER_TOOLS)

    def __init__(self, options: BrowserOptions) -> None:
        self.options = options

    async def start(self) -> None:
        """Launch the browser and open an empty page. Raises `playwright.async_api.Error` when it cannot be."""
        raise NotImplementedError

    async def stop(self) -> None:
        """End the browser. Doing it twice, or before `start`, is fine."""
        raise NotImplementedError

    async def call(self, name: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Run one tool; calls are worked off in order, each within `seconds`, waiting included. Raises `KeyError` for a
        name that is not in `names`. The answer: `{"meta": None, "content": [...], "isError": bool}`."""
        raise NotImplementedError

    async def reset(self) -> None:
        """Throw away pages, cookies, storage, and what a call under way was doing: as after `start`."""
        raise NotImplementedError

    async def live(self, websocket: web.WebSocketResponse, *, may_act: bool = False) -> None:
        """Show the current page to a prepared websocket until it closes (`greenroom.sandbox.image.live` says how);
        `may_act`: take mouse and keyboard from it. Several may look at once; calls go on meanwhile."""
        raise NotImplementedError
