"""Following a turn log over one HTTP connection.

Every event is a chunk of its own, since clients parse chunk by chunk; all chunks that are ready leave in one socket
write. aiohttp's writer makes one write a chunk, so the chunked framing is done here and its writer is told that the
body is plain. After the headers no task runs for an event: the log calls back, and the callback writes.

A reader that is slow stops being written to when the socket's buffer is full, and goes on from its position in the log
when it has drained. Nothing is queued for it.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict

from greenroom.actors.log import TurnLog
from greenroom.transports.sse import KEEPALIVE

SLICE = 64 * 1024
"""Bytes a write is made of at the most, unless one frame is larger: what a transport buffers before it says stop."""
LOOK_SECONDS = 1.0
"""How often a silent connection is looked at when its turn must know soon that the client is gone."""

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


class Frames(Protocol):
    """One reader's way through the frames of a log."""

    @property
    def ended(self) -> bool:
        """Whether the last frame has been taken."""
        ...

    @property
    def behind(self) -> bool:
        """Whether the last `take` left frames that there were."""
        ...

    def take(self, size: int) -> list[bytes]:
        """The next frames there are, up to `size` bytes or a single larger one."""
        ...

    def close(self) -> None:
        """Read no more."""
        ...


class EventStreamResponse(web.StreamResponse):
    """A response whose body comes framed."""

    _length_check = (
        False  # as aiohttp's own WebSocketResponse says that the body is not its writer's business
    )
    _send_headers_immediately = (
        False  # as aiohttp's own Response says that they leave with the first of the body
    )

    def __init__(self, request: web.Request) -> None:
        self.framed = request.version >= HttpVersion11
        if self.framed:
            super().__init__(headers=KEPT_FRAMED_HEADERS if request.keep_alive else FRAMED_HEADERS)
        else:
            super().__init__(headers=HEADERS)
            self.force_close()

    def body(self, frames: list[bytes], last: bool) -> bytes:
        """Frames as they go on the wire; after the last the body's end."""
        if not self.framed:
            return b"".join(frames)
        if len(frames) == 1 and not last:  # at a model's pace every token comes alone
            return b"%x\r\n%b\r\n" % (len(frames[0]), frames[0])
        chunks = [b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames]
        if last:
            chunks.append(b"0\r\n\r\n")
        return b"".join(chunks)


class Follower:
    """One connection that follows one turn."""

    __slots__ = (
        "_frames",
        "_gone",
        "_keepalive",
        "_log",
        "_loop",
        "_quiet_since",
        "_request",
        "_response",
        "_timer",
        "_wake",
    )

    def __init__(self, request: web.Request, log: TurnLog, frames: Frames, keepalive: float) -> None:
        self._request = request
        self._log = log
        self._frames = frames
        self._keepalive = keepalive
        self._loop = asyncio.get_running_loop()
        self._response = EventStreamResponse(request)
        self._timer: asyncio.TimerHandle | None = None
        self._wake: asyncio.Future[None] | None = None
        self._gone = False
        self._quiet_since = 0.0

    async def run(self) -> web.StreamResponse:
        """Write the log's frames until its end. Raises `ConnectionError` when the client goes before."""
        # The actor's first step is scheduled already: after it, what a quick handler says leaves with the headers.
        await asyncio.sleep(0)
        try:
            response = self._response
            await response.prepare(self._request)
            # No name is given to the frames: it would hold them for as long as the stream is open.
            await response.write(response.body(self._frames.take(SLICE), self._frames.ended))
            if not self._frames.ended:
                self._watch()
            # Here and not in a coroutine of its own, which every open stream would hold.
            while not self._frames.ended:
                if self._gone:
                    raise ConnectionResetError("the client has gone")
                if self._request.protocol.writing_paused:
                    await self._request.writer.drain()
                    self._flush()
                else:
                    self._wake = self._loop.create_future()
                    await self._wake
            return response
        finally:
            self._leave()

    def _watch(self) -> None:
        self._log.watch(self._told)
        self._quiet_since = self._loop.time()
        self._look_later()
        self._flush()

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._log.unwatch(self._told)
        self._frames.close()

    def _told(self) -> None:
        """The log has more. Whatever fails, the connection does not stay open without an end."""
        try:
            self._flush()
        except BaseException:
            self._gone = True
            self._wake_up()
            raise

    def _flush(self) -> None:
        """Write all that is ready, as long as the socket takes it."""
        protocol = self._request.protocol
        transport = protocol.transport
        if transport is None or transport.is_closing():
            self._gone = True
            self._wake_up()
            return
        reader = self._frames
        more = True
        while more and not protocol.writing_paused:
            if frames := reader.take(SLICE):
                transport.write(self._response.body(frames, reader.ended))
                self._quiet_since = self._loop.time()
            more = reader.behind
        if reader.ended or protocol.writing_paused:
            self._wake_up()

    def _look(self) -> None:
        """Nothing may have been said for a while: is the client there, and does the connection need a sign of life?"""
        transport = self._request.transport
        if transport is None or transport.is_closing():
            self._gone = True
            self._wake_up()
            return
        now = self._loop.time()
        if now - self._quiet_since >= self._keepalive and not self._request.protocol.writing_paused:
            transport.write(self._response.body([KEEPALIVE], last=False))
            self._quiet_since = now
        self._look_later()

    def _look_later(self) -> None:
        seconds = self._quiet_since + self._keepalive - self._loop.time()
        if self._log.turn.disconnect.policy != "continue":
            seconds = min(seconds, LOOK_SECONDS)
        self._timer = self._loop.call_later(max(seconds, 0.01), self._look)

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
