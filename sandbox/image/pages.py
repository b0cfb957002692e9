"""The tabs of the browser: which there are, which is the current one, and what happens to them by themselves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from playwright.async_api import Error

from greenroom.sandbox.image.answers import ToolError, one_line
from greenroom.sandbox.image.downloading import Downloads
from greenroom.sandbox.image.tab import Tab

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import BrowserContext, CDPSession, Dialog, Page

    from greenroom.sandbox.image.bell import Bell

MOST_TABS: Final = 20
POPUP_SECONDS: Final = 2.0
"""From a new target to a page that can be driven."""
CHORE_SECONDS: Final = 10.0
"""For opening or closing a tab that nobody asked for; calls wait for it."""
PERSON_SECONDS: Final = 1.0
"""A window that opens so soon after a person's click is what the click was for."""


class Pages:
    """Tabs in the order in which they were opened. All changes ring the bell."""

    def __init__(self, context: BrowserContext, workspace: Path, bell: Bell) -> None:
        self.context = context
        self.workspace = workspace
        self.bell = bell
        self.tabs: list[Tab] = []
        self.notices: list[str] = []
        """What happened by itself and the next answer should tell."""
        self.downloads = Downloads(workspace, self.notices, bell)
        self.acting = False
        """Whether a tool acts on the current page."""
        self._current: Tab | None = None
        self._person_acted = -PERSON_SECONDS
        self._announced: set[str] = set()
        self._chores: set[asyncio.Task[None]] = set()
        self._closed = False
        context.on("page", self._opened)
        context.on("dialog", self._dialog)

    @property
    def current(self) -> Tab:
        """The tab that tools and viewers see."""
        if self._current is None:
            raise ToolError("The browser is just being started anew. Call again.")
        return self._current

    def current_or_none(self) -> Tab | None:
        """The same for those who can do without."""
        return self._current

    async def watch_targets(self, session: CDPSession) -> None:
        """Learn of new windows as soon as the browser knows them; their pages are there a little later."""
        session.on("Target.targetCreated", self._target_created)
        session.on("Target.targetDestroyed", self._target_destroyed)
        await session.send("Target.setDiscoverTargets", {"discover": True})

    async def open(self) -> Tab:
        """A new, empty, current tab."""
        if len(self.tabs) >= MOST_TABS:
            raise ToolError(
                f"{MOST_TABS} tabs are open, no more are allowed. Close some with browser_tab_close."
            )
        tab = self._tab_of(await self.context.new_page())
        self.select(tab)
        return tab

    def numbered(self, index: int) -> Tab:
        """The tab of that number, the first being 1. Raises `ToolError`."""
        if not 1 <= index <= len(self.tabs):
            raise ToolError(f"There is no tab {index}: {len(self.tabs)} open. browser_tab_list shows them.")
        return self.tabs[index - 1]

    def select(self, tab: Tab) -> None:
        """Make it the current one."""
        if self._current is not tab:
            self._current = tab
            self.bell.ring()

    async def close(self, tab: Tab) -> None:
        """Close a tab; when it was the last, an empty one takes its place."""
        if tab.suspended is not None:
            tab.suspended.cancel()
        if len(self.tabs) == 1:
            await self.open()
        self._forget(tab)
        await tab.page.close()

    async def settled(self) -> None:
        """Wait until tabs that died are replaced."""
        while self._chores:
            await asyncio.wait(set(self._chores))

    async def until_opened(self) -> None:
        """Wait for windows that are being opened, as long as that takes usually."""
        try:
            async with asyncio.timeout(POPUP_SECONDS):
                while self._announced:
                    await self.bell.rung()
        except TimeoutError:
            self._announced.clear()  # it is no window that tools can see

    def dialogs(self) -> frozenset[Dialog]:
        """Those that are open, in all tabs."""
        return frozenset(dialog for tab in self.tabs for dialog in tab.dialogs)

    async def until_dialog(self, known: frozenset[Dialog] = frozenset()) -> Tab:
        """Wait until the current page asks something that is not known."""
        while (tab := self._current) is None or tab.dialog is None or tab.dialog in known:
            await self.bell.rung()
        return tab

    async def stop_loading(self) -> None:
        """Give up a page that is on its way: until it arrives the driver cannot look at what is there."""
        tab = self._current
        if tab is None or not tab.awaits_page():
            return
        session = await self.context.new_cdp_session(tab.page)
        await session.send("Page.stopLoading")
        tab.stopped = True
        await session.detach()

    def person_acted(self) -> None:
        """A person used mouse or keyboard."""
        self._person_acted = time.monotonic()

    async def shut(self) -> None:
        """Let go: nothing is repaired any more, calls that stand still are ended."""
        self._closed = True
        under_way = {tab.suspended for tab in self.tabs if tab.suspended is not None} | self._chores
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way)
        await self.downloads.shut()

    def do(self, chore: Coroutine[Any, Any, None]) -> None:
        """Do something that events ask for."""
        if self._closed:
            chore.close()
            return
        task = asyncio.create_task(self._guarded(chore))
        self._chores.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._chores.discard(task)
        self.bell.ring()

    async def _guarded(self, chore: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(CHORE_SECONDS):
                await chore
        except TimeoutError:
            self.notices.append(
                "- The browser is slow with its tabs: browser_tab_list shows which there are."
            )
        except Error as error:
            # Mostly because the browser is gone, which the next call sees by itself.
            self.notices.append(f"- The browser had trouble with its tabs: {one_line(error.message)}")

    def _tab_of(self, page: Page) -> Tab:
        for tab in self.tabs:
            if tab.page == page:
                return tab
        tab = Tab(page, self.bell)
        self.tabs.append(tab)
        page.on("close", lambda _page: self._page_closed(tab))
        page.on("crash", lambda _page: self._page_crashed(tab))
        page.on("download", self.downloads.begin)
        return tab

    def _target_created(self, event: dict[str, Any]) -> None:
        target = event["targetInfo"]
        if target["type"] == "page" and target.get("openerId") and self.acting:
            self._announced.add(target["targetId"])

    def _target_destroyed(self, event: dict[str, Any]) -> None:
        self._announced.discard(event["targetId"])
        self.bell.ring()

    def _opened(self, page: Page) -> None:
        known = len(self.tabs)
        tab = self._tab_of(page)
        if self._announced:
            self._announced.pop()
        if len(self.tabs) > known and known:
            self.do(self._welcome(tab))
        self.bell.ring()

    async def _welcome(self, tab: Tab) -> None:
        """A tab was opened, perhaps by a page and not by a tool: then it has an opener."""
        wanted = self.acting or time.monotonic() - self._person_acted < PERSON_SECONDS
        opener = await tab.page.opener()
        if opener is None or tab not in self.tabs:
            return
        if len(self.tabs) > MOST_TABS:
            self.notices.append(
                f"- The page opened one tab too many; it was closed ({MOST_TABS} are allowed)."
            )
            self._forget(tab)
            await tab.page.close()
        elif wanted and self._current is not None and opener == self._current.page:
            self.notices.append(
                f"- A new tab opened and is now the current one; browser_tab_select with {self._number(self._current)} "
                "goes back to the one before."
            )
            self.select(tab)
        else:
            self.notices.append(f"- A page opened a new tab by itself: number {self._number(tab)}.")

    def _number(self, tab: Tab) -> int:
        return self.tabs.index(tab) + 1

    def _dialog(self, dialog: Dialog) -> None:
        if dialog.page is None or self._closed:  # a window that is not there yet cannot be answered for
            self.do(dialog.dismiss())
        else:
            self._tab_of(dialog.page).ask(dialog)

    def _page_closed(self, tab: Tab) -> None:
        if tab not in self.tabs or self._closed:
            return
        self.notices.append("- A tab was closed by its page.")
        self._forget(tab)
        if not self.tabs:
            self.do(self._reopen())

    def _page_crashed(self, tab: Tab) -> None:
        if tab in self.tabs and not self._closed:
            self.do(self._replace(tab))

    async def _reopen(self) -> None:
        await self.open()

    async def _replace(self, crashed: Tab) -> None:
        """A crashed page is dead for ever: an empty one takes its place."""
        url = one_line(crashed.page.url)
        was_current = crashed is self._current
        page = await self.context.new_page()
        fresh = self._tab_of(page)
        if crashed in self.tabs:
            self.tabs.remove(fresh)
            self.tabs[self.tabs.index(crashed)] = fresh
        self.notices.append(
            f"- The page {url} crashed, most likely because it needed more memory than there is. An empty page took "
            "its place; other tabs and logins are still there. Load it again with browser_navigate, or a lighter page."
        )
        if was_current:
            self.select(fresh)
        await crashed.page.close()

    def _forget(self, tab: Tab) -> None:
        if tab not in self.tabs:  # its page was quicker to close itself
            return
        index = self.tabs.index(tab)
        self.tabs.remove(tab)
        if tab is self._current:
            self._current = self.tabs[max(index - 1, 0)] if self.tabs else None
        self.bell.ring()
