"""Tools that look at pages and tabs, or open and close them."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING, Any, Final

from greenroom.sandbox.image.acting import ACTION_MS
from greenroom.sandbox.image.addresses import address_of
from greenroom.sandbox.image.answers import Picture, Said, ToolError, one_line
from greenroom.sandbox.image.kept_files import write_file
from greenroom.sandbox.image.navigating import navigate
from greenroom.sandbox.image.snapshot import find, named, page_state, tab_list

if TYPE_CHECKING:
    from collections.abc import Iterable

    from playwright.async_api import Locator

    from greenroom.sandbox.image.pages import Pages

Arguments = dict[str, Any]

JPEG_QUALITY: Final = 70
PICTURE_SECONDS: Final = 15.0
_LISTING_BYTES: Final = 40_000


async def snapshot(pages: Pages, given: Arguments) -> Said:
    return Said(await page_state(pages, ref=given.get("ref"), depth=given.get("depth")))


async def take_screenshot(pages: Pages, given: Arguments) -> Said:
    raw: bool = given.get("raw", False)
    page, ref = pages.current.page, given.get("ref")
    element = await find(pages.current, ref, given.get("element", "")) if ref else None
    async with asyncio.timeout(PICTURE_SECONDS):
        data = await _picture(pages, element, raw=raw)
    what = named(given.get("element", ""), ref) if ref else "the visible page"
    kept = ""
    if given.get("filename"):
        path = await asyncio.to_thread(write_file, pages.workspace, given["filename"], data)
        kept = f" It is kept as {path}."
    return Said(
        f"A picture of {what} of {one_line(page.url)}.{kept}",
        Picture("image/png" if raw else "image/jpeg", data),
    )


async def _picture(pages: Pages, element: Locator | None, *, raw: bool) -> bytes:
    """Not the driver's own way, which waits for fonts that may never arrive."""
    wanted: dict[str, Any] = {"format": "png"} if raw else {"format": "jpeg", "quality": JPEG_QUALITY}
    if element is not None:
        await element.scroll_into_view_if_needed(timeout=ACTION_MS)
        box = await element.bounding_box(timeout=ACTION_MS)
        if box is None or not box["width"] or not box["height"]:
            raise ToolError("The element is not visible, so there is no picture of it.")
        left, top = await pages.current.page.evaluate("[visualViewport.pageLeft, visualViewport.pageTop]")
        wanted["clip"] = {**box, "x": box["x"] + left, "y": box["y"] + top, "scale": 1}
    session = await pages.context.new_cdp_session(pages.current.page)
    try:
        taken = await session.send("Page.captureScreenshot", wanted)
    finally:
        await session.detach()
    return base64.b64decode(taken["data"])


async def pdf_save(pages: Pages, given: Arguments) -> Said:
    name = given.get("filename") or f"page-{int(time.time() * 1000)}.pdf"
    async with asyncio.timeout(PICTURE_SECONDS):
        data = await pages.current.page.pdf(print_background=True)
    path = await asyncio.to_thread(write_file, pages.workspace, name, data)
    return Said(f"Saved {one_line(pages.current.page.url)} as {path} ({len(data)} bytes).")


async def console_messages(pages: Pages, _given: Arguments) -> Said:
    return Said(_listing(pages.current.console) or "The console is empty.")


async def network_requests(pages: Pages, _given: Arguments) -> Said:
    return Said(_listing(map(str, pages.current.exchanges)) or "The page has made no requests.")


def _listing(lines: Iterable[str]) -> str:
    """The newest lines that fit."""
    listed, room = [], _LISTING_BYTES
    for line in reversed([*lines]):
        room -= len(line)
        if room < 0:
            listed.append("(older ones are left out)")
            break
        listed.append(line)
    return "\n".join(reversed(listed))


async def tab_listing(pages: Pages, _given: Arguments) -> Said:
    return Said(await tab_list(pages, always=True))


async def tab_new(pages: Pages, given: Arguments) -> Said:
    url = given.get("url")
    if url:
        address_of(url)  # an address that may not be opened opens no tab either
    await pages.open()
    opened = f"Opened tab {len(pages.tabs)}."
    if not url:
        return Said(opened)
    try:
        return Said(f"{opened} {(await navigate(pages, url)).text}")
    except ToolError as error:
        raise ToolError(f"{opened} It is empty: {error}") from error


async def tab_select(pages: Pages, given: Arguments) -> Said:
    tab = pages.numbered(given["index"])
    pages.select(tab)
    if tab.dialog is None:
        await tab.page.bring_to_front()
    return Said(f"Tab {given['index']} is the current one.")


async def tab_close(pages: Pages, given: Arguments) -> Said:
    tab = pages.numbered(given["index"]) if "index" in given else pages.current
    await pages.close(tab)
    return Said("Closed the tab.")


async def close(pages: Pages, _given: Arguments) -> Said:
    await pages.close(pages.current)
    return Said("Closed the page.")
