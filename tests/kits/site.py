"""Web pages for browsers of tests, served on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

ROWS = "".join(
    f"<tr><td>{n}</td><td>Row {n}</td><td><a href='#{n}'>open {n}</a></td><td><button>Buy {n}</button></td></tr>"
    for n in range(30)
)


class Site:
    """Serves `pages` (path to HTML) and what the other handlers make; pages may be changed while it runs."""

    def __init__(self, pages: Mapping[str, str]) -> None:
        self.pages = {
            "/": "<title>Home</title><h1>Welcome</h1>",
            "/rows": f"<title>Rows</title><table>{ROWS}</table>",
        }
        self.pages.update(pages)
        self.url = ""
        self.asked: list[str] = []
        self.uploads: dict[str, bytes] = {}
        self.held = asyncio.Event()
        """What `/held` waits for."""
        self.waiting = asyncio.Event()
        """Somebody has asked for `/held`."""

    def __call__(self, path: str) -> str:
        return self.url + path

    async def page(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        html = self.pages.get(request.path)
        if html is None:
            return web.Response(status=404, text="<title>Lost</title>nothing here", content_type="text/html")
        return web.Response(text=f"<!doctype html><meta charset=utf-8>{html}", content_type="text/html")

    async def file(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "report.csv")
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return web.Response(body=b"a,b\n1,2\n", headers=headers, content_type="text/csv")

    async def hold(self, request: web.Request) -> web.Response:
        self.waiting.set()
        await self.held.wait()
        return web.Response(text="<title>Late</title>here at last", content_type="text/html")

    async def upload(self, request: web.Request) -> web.Response:
        for part in (await request.post()).values():
            if isinstance(part, web.FileField):
                self.uploads[part.filename] = part.file.read()
        return web.Response(
            text=f"<title>Thanks</title>{len(self.uploads)} received", content_type="text/html"
        )

    async def broken(self, request: web.Request) -> web.Response:
        """Breaks off instead of answering."""
        assert request.transport is not None
        request.transport.close()
        return web.Response()


@asynccontextmanager
async def site(pages: Mapping[str, str] | None = None, *, host: str = "127.0.0.1") -> AsyncIterator[Site]:
    """`host`: the address of this machine to serve at."""
    served = Site(pages or {})
    app = web.Application()
    app.router.add_get("/file", served.file)
    app.router.add_get("/held", served.hold)
    app.router.add_get("/broken", served.broken)
    app.router.add_post("/upload", served.upload)
    app.router.add_get("/{path:.*}", served.page)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        listening = web.TCPSite(runner, host, 0)
        await listening.start()
        served.url = listening.name.rstrip("/")
        yield served
    finally:
        served.held.set()
        await runner.cleanup()
