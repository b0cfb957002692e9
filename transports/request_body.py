"""Reading a request's JSON body on aiohttp, bounded in size and time by our own settings.

The routes may be part of somebody else's application, whose `client_max_size` is about his routes.
"""

from __future__ import annotations

import anyio
from aiohttp import web
from msgspec import Struct

from greenroom.actors.errors import BodyTooLarge, InvalidRequest, UnsupportedMediaType
from greenroom.transports.process_routes import FORM_TYPES


class BodyReader(Struct, frozen=True):
    """`size`: the most bytes, decompressed; `seconds`: how long they may take; `setting`: the name of that bound."""

    size: int
    seconds: float
    setting: str

    async def read(self, request: web.Request) -> bytes:
        """The body. Raises `UnsupportedMediaType`, `BodyTooLarge`, or `InvalidRequest` when it does not arrive."""
        if request.content_type in FORM_TYPES and "Content-Type" in request.headers:
            raise UnsupportedMediaType(
                f"the body is declared as {request.content_type}; send JSON, and say so: "
                "-H 'Content-Type: application/json'"
            )
        if (request.content_length or 0) > self.size:
            raise self._too_large()
        try:
            if request.content.is_eof():  # it came with the headers, as most do
                return await self._pieces(request)
            with anyio.fail_after(self.seconds):
                return await self._pieces(request)
        except TimeoutError:
            raise InvalidRequest(
                f"the body did not arrive within {self.seconds:g} s; the connection is too slow or was stalled"
            ) from None

    async def _pieces(self, request: web.Request) -> bytes:
        whole = bytearray()
        while piece := await request.content.readany():
            whole += piece
            if len(whole) > self.size:
                raise self._too_large()
        return bytes(whole)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"the body is larger than the {self.size} bytes this server takes here; "
            f"send large media by URL, or raise the server's {self.setting}"
        )
