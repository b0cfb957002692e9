"""One call of a tool, from its arguments to its answer; dialogs interrupt it, and answering them resumes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from playwright.async_api import Error
from playwright.async_api import TimeoutError as PageTimeout

from greenroom.sandbox.image import acting, looking
from greenroom.sandbox.image.answers import Said, ToolError, answer, one_line
from greenroom.sandbox.image.settling import arrived, settle
from greenroom.sandbox.image.snapshot import page_state

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from playwright.async_api import Dialog, Request

    from greenroom.sandbox.image.pages import Pages
    from greenroom.sandbox.image.tab import Tab

Arguments: TypeAlias = dict[str, Any]
Answer: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Tool:
    """`acts`: its effects are awaited, and the page is shown afterwards. `in_dialog`: it works while a dialog is open.
    `waits`: it needs the page that is on its way."""

    run: Callable[[Pages, Arguments], Awaitable[Said]]
    acts: bool = True
    in_dialog: bool = False
    waits: bool = True


HANDLE_DIALOG: Final = "browser_handle_dialog"
TOOLS: Final = {
    "browser_navigate": Tool(acting.navigate, waits=False),
    "browser_navigate_back": Tool(acting.navigate_back),
    "browser_navigate_forward": Tool(acting.navigate_forward),
    "browser_snapshot": Tool(looking.snapshot, acts=False),
    "browser_take_screenshot": Tool(looking.take_screenshot, acts=False),
    "browser_wait_for": Tool(acting.wait_for),
    "browser_resize": Tool(acting.resize),
    "browser_close": Tool(looking.close, in_dialog=True, waits=False),
    "browser_click": Tool(acting.click),
    "browser_type": Tool(acting.type_text),
    "browser_select_option": Tool(acting.select_option),
    "browser_hover": Tool(acting.hover),
    "browser_drag": Tool(acting.drag),
    "browser_press_key": Tool(acting.press_key),
    "browser_file_upload": Tool(acting.file_upload),
    "browser_console_messages": Tool(looking.console_messages, acts=False, in_dialog=True, waits=False),
    "browser_network_requests": Tool(looking.network_requests, acts=False, in_dialog=True, waits=False),
    "browser_pdf_save": Tool(looking.pdf_save, acts=False),
    "browser_tab_list": Tool(looking.tab_listing, acts=False, in_dialog=True, waits=False),
    "browser_tab_new": Tool(looking.tab_new, in_dialog=True, waits=False),
    "browser_tab_select": Tool(looking.tab_select, in_dialog=True, waits=False),
    "browser_tab_close": Tool(looking.tab_close, in_dialog=True, waits=False),
}


async def carry_out(pages: Pages, name: str, given: Arguments) -> Answer:
    """Raises `ToolError` and the driver's errors."""
    await _end_answered(pages.current)
    dialog = pages.current.dialog
    if name == HANDLE_DIALOG:
        return await _handle_dialog(pages, given)
    tool = TOOLS[name]
    if dialog is not None and not tool.in_dialog:
        raise ToolError(f"{name} cannot be done now: {_asks(dialog)}")
    return await _unless_asked(pages, asyncio.create_task(_run(pages, tool, given)), known=pages.dialogs())


async def _end_answered(tab: Tab) -> None:
    """A call stood still for a dialog that a person has answered since: nobody waits for what it says."""
    if tab.suspended is not None and tab.dialog is None:
        task, tab.suspended = tab.suspended, None
        task.cancel()
        await asyncio.wait({task})


async def _run(pages: Pages, tool: Tool, given: Arguments) -> Answer:
    if tool.waits:
        await arrived(pages)
    before = frozenset(pages.current.under_way())
    pages.acting = tool.acts
    try:
        said = await tool.run(pages, given)
        if tool.acts:
            return await _after(pages, said.text, before)
    finally:
        pages.acting = False
    return answer([said.text, *told(pages)], picture=said.picture)


async def _after(pages: Pages, text: str, before: AbstractSet[Request]) -> Answer:
    if pages.current.dialog is None:
        await settle(pages, before)
    state = await page_state(pages)  # what is to be told may happen while it is made
    return answer([text, *told(pages), state])


async def _unless_asked(
    pages: Pages, task: asyncio.Task[Answer], known: frozenset[Dialog] = frozenset()
) -> Answer:
    """The task's answer, or, when another dialog opens first, what is asked: the task then stays with the tab."""
    while True:
        tab = await _first(task, asyncio.create_task(pages.until_dialog(known)))
        if tab is None:
            return task.result()
        if tab.dialog is not None:  # else a person was quicker to answer it
            break
    tab.suspended = task
    task.add_done_callback(_noticed)
    return answer([_asks(tab.dialog), *told(pages), await page_state(pages)])


async def _first(task: asyncio.Task[Answer], asked: asyncio.Task[Tab]) -> Tab | None:
    """Wait for one of them; none: the task is done. When this is cancelled, so is the task."""
    try:
        await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task})
        raise
    finally:
        asked.cancel()
    return None if task.done() else asked.result()


def _noticed(task: asyncio.Task[Answer]) -> None:
    """Nobody asks any more what became of a call whose tab was closed."""
    if not task.cancelled():
        task.exception()


async def _handle_dialog(pages: Pages, given: Arguments) -> Answer:
    tab = pages.current
    if tab.dialog is None:
        raise ToolError("No dialog is open.")
    accept, text = given["accept"], given.get("promptText")
    said = f"{'Accepted' if accept else 'Dismissed'} the {tab.dialog.type} {one_line(tab.dialog.message)!r}."
    pages.notices.append(said)
    task, tab.suspended = tab.suspended, None
    await tab.answer_dialog(accept, text)
    return await _unless_asked(pages, asyncio.create_task(_resume(pages, tab, task)))


async def _resume(pages: Pages, tab: Tab, task: asyncio.Task[Answer] | None) -> Answer:
    """What the call says that stood still; if there was none, or its time had run out, what the page is now."""
    if task is not None:
        try:
            return await task
        except PageTimeout:
            pass  # it waited for the page, which waited for this answer
    return await _after(pages, "", frozenset(tab.under_way()))


def told(pages: Pages) -> list[str]:
    """What happened by itself since the last answer, and what waits for one."""
    lines = [*pages.notices, *pages.downloads.under_way()]
    pages.notices.clear()
    for number, tab in enumerate(pages.tabs, 1):
        if tab.dialog is not None and tab is not pages.current_or_none():
            lines.append(f"- Tab {number} has an open dialog: browser_tab_select it to answer.")
    if pages.current.chooser is not None:
        lines.append("- A file chooser is open: give it files with browser_file_upload.")
    return lines


def _asks(dialog: Dialog) -> str:
    prefilled = f", which suggests {one_line(dialog.default_value)!r}" if dialog.default_value else ""
    kinds = {"beforeunload": "question whether to leave the page"}
    return (
        f"The page has opened a dialog ({kinds.get(dialog.type, dialog.type)}{prefilled}) and waits: "
        f"{one_line(dialog.message, 1000)!r}. Answer it with {HANDLE_DIALOG}, then go on."
    )


def explained(name: str, error: Error) -> str:
    """The driver's error for a model: what, and what the driver saw last."""
    first, _, log = error.message.partition("\n")
    if isinstance(error, PageTimeout):
        seen = [line.strip(" -") for line in log.splitlines() if line.strip().startswith("-")]
        last = "; ".join(dict.fromkeys(one_line(line) for line in seen[-8:]))
        return (
            f"{name} was not possible in time. The driver saw: {last or one_line(first)}. The element may be hidden, "
            "covered or disabled: look at a new browser_snapshot, or at browser_take_screenshot."
        )
    return f"{name} failed: {one_line(first, 500)}"
