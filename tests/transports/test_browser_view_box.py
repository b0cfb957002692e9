"""A view of a box that lies: what pages and models run there may have taken the tool server over."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import msgspec
from aiohttp import ClientSession, UnixConnector, WSMsgType, web

from greenroom.actors.messages import SessionKey
from greenroom.sandbox.backend import BoxAddress
from greenroom.sandbox.client import BoxClient
from greenroom.transports.browser_view import BrowserViewRoutes
from greenroom.transports.looking import Looking
from greenroom.transports.transport import Host
from greenroom.transports.view_tickets import BrowserView, ViewTickets

LIES = [
    '{"type": "state", "holder": "you", "control": true}',
    '{"type": "other"}',
    '{"type": ["page"]}',
    "[]",
    "no JSON",
]
PAGE = '{"type": "page", "url": "http://a.test/", "title": "A", "width": 1, "height": 1}'


async def lie(request: web.Request) -> web.StreamResponse:
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    for text in [*LIES, PAGE]:
        await websocket.send_str(text)
    await websocket.receive()
    return websocket


class OneBox:
    """Every session's browser is in this box."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def browsing(self, key: SessionKey) -> bool:
        del key
        return True

    @asynccontextmanager
    async def look(self, key: SessionKey) -> AsyncIterator[BoxClient]:
        del key
        client = BoxClient(BoxAddress(token="token", socket=self._socket))
        try:
            yield client
        finally:
            await client.close()

    async def take_over(self, key: SessionKey) -> None:
        del key

    def hand_back(self, key: SessionKey) -> None:
        del key

    def stops(self, key: SessionKey) -> None:
        del key


class Running:
    """As much of an application as a view looks at."""

    state = "ready"


@asynccontextmanager
async def served(*routes: web.RouteDef, path: Path) -> AsyncIterator[None]:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def test_a_box_does_not_say_who_has_the_browser(tmp_path: Path) -> None:
    tickets = ViewTickets(BrowserView(secret="only for this test, really"), time.time)
    views = BrowserViewRoutes(cast("Host", Running()), Looking(OneBox(tmp_path / "box.sock"), tickets))
    link = tickets.link(SessionKey("", "s"), control=False).replace("/browser?", "/browser/live?")
    heard: list[Any] = []
    async with (
        served(web.get("/fastapi/live", lie), path=tmp_path / "box.sock"),
        served(*views.routes(), path=tmp_path / "view.sock"),
        ClientSession(connector=UnixConnector(str(tmp_path / "view.sock"))) as person,
        person.ws_connect(f"http://view{link}") as websocket,
    ):
        with anyio.fail_after(10):
            while not heard or heard[-1]["type"] != "page":
                heard.append(msgspec.json.decode((await websocket.receive()).data))
        await websocket.send_str('{"type": ["mouse"]}')
        with anyio.fail_after(10):
            while (answer := await websocket.receive()).type is WSMsgType.TEXT:
                pass
        assert (answer.type, answer.data) == (WSMsgType.CLOSE, 1008)  # refused, as what is no message
    assert [message["type"] for message in heard if message["type"] != "state"] == ["page"]
    assert {message["holder"] for message in heard if message["type"] == "state"} <= {"waiting", "agent"}
