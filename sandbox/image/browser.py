"""The browser of a box, as tools: one Chromium, one context, one call at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from playwright.async_api import Browser, Error, Playwright, async_playwright

from greenroom.sandbox.image.answers import ToolError, answer
from greenroom.sandbox.image.arguments import checked
from greenroom.sandbox.image.bell import Bell
from greenroom.sandbox.image.calling import carry_out, explained, told
from greenroom.sandbox.image.live import Viewer
from greenroom.sandbox.image.pages import Pages
from greenroom.sandbox.image.settling import settle
from greenroom.sandbox.image.tool_schemas import BROWSER_TOOLS

if TYPE_CHECKING:
    from aiohttp import web

_log = logging.getLogger(__name__)

LAUNCH_SECONDS: Final = 60.0
"""From a cold page cache under load it takes 5 to 16 s."""
END_SECONDS: Final = 5.0
VIEWPORT: Final = {"width": 1280, "height": 720}

QUIET: Final = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
    "--disable-dev-shm-usage",
    # Nothing may go out beside the proxy.
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
)


@dataclass(frozen=True, kw_only=True)
class BrowserOptions:
    """How the browser runs. `executable`: path of Chromium or of its headless shell; none: Playwright's own.
    `proxy`: its only way out, loopback addresses included; none: the network as it is. `trusted_keys`: base64 SHA-256
    hashes of public keys (SPKI) whose certificates are good, separated by commas. `chromium_sandbox`: false only by
    explicit choice of the user: pages then run with all rights of this process. `arguments`: more of Chromium's.
    `unfinished`: where downloads lie until they are complete; none: a folder for temporary files."""

    workspace: Path
    executable: str | None = None
    proxy: str | None = None
    trusted_keys: str = ""
    chromium_sandbox: bool = True
    arguments: tuple[str, ...] = ()
    unfinished: Path | None = None

    def command_line(self) -> list[str]:
        """Chromium's arguments, besides the driver's."""
        line = [*QUIET, *self.arguments]
        if self.proxy:
            # Chromium goes around a proxy for loopback addresses, unless this strange rule takes that back.
            line += [f"--proxy-server={self.proxy}", "--proxy-bypass-list=<-loopback>"]
        if self.trusted_keys:
            line.append(f"--ignore-certificate-errors-spki-list={self.trusted_keys}")
        return line


class BrowserTools:
    """Tools by name. A call is answered as the protocol says, errors of pages too; only misuse of this class raises."""

    names: frozenset[str] = frozenset(BROWSER_TOOLS)

    def __init__(self, options: BrowserOptions) -> None:
        self.options = options
        self._bell = Bell()
        self._turn = asyncio.Lock()
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None
        self._pages: Pages | None = None
        self._running: asyncio.Task[dict[str, Any]] | None = None

    async def start(self) -> None:
        """Launch the browser and open an empty page. Raises `playwright.async_api.Error` when it cannot be."""
        async with self._turn:
            await self._launch()

    async def stop(self) -> None:
        """End the browser. Doing it twice, or before `start`, is fine."""
        self._give_up("The sandbox is being stopped.")
        async with self._turn:
            await self._end()

    async def call(self, name: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Run one tool; calls are worked off in order, each within `seconds`, waiting included. Raises `KeyError` for a
        name that is not in `names`. The answer: `{"meta": None, "content": [...], "isError": bool}`."""
        if name not in self.names:
            raise KeyError(name)
        try:
            async with asyncio.timeout(seconds):
                return await self._in_turn(name, checked(name, arguments, seconds))
        except ToolError as error:
            return answer([str(error)], is_error=True)
        except TimeoutError:
            text = (
                f"{name} was not done within {seconds:g} s and was given up. Look where things stand with "
                "browser_snapshot; if the page answers nothing at all, browser_close it and load it anew."
            )
            return answer([text], is_error=True)

    async def reset(self) -> None:
        """Throw away pages, cookies, storage, and what a call under way was doing: as after `start`."""
        self._give_up("The browser was reset.")
        async with self._turn:
            await self._drop_pages()
            if self._browser is not None and self._alive():
                try:
                    await self._open_pages(self._browser)
                    return
                except Error as error:
                    _log.warning("the browser could not be reset and is started anew: %s", error)
            await self._end()
            await self._launch()

    async def live(self, websocket: web.WebSocketResponse, *, may_act: bool = False) -> None:
        """Show the current page to a prepared websocket until it closes (`greenroom.sandbox.image.live` says how);
        `may_act`: take mouse and keyboard from it. Several may look at once; calls go on meanwhile."""
        await Viewer(websocket, lambda: self._pages, self._bell, may_act=may_act).run()

    async def _in_turn(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        async with self._turn:
            pages = await self._usable_pages()
            task = self._running = asyncio.create_task(self._answered(pages, name, given))
            try:
                return await task
            except asyncio.CancelledError:
                await _within(pages.stop_loading())
                # It was this call that was cancelled, or only its task, by those who give up all that is under way.
                if (
                    not task.cancelled()
                    or (current := asyncio.current_task()) is None
                    or current.cancelling()
                ):
                    raise
                raise ToolError(f"{name} was ended: the browser was reset or stopped.") from None
            finally:
                self._running = None

    async def _answered(self, pages: Pages, name: str, given: dict[str, Any]) -> dict[str, Any]:
        try:
            return await carry_out(pages, name, given)
        except ToolError as error:
            text = str(error)
        except TimeoutError:
            text = f"{name} takes unusually long on this page and was given up. The page may be too busy or too large."
        except Error as error:
            text = await self._after_trouble(pages, explained(name, error))
        return answer([text, *(told(pages) if pages.current_or_none() else ())], is_error=True)

    async def _after_trouble(self, pages: Pages, text: str) -> str:
        if await self._answers(pages):
            await pages.settled()  # a page that crashed is replaced, which the answer tells
            return text
        await self._drop_pages()
        return (
            "The browser ended while this was under way. It is started anew with the next call: open pages, logins and "
            "what was typed are gone. Begin again with browser_navigate."
        )

    def _give_up(self, reason: str) -> None:
        if self._running is not None:
            self._running.cancel(reason)

    async def _answers(self, pages: Pages) -> bool:
        """Whether the browser is there. When the driver died, its objects do not know."""
        return self._alive() and await _within(pages.context.cookies("http://localhost"))

    def _alive(self) -> bool:
        return self._browser is not None and self._browser.is_connected()

    async def _usable_pages(self) -> Pages:
        if self._pages is None or not self._alive():
            again = self._browser is not None
            await self._end()
            try:
                pages = await self._launch()
            except Error as error:
                raise ToolError(f"The browser does not start: {error.message.strip()[:1000]}") from error
            if again:
                pages.notices.append(
                    "- The browser had ended and was started anew: pages and logins are gone."
                )
            return pages
        await self._pages.settled()
        return self._pages

    async def _launch(self) -> Pages:
        async with asyncio.timeout(LAUNCH_SECONDS):
            self._playwright = await _driver()
            self._browser = await self._playwright.chromium.launch(
                executable_path=self.options.executable,
                chromium_sandbox=self.options.chromium_sandbox,
                args=self.options.command_line(),
                downloads_path=self.options.unfinished,
                timeout=LAUNCH_SECONDS * 1000,
            )
            return await self._open_pages(self._browser)

    async def _open_pages(self, browser: Browser) -> Pages:
        context = await browser.new_context(
            viewport={"width": VIEWPORT["width"], "height": VIEWPORT["height"]}
        )
        pages = Pages(context, self.options.workspace, self._bell)
        await pages.open()
        await pages.watch_targets(await browser.new_browser_cdp_session())
        # The driver's scripts are compiled by the first look: here, not when a session waits for its first page.
        await _within(_first_look(pages))
        self._pages = pages
        self._bell.ring()
        return pages

    async def _drop_pages(self) -> None:
        pages, self._pages = self._pages, None
        self._bell.ring()
        if pages is not None:
            await pages.shut()
            await _within(pages.context.close())

    async def _end(self) -> None:
        await self._drop_pages()
        browser, self._browser = self._browser, None
        playwright, self._playwright = self._playwright, None
        if browser is not None:
            await _within(browser.close())
        if playwright is not None:
            await _within(playwright.stop())


async def _first_look(pages: Pages) -> None:
    await settle(pages, frozenset())
    await pages.current.page.goto("about:blank")
    await pages.current.page.aria_snapshot(mode="ai")


async def _driver() -> Playwright:
    try:
        return await async_playwright().start()
    except Error:
        raise
    except Exception as error:  # the driver's death is a bare one
        raise Error(f"the browser's driver does not start: {error}") from error


async def _within(asked: Coroutine[Any, Any, Any]) -> bool:
    """Ask a browser for something that may be gone already, or never answer again. Whether it did."""
    try:
        async with asyncio.timeout(END_SECONDS):
            await asked
    except (Error, TimeoutError) as error:
        _log.info("the browser does not answer: %s", error)
        return False
    return True
