"""An HTTP response that is a stream of server-sent events, in chunks that are framed here.

aiohttp takes some 25 us to begin a response and makes one socket write a chunk. Here the headers, which hardly differ
from one stream to the next, are bytes made once a second, and leave together with the first frames. aiohttp begins the
response itself where somebody wants a say in its headers (`on_response_prepare`: CORS, an outer application), and for
clients of HTTP/1.0.
"""

from __future__ import annotations

import time
from email.utils import formatdate

from aiohttp import HttpVersion11, web
from aiohttp.http import SERVER_SOFTWARE
from multidict import CIMultiDict

from greenroom.transports.turn_request import DIRECT, TurnRequest

# Made once: copying such a dictionary is much cheaper than making it.
HEADERS = CIMultiDict(
    {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-cache",
        "X-Accel-Buffering": "no",
    }
)
FRAMED_HEADERS = CIMultiDict(HEADERS, **{"Transfer-Encoding": "chunked"})
KEPT_FRAMED_HEADERS = CIMultiDict(FRAMED_HEADERS, Connection="keep-alive")
CLOSED_FRAMED_HEADERS = CIMultiDict(FRAMED_HEADERS, Connection="close")

_LINE_END, _END = b"\r\n", b"\r\n0\r\n\r\n"
"""What ends a chunk, and the last."""
_SIZES = [b"\r\n%x\r\n" % size for size in range(4096)]
"""What goes before a chunk, and after the last, for those sizes that nearly all have: looking it up takes a quarter of
the time."""


class EventStreamResponse(web.StreamResponse):
    """A response whose body comes framed."""

    _length_check = (
        False  # as aiohttp's own WebSocketResponse says that the body is not its writer's business
    )
    _send_headers_immediately = (
        False  # as aiohttp's own Response says that they leave with the first of the body
    )

    def __init__(self, request: TurnRequest) -> None:
        self._request = request
        self._begun = False
        self.framed = request.version >= HttpVersion11
        self._kept = self.framed and request.keep_alive
        headers = HEADERS if not self.framed else KEPT_FRAMED_HEADERS if self._kept else CLOSED_FRAMED_HEADERS
        super().__init__(headers=headers)

    @property
    def prepared(self) -> bool:
        return self._begun or super().prepared

    @property
    def keep_alive(self) -> bool:
        return self._kept

    async def begin(self, frames: list[bytes], *, last: bool) -> None:
        """Send the headers and the first frames. `last`: there are no more. Raises `ConnectionError`."""
        request = self._request
        if not self.framed or _is_signalled(request):
            assert isinstance(request, web.Request)  # every other is framed, and came the direct way
            await self.prepare(request)
            await self.write(self.body(frames, last))
            return
        self._begun = True
        _send(request, self._kept, frames, last)

    async def prepare(self, request: web.BaseRequest) -> object:  # type: ignore[override]
        """Begin as any response of aiohttp's does, unless it has begun."""
        return None if self._begun else await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        """The body has its own end."""
        if not self._begun:
            await super().write_eof(data)

    def body(self, frames: list[bytes], last: bool) -> bytes:
        """Frames as they go on the wire; after the last the body's end."""
        if not self.framed:
            return b"".join(frames)
        if len(frames) == 1 and not last:  # at a model's pace every token comes alone
            return b"%x\r\n%b\r\n" % (len(frames[0]), frames[0])
        return _chunks(b"", frames, last)[len(_LINE_END) :]


class SentStream(web.StreamResponse):
    """What aiohttp gets for a stream that was written whole: there is nothing left to do. One serves all requests."""

    def __init__(self, kept: bool) -> None:
        super().__init__(headers=KEPT_FRAMED_HEADERS if kept else CLOSED_FRAMED_HEADERS)
        self._kept = kept

    @property
    def prepared(self) -> bool:
        return True

    @property
    def keep_alive(self) -> bool:
        return self._kept

    async def prepare(self, request: web.BaseRequest) -> None:
        """It is on its way."""

    async def write_eof(self, data: bytes = b"") -> None:
        """It has its end."""


def send_whole(request: TurnRequest, frames: list[bytes]) -> web.StreamResponse | None:
    """Send a stream that has ended; none, when this request needs a response of its own. Raises `ConnectionError`."""
    if DIRECT not in request or request.version < HttpVersion11:
        return None
    kept = request.keep_alive
    _send(request, kept, frames, last=True)
    return _SENT[kept]


def _send(request: TurnRequest, kept: bool, frames: list[bytes], last: bool) -> None:
    """The headers and the beginning of the body."""
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has gone")
    head = _HEADS[kept].bytes()
    request.writer.output_size += len(head)  # aiohttp then knows that it cannot answer with an error any more
    transport.write(_chunks(head, frames, last))


def _chunks(before: bytes, frames: list[bytes], last: bool) -> bytes:
    """The frames as chunks, after `before`, which lacks the end of its last line: a size's line begins with the end of
    what goes before it."""
    # It runs for every token of a burst, so nothing in it is a step of Python's for each.
    try:
        sizes = list(map(_SIZES.__getitem__, map(len, frames)))
    except IndexError:
        sizes = [b"\r\n%x\r\n" % len(frame) for frame in frames]
    pieces = [before] * (2 * len(frames) + 2)
    pieces[1:-1:2] = sizes
    pieces[2:-1:2] = frames
    pieces[-1] = _END if last else _LINE_END
    return b"".join(pieces)


def _is_signalled(request: TurnRequest) -> bool:
    """Whether an application the request came through wants to hear of its response."""
    return (
        DIRECT not in request
        and isinstance(request, web.Request)
        and any(app.on_response_prepare for app in request.match_info.apps)
    )


class _Head:
    """A response's status line and headers as bytes, all but their last line end; they change with the date, every
    second."""

    def __init__(self, headers: CIMultiDict[str]) -> None:
        self._headers = headers
        self._second = -1
        self._bytes = b""

    def bytes(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in self._headers.items())]
            lines += [f"Date: {formatdate(second, usegmt=True)}", f"Server: {SERVER_SOFTWARE}", ""]
            self._bytes = "\r\n".join(lines).encode()
        return self._bytes


_HEADS = {True: _Head(KEPT_FRAMED_HEADERS), False: _Head(CLOSED_FRAMED_HEADERS)}
_SENT = {True: SentStream(True), False: SentStream(False)}
