"""Reading a request's JSON body on aiohttp, bounded in size and time by our own settings.

The routes may be part of somebody else's application, whose `client_max_size` is about his routes.
"""

from __future__ import annotations

import anyio
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from msgspec import Struct

from greenroom.actors.errors import BodyTooLarge, InvalidRequest, UnsupportedMediaType
from greenroom.transports.turn_request import TurnRequest

FORM_TYPES = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")
"""What a page of any site may post without asking (a CORS "simple request"): refused, or it could use a local agent."""

UNREADABLE = (web.RequestPayloadError, HttpProcessingError)
"""What aiohttp raises for a body that it cannot make out."""


def check_media_type(request: TurnRequest) -> None:
    """Raises `UnsupportedMediaType` for a body that is declared as what a form sends."""
    if (
        request.headers.get("Content-Type") == "application/json"
    ):  # as nearly all say; it spares taking it apart
        return
    if request.content_type in FORM_TYPES and "Content-Type" in request.headers:
        raise UnsupportedMediaType(
            f"the body is declared as {request.content_type}; send JSON, and say so: "
            "-H 'Content-Type: application/json'"
        )


def unreadable(error: Exception) -> InvalidRequest:
    """A body that is not of the form that the headers say: its compression, its chunks."""
    why = " ".join(str(error).partition("message:")[2].split()) or "it cannot be read"
    return InvalidRequest(
        f"the body is not in the form that Content-Encoding and Transfer-Encoding say: {why}"
    )


class BodyReader(Struct, frozen=True):
    """`size`: the most bytes, decompressed (none: what the application takes); `seconds`: how long they may take;
    `setting`: the name of that bound."""

    size: int | None
    seconds: float
    setting: str

    def at_hand(self, request: TurnRequest) -> bytes:
        """The body, if it came with the headers, as most do, and is not empty; it costs no coroutine. Else nothing.

        Raises `UnsupportedMediaType` and `BodyTooLarge`.
        """
        check_media_type(request)
        content = request.content
        try:
            whole = content.read_nowait() if content.is_eof() else b""
        except UNREADABLE as error:
            raise unreadable(error) from None
        self._check(len(whole), request.client_max_size if self.size is None else self.size)
        return whole

    async def read(self, request: TurnRequest) -> bytes:
        """The body. Raises `UnsupportedMediaType`, `BodyTooLarge`, or `InvalidRequest` when it does not arrive."""
        if whole := self.at_hand(request):
            return whole
        most = request.client_max_size if self.size is None else self.size
        if request.content.is_eof():
            whole = await request.read()  # what is read already, by a middleware, aiohttp still has
            self._check(len(whole), most)
            return whole
        self._check(request.content_length or 0, most)
        try:
            with anyio.fail_after(self.seconds):
                return await self._pieces(request, most)
        except UNREADABLE as error:
            raise unreadable(error) from None
        except TimeoutError:
            raise InvalidRequest(
                f"the body did not arrive within {self.seconds:g} s; the connection is too slow or was stalled"
            ) from None

    async def _pieces(self, request: TurnRequest, most: int) -> bytes:
        whole = bytearray()
        while piece := await request.content.readany():
            whole += piece
            self._check(len(whole), most)
        return bytes(whole)

    def _check(self, size: int, most: int) -> None:
        if size > most:
            raise BodyTooLarge(
                f"the body is larger than the {most} bytes this server takes here; "
                f"send large media by URL, or raise the server's {self.setting}"
            )
