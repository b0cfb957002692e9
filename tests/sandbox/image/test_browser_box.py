"""The tool server with a browser: its start, calls, live view, and what it says when there is none."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import WSMsgType, web

from greenroom.actors.errors import SandboxUnavailable
from kits.box_process import BoxProcess, box_process
from kits.browser_here import browser_path

pytestmark = pytest.mark.slow

PAGE = "<title>A page</title><h1>Hello</h1><button onclick=\"document.title = 'Pressed'\">Press</button>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoxProcess]:
    path = browser_path(tmp_path_factory.mktemp("browser"))
    with box_process("browser", {"GREENROOM_BOX_BROWSER": path}) as server:
        yield server


@pytest.fixture
async def box(server: BoxProcess) -> AsyncIterator[BoxProcess]:
    async with server.connected():
        yield server


@asynccontextmanager
async def pages() -> AsyncIterator[str]:
    """The address of a site of one page."""

    async def page(request: web.Request) -> web.Response:
        if request.path == "/slow":
            await asyncio.sleep(60)
        return web.Response(text=PAGE, content_type="text/html")

    app = web.Application()
    app.router.add_get("/{any:.*}", page)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def test_the_browser_is_driven(box: BoxProcess) -> None:
    await box.client.ready(60, warm=True)
    async with pages() as site:
        navigated = await box.client.call("browser_navigate", {"url": site}, 30)
        assert not navigated.is_error, navigated.text
        assert "Hello" in navigated.text
        picture = await box.client.call("browser_take_screenshot", {"filename": "", "element": None}, 30)
        assert len(picture.images) == 1
        assert set(await box.client.tools()) == {"generic", "playwright"}


async def test_calls_of_browser_and_shell_run_side_by_side(box: BoxProcess) -> None:
    async with pages() as site:
        command = asyncio.create_task(box.run("sleep 0.5; echo done"))
        navigated = await box.client.call("browser_navigate", {"url": site}, 30)
        assert not navigated.is_error
        assert (await command).part("stdout") == "done\n"


async def test_a_cancelled_call_lets_the_next_one_in(box: BoxProcess) -> None:
    async with pages() as site:
        call = asyncio.create_task(box.client.call("browser_navigate", {"url": site + "/slow"}, 30))
        await asyncio.sleep(0.3)
        call.cancel()
        await asyncio.wait({call})
        async with asyncio.timeout(15):
            navigated = await box.client.call("browser_navigate", {"url": site}, 10)
        assert "Hello" in navigated.text


async def test_the_page_can_be_looked_at(box: BoxProcess) -> None:
    async with pages() as site:
        await box.client.call("browser_navigate", {"url": site}, 30)
        seen: dict[str, object] = {}
        async with box.client.live() as view, asyncio.timeout(20):
            while "picture" not in seen or "page" not in seen:
                message = await view.receive()
                assert message.type in {WSMsgType.BINARY, WSMsgType.TEXT}, message
                if message.type is WSMsgType.BINARY:
                    seen["picture"] = message.data
                else:
                    told = json.loads(message.data)
                    seen[told["type"]] = told

    assert isinstance(seen["picture"], bytes)
    assert seen["picture"].startswith(b"\xff\xd8")


async def test_a_reset_forgets_the_page(box: BoxProcess) -> None:
    async with pages() as site:
        await box.client.call("browser_navigate", {"url": site}, 30)
        await box.client.reset()
        snapshot = await box.client.call("browser_snapshot", {}, 10)

    assert "Hello" not in snapshot.text
    assert "about:blank" in snapshot.text


async def test_a_browser_that_does_not_start_is_told(tmp_path: Path) -> None:
    with box_process("browser", {"GREENROOM_BOX_BROWSER": str(tmp_path / "none")}) as server:
        # It answers before it knows.
        async with server.connected() as box:
            result = await box.client.call("browser_navigate", {"url": "about:blank"}, 30)
            assert result.is_error
            assert "could not be started" in result.text
            with pytest.raises(SandboxUnavailable, match="could not be started"):
                await box.client.ready(30, warm=True)
            assert not await box.client.healthy(5)
            assert await box.shell("echo still here") == "still here\n"
