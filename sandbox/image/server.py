"""The tool server: a box's tools and files over HTTP, by the routes of the official image, below `/fastapi`."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web

from greenroom.sandbox.image.box import BASE, Box, BrowserFailed
from greenroom.sandbox.image.refusals import Refused, asking_for, json_of, seconds_of
from greenroom.sandbox.image.tool_schemas import BASE_TOOLS, BROWSER_TOOLS
from greenroom.sandbox.image.workspace_routes import WorkspaceRoutes

CALLS: Final = 64
"""How many may be under way; more would be a mistake of the caller's."""

BODY_BYTES: Final = 16 * 1024 * 1024
"""The longest body of a call; files have bounds of their own."""

STOP_SECONDS: Final = 0.2
"""How long calls under way may still take at the end; then they break off."""


@asynccontextmanager
async def served(box: Box, listening: socket.socket) -> AsyncIterator[None]:
    """Answer what comes to the socket. At the end calls under way are cancelled, and break off."""
    runner = web.AppRunner(
        application(box), handler_cancellation=True, access_log=None, shutdown_timeout=STOP_SECONDS
    )
    try:
        await runner.setup()
        await web.SockSite(runner, listening).start()
        yield
    finally:
        await runner.cleanup()


def application(box: Box) -> web.Application:
    """The routes of a box."""
    app = web.Application(middlewares=[asking_for(box.options.token, CALLS)], client_max_size=BODY_BYTES)
    routes = _Routes(box)
    handlers: list[tuple[str, str, Callable[[web.Request], Awaitable[web.StreamResponse]]]] = [
        ("GET", "/healthz", routes.health),
        ("GET", "/mcp/list_tools", routes.list_tools),
        ("POST", "/mcp/call_tool", routes.call_tool),
        ("POST", "/mcp/add_servers", routes.add_servers),
        ("POST", "/tools/{tool}", routes.call_base),
        ("POST", "/reset", routes.reset),
        ("GET", "/live", routes.live),
    ]
    app.add_routes(
        web.route(method, "/fastapi" + path, handler, **({"allow_head": False} if method == "GET" else {}))
        for method, path, handler in handlers
    )
    app.add_routes(WorkspaceRoutes(box.workspace).routes())
    return app


class _Routes:
    """Handlers of one box."""

    def __init__(self, box: Box) -> None:
        self._box = box

    async def health(self, request: web.Request) -> web.StreamResponse:
        """`OK`; with `warm=1` when the browser is up."""
        try:
            if request.query.get("warm") == "1" and self._box.options.kind == "browser":
                await self._box.started_browser()
            self._box.check()
        except BrowserFailed as failed:
            raise Refused(503, str(failed)) from None
        return web.Response(text="OK")

    async def list_tools(self, request: web.Request) -> web.StreamResponse:
        """Tools by the names that the official image gives their servers."""
        servers = {"generic": _listed(BASE_TOOLS)}
        if self._box.options.kind == "browser":
            servers["playwright"] = _listed(BROWSER_TOOLS)
        return web.json_response(servers)

    async def call_tool(self, request: web.Request) -> web.StreamResponse:
        """Any tool by name."""
        body = await json_of(request)
        tool, arguments = body.get("tool_name"), body.get("arguments") or {}
        if not isinstance(tool, str) or not isinstance(arguments, dict):
            raise Refused(422, "tool_name must be a text and arguments an object")
        return await self._call(request, tool, arguments)

    async def call_base(self, request: web.Request) -> web.StreamResponse:
        """A tool with a route of its own."""
        tool = request.match_info["tool"]
        if tool not in BASE:
            raise Refused(404, "Not Found")
        return await self._call(request, tool, await json_of(request))

    async def _call(self, request: web.Request, tool: str, arguments: dict[str, Any]) -> web.StreamResponse:
        try:
            answer = await self._box.call(tool, arguments, seconds_of(request))
        except KeyError:
            raise Refused(500, f"Tool '{tool}' not found.") from None
        except TypeError as error:
            raise Refused(400, str(error)) from None
        return web.json_response(answer)

    async def add_servers(self, request: web.Request) -> web.StreamResponse:
        """Not here: what runs in the box is decided when its image is made."""
        raise Refused(501, "this sandbox takes no other MCP servers")

    async def reset(self, request: web.Request) -> web.StreamResponse:
        """As after the start."""
        try:
            await self._box.reset()
        except BrowserFailed as failed:
            raise Refused(503, str(failed)) from None
        return web.Response(text="OK")

    async def live(self, request: web.Request) -> web.StreamResponse:
        """The browser's page, for a person to see; `input=1`: and to use."""
        try:
            browser = await self._box.started_browser()
        except BrowserFailed as failed:
            raise Refused(503, str(failed)) from None
        websocket = web.WebSocketResponse(heartbeat=20.0, max_msg_size=64 * 1024, compress=False)
        await websocket.prepare(request)
        await browser.live(websocket, may_act=request.query.get("input") == "1")
        await websocket.close()
        return websocket


def _listed(tools: Any) -> dict[str, Any]:
    return {
        name: {"name": name, "json_schema": {"type": "function", "function": {"name": name, **schema}}}
        for name, schema in tools.items()
    }
