"""Looking into the browser while it is used, and using it: what goes over the websocket.

Out, binary: JPEG pictures of the current page, one when it changes. The next is made when the last was sent, so that a
slow viewer gets fewer pictures and does not slow the browser. Out, text (JSON):

- `{"type": "page", "url", "title", "width", "height"}`: what is shown; width and height in CSS pixels
- `{"type": "dialog", "kind", "message", "value"}`: the page asks something; `kind` null: no longer
- `{"type": "error", "text"}`: a message that was not understood, or not allowed

In, text (JSON), where the viewer may act; positions in CSS pixels of the page:

- `{"type": "mouse", "event": "down" | "up" | "move", "x", "y", "button": "left" | "middle" | "right" | "none",
  "clicks": 1, "modifiers": 0}`
- `{"type": "wheel", "x", "y", "dx", "dy"}`
- `{"type": "key", "event": "down" | "up", "key", "code", "keyCode", "modifiers"}`: as in the DOM's KeyboardEvent
- `{"type": "text", "text"}`: put in as it is, as by an input method or the clipboard
- `{"type": "navigate", "url"}`, `{"type": "back"}`, `{"type": "forward"}`, `{"type": "reload"}`
- `{"type": "dialog", "accept": true, "text"}`: the answer to the page's question

`modifiers`: 1 Alt, 2 Control, 4 Meta, 8 Shift, added.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from playwright.async_api import Error

from greenroom.sandbox.image.answers import ToolError
from greenroom.sandbox.image.live_input import Hands

if TYPE_CHECKING:
    from aiohttp import web
    from playwright.async_api import CDPSession

    from greenroom.sandbox.image.bell import Bell
    from greenroom.sandbox.image.pages import Pages
    from greenroom.sandbox.image.tab import Tab

_log = logging.getLogger(__name__)

PICTURE: Final = {"format": "jpeg", "quality": 60, "maxWidth": 1280, "maxHeight": 1280, "everyNthFrame": 1}
_TITLE_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 1.0
"""Nothing tells when a title changes."""


class Viewer:
    """One who looks."""

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        pages: Callable[[], Pages | None],
        bell: Bell,
        *,
        may_act: bool,
    ) -> None:
        self._websocket = websocket
        self._pages = pages
        self._bell = bell
        self._may_act = may_act
        self._hands: Hands | None = None
        self._told: dict[str, str] = {}

    async def run(self) -> None:
        """Until the websocket closes."""
        showing = asyncio.create_task(self._show())
        listening = asyncio.create_task(self._listen())
        try:
            done, _ = await asyncio.wait({showing, listening}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            showing.cancel()
            listening.cancel()
            await asyncio.wait({showing, listening})
        for task in done:
            _raise_trouble(task)

    async def _show(self) -> None:
        """Show the current page, whichever it is."""
        while not self._websocket.closed:
            pages = self._pages()
            tab = pages.current_or_none() if pages is not None else None
            if pages is None or tab is None:
                await self._bell.rung()
                continue
            try:
                session = await pages.context.new_cdp_session(tab.page)
                try:
                    await self._show_tab(pages, tab, session)
                finally:
                    await session.detach()
            except Error as error:
                # Mostly because the page is gone or gives way to one in another process; there will be another.
                _log.debug("the view of %r ended: %s", tab, error)
                await self._rung_or_a_while()

    async def _rung_or_a_while(self) -> None:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._bell.rung()
        except TimeoutError:
            return

    async def _show_tab(self, pages: Pages, tab: Tab, session: CDPSession) -> None:
        frames: asyncio.Queue[dict[str, Any]] = (
            asyncio.Queue()
        )  # the browser waits for each to be acknowledged
        session.on("Page.screencastFrame", frames.put_nowait)
        hands = self._hands = Hands(pages, tab, session)
        sending = asyncio.create_task(self._send_frames(session, frames))
        try:
            await session.send("Page.startScreencast", PICTURE)
            while self._is_current(tab) and not sending.done():
                rung = asyncio.create_task(self._bell.rung())
                try:
                    await self._tell(tab)
                    await asyncio.wait(
                        {rung, sending}, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
                    )
                finally:
                    rung.cancel()
        finally:
            self._hands = None
            sending.cancel()
            hands.rest()
            await asyncio.wait({sending})
        _raise_trouble(sending)

    def _is_current(self, tab: Tab) -> bool:
        pages = self._pages()
        return pages is not None and pages.current_or_none() is tab

    async def _send_frames(self, session: CDPSession, frames: asyncio.Queue[dict[str, Any]]) -> None:
        while True:
            frame = await frames.get()
            await self._websocket.send_bytes(base64.b64decode(frame["data"]))
            await session.send("Page.screencastFrameAck", {"sessionId": frame["sessionId"]})

    async def _tell(self, tab: Tab) -> None:
        """Say what is shown and what is asked, if that changed."""
        dialog = tab.dialog
        await self._say(
            {
                "type": "dialog",
                "kind": dialog.type if dialog else None,
                "message": dialog.message if dialog else "",
                "value": dialog.default_value if dialog else "",
            }
        )
        size = tab.page.viewport_size or {"width": 0, "height": 0}
        title = await _title(tab)
        await self._say(
            {
                "type": "page",
                "url": tab.page.url,
                "title": title,
                "width": size["width"],
                "height": size["height"],
            }
        )

    async def _say(self, message: dict[str, Any]) -> None:
        text = json.dumps(message)
        if self._told.get(message["type"]) != text:
            self._told[message["type"]] = text
            await self._websocket.send_str(text)

    async def _listen(self) -> None:
        from aiohttp import WSMsgType  # here, so that the browser starts before the server is imported

        async for message in self._websocket:
            if message.type is not WSMsgType.TEXT:
                continue
            try:
                self._act(json.loads(message.data))
            except (ToolError, ValueError, KeyError, TypeError) as error:
                text = str(error) if isinstance(error, ToolError) else f"not understood: {error!r}"
                await self._websocket.send_str(json.dumps({"type": "error", "text": text}))

    def _act(self, message: Any) -> None:
        if not self._may_act:
            raise ToolError("This view is for looking only.")
        if self._hands is None:
            raise ToolError("The browser shows no page just now.")
        self._hands.act(message)


async def _title(tab: Tab) -> str:
    try:
        async with asyncio.timeout(_TITLE_SECONDS):
            return await tab.title()
    except (Error, TimeoutError):
        return ""  # the page is busy or being replaced; the bell rings again when it is there


def _raise_trouble(task: asyncio.Task[None]) -> None:
    """A viewer that went away is no trouble."""
    if task.cancelled():
        return
    error = task.exception()
    if error is not None and not isinstance(error, ConnectionError):
        raise error
