"""Tools that act on the current page."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from greenroom.sandbox.image.answers import Said, ToolError, one_line
from greenroom.sandbox.image.kept_files import read_upload
from greenroom.sandbox.image.navigating import NAVIGATION_SECONDS
from greenroom.sandbox.image.navigating import navigate as navigate_to
from greenroom.sandbox.image.snapshot import find, named

if TYPE_CHECKING:
    from greenroom.sandbox.image.pages import Pages

Arguments = dict[str, Any]

ACTION_MS: Final = 5_000
"""An element that cannot be acted on after so long (hidden, covered, disabled) will not become so by waiting."""
_NAVIGATION_MS: Final = NAVIGATION_SECONDS * 1000


async def navigate(pages: Pages, given: Arguments) -> Said:
    return await navigate_to(pages, given["url"])


async def navigate_back(pages: Pages, _given: Arguments) -> Said:
    return await _through_history(pages, -1, "There is no page to go back to.")


async def navigate_forward(pages: Pages, _given: Arguments) -> Said:
    return await _through_history(pages, 1, "There is no page to go forward to.")


async def _through_history(pages: Pages, step: int, none: str) -> Said:
    page = pages.current.page
    session = await pages.context.new_cdp_session(page)
    try:
        history = await session.send("Page.getNavigationHistory")
    finally:
        await session.detach()
    # The empty page that every tab begins with is no page somebody was on.
    target = history["currentIndex"] + step
    if not 0 <= target < len(history["entries"]) or (target == 0 and step < 0 and _is_empty(history)):
        raise ToolError(none)
    go = page.go_back if step < 0 else page.go_forward
    await go(wait_until="domcontentloaded", timeout=_NAVIGATION_MS)
    return Said(f"Went {'back' if step < 0 else 'forward'} to {one_line(page.url)}.")


def _is_empty(history: dict[str, Any]) -> bool:
    url: str = history["entries"][0]["url"]
    return url == "about:blank"


async def click(pages: Pages, given: Arguments) -> Said:
    locator = await find(pages.current, given["ref"], given["element"])
    await locator.click(timeout=ACTION_MS, no_wait_after=True)  # settle waits, and for more
    return Said(f"Clicked {named(given['element'], given['ref'])}.")


async def hover(pages: Pages, given: Arguments) -> Said:
    locator = await find(pages.current, given["ref"], given["element"])
    await locator.hover(timeout=ACTION_MS)
    return Said(f"The mouse is over {named(given['element'], given['ref'])}.")


async def type_text(pages: Pages, given: Arguments) -> Said:
    locator = await find(pages.current, given["ref"], given["element"])
    text: str = given["text"]
    if given.get("slowly"):
        await locator.focus(timeout=ACTION_MS)
        for character in text:  # one call each, so that a call that is given up stops here
            await locator.press_sequentially(character, timeout=ACTION_MS)
    else:
        await locator.fill(text, timeout=ACTION_MS)
    if given.get("submit"):
        await locator.press("Enter", timeout=ACTION_MS, no_wait_after=True)
    done = "Typed and submitted" if given.get("submit") else "Typed"
    return Said(f"{done} {one_line(text, 80)!r} into {named(given['element'], given['ref'])}.")


async def select_option(pages: Pages, given: Arguments) -> Said:
    locator = await find(pages.current, given["ref"], given["element"])
    offered: list[list[str]] | None = await locator.evaluate(
        "list => list.options ? [...list.options].map(it => [it.value, it.label]) : null", timeout=ACTION_MS
    )
    target = named(given["element"], given["ref"])
    if offered is None:
        raise ToolError(
            f"{target} is no select element. Click it, then click the option in the new snapshot."
        )
    values = [_value_of(wanted, offered, target) for wanted in given["values"]]
    await locator.select_option(value=values, timeout=ACTION_MS)
    return Said(f"Chose {', '.join(map(repr, given['values'])) or 'nothing'} in {target}.")


def _value_of(wanted: str, offered: list[list[str]], target: str) -> str:
    for value, label in offered:
        if wanted in {value, label, label.strip()}:
            return value
    labels = one_line(", ".join(repr(label.strip() or value) for value, label in offered), 1500)
    raise ToolError(f"{target} has no option {wanted!r}. It has: {labels}.")


async def drag(pages: Pages, given: Arguments) -> Said:
    start = await find(pages.current, given["startRef"], given["startElement"])
    end = await find(pages.current, given["endRef"], given["endElement"])
    await start.drag_to(end, timeout=ACTION_MS)
    return Said(
        f"Dragged {named(given['startElement'], given['startRef'])} onto {named(given['endElement'], given['endRef'])}."
    )


async def press_key(pages: Pages, given: Arguments) -> Said:
    await pages.current.page.keyboard.press(given["key"])
    return Said(f"Pressed {one_line(given['key'])}.")


async def file_upload(pages: Pages, given: Arguments) -> Said:
    tab = pages.current
    if tab.chooser is None:
        raise ToolError("No file chooser is open. Click the page's upload button or file field first.")
    paths: list[str] = given["paths"]
    if not paths:
        tab.chooser = None
        return Said("The file chooser is cancelled.")
    if len(paths) > 1 and not tab.chooser.is_multiple():
        raise ToolError("This file chooser takes one file only.")
    files = [await asyncio.to_thread(read_upload, pages.workspace, path) for path in paths]
    chooser, tab.chooser = tab.chooser, None
    await chooser.set_files([dict(file) for file in files], timeout=ACTION_MS)  # type: ignore[arg-type]
    return Said(f"Gave {', '.join(file['name'] for file in files)} to the page.")


async def wait_for(pages: Pages, given: Arguments) -> Said:
    page, waited = pages.current.page, []
    if "time" in given:
        await asyncio.sleep(given["time"])
        waited.append(f"waited {given['time']:g} s")
    if given.get("text"):
        await page.get_by_text(given["text"]).filter(visible=True).first.wait_for(timeout=0)
        waited.append(f"{one_line(given['text'])!r} is there")
    if given.get("textGone"):
        await (
            page.get_by_text(given["textGone"]).filter(visible=True).first.wait_for(state="hidden", timeout=0)
        )
        waited.append(f"{one_line(given['textGone'])!r} is gone")
    if not waited:
        raise ToolError("browser_wait_for needs one of time, text and textGone.")
    return Said(f"Done: {', '.join(waited)}.")


async def resize(pages: Pages, given: Arguments) -> Said:
    await pages.current.page.set_viewport_size({"width": given["width"], "height": given["height"]})
    return Said(f"The window is {given['width']} x {given['height']} now.")
