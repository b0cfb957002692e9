"""A connection of our own server that answers requests for turns itself.

aiohttp makes a task, a request, a stream writer and a response for each request, which is an eighth of a short turn.
Here the connection's one task calls the handler, and the handler writes. The first request that is not for the fast
lane (or that comes while another waits: pipelining) is left in the queue, and the connection is aiohttp's from then on.

Parsing, the bounds of headers, keep-alive, noticing that the client is gone and the stop are aiohttp's as ever. Its
`RequestHandler` is not made to be extended, so all that is relied on is named in `RELIED_ON`; an aiohttp that lacks
any of it serves the usual way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final

from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from greenroom.transports.connection import Connection
from greenroom.transports.door import Door
from greenroom.transports.fast_lane import FastLane
from greenroom.transports.turn_request import LeanRequest

_COUNTED: Final = hasattr(HttpRequestParser, "message_consumed")
"""Whether the parser counts those of its requests that wait (from aiohttp 3.14 on)."""

RELIED_ON: Final = (
    "_messages",  # requests that are parsed, each with its body
    "_waiter",  # what an idle connection waits for
    "_current_request",  # its `_cancel` is called when the connection is lost
    "_request_in_progress",
    "_handler_waiter",  # what a stop waits for while a request is in progress
    "_task_handler",  # cancelled when the connection is lost
    "_close",  # after this request
    "_force_close",  # now
    "_keepalive",
    "_keepalive_handle",
    "_next_keepalive_close_time",
    "_process_keepalive",
    *(("_parser",) if _COUNTED else ()),  # it is told of each request that is taken
    "finish_response",
    "handle_error",
)
LINGER_SECONDS = 10.0
"""How long the rest of a body nobody wants is taken, so that its sender comes to read the answer; as aiohttp has it."""

logger = logging.getLogger("greenroom.http")


def connections(
    server: web.Server, door: Door, lane: FastLane | None, *, body_bytes: int, **options: Any
) -> Callable[[], asyncio.Protocol]:
    """What makes the server's connections. `body_bytes`: the largest body; `options`: what aiohttp takes for one.

    `lane`: whose requests they answer themselves; nothing: none."""
    loop = asyncio.get_running_loop()
    if lane is None:
        return lambda: Connection(server, door, loop=loop, **options)
    lacking = [name for name in RELIED_ON if not hasattr(RequestHandler, name)]
    if lacking:
        logger.info("this aiohttp has no %s; turns are served its usual way", ", ".join(lacking))
        return lambda: Connection(server, door, loop=loop, **options)
    return lambda: LeanConnection(server, door, lane, body_bytes, loop=loop, **options)


class LeanConnection(Connection):
    """One connection. Its task is `start`, which aiohttp makes."""

    __slots__ = ("_lane", "body_bytes", "server")

    def __init__(
        self, server: web.Server, door: Door, lane: FastLane, body_bytes: int, **options: Any
    ) -> None:
        super().__init__(server, door, **options)
        self.body_bytes = body_bytes
        self.server = server
        self._lane = lane

    async def start(self) -> None:
        """Answer requests until the connection is to close, or is aiohttp's."""
        loop = asyncio.get_running_loop()
        context = copy_context()
        try:
            while not self._force_close:
                if not self._messages:
                    self._waiter = loop.create_future()
                    await self._waiter
                    self._waiter = None
                request = self._take()
                if request is None:
                    return await super().start()
                try:
                    response = await request.handler(request)
                    kept = response.keep_alive if response.prepared else await self._finish(request, response)
                except Exception as error:  # noqa: BLE001 - answered or logged there
                    kept = await self._fail(request, error)
                finally:
                    self._answered()
                if not request.content.is_eof():
                    await self._linger(request.content)
                if not self._goes_on(kept):
                    return self._end()
                if copy_context() != context:
                    # Somebody's `authenticate` has set a variable, which is not the next request's.
                    self._task_handler = loop.create_task(self.start(), context=context)
                    return None
        except BaseException:
            self.force_close()
            raise
        return None

    def _take(self) -> LeanRequest | None:
        """The next request, if it is one for here."""
        if len(self._messages) != 1:
            return None
        message, content = self._messages[0]
        if not isinstance(message, RawRequestMessage) or message.version != HttpVersion11 or message.upgrade:
            return None
        handler = self._lane.handler(message.method, message.path, message.headers)
        if handler is None or self.refused:
            return None
        if self.proxied and not self.enter(self.door.client_of(message.headers, self.address)):
            return None  # where it is refused
        self._messages.clear()
        if _COUNTED:
            self._parser.message_consumed()  # type: ignore[union-attr]
        self.server.requests_count += 1
        request = LeanRequest(message, content, self, handler)
        self._current_request = request  # type: ignore[assignment]
        self._request_in_progress = True
        return request

    async def _finish(self, request: LeanRequest, response: web.StreamResponse) -> bool:
        """Send a response that is not on its way yet. Whether the connection may be kept."""
        response, lost = await self.finish_response(request.usual(), response, None)
        return not lost and bool(response.keep_alive)

    async def _fail(self, request: LeanRequest, error: Exception) -> bool:
        """What is left to do about what a handler raised. Whether the connection may be kept."""
        if isinstance(error, web.HTTPException):
            return await self._finish(request, error)
        if isinstance(error, ConnectionError):
            self.force_close()
            return False  # the client has gone, or a stream was broken off by what is in the log already
        return await self._finish(request, self.handle_error(request.usual(), 500, error))

    def _answered(self) -> None:
        if self.proxied:
            self.leave()
        self._current_request = None
        self._request_in_progress = False
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)

    async def _linger(self, content: StreamReader) -> None:
        """Take the rest of a body."""
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while not content.is_eof() and content.exception() is None and not self._force_close:
                    await content.readany()
        except TimeoutError:
            self.close()
        if not content.is_eof():
            self.close()

    def _end(self) -> None:
        """Close the connection when what is written has left."""
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    def _goes_on(self, kept: bool | None) -> bool:
        """Whether another request may come. The idle connection is then closed in time."""
        self._keepalive = bool(kept)
        if not kept or self._close or self._force_close:
            return False
        loop = asyncio.get_running_loop()
        self._next_keepalive_close_time = at = loop.time() + self.keepalive_timeout
        if self._keepalive_handle is None:
            # It stays until it is due, and then looks whether it was too early: cheaper than one a request.
            self._keepalive_handle = loop.call_at(at, self._process_keepalive)
        return True
