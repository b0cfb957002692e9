"""Looking into a session's browser, with a real browser: what the person sees, and what he does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, WSServerHandshakeError
from msgspec import structs
from playwright.async_api import Page, async_playwright

from greenroom import AgentApp
from greenroom.sandbox.settings import EgressRules, SandboxSettings
from greenroom.transports.aiohttp_server import AiohttpServer
from greenroom.transports.view_tickets import BrowserView
from kits.browser_here import browser_path, ref_of
from kits.engine import OwnEngine
from kits.needs import needs_bubblewrap
from kits.site import Site, site
from kits.system import said

pytestmark = pytest.mark.slow

LOCAL = SandboxSettings(backend="local")

FORM = """<title>Form</title><style>body { margin: 0 } input, button { position: absolute; width: 400px; height: 100px }
input { left: 100px; top: 100px } button { left: 100px; top: 300px }</style>
<input id=name aria-label=Name><button onclick="document.title = 'Hello ' + document.getElementById('name').value">
Greet</button>"""


class Theatre:
    """An application whose agents browse, and a person with a browser of his own. `said`: what tools answered."""

    def __init__(self, app: AgentApp, server: AiohttpServer, pages: Site, person: Page) -> None:
        self.app = app
        self.pages = pages
        self.person = person
        self.url = f"http://127.0.0.1:{server.port}"

    async def say(self, text: str) -> str:
        """One turn of the session `s`: a tool's name and its arguments, told as `navigate /form` and the like."""
        return said(await self.app.process(text, session_id="s").result())

    def link(self, **options: Any) -> str:
        return self.url + self.app.browser_link("s", **options)

    async def look(self, **options: Any) -> None:
        await self.person.goto(self.link(**options))

    async def told(self, state: str) -> None:
        """Wait until the page says so of who has the browser."""
        await self.person.wait_for_function("state => document.body.dataset.holder === state", arg=state)

    async def sees(self, path: str) -> None:
        """Wait until the page shows pictures of this one."""
        url = self.pages(path)
        await self.person.wait_for_function(
            "url => document.body.dataset.url === url && Number(document.body.dataset.frames) > 0", arg=url
        )

    async def click(self, x: float, y: float) -> None:
        """Click into the picture, where the agent's page has these coordinates."""
        at = await self.person.evaluate(
            """([x, y]) => { const box = byId("screen").getBoundingClientRect();
               return [box.left + x / page.width * box.width, box.top + y / page.height * box.height]; }""",
            [x, y],
        )
        await self.person.mouse.click(*at)


@pytest.fixture(params=["local", "docker"])
def backend(request: pytest.FixtureRequest) -> SandboxSettings:
    if request.param == "local":
        return LOCAL
    engine: OwnEngine = request.getfixturevalue("docker_engine")
    return SandboxSettings(backend="docker", docker_host=engine.url, image=engine.image)


@asynccontextmanager
async def theatre(
    folder: Path, backend: SandboxSettings = LOCAL, seconds: float = 900.0
) -> AsyncIterator[Theatre]:
    if backend is LOCAL:
        needs_bubblewrap()
    async with site({"/form": FORM}) as pages, async_playwright() as playwright:
        private = pages.url.removeprefix("http://")
        settings = structs.replace(backend, egress=EgressRules(private=(private,)))
        view = BrowserView(secret="only for this test, really", seconds=seconds)
        app = AgentApp("Theatre", sandboxes=settings, browser_view=view)

        @app.query("text")
        async def answer(msgs: Any, session: Any) -> AsyncIterator[str]:
            tool, _, argument = msgs[-1].content[0].text.partition(" ")
            browser = session.browser
            if tool == "navigate":
                yield str(await browser.browser_navigate(pages(argument)))
            elif tool == "click":
                yield str(await browser.browser_click("a thing", argument))
            else:
                yield str(await browser.browser_snapshot())

        server = AiohttpServer(port=0)
        await app.start(server)
        browser = await playwright.chromium.launch(
            executable_path=browser_path(folder), chromium_sandbox=True
        )
        try:
            yield Theatre(app, server, pages, await browser.new_page())
        finally:
            await browser.close()
            await app.stop()


@pytest.fixture(autouse=True)
def own_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GREENROOM_STATE", str(tmp_path / "state"))


async def test_a_person_looks_takes_over_and_hands_back(tmp_path: Path, backend: SandboxSettings) -> None:
    async with theatre(tmp_path, backend) as stage:
        await stage.look(control=True)
        await stage.told("waiting")  # looking starts no browser
        snapshot = await stage.say("navigate /form")
        await stage.told("agent")
        await stage.sees("/form")

        await stage.person.click("#take")
        await stage.told("you")
        turn = asyncio.create_task(stage.say(f"click {ref_of(snapshot, 'button')}"))
        await stage.click(150, 150)
        await stage.person.keyboard.type("Ann")
        await stage.click(150, 350)
        await stage.person.wait_for_function("() => byId('where').textContent.startsWith('Hello Ann')")
        assert not turn.done()  # the agent waits

        await stage.person.click("#give")
        await stage.told("agent")
        said = await turn
        assert "a person used this browser meanwhile" in said
        assert "Page Title: Hello Ann" in said
        assert "Page Title: Hello Ann" in await stage.say(f"click {ref_of(said, 'button')}")


async def test_a_call_under_way_is_not_cut_short_by_one_who_takes_over(tmp_path: Path) -> None:
    async with theatre(tmp_path) as stage:
        await stage.say("navigate /form")
        await stage.look(control=True)
        await stage.sees("/form")
        turn = asyncio.create_task(stage.say("navigate /held"))
        await stage.pages.waiting.wait()
        await stage.person.click("#take")
        await stage.told("taking")
        assert await stage.person.inner_text("#give") == "Never mind"
        stage.pages.held.set()
        await stage.told("you")
        assert await stage.person.inner_text("#give") == "Hand back"
        assert "here at last" in await turn


async def test_one_who_goes_hands_back(tmp_path: Path) -> None:
    async with theatre(tmp_path) as stage:
        await stage.say("navigate /form")
        await stage.look(control=True)
        await stage.sees("/form")
        await stage.person.click("#take")
        await stage.told("you")
        turn = asyncio.create_task(stage.say("snapshot"))
        await stage.person.goto("about:blank")
        assert "Page Title: Form" in await turn


async def test_when_the_link_s_time_is_over_the_browser_is_the_agent_s_again(tmp_path: Path) -> None:
    async with theatre(tmp_path, seconds=10) as stage:
        await stage.say("navigate /form")
        await stage.look(control=True)
        await stage.sees("/form")
        await stage.person.click("#take")
        await stage.told("you")
        turn = asyncio.create_task(stage.say("snapshot"))
        await stage.person.wait_for_function(
            "() => byId('state').textContent === \"The link's time is over.\" && byId('give').hidden"
        )
        assert "Page Title: Form" in await turn


async def test_who_may_only_look_cannot_act(tmp_path: Path) -> None:
    async with theatre(tmp_path) as stage:
        await stage.say("navigate /form")
        await stage.look()
        await stage.told("agent")
        await stage.sees("/form")
        assert await stage.person.is_hidden("#take")
        await stage.person.evaluate(
            """() => { send({ type: "take" }); send({ type: "navigate", url: "about:blank" }); }"""
        )
        assert "Page Title: Form" in await stage.say("snapshot")


async def test_links_of_others_and_none_are_refused(tmp_path: Path) -> None:
    async with theatre(tmp_path) as stage, ClientSession() as client:
        good = stage.link()
        for path in ("/sessions/s/browser", "/sessions/s/browser?ticket=x", good.replace("/s/", "/other/")):
            url = path if path.startswith("http") else stage.url + path
            async with client.get(url) as response:
                assert response.status == 403
                assert (await response.json())["error"]["code"] == "forbidden"
            with pytest.raises(WSServerHandshakeError, match="403"):
                await client.ws_connect(url.replace("/browser", "/browser/live"))
        async with client.get(good) as response:
            assert response.status == 200
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["Referrer-Policy"] == "no-referrer"
        async with client.get(good.replace("/browser?", "/browser/live?")) as response:
            assert response.status == 400


async def test_without_the_setting_there_is_no_such_page() -> None:
    app = AgentApp()

    @app.query("text")
    async def answer() -> str:
        return "hello"

    server = AiohttpServer(port=0)
    await app.start(server)
    async with (
        ClientSession() as client,
        client.get(f"http://127.0.0.1:{server.port}/sessions/s/browser") as response,
    ):
        assert response.status == 404
    await app.stop()
