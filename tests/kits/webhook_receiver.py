"""A real receiver of webhooks: it keeps what comes, and answers as it is told."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes ...").decode()
LOOPBACK = ("127.0.0.0/8", "::1")


class Received(NamedTuple):
    """One message, as it came."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The message's id."""
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        """What it says."""
        event: dict[str, Any] = msgspec.json.decode(self.body)
        return event

    def check(self, secret: str = SECRET) -> None:
        """Raise AssertionError unless it is signed by the specification (written from its text, and not from ours)."""
        key = base64.b64decode(secret[len("whsec_") :])
        content = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
        versions = [signature.split(",", 1) for signature in self.headers["webhook-signature"].split(" ")]
        assert ["v1", expected] in versions, versions


Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Receiver:
    """`answers`: what it says to the next messages, a status or a function; then it says 204. `url`: where it is."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[int | Answering] = []
        self.received: list[Received] = []
        self._came = asyncio.Condition()

    async def take(self, request: web.Request) -> web.StreamResponse:
        """A message."""
        assert request.method == "POST"
        self.received.append(Received(dict(request.headers), await request.read()))
        async with self._came:
            self._came.notify_all()
        answer = self.answers.pop(0) if self.answers else 204
        return web.Response(status=answer) if isinstance(answer, int) else await answer(request)

    async def have(self, count: int) -> list[Received]:
        """Wait until so many have come."""
        async with asyncio.timeout(30), self._came:
            await self._came.wait_for(lambda: len(self.received) >= count)
        return self.received


@asynccontextmanager
async def a_receiver(port: int = 0) -> AsyncIterator[Receiver]:
    """One that listens."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/hook", receiver.take)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()
