"""A person's mouse and keyboard, handed to a page."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final

from playwright.async_api import Error

from greenroom.sandbox.image.addresses import address_of
from greenroom.sandbox.image.answers import ToolError

if TYPE_CHECKING:
    from playwright.async_api import CDPSession

    from greenroom.sandbox.image.pages import Pages
    from greenroom.sandbox.image.tab import Tab

_log = logging.getLogger(__name__)

MOST_UNANSWERED: Final = 200
"""Inputs that the page has not taken yet; a page that hangs takes none."""
TEXT_LENGTH: Final = 100_000
_MOUSE: Final = {"down": "mousePressed", "up": "mouseReleased", "move": "mouseMoved"}
_BUTTONS: Final = frozenset({"none", "left", "middle", "right"})
_CONTROL_OR_ALT_OR_META: Final = 0b0111


class Hands:
    """Acts on one page. Inputs go in order and are not waited for: an input that opens a dialog is only answered once
    the dialog is."""

    def __init__(self, pages: Pages, tab: Tab, session: CDPSession) -> None:
        self._pages = pages
        self._tab = tab
        self._session = session
        self._unanswered: set[asyncio.Task[Any]] = set()

    def act(self, message: Mapping[str, Any]) -> None:
        """Raises `ToolError` for what may not be done, `KeyError`, `TypeError`, `ValueError` for what is no input."""
        kind = message["type"]
        if kind not in _ACTS:
            raise ToolError(f"There is no input of the type {kind!r}.")
        if len(self._unanswered) >= MOST_UNANSWERED:
            raise ToolError("The page does not answer; the input is dropped.")
        self._pages.person_acted()
        _ACTS[kind](self, message)

    def rest(self) -> None:
        """Another page is shown: nothing more of this."""
        for task in self._unanswered:
            task.cancel()

    def mouse(self, message: Mapping[str, Any]) -> None:
        button = message.get("button", "none")
        if button not in _BUTTONS:
            raise ToolError(f"There is no button {button!r}.")
        self._input(
            "Input.dispatchMouseEvent",
            type=_MOUSE[message["event"]],
            x=float(message["x"]),
            y=float(message["y"]),
            button=button,
            clickCount=int(message.get("clicks", 0 if message["event"] == "move" else 1)),
            modifiers=int(message.get("modifiers", 0)),
        )

    def wheel(self, message: Mapping[str, Any]) -> None:
        self._input(
            "Input.dispatchMouseEvent",
            type="mouseWheel",
            x=float(message["x"]),
            y=float(message["y"]),
            deltaX=float(message.get("dx", 0)),
            deltaY=float(message.get("dy", 0)),
            modifiers=int(message.get("modifiers", 0)),
        )

    def key(self, message: Mapping[str, Any]) -> None:
        key, modifiers = str(message["key"]), int(message.get("modifiers", 0))
        down = {"down": True, "up": False}[message["event"]]
        text = (
            "\r"
            if key == "Enter"
            else key
            if len(key) == 1 and not modifiers & _CONTROL_OR_ALT_OR_META
            else ""
        )
        self._input(
            "Input.dispatchKeyEvent",
            type=("keyDown" if text else "rawKeyDown") if down else "keyUp",
            key=key,
            code=str(message.get("code", "")),
            windowsVirtualKeyCode=int(message.get("keyCode", 0)),
            modifiers=modifiers,
            **({"text": text} if down and text else {}),
        )

    def text(self, message: Mapping[str, Any]) -> None:
        self._input("Input.insertText", text=str(message["text"])[:TEXT_LENGTH])

    def navigate(self, message: Mapping[str, Any]) -> None:
        self._input("Page.navigate", url=address_of(str(message["url"])))

    def back(self, message: Mapping[str, Any]) -> None:
        self._do(self._tab.page.go_back(wait_until="commit"))

    def forward(self, message: Mapping[str, Any]) -> None:
        self._do(self._tab.page.go_forward(wait_until="commit"))

    def reload(self, message: Mapping[str, Any]) -> None:
        self._do(self._tab.page.reload(wait_until="commit"))

    def dialog(self, message: Mapping[str, Any]) -> None:
        if self._tab.dialog is None:
            raise ToolError("No dialog is open.")
        text = message.get("text")
        self._do(self._tab.answer_dialog(bool(message["accept"]), None if text is None else str(text)))

    def _input(self, method: str, **parameters: Any) -> None:
        self._do(self._session.send(method, parameters))

    def _do(self, sent: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(sent)
        self._unanswered.add(task)
        task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[Any]) -> None:
        self._unanswered.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Error):
            _log.debug("an input came to nothing: %s", error)


_ACTS: Final = {
    "mouse": Hands.mouse,
    "wheel": Hands.wheel,
    "key": Hands.key,
    "text": Hands.text,
    "navigate": Hands.navigate,
    "back": Hands.back,
    "forward": Hands.forward,
    "reload": Hands.reload,
    "dialog": Hands.dialog,
}
