"""Views of a box that a test plays: one that lies, as pages and models that run there may have taken the tool server
over; and one that an agent's call keeps busy while people want it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import msgspec
from aiohttp import ClientSession, ClientWebSocketResponse, UnixConnector, WSMsgType, web

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
TOLD = web.AppKey("told", list[str])
PAGE = '{"type": "page", "url": "http://a.test/", "title": "A", "width": 1, "height": 1}'


async def lie(request: web.Request) -> web.StreamResponse:
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    for text in [*LIES, PAGE]:
        await websocket.send_str(text)
    await websocket.receive()
    return websocket


async def listen(request: web.Request) -> web.StreamResponse:
    """Shows nothing, and keeps what it is told."""
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    async for message in websocket:
        request.app[TOLD].append(message.data)
    return websocket


class OneBox:
    """Every session's browser is in this box. `free` is set when no call of the agent's is under way; `taken`: a person
    has it; `late`: it is free already when somebody gives up waiting for it."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.free = asyncio.Event()
        self.taken = False
        self.late = False

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
        self.taken = True
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            if not self.late:
                raise

    def hand_back(self, key: SessionKey) -> None:
        del key
        self.taken = False

    def stops(self, key: SessionKey) -> None:
        del key


class Running:
    """As much of an application as a view looks at."""

    state = "ready"


@asynccontextmanager
async def served(*routes: web.RouteDef, path: Path) -> AsyncIterator[list[str]]:
    """Gives what `listen` hears."""
    app = web.Application()
    app[TOLD] = []
    app.add_routes(routes)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        yield app[TOLD]
    finally:
        await runner.cleanup()


class Viewer:
    """A person who may take the browser over."""

    def __init__(self, websocket: ClientWebSocketResponse) -> None:
        self._websocket = websocket

    async def send(self, kind: str) -> None:
        await self._websocket.send_json({"type": kind})

    async def holder(self) -> str:
        """Who has the browser, as far as he is told next."""
        with anyio.fail_after(10):
            message = await self._websocket.receive_json()
        assert message["type"] == "state"
        return str(message["holder"])

    async def go(self) -> None:
        await self._websocket.close()


class Scene:
    """`box`: what people look at; `told`: what it is told by them."""

    def __init__(self, box: OneBox, told: list[str], client: ClientSession, url: str) -> None:
        self.box = box
        self.told = told
        self._client = client
        self._url = url

    async def viewer(self) -> Viewer:
        """One more person, who sees that the agent has the browser."""
        viewer = Viewer(await self._client.ws_connect(self._url))
        assert await viewer.holder() == "agent"
        return viewer


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    box = OneBox(folder / "box.sock")
    tickets = ViewTickets(BrowserView(secret="only for this test, really"), time.time)
    views = BrowserViewRoutes(cast("Host", Running()), Looking(box, tickets))
    link = tickets.link(SessionKey("", "s"), control=True).replace("/browser?", "/browser/live?")
    async with (
        served(web.get("/fastapi/live", listen), path=folder / "box.sock") as told,
        served(*views.routes(), path=folder / "view.sock"),
        ClientSession(connector=UnixConnector(str(folder / "view.sock"))) as client,
    ):
        yield Scene(box, told, client, f"http://view{link}")


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


async def test_the_browser_is_a_person_s_when_the_agent_s_call_is_over_and_not_before(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        person, other = await at.viewer(), await at.viewer()
        await person.send("take")
        assert await person.holder() == "taking"
        await person.send("back")  # not his to do yet
        await person.send("give")
        assert await person.holder() == "agent"
        await person.send("take")
        assert await person.holder() == "taking"
        await other.send("take")  # one is before him
        at.box.free.set()
        assert await person.holder() == "you"
        assert await other.holder() == "other"
        await person.send("reload")
        await person.send("give")
        assert await person.holder() == "agent"
        assert await other.holder() == "agent"
        assert not at.box.taken
        assert [msgspec.json.decode(text) for text in at.told] == [{"type": "reload"}]


async def test_who_thinks_better_of_it_or_goes_takes_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        person, other = await at.viewer(), await at.viewer()
        await person.send("take")
        assert await person.holder() == "taking"
        await person.send("give")
        assert await person.holder() == "agent"
        assert not at.box.taken
        at.box.late = True
        await person.send("take")
        assert await person.holder() == "taking"
        await person.send("give")
        assert await person.holder() == "agent"
        assert not at.box.taken
        at.box.late = False
        await person.send("take")
        assert await person.holder() == "taking"
        await person.go()
        at.box.free.set()
        await other.send("take")
        while (holder := await other.holder()) != "you":
            assert holder == "taking"
        assert at.box.taken
