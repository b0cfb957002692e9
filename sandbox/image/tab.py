"""One page of the browser, and what is remembered of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from playwright.async_api import Error

from greenroom.sandbox.image.answers import one_line

if TYPE_CHECKING:
    from asyncio import Task
    from typing import Any

    from playwright.async_api import ConsoleMessage, Dialog, FileChooser, Frame, Page, Request, Response

    from greenroom.sandbox.image.bell import Bell

CONSOLE_LENGTH: Final = 200
REQUESTS_LENGTH: Final = 300
"""Older ones are forgotten."""
WAITED_FOR: Final = frozenset({"document", "script", "stylesheet", "xhr", "fetch"})
"""Requests that change what a page says; pictures, streams and sockets are not waited for."""


@dataclass(slots=True)
class Exchange:
    """A request of the page. `ending`: the status, or why there is none; empty while it is under way."""

    method: str
    url: str
    kind: str
    opens_page: bool
    ending: str = ""

    def __str__(self) -> str:
        return f"[{self.method}] {one_line(self.url, 300)} ({self.kind}) => {self.ending or 'under way'}"


class Tab:
    """Listens to a page. All changes ring the bell."""

    def __init__(self, page: Page, bell: Bell) -> None:
        self.page = page
        self.dialogs: deque[Dialog] = deque()
        self.chooser: FileChooser | None = None
        self.console: deque[str] = deque(maxlen=CONSOLE_LENGTH)
        self.exchanges: deque[Exchange] = deque(maxlen=REQUESTS_LENGTH)
        self.suspended: Task[dict[str, Any]] | None = None
        """The call that stands still because of a dialog."""
        self.stopped = False
        """Loading was stopped."""
        self._under_way: dict[Request, Exchange] = {}
        self._bell = bell
        page.on("console", self._console)
        page.on("pageerror", self._page_error)
        page.on("request", self._request)
        page.on("response", self._response)
        page.on("requestfinished", self._request_finished)
        page.on("requestfailed", self._request_failed)
        page.on("filechooser", self._file_chooser)
        page.on("framenavigated", self._navigated)
        page.on("domcontentloaded", lambda _page: bell.ring())

    def __repr__(self) -> str:
        return f"<Tab {one_line(self.page.url)}>"

    @property
    def dialog(self) -> Dialog | None:
        """What the page asks and stands still for."""
        return self.dialogs[0] if self.dialogs else None

    async def title(self) -> str:
        """The page's title; empty while a dialog is open, when nobody answers for the page."""
        return "" if self.dialogs else one_line(await self.page.title())

    def under_way(self) -> dict[Request, Exchange]:
        """Requests that are worth waiting for."""
        return {request: it for request, it in self._under_way.items() if it.kind in WAITED_FOR}

    def awaits_page(self) -> bool:
        """Whether another page is on its way."""
        return any(exchange.opens_page for exchange in self._under_way.values())

    def awaits_frames(self) -> bool:
        """Whether frames of the page are on their way, or never will be there because loading was stopped."""
        return self.stopped or any(exchange.kind == "document" for exchange in self._under_way.values())

    def has_idle_frames(self) -> bool:
        """Whether the page has frames in which no page, not even an empty one, has arrived so far."""
        return any(not frame.url for frame in self.page.frames)

    async def answer_dialog(self, accept: bool, text: str | None = None) -> None:
        """Answer the dialog that is open; `text` none: with what it suggests. One whose page is gone is fine."""
        dialog = self.dialogs.popleft()
        self._bell.ring()
        text = dialog.default_value if text is None else text
        try:
            await (dialog.accept(text) if accept else dialog.dismiss())
        except Error:
            if not self.page.is_closed():
                self.console.append(
                    f"[greenroom] the dialog {one_line(dialog.message)!r} was gone when answered"
                )

    def ask(self, dialog: Dialog) -> None:
        """A dialog opened."""
        self.dialogs.append(dialog)
        self._bell.ring()

    def _console(self, message: ConsoleMessage) -> None:
        place = message.location
        where = f" @ {one_line(place['url'], 100)}:{place['lineNumber']}" if place["url"] else ""
        self.console.append(f"[{message.type.upper()}] {one_line(message.text, 1000)}{where}")

    def _page_error(self, error: Error) -> None:
        self.console.append(f"[EXCEPTION] {one_line(str(error), 1000)}")

    def _request(self, request: Request) -> None:
        opens_page = request.is_navigation_request() and self._of_main_frame(request)
        if opens_page and request.redirected_from is None:
            self.exchanges.clear()
            self.console.clear()
            self.chooser = None
            self.stopped = False
        exchange = Exchange(request.method, request.url, request.resource_type, opens_page)
        self.exchanges.append(exchange)
        self._under_way[request] = exchange

    def _of_main_frame(self, request: Request) -> bool:
        try:
            return request.frame == self.page.main_frame
        except Error:  # a page that is being opened has no frame yet
            return True

    def _response(self, response: Response) -> None:
        exchange = self._under_way.get(response.request)
        if exchange is not None:
            exchange.ending = f"[{response.status}] {response.status_text}".strip()

    def _request_finished(self, request: Request) -> None:
        self._under_way.pop(request, None)
        self._bell.ring()

    def _request_failed(self, request: Request) -> None:
        exchange = self._under_way.pop(request, None)
        if exchange is not None:
            exchange.ending = request.failure or "failed"
        self._bell.ring()

    def _file_chooser(self, chooser: FileChooser) -> None:
        self.chooser = chooser
        self._bell.ring()

    def _navigated(self, frame: Frame) -> None:
        if frame == self.page.main_frame:
            self._bell.ring()
