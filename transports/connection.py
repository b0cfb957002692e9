"""A connection of our own server: counted by whose it is, and with errors as JSON, whatever they are about.

Who has too many is told so when he has said what he wants, in the words of the protocol he speaks, and his connection
is closed; if he says nothing, it is closed soon.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from greenroom.transports.door import Door, client_at
from greenroom.transports.http_errors import OURS, ErrorForm, error_response, from_aiohttp
from greenroom.transports.openai_fields import BASE_PATH
from greenroom.transports.request_body import UNREADABLE
from greenroom.transports.responses_errors import FORM

REFUSED_SECONDS: Final = 2.0
"""How long a connection may be open that is one too many, until it has asked for something."""

logger = logging.getLogger("greenroom.http")


class Connection(RequestHandler):
    """One connection. `refused`: it is one too many; `proxied`: it is a trusted proxy's."""

    __slots__ = ("_client", "_closing", "address", "door", "proxied", "refused")

    def __init__(self, server: web.Server, door: Door, **options: Any) -> None:
        super().__init__(server, **options)
        self.door = door
        self.address = ""
        self.proxied = self.refused = False
        self._client: str | None = None
        self._closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        self.proxied = self.door.trusts(self.address)
        if not self.proxied:
            self.refused = not self.enter(client_at(self.address))
        super().connection_made(transport)
        if self.refused:
            self._closing = asyncio.get_running_loop().call_later(REFUSED_SECONDS, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._closing is not None:
            self._closing.cancel()
        self.leave()
        super().connection_lost(exc)

    def enter(self, client: str) -> bool:
        """Count this connection, or the request in it, as that client's; not, when he has too many."""
        if not self.door.enter(client):
            return False
        self._client = client
        return True

    def leave(self) -> None:
        """It counts no more."""
        if self._client is not None:
            self.door.leave(self._client)
            self._client = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """aiohttp calls it for what is no HTTP, which is its sender's matter, and for defects."""
        if isinstance(exc, ConnectionError):
            raise exc  # the client has gone, or a stream was broken off by what is in the log already
        if status >= 500:
            super().handle_error(request, status, exc, message)  # it logs
            response = error_response(status, "internal_error", "the server failed; its log has the details")
        else:
            logger.debug("%s sent what cannot be read: %s", request.remote, message)
            if request.writer.output_size > 0:
                raise ConnectionError("a response is on its way already")
            why = (message or "").partition("\n")[0] or "it is malformed"
            response = error_response(
                status, "bad_request", f"this is no HTTP request that can be read: {why}"
            )
        response.force_close()
        return response

    def log_exception(self, *args: Any, **options: Any) -> None:
        """aiohttp also logs the rest of a body that cannot be made out, after its request was answered."""
        if not isinstance(options.get("exc_info"), UNREADABLE):
            super().log_exception(*args, **options)


class Gate:
    """What a server calls for each request that goes aiohttp's usual way: counts it, and gives its errors our form."""

    def __init__(self, usual: Callable[[Any], Awaitable[web.StreamResponse]]) -> None:
        self._usual = usual

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast("Connection", request.protocol)
        if connection.refused:
            return _refusal(request, connection.door)
        if not connection.proxied:
            return await self._answer(request)
        if not connection.enter(connection.door.client_of(request.headers, connection.address)):
            return _refusal(request, connection.door)
        try:
            return await self._answer(request)
        finally:
            connection.leave()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._usual(request)
        except web.HTTPException as error:  # of what comes to no route of ours, such as CONNECT
            return from_aiohttp(request, error, _form(request))


def _refusal(request: web.BaseRequest, door: Door) -> web.StreamResponse:
    response = _form(request).refusal(door.refusal(), request)
    response.force_close()
    return response


def _form(request: web.BaseRequest) -> ErrorForm:
    return FORM if request.path.startswith(f"{BASE_PATH}/") else OURS
