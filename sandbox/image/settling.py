"""Waiting for a page to have answered what was done to it.

An action's effects are awaited by what they are: code that runs until the next frame, requests that began with the
action, a new page, a new window, a download. A page that does nothing costs one frame.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from playwright.async_api import Error

from greenroom.sandbox.image.answers import one_line

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from playwright.async_api import Page, Request

    from greenroom.sandbox.image.pages import Pages
    from greenroom.sandbox.image.tab import Tab

DATA_SECONDS: Final = 2.0
"""For data that a page fetches; some pages always have a request open."""
PAGE_SECONDS: Final = 20.0
"""For a new page to arrive. Until it does, or is given up, nothing can be seen of the old one."""
LOAD_SECONDS: Final = 5.0
"""For a new page's pictures and all."""
_FRAME_SECONDS: Final = 1.0
_ROUNDS: Final = 4
"""What one answer brings may ask for more."""
_NEXT_FRAME: Final = (
    "() => new Promise(done => { requestAnimationFrame(() => setTimeout(done)); setTimeout(done, 100) })"
)


async def settle(pages: Pages, before: AbstractSet[Request]) -> None:
    """Wait, but not for ever, until what began since `before` (the requests under way then) is over."""
    began = time.monotonic()
    for _ in range(_ROUNDS):
        await _next_frame(pages.current.page)
        await pages.until_opened()
        await pages.settled()
        tab = pages.current
        kinds = await _quiet(pages, tab, before, began)
        if "page" in kinds:
            await _loaded(tab)
        if not kinds:
            break
    await pages.downloads.settled()


async def arrived(pages: Pages) -> None:
    """Wait for a page that is on its way, whoever asked for it."""
    tab = pages.current
    under_way = tab.under_way()
    others = {request for request, exchange in under_way.items() if not exchange.opens_page}
    if len(others) < len(under_way) and await _quiet(pages, tab, others, time.monotonic()):
        await _loaded(tab)


async def _quiet(pages: Pages, tab: Tab, before: AbstractSet[Request], began: float) -> set[str]:
    """Wait until no request since `before` is under way. What was waited for: `page`, `data`, or nothing."""
    waited: set[str] = set()
    while True:
        fresh = [exchange for request, exchange in tab.under_way().items() if request not in before]
        if not fresh or tab.dialog is not None:
            return waited
        opens_page = any(exchange.opens_page for exchange in fresh)
        left = began + (PAGE_SECONDS if opens_page else DATA_SECONDS) - time.monotonic()
        if left <= 0:
            if opens_page:
                pages.notices.append(
                    f"- {one_line(fresh[-1].url)} did not arrive in time; loading it was stopped."
                )
                await pages.stop_loading()
            return waited
        waited.add("page" if opens_page else "data")
        try:
            async with asyncio.timeout(left):
                await pages.bell.rung()
        except TimeoutError:
            continue


async def _next_frame(page: Page) -> None:
    try:
        async with asyncio.timeout(_FRAME_SECONDS):
            await page.evaluate(_NEXT_FRAME)
    except (Error, TimeoutError):
        return  # it makes room for another page, or is busy: then the requests and the snapshot say more


async def _loaded(tab: Tab) -> None:
    try:
        await tab.page.wait_for_load_state("domcontentloaded", timeout=PAGE_SECONDS * 1000)
        await tab.page.wait_for_load_state("load", timeout=LOAD_SECONDS * 1000)
    except Error:
        return  # what is there by now is shown
