"""A real browser behind the filter, through the relay of a box."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from greenroom.sandbox.egress.filter import EgressFilter
from greenroom.sandbox.image.relay import Relay
from greenroom.sandbox.settings import EgressRules
from greenroom.sandbox.trust import spki_hashes
from kits.browser_here import Browsing, browsing

pytestmark = pytest.mark.slow

PAGE = """<!doctype html><title>Shop</title><h1>Tea</h1><p>waiting</p><img src=/image>
<script>
const said = document.querySelector('p')
const socket = new WebSocket(location.origin.replace('http', 'ws') + '/socket')
socket.onopen = () => socket.send('kettle')
socket.onmessage = async message => {
    const answer = await fetch('/order', {method: 'POST', body: 'x'.repeat(300000)})
    said.textContent = message.data + ' and ' + await answer.text()
}
</script>"""


class Nowhere:
    """A name server that knows no name: those of the tests are in the rules."""

    async def addresses(self, host: str) -> Sequence[str]:
        raise OSError(f"no such name: {host}")


class Shop:
    """A site that a page needs everything of: pictures, a socket, a large upload."""

    def __init__(self) -> None:
        self.hosts: list[str] = []

    async def page(self, request: web.Request) -> web.Response:
        self.hosts.append(request.host)
        return web.Response(text=PAGE, content_type="text/html")

    async def image(self, request: web.Request) -> web.Response:
        return web.Response(body=b"GIF89a\1\0\1\0\0\0\0;", content_type="image/gif")

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        async for message in websocket:
            await websocket.send_str(f"{message.data} boils")
        return websocket

    async def order(self, request: web.Request) -> web.Response:
        return web.Response(text=f"{len(await request.read())} bytes")

    async def away(self, request: web.Request) -> web.Response:
        raise web.HTTPFound(request.query["to"])


@asynccontextmanager
async def served(shop: Shop, certificate: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The shop at a port of this machine."""
    app = web.Application(client_max_size=1_000_000)
    app.router.add_get("/", shop.page)
    app.router.add_get("/image", shop.image)
    app.router.add_get("/socket", shop.socket)
    app.router.add_post("/order", shop.order)
    app.router.add_get("/away", shop.away)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        listening = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate)
        await listening.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@asynccontextmanager
async def browser_behind(folder: Path, rules: EgressRules, **options: str) -> AsyncIterator[Browsing]:
    """A browser whose only way out is the filter."""
    with tempfile.TemporaryDirectory(prefix="eg-") as short:  # a socket's path has 107 characters at most
        path = Path(short) / "egress.sock"
        async with EgressFilter(rules, resolver=Nowhere()).listen(path, "lease-1"):
            relay = Relay(path, 0)
            await relay.start()
            try:
                async with browsing(folder, proxy=relay.url, **options) as browse:
                    yield browse
            finally:
                await relay.stop()


async def test_a_page_works_with_its_pictures_sockets_and_uploads(tmp_path: Path) -> None:
    shop = Shop()
    async with served(shop) as port:
        rules = EgressRules(hosts={"shop.test": f"127.0.0.1:{port}"})
        async with browser_behind(tmp_path, rules) as browse:
            await browse.good("navigate", url="http://shop.test/")
            assert "kettle boils and 300000 bytes" in await browse.good(
                "wait_for", text="kettle boils and 300000"
            )
    assert shop.hosts == ["shop.test"]


async def test_a_page_works_over_tls(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl: apt-get install openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = await asyncio.create_subprocess_exec(
        "openssl",
        *(
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ),
        *("-subj", "/CN=shop.test", "-addext", "subjectAltName=DNS:shop.test"),
        *("-keyout", str(key), "-out", str(certificate)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await made.wait() == 0
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with served(Shop(), context) as port:
        rules = EgressRules(hosts={"shop.test": f"127.0.0.1:{port}"})
        trusted = ",".join(await asyncio.to_thread(spki_hashes, certificate))
        async with browser_behind(tmp_path, rules, trusted_keys=trusted) as browse:
            await browse.good("navigate", url="https://shop.test/")
            assert "kettle boils and 300000 bytes" in await browse.good(
                "wait_for", text="kettle boils and 300000"
            )


async def test_what_is_inside_is_out_of_reach_and_says_so(tmp_path: Path) -> None:
    shop = Shop()
    async with served(shop) as port:
        rules = EgressRules(hosts={"shop.test": f"127.0.0.1:{port}"})
        async with browser_behind(tmp_path, rules) as browse:
            for url in [
                f"http://127.0.0.1:{port}/",
                f"http://localhost.:{port}/",
                f"http://[::ffff:127.0.0.1]:{port}/",
                "http://169.254.169.254/latest/meta-data/",
                "http://shop.test/away?to=http://169.254.169.254/",
                f"http://shop.test/away?to=http://127.0.0.1:{port}/",
            ]:
                result = await browse("navigate", url=url)
                assert "the sandbox's egress filter answered in its place" in result.text, url
                assert "Greenroom's egress filter:" in result.text, url
                assert "Tea" not in result.text
            for url in [f"https://127.0.0.1:{port}/", "https://169.254.169.254/", "https://10.0.0.1/"]:
                assert "egress filter" in await browse.bad("navigate", url=url)
    assert shop.hosts == []
