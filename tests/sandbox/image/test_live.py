"""Looking into the browser, and using it, over a websocket."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web

from kits.browser_here import Browsing, browsing, ref_of
from kits.site import site

pytestmark = pytest.mark.slow

TALL = "<title>Tall</title><body style='height:5000px;margin:0'>"


class View:
    """A viewer's end of the websocket. What came is searched from the last `forget` on."""

    def __init__(self, websocket: ClientWebSocketResponse) -> None:
        self.websocket = websocket
        self._came: list[Any] = []

    async def until(self, wanted: Callable[[Any], bool]) -> Any:
        """The first message (JSON, or bytes of a picture) that is wanted."""
        looked_at = 0
        async with asyncio.timeout(15):
            while True:
                for said in self._came[looked_at:]:
                    if wanted(said):
                        return said
                looked_at = len(self._came)
                message = await self.websocket.receive()
                assert message.type in {WSMsgType.TEXT, WSMsgType.BINARY}, message
                self._came.append(
                    json.loads(message.data) if message.type is WSMsgType.TEXT else message.data
                )

    def forget(self) -> None:
        self._came.clear()

    async def picture(self) -> None:
        picture = await self.until(lambda said: isinstance(said, bytes))
        assert picture.startswith(b"\xff\xd8\xff")

    async def page(self, title: str) -> dict[str, Any]:
        return await self.said("page", title=title)

    async def said(self, message: str, /, **values: Any) -> dict[str, Any]:
        def wanted(said: Any) -> bool:
            return isinstance(said, dict) and said["type"] == message and values.items() <= said.items()

        return dict(await self.until(wanted))

    async def send(self, kind: str, **values: Any) -> None:
        await self.websocket.send_json({"type": kind, **values})

    async def click(self, x: float, y: float) -> None:
        for event in ("move", "down", "up"):
            await self.send("mouse", event=event, x=x, y=y, button="none" if event == "move" else "left")


@asynccontextmanager
async def viewing(browse: Browsing, *, may_act: bool = False) -> AsyncIterator[View]:
    ended: list[BaseException] = []

    async def live(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        try:
            await browse.tools.live(websocket, may_act=may_act)
        except BaseException as error:
            ended.append(error)
            raise
        return websocket

    app = web.Application()
    app.router.add_get("/", live)
    runner = web.AppRunner(app, shutdown_timeout=2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        async with ClientSession() as session, session.ws_connect(url, max_msg_size=0) as websocket:
            yield View(websocket)
    finally:
        await runner.cleanup()
    assert not ended


async def middle(browse: Browsing, ref: str) -> tuple[float, float]:
    pages = browse.tools._pages
    assert pages is not None
    box = await pages.current.page.get_by_ref(ref).bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


async def test_a_viewer_sees_the_page_and_follows_it(tmp_path: Path) -> None:
    async with site() as served, browsing(tmp_path) as browse, viewing(browse) as view:
        await view.picture()
        view.forget()
        await browse.good("navigate", url=served("/"))
        assert await view.page("Home") == {
            "type": "page",
            "url": served("/"),
            "title": "Home",
            "width": 1280,
            "height": 720,
        }
        await view.picture()
        view.forget()
        await browse.good("tab_new", url=served("/rows"))
        await view.page("Rows")
        await view.picture()
        view.forget()
        await browse.good("tab_select", index=1)
        await view.page("Home")
        await browse.good("resize", width=500, height=400)
        await view.said("page", width=500, height=400)


async def test_two_viewers_at_once(tmp_path: Path) -> None:
    async with site() as served, browsing(tmp_path) as browse, viewing(browse) as one, viewing(browse) as two:
        await browse.good("navigate", url=served("/"))
        for view in (one, two):
            await view.page("Home")
            await view.picture()


async def test_who_only_looks_cannot_act(tmp_path: Path) -> None:
    async with site() as served, browsing(tmp_path) as browse, viewing(browse) as view:
        await browse.good("navigate", url=served("/"))
        await view.page("Home")
        await view.send("navigate", url=served("/rows"))
        assert (await view.said("error"))["text"] == "This view is for looking only."
        assert served.asked == ["/"]


async def test_a_person_uses_mouse_and_keyboard(tmp_path: Path) -> None:
    html = """<title>T</title><form onsubmit="document.title = 'Sent ' + f.value; return false">
    <input id=f aria-label=Field></form>"""
    async with (
        site({"/": html}) as served,
        browsing(tmp_path) as browse,
        viewing(browse, may_act=True) as view,
    ):
        page = await browse.good("navigate", url=served("/"))
        await view.page("T")
        await view.click(*await middle(browse, ref_of(page, "Field")))
        await view.send("text", text="Grüße")
        for key, code, number, modifiers in (
            ("!", "Digit1", 49, 8),
            ("x", "KeyX", 88, 0),
            ("Backspace", "Backspace", 8, 0),
        ):
            for event in ("down", "up"):
                await view.send("key", event=event, key=key, code=code, keyCode=number, modifiers=modifiers)
        for event in ("down", "up"):
            await view.send("key", event=event, key="Enter", code="Enter", keyCode=13)
        await browse.good("wait_for", time=0.3)
        assert "- Page Title: Sent Grüße!" in await browse.good("snapshot")


async def test_a_person_scrolls_and_goes_places(tmp_path: Path) -> None:
    pages = {"/tall": TALL + "<script>onscroll = () => document.title = 'Scrolled'</script>"}
    async with site(pages) as served, browsing(tmp_path) as browse, viewing(browse, may_act=True) as view:
        await view.said("page")
        await view.send("navigate", url=served("/tall"))
        await view.page("Tall")
        await view.send("wheel", x=100, y=100, dx=0, dy=400)
        await browse.good("wait_for", time=0.5)
        assert "Scrolled" in await browse.good("snapshot")
        await view.send("navigate", url=served("/rows"))
        await view.page("Rows")
        view.forget()
        await view.send("back")
        await view.said("page", url=served("/tall"))
        view.forget()
        await view.send("forward")
        await view.said("page", url=served("/rows"))
        await view.send("reload")
        await view.send("navigate", url="file:///etc/passwd")
        assert "may not be opened" in (await view.said("error"))["text"]


async def test_a_person_answers_a_dialog(tmp_path: Path) -> None:
    html = "<title>T</title><button onclick=\"document.title = prompt('Name?', 'x')\">Ask</button>"
    async with (
        site({"/": html}) as served,
        browsing(tmp_path) as browse,
        viewing(browse, may_act=True) as view,
    ):
        page = await browse.good("navigate", url=served("/"))
        ask = ref_of(page, "Ask")
        await view.page("T")
        await view.click(*await middle(browse, ask))
        asked = await view.said("dialog", kind="prompt")
        assert (asked["message"], asked["value"]) == ("Name?", "x")
        view.forget()
        await view.send("dialog", accept=True, text="Ada")
        await view.said("dialog", kind=None)
        assert "- Page Title: Ada" in await browse.good("snapshot")
        view.forget()
        await browse.good("click", element="Ask", ref=ask)  # one that a call opened
        await view.said("dialog", kind="prompt")
        view.forget()
        await view.send("dialog", accept=True, text="Bob")
        await view.said("dialog", kind=None)
        assert "- Page Title: Bob" in await browse.good("snapshot")


async def test_a_window_that_a_person_opens_is_shown(tmp_path: Path) -> None:
    pages = {"/": "<title>Old</title><a href=/new target=_blank>Open</a>", "/new": "<title>New</title>"}
    async with site(pages) as served, browsing(tmp_path) as browse, viewing(browse, may_act=True) as view:
        page = await browse.good("navigate", url=served("/"))
        await view.page("Old")
        await view.click(*await middle(browse, ref_of(page, "Open")))
        await view.page("New")
        assert "- Page Title: New" in await browse.good("snapshot")


@pytest.mark.parametrize(
    "message",
    [
        "no json",
        "[]",
        "{}",
        '{"type": "fly"}',
        '{"type": "mouse"}',
        '{"type": "mouse", "event": "down", "x": "a", "y": 1}',
        '{"type": "mouse", "event": "down", "x": 1, "y": 1, "button": "fifth"}',
        '{"type": "key", "event": "sideways", "key": "a"}',
        '{"type": "dialog", "accept": true}',
        '{"type": ["mouse"]}',
    ],
)
async def test_what_is_not_understood_is_said(tmp_path: Path, message: str) -> None:
    async with browsing(tmp_path) as browse, viewing(browse, may_act=True) as view:
        await view.said("page")
        await view.websocket.send_str(message)
        assert (await view.said("error"))["text"]
        await view.send("text", text="still there")


async def test_the_view_outlives_crash_reset_and_relaunch(tmp_path: Path) -> None:
    async with site() as served, browsing(tmp_path) as browse, viewing(browse) as view:
        await browse.good("navigate", url=served("/"))
        await view.page("Home")
        pages = browse.tools._pages
        assert pages is not None
        session = await pages.context.new_cdp_session(pages.current.page)
        view.forget()
        crash = asyncio.create_task(session.send("Page.crash"))
        await view.said("page", url="about:blank")
        crash.cancel()
        await browse.good("navigate", url=served("/rows"))
        await view.page("Rows")
        view.forget()
        await browse.tools.reset()
        await view.said("page", url="about:blank")
        await browse.good("navigate", url=served("/"))
        await view.page("Home")
        await browse.tools.stop()
        view.forget()
        await browse.good("navigate", url=served("/rows"))
        await view.page("Rows")
        await view.picture()


async def test_a_slow_viewer_gets_fewer_pictures_and_slows_nobody(tmp_path: Path) -> None:
    html = """<title>Busy</title><p id=p></p><script>let n = 0; const tick = () => { p.textContent = ++n;
    document.body.style.background = `hsl(${n % 360}, 50%, 50%)`; requestAnimationFrame(tick) }; tick()</script>"""
    async with site({"/": html}) as served, browsing(tmp_path) as browse, viewing(browse) as view:
        await browse.good("navigate", url=served("/"))
        for _ in range(20):  # nobody reads the pictures
            await browse.good("snapshot", 5)
        await view.page("Busy")


async def test_viewers_that_leave_leave_nothing(tmp_path: Path) -> None:
    async with site() as served, browsing(tmp_path) as browse:
        await browse.good("navigate", url=served("/"))
        before = asyncio.all_tasks()
        for _ in range(3):
            async with viewing(browse, may_act=True) as view:
                await view.page("Home")
        await browse.good("snapshot")
        assert asyncio.all_tasks() == before
