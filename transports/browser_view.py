"""Looking into a session's browser: `GET /sessions/{session}/browser`, a page that shows it live.

Whoever has a link sees what the agent's browser shows; with a link that is good for it, a person may take the browser
over. The agent's calls then wait, and go on with the same page after it is handed back, which also happens when the
person's connection ends. Looking starts no browser.

Over the WebSocket come pictures (binary, JPEG), `{"type": "page", "url", "title", "width", "height"}`, and
`{"type": "state", "holder": "waiting" | "agent" | "taking" | "you" | "other", "control": bool}`; to it go
`{"type": "take"}`, `{"type": "give"}` and, while one holds the browser, the input of `greenroom.sandbox.image.live`.
`taking`: the person has asked for the browser, and the agent's call is not yet over; `give` takes that back.
"""

from __future__ import annotations

import logging
import secrets
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio
import msgspec
from aiohttp import ClientWebSocketResponse, WSCloseCode, WSMsgType, web
from anyio import to_thread

from greenroom.actors.errors import InvalidRequest, SandboxError
from greenroom.actors.messages import SessionKey
from greenroom.transports.looking import Browsers, Looking
from greenroom.transports.transport import Host
from greenroom.transports.view_tickets import Ticket

logger = logging.getLogger("greenroom.http")

PAGE: Final = Path(__file__).with_name("browser_view.html")
LOOK_SECONDS: Final = 0.5
"""How often a view without a browser looks whether there is one, and every view whether the application stops."""
MESSAGE_BYTES: Final = 64 * 1024
"""The longest message of a person: a pasted text."""
EXPIRED: Final = 4000
"""The WebSocket's closing code when the link's time is over; 1008 is for what was refused."""

STOPPING: Final = ("draining", "stopped")
INPUT: Final = frozenset({"mouse", "wheel", "key", "text", "navigate", "back", "forward", "reload", "dialog"})
OF_THE_BOX: Final = frozenset({"page", "dialog", "error"})
"""Messages that a box may send to a person. Who has the browser is not for it to say."""
Socket: TypeAlias = web.WebSocketResponse


class BrowserViewRoutes:
    """The page and its WebSocket."""

    def __init__(self, host: Host, looking: Looking) -> None:
        self._host = host
        self._browsers = looking.browsers
        self._tickets = looking.tickets
        # Of each session the one who has its browser, or is to have it next.
        self._holders: dict[SessionKey, _View] = {}

    def routes(self) -> list[web.RouteDef]:
        """The routes, for an aiohttp application."""
        return [
            web.get("/sessions/{session}/browser", self.page, allow_head=False),
            web.get("/sessions/{session}/browser/live", self.live, allow_head=False),
        ]

    async def page(self, request: web.Request) -> web.Response:
        """The page. Nothing of it is kept by caches, and the link goes to no other site."""
        self._ticket(request)
        nonce = secrets.token_urlsafe(16)
        page = await to_thread.run_sync(PAGE.read_text, "utf-8")
        return web.Response(
            text=page.replace("{nonce}", nonce),
            content_type="text/html",
            headers={
                "Cache-Control": "no-store",
                "Referrer-Policy": "no-referrer",
                "X-Content-Type-Options": "nosniff",
                "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; "
                f"frame-ancestors 'self'; script-src 'nonce-{nonce}'",
            },
        )

    async def live(self, request: web.Request) -> web.StreamResponse:
        """The browser, until the person goes, the link's time is over, or the application stops."""
        ticket = self._ticket(request)
        socket = web.WebSocketResponse(max_msg_size=MESSAGE_BYTES, heartbeat=30, compress=False)
        if not socket.can_prepare(request):
            raise InvalidRequest("this is for a WebSocket; open the link without /live in a browser")
        await socket.prepare(request)
        view = _View(self._host, self._browsers, ticket, socket, self._holders)
        with anyio.move_on_after(ticket.left) as patience:
            await view.run()
        if patience.cancelled_caught:
            await socket.close(code=EXPIRED, message=b"The link's time is over.")
        return socket

    def _ticket(self, request: web.Request) -> Ticket:
        return self._tickets.read(request.query.get("ticket", ""), request.match_info["session"])


class _View:
    """One person who looks."""

    def __init__(
        self,
        host: Host,
        browsers: Browsers,
        ticket: Ticket,
        socket: Socket,
        holders: dict[SessionKey, _View],
    ) -> None:
        self._host = host
        self._browsers = browsers
        self._key = ticket.key
        self._control = ticket.control
        self._socket = socket
        self._holders = holders
        self._box: ClientWebSocketResponse | None = None
        self._told = ""
        self._work = anyio.create_task_group()
        self._taking: anyio.CancelScope | None = None

    async def run(self) -> None:
        """Show the browser and take the person's messages until one of them ends."""
        try:
            async with self._work as work:
                work.start_soon(self._watch, work.cancel_scope)
                work.start_soon(self._show)
                await self._listen()
                work.cancel_scope.cancel()
        except* ConnectionError:
            pass  # the person went while something was on its way to him
        finally:
            self._give()

    # -- from the browser ------------------------------------------------------------------------------------------

    async def _show(self) -> None:
        while True:
            if self._browsers.browsing(self._key):
                try:
                    await self._show_one()
                except SandboxError as error:  # it may end at any time; then the next one is shown
                    logger.debug("a view of session %r ended: %s", self._key.session_id, error)
            await self._tell("waiting")
            await anyio.sleep(LOOK_SECONDS)

    async def _show_one(self) -> None:
        async with self._browsers.look(self._key) as client, client.live(input=self._control) as box:
            self._box = box
            try:
                await self._tell_holder()
                async for message in box:
                    if message.type is WSMsgType.BINARY:
                        await self._socket.send_bytes(message.data)  # a slow viewer slows the pictures
                    elif _kind_of(_decoded(message.data)) in OF_THE_BOX:
                        await self._socket.send_str(message.data)
            finally:
                self._box = None
                self._give()

    async def _watch(self, all_of_it: anyio.CancelScope) -> None:
        """End with the application, and say who holds the browser when that changes."""
        while self._host.state not in STOPPING:
            await anyio.sleep(LOOK_SECONDS)
            if self._box is not None:
                await self._tell_holder()
        await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"The server is stopping.")
        all_of_it.cancel()

    # -- from the person -------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        async for message in self._socket:
            if message.type is not WSMsgType.TEXT or not await self._do(_decoded(message.data)):
                await self._socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"That was no message.")
                return

    async def _do(self, message: dict[str, Any] | None) -> bool:
        """Whether it is a message that there is."""
        kind = _kind_of(message)
        if kind == "take":
            self._ask()
            await self._tell_holder()
        elif kind == "give":
            self._give()
            await self._tell_holder()
        elif kind in INPUT:
            if self._holds and self._box is not None:
                await self._box.send_str(msgspec.json.encode(message).decode())
        else:
            return False
        return True

    @property
    def _holds(self) -> bool:
        return self._holders.get(self._key) is self and self._taking is None

    def _ask(self) -> None:
        """The person gets the browser when the agent's call is over, if nobody has it or is about to."""
        if self._control and self._box is not None and self._key not in self._holders:
            self._holders[self._key] = self
            self._taking = anyio.CancelScope()
            self._work.start_soon(self._take, self._taking)

    async def _take(self, taking: anyio.CancelScope) -> None:
        """Messages are read meanwhile, so that he may think better of it, or go."""
        taken = False
        try:
            with taking:
                await self._browsers.take_over(self._key)
                taken = True
            taken = taken and not taking.cancel_called  # in the moment when it was over
        finally:
            self._taking = None
            if not taken:
                del self._holders[self._key]
                self._browsers.hand_back(self._key)
        await self._tell_holder()

    def _give(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
        elif self._holds:
            del self._holders[self._key]
            if self._host.state in STOPPING:
                self._browsers.stops(self._key)
            else:
                self._browsers.hand_back(self._key)

    # -- to the person ---------------------------------------------------------------------------------------------

    async def _tell_holder(self) -> None:
        if self._box is not None:
            holder = self._holders.get(self._key)
            if holder is self:
                await self._tell("you" if self._holds else "taking")
            else:
                await self._tell("other" if holder is not None and holder._holds else "agent")

    async def _tell(self, holder: str) -> None:
        state = {"type": "state", "holder": holder, "control": self._control}
        text = msgspec.json.encode(state).decode()
        if text != self._told:
            self._told = text
            await self._socket.send_str(text)


def _kind_of(message: dict[str, Any] | None) -> str:
    kind = message.get("type") if message is not None else None
    return kind if isinstance(kind, str) else ""


def _decoded(text: str) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return None
