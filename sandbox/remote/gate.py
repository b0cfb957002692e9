"""The gate to a remote box: a socket of one lease's own, behind which the box is only as long as the lease has it.

A remote box has one token for ever. Whoever had it once could still use it when it is somebody else's; so nobody gets
it. A lease gets a socket on this host and a token of its own, and what comes there is passed on.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import anyio
from aiohttp import web
from anyio import to_thread

from greenroom.sandbox.box_sockets import FOR_US, listening_socket, remove_socket
from greenroom.sandbox.wire import SECONDS_HEADER

PREFIX: Final = "/fastapi"
CONNECT_SECONDS: Final = 15.0
STOP_SECONDS: Final = 0.1
"""Calls under way are not waited for: what they do is undone by the reset. (0 would wait without end.)"""
LIVE_BYTES: Final = 16 * 1024 * 1024
CHUNK: Final = 64 * 1024

FROM_US: Final = ("Content-Type", SECONDS_HEADER)
FROM_THE_BOX: Final = ("Content-Type",)


@asynccontextmanager
async def remote_session(token: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the box itself, which is followed nowhere."""
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        auto_decompress=False,
    ) as session:
        yield session


class Gate:
    """Passes on what comes with the right token while `holds` says so."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        token: str,
        holds: Callable[[], Awaitable[bool]],
    ) -> None:
        self._session = session
        self._url = url
        self._token = token.encode()
        self._holds = holds

    @asynccontextmanager
    async def open(self, path: Path) -> AsyncIterator[None]:
        """Listen at the socket `path`. At the end what is under way is cancelled, in the box too."""
        app = web.Application()
        app.router.add_route("*", PREFIX + "/{path:.*}", self._pass)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=STOP_SECONDS)
        listening, file = await to_thread.run_sync(listening_socket, path, FOR_US)
        try:
            await runner.setup()
            await web.SockSite(runner, listening).start()
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await runner.cleanup()
                listening.close()
                await to_thread.run_sync(remove_socket, path, file)

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), self._token):
            return _said(403, "Invalid secret token")
        if not await self._holds():
            return _said(502, "the remote sandbox is another session's now")
        response: web.StreamResponse | None = None
        try:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._pass_live(request)
            async with self._session.request(
                request.method,
                self._there(request),
                headers={name: request.headers[name] for name in FROM_US if name in request.headers},
                data=request.content if request.body_exists else None,
                allow_redirects=False,
            ) as answer:
                kept = {name: answer.headers[name] for name in FROM_THE_BOX if name in answer.headers}
                response = web.StreamResponse(status=answer.status, headers=kept)
                await response.prepare(request)
                async for chunk in answer.content.iter_chunked(CHUNK):
                    await response.write(chunk)
                await response.write_eof()
                return response
        except aiohttp.ClientError as error:
            if response is not None:
                raise ConnectionResetError(
                    str(error)
                ) from error  # half an answer must not look like a whole one
            return _said(502, f"the remote sandbox cannot be reached: {error}")

    def _there(self, request: web.Request) -> str:
        return self._url + request.raw_path.removeprefix(PREFIX)

    async def _pass_live(self, request: web.Request) -> web.StreamResponse:
        async with self._session.ws_connect(self._there(request), max_msg_size=LIVE_BYTES) as there:
            here = web.WebSocketResponse(max_msg_size=LIVE_BYTES, compress=False)
            await here.prepare(request)
            ways = [asyncio.create_task(_copy(here, there)), asyncio.create_task(_copy(there, here))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)  # one end has gone, however it did
            await here.close()
            return here


LiveEnd = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _copy(source: LiveEnd, sink: LiveEnd) -> None:
    async for message in source:
        if message.type is aiohttp.WSMsgType.TEXT:
            await sink.send_str(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await sink.send_bytes(message.data)


def _said(status: int, detail: str) -> web.Response:
    return web.json_response({"detail": detail}, status=status)
