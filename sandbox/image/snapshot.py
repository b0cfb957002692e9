"""What a model sees of a page, and finding again what it saw there."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Final

from playwright.async_api import Error
from playwright.async_api import TimeoutError as PageTimeout

from greenroom.sandbox.image.answers import ToolError, one_line

if TYPE_CHECKING:
    from playwright.async_api import Locator

    from greenroom.sandbox.image.pages import Pages
    from greenroom.sandbox.image.tab import Tab

SNAPSHOT_BYTES: Final = 60_000
"""Some 15,000 to 20,000 tokens."""
SNAPSHOT_SECONDS: Final = 15.0
FRAMES_SECONDS: Final = 1.0
"""For frames that are on their way: the driver waits for each, and some, of advertisements say, never arrive."""
IDLE_FRAMES_SECONDS: Final = 0.3
"""For frames that nothing is on its way to: lazy ones out of sight, say, and addresses that the browser does not open.
The driver waits for them as well, to the end of its time; the others have answered by then."""
LARGE_SECONDS: Final = 3.0
"""For a page too large to be seen while its frames were waited for. What the driver is given more, it waits."""
OVERVIEW_DEPTH: Final = 6
FIND_SECONDS: Final = 5.0
_TRIES: Final = 3
_REF: Final = re.compile(r"\[?(?:ref=)?((?:f\d+)?e\d+)\]?")


async def page_state(pages: Pages, *, ref: str | None = None, depth: int | None = None) -> str:
    """The current page for a model: address, title, tree of elements. What a dialog hides is left out."""
    tab = pages.current
    root = await find(tab, ref, "the part") if ref else None
    if tab.dialog is not None:
        return f"{await tab_list(pages)}{_head(tab, '')}"
    tree = await _tree(pages, root, depth)
    title = await tab.title()
    return f"{await tab_list(pages)}{_head(tab, title)}\n- Page Snapshot:\n```yaml\n{cut(tree)}\n```"


async def tab_list(pages: Pages, *, always: bool = False) -> str:
    """The tabs, if there are several."""
    if len(pages.tabs) < 2 and not always:
        return ""
    lines = []
    for number, tab in enumerate(pages.tabs, 1):
        mark = "(current) " if tab is pages.current_or_none() else ""
        lines.append(f"- {number}: {mark}[{await _title(tab)}] ({one_line(tab.page.url)})\n")
    return (
        f"### Open tabs\n{''.join(lines)}### Current tab\n"
        if not always
        else f"### Open tabs\n{''.join(lines)}"
    )


async def find(tab: Tab, ref: str, element: str) -> Locator:
    """The element of that ref. Raises `ToolError` at once when it is no longer there."""
    matched = _REF.fullmatch(ref.strip())
    if matched is None:
        raise ToolError(f"{one_line(ref)!r} is no ref. Take it from the snapshot: for [ref=e12] it is e12.")
    locator = tab.page.get_by_ref(matched[1])
    try:
        async with asyncio.timeout(FIND_SECONDS):
            found = await locator.count()
    except TimeoutError:
        raise ToolError(
            "The page does not answer. Wait a little with browser_wait_for, or load it anew."
        ) from None
    except Error as error:
        if tab.page.is_closed() or "crash" in error.message.lower():
            raise
        found = 0  # its frame is gone
    if not found:
        raise ToolError(
            f"{named(element, matched[1])} is not on the page (any more): refs are good only until the page changes. "
            "Call browser_snapshot and use the ref it has now."
        )
    return locator


def named(element: str, ref: str) -> str:
    """How an answer calls an element."""
    return f"{one_line(element)} ({ref})" if element else ref


def cut(tree: str) -> str:
    """As much of it as a model is given, with what to do about the rest."""
    data = tree.encode()
    if len(data) <= SNAPSHOT_BYTES:
        return tree
    kept = data[:SNAPSHOT_BYTES].decode(errors="ignore")
    end = kept.rfind("\n")
    if end > len(kept) // 2:  # else one line is most of it
        kept = kept[:end]
    return (
        f"{kept}\n# Cut: the first {SNAPSHOT_BYTES // 1000} of {len(data) // 1000} kB are shown. For a part, call "
        "browser_snapshot with the ref of an element that contains it; for an overview, with a depth, such as "
        f"{OVERVIEW_DEPTH}."
    )


def _head(tab: Tab, title: str) -> str:
    return f"- Page URL: {one_line(tab.page.url, 2000)}\n- Page Title: {title}"


async def _title(tab: Tab) -> str:
    try:
        return await tab.title()
    except Error:
        return ""  # it is just being closed or replaced


async def _tree(pages: Pages, root: Locator | None, depth: int | None) -> str:
    tab = pages.current
    patience = _patience(tab)
    replaced = 0
    while patience:
        began = time.monotonic()
        try:
            tree = await (root or tab.page).aria_snapshot(mode="ai", depth=depth, timeout=patience[0] * 1000)
        except PageTimeout:
            del patience[0]
        except Error:
            # Another page took its place in the meantime.
            replaced += 1
            if replaced == _TRIES or tab.page.is_closed():
                raise
            await tab.page.wait_for_load_state("domcontentloaded", timeout=SNAPSHOT_SECONDS * 1000)
        else:
            if (
                time.monotonic() - began >= patience[0]
            ):  # then the driver leaves out frames that it waited for
                pages.notices.append("- Frames of the page that have not arrived are left out.")
            return tree
    raise ToolError(_BUSY)


def _patience(tab: Tab) -> list[float]:
    """Seconds for the first look, and for each after one that was too short to see the page itself."""
    if tab.awaits_frames():
        return [FRAMES_SECONDS, LARGE_SECONDS, SNAPSHOT_SECONDS]
    if tab.has_idle_frames():
        return [IDLE_FRAMES_SECONDS, FRAMES_SECONDS, LARGE_SECONDS, SNAPSHOT_SECONDS]
    return [SNAPSHOT_SECONDS]


_BUSY: Final = (
    f"The page was too busy, or is too large, to be seen within {SNAPSHOT_SECONDS:.0f} s. Call browser_snapshot with a "
    f"depth, such as {OVERVIEW_DEPTH}, or again a little later."
)
