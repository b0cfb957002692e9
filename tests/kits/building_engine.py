"""As much of a container engine as building an image needs, at a socket: it takes the next step when a test lets it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aiohttp import web

SIZE: Final = 123_456_789


class BuildingEngine:
    """An engine without images. `pulled` and `built` are the lines of its answers; each of `steps` lets it give one."""

    def __init__(self, pulled: Sequence[dict[str, Any]], built: Sequence[dict[str, Any]]) -> None:
        self.pulled = pulled
        self.built = built
        self.steps = asyncio.Semaphore(0)
        self._labels: dict[str, str] | None = None

    def go_on(self, steps: int = 1) -> None:
        """Let it take so many steps more."""
        for _ in range(steps):
            self.steps.release()

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.43", "Version": "1", "Arch": "amd64", "Components": []})

    async def info(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def image(self, _: web.Request) -> web.Response:
        if self._labels is None:
            return web.json_response({"message": "no such image"}, status=404)
        return web.json_response({"Id": "sha256:1", "Size": SIZE, "Config": {"Labels": self._labels}})

    async def pull(self, request: web.Request) -> web.StreamResponse:
        return await self._tell(request, self.pulled)

    async def build(self, request: web.Request) -> web.StreamResponse:
        async for _ in request.content.iter_any():
            pass
        answer = await self._tell(request, self.built)
        self._labels = json.loads(request.query["labels"])
        return answer

    async def _tell(self, request: web.Request, lines: Sequence[dict[str, Any]]) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for line in lines:
            await self.steps.acquire()
            await answer.write(json.dumps(line).encode() + b"\n")
        await self.steps.acquire()
        await answer.write_eof()
        return answer


@asynccontextmanager
async def building_engine(
    path: Path, *, pulled: Sequence[dict[str, Any]], built: Sequence[dict[str, Any]]
) -> AsyncIterator[BuildingEngine]:
    """One that listens at the socket `path`."""
    engine = BuildingEngine(pulled, built)
    app = web.Application(client_max_size=0)
    app.router.add_get("/{before:.*}version", engine.version)
    app.router.add_get("/{api}/info", engine.info)
    app.router.add_get("/{api}/images/{name:.*}/json", engine.image)
    app.router.add_post("/{api}/images/create", engine.pull)
    app.router.add_post("/{api}/build", engine.build)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(path)).start()
        yield engine
    finally:
        await runner.cleanup()
