"""A backend whose boxes live in this process, and tests script what their tools do.

`FakeEngine` is what outlives processes: backends of one engine see the same boxes, as processes see one Docker's. Its
boxes serve the protocol on the spec's socket, for the real client; or, with `in_memory=True`, `connect` gives a client
that reaches them without a socket or a thread, for tests under virtual time. It passes the backend kit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import msgspec
from aiohttp import web

from greenroom.actors.errors import SandboxLost, SandboxUnavailable
from greenroom.sandbox.backend import API_SOCKET, BoxAddress, BoxSpec, FoundBox
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.result import ToolResult

Tool: TypeAlias = Callable[["FakeBox", dict[str, Any]], Awaitable[ToolResult]]


class FakeBox:
    """One box. `asked`: the calls it got. `under_way`: those that run. `cancelled`: those that were cut off."""

    def __init__(self, engine: FakeEngine, spec: BoxSpec) -> None:
        self.engine = engine
        self.spec = spec
        self.running = True
        self.deaf = False
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.under_way: list[str] = []
        self.cancelled: list[str] = []
        self.files: dict[str, bytes] = {}
        self.awake = anyio.Event()
        self.awake.set()
        self.died = anyio.Event()
        self.server: web.AppRunner | None = None

    def __repr__(self) -> str:
        return f"<FakeBox {self.spec.lease[:8]}>"

    @property
    def paused(self) -> bool:
        return not self.awake.is_set()

    async def call(self, tool: str, arguments: dict[str, Any]) -> ToolResult:
        await self.awake.wait()
        self.asked.append((tool, arguments))
        self.under_way.append(tool)
        try:
            return await self.engine.tools.get(tool, echo)(self, arguments)
        except asyncio.CancelledError:
            self.cancelled.append(tool)
            raise
        finally:
            self.under_way.remove(tool)

    async def well(self) -> bool:
        await self.awake.wait()
        if self.deaf:
            await anyio.sleep_forever()
        return self.running

    async def die(self) -> None:
        """End, however that came."""
        if self.running:
            self.running = False
            self.died.set()
            server, self.server = self.server, None
            if server is not None:
                await asyncio.create_task(server.cleanup())
            for ending in tuple(self.engine.listeners):
                ending(self.spec.lease)


class MortalBackend:
    """One whose boxes cannot be gone on with, as those that end with their process."""

    name = "fake"

    def __init__(self, engine: FakeEngine) -> None:
        backend = FakeBackend(engine)
        self.start, self.stop, self.create = backend.start, backend.stop, backend.create
        self.remove, self.boxes, self.endings = backend.remove, backend.boxes, backend.endings


async def echo(box: FakeBox, arguments: dict[str, Any]) -> ToolResult:
    """A tool that answers with what it was given, and by whom."""
    return ToolResult.of_text(f"{box.spec.lease} {msgspec.json.encode(arguments).decode()}")


class FakeEngine:
    """Where the boxes are. `create_seconds`, `remove_seconds`: how long these take. `stuck`: neither goes on while it
    is set. `refuses`: what `create` raises, and `keeps`: what `remove` raises. `most`: how many there were at once.
    `watch` is called when a box was made, `removing` when one is to be removed."""

    def __init__(
        self, *, in_memory: bool = False, create_seconds: float = 0.0, remove_seconds: float = 0.0
    ) -> None:
        self.in_memory = in_memory
        self.create_seconds = create_seconds
        self.remove_seconds = remove_seconds
        self.adopt_seconds = 0.0
        self.boxes: dict[str, FakeBox] = {}
        self.ever: list[FakeBox] = []
        self.tools: dict[str, Tool] = {}
        self.listeners: list[Callable[[str], object]] = []
        self.stuck: Callable[[BoxSpec | None], bool] = lambda _: False
        self.loose = anyio.Event()
        self.refuses: Exception | None = None
        self.keeps: Exception | None = None
        self.away = False
        self.most = 0
        self.watch: Callable[[], object] = bool
        self.removing: Callable[[str], object] = bool

    def box(self, number: int = -1) -> FakeBox:
        """The one that was made as the so-manieth; by default the last."""
        return self.ever[number]

    def living(self) -> list[FakeBox]:
        return [box for box in self.boxes.values() if box.running]

    def connect(self, address: BoxAddress) -> BoxClient:
        """The client of a box in memory."""
        return MemoryClient(self, address)

    async def pass_time(self, seconds: float, spec: BoxSpec | None = None) -> None:
        await anyio.sleep(seconds)
        while self.stuck(spec):
            await self.loose.wait()

    def loosen(self) -> None:
        """Let go on what is stuck."""
        self.stuck = lambda _: False
        self.loose.set()
        self.loose = anyio.Event()


class FakeBackend:
    """One process's access to an engine."""

    name = "fake"

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.started = False

    def __repr__(self) -> str:
        return f"<FakeBackend of {len(self.engine.boxes)} boxes>"

    async def start(self) -> None:
        if self.engine.away:
            raise SandboxUnavailable("the fake engine is away; let it come back")
        self.started = True

    async def stop(self) -> None:
        self.started = False

    async def create(self, spec: BoxSpec) -> BoxAddress:
        engine = self.engine
        assert spec.lease not in engine.boxes
        await engine.pass_time(engine.create_seconds / 2, spec)
        if engine.refuses is not None:
            raise engine.refuses
        box = engine.boxes[spec.lease] = FakeBox(engine, spec)
        engine.ever.append(box)
        engine.most = max(engine.most, len(engine.living()))
        engine.watch()
        if not engine.in_memory:
            await asyncio.create_task(serve(box))
        await engine.pass_time(engine.create_seconds / 2, spec)
        return BoxAddress(token=spec.token, socket=spec.directory / API_SOCKET)

    async def adopt(self, spec: BoxSpec) -> BoxAddress:
        await self.engine.pass_time(self.engine.adopt_seconds, spec)
        box = self._living(spec.lease)
        box.awake.set()
        assert spec.token == box.spec.token
        return BoxAddress(token=spec.token, socket=spec.directory / API_SOCKET)

    async def let_go(self, lease: str) -> None:
        pass

    async def remove(self, lease: str) -> None:
        engine = self.engine
        box = engine.boxes.get(lease)
        engine.removing(lease)
        await engine.pass_time(engine.remove_seconds, box.spec if box else None)
        if engine.keeps is not None:
            raise engine.keeps
        if box is not None:
            await box.die()
            engine.boxes.pop(lease, None)

    async def boxes(self) -> Sequence[FoundBox]:
        if self.engine.away:
            raise SandboxUnavailable("the fake engine is away; let it come back")
        return [FoundBox(box.spec.lease, box.spec.owner, box.running) for box in self.engine.boxes.values()]

    async def endings(self) -> AsyncIterator[str]:
        queue = asyncio.Queue[str]()
        self.engine.listeners.append(queue.put_nowait)
        try:
            while True:
                yield await queue.get()
        finally:
            self.engine.listeners.remove(queue.put_nowait)

    async def pause(self, lease: str) -> None:
        self._living(lease).awake = anyio.Event()

    async def resume(self, lease: str) -> None:
        self._living(lease).awake.set()

    def _living(self, lease: str) -> FakeBox:
        box = self.engine.boxes.get(lease)
        if box is None or not box.running:
            raise SandboxLost(f"the box of lease {lease} is gone")
        return box


class MemoryClient(BoxClient):
    """Reaches a box of the engine by its token, as the client of the protocol would by its socket."""

    def __init__(self, engine: FakeEngine, address: BoxAddress) -> None:
        super().__init__(address)
        self._box = next(box for box in engine.boxes.values() if box.spec.token == address.token)

    async def ready(self, seconds: float, *, warm: bool = False) -> None:
        if not await self.healthy(seconds):
            raise SandboxLost("the box ended while it was started")

    async def healthy(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            return await self._box.well()
        return False

    async def call(self, tool: str, arguments: Mapping[str, Any], seconds: float) -> ToolResult:
        box = self._box
        if not box.running:
            raise SandboxLost("the box is gone")
        calling = asyncio.ensure_future(box.call(tool, dict(arguments)))
        dying = asyncio.ensure_future(box.died.wait())
        try:
            await asyncio.wait({calling, dying}, return_when=asyncio.FIRST_COMPLETED)
            if calling.done():
                return calling.result()
            raise SandboxLost("the box ended under way")
        finally:
            calling.cancel()
            dying.cancel()
            await asyncio.wait({calling, dying})

    async def close(self) -> None:
        pass


async def serve(box: FakeBox) -> None:
    """The protocol, on the box's socket."""

    @web.middleware
    async def checked(request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {box.spec.token}":
            return web.json_response({"detail": "no such token"}, status=403)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def health(request: web.Request) -> web.Response:
        await box.well()
        return web.Response(text="OK")

    async def tool(request: web.Request) -> web.Response:
        asked = await request.json()
        return web.json_response(await box.call(asked["tool_name"], asked["arguments"]))

    async def named(request: web.Request) -> web.Response:
        return web.json_response(await box.call(request.match_info["tool"], await request.json()))

    async def write(request: web.Request) -> web.Response:
        path, data = request.query["path"], await request.read()
        box.files[path] = data
        return web.json_response({"path": path, "name": Path(path).name, "type": "file", "size": len(data)})

    async def read(request: web.Request) -> web.Response:
        return web.Response(body=box.files[request.query["path"]])

    async def exists(request: web.Request) -> web.Response:
        return web.json_response({"exists": request.query["path"] in box.files})

    app = web.Application(middlewares=[checked])
    app.add_routes(
        [
            web.get("/fastapi/healthz", health),
            web.post("/fastapi/mcp/call_tool", tool),
            web.post("/fastapi/tools/{tool}", named),
            web.put("/fastapi/workspace/file", write),
            web.get("/fastapi/workspace/file", read),
            web.get("/fastapi/workspace/exists", exists),
        ]
    )
    box.server = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.0, access_log=None)
    await box.server.setup()
    await web.UnixSite(box.server, box.spec.directory / API_SOCKET).start()
