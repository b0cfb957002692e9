"""Following a turn log over one HTTP connection.

Every event is a chunk of its own, since clients parse chunk by chunk; all chunks that are ready leave in one socket
write, the first of them with the headers. aiohttp's writer makes one write a chunk, so the chunked framing is done
here. After the headers no task runs for an event: the log calls back, and the callback writes.

A reader that is slow stops being written to when the socket's buffer is full, and goes on from its position in the log
when it has drained. Nothing is queued for it.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Generator

from aiohttp import web

from greenroom.actors.errors import SessionLost
from greenroom.actors.log import TurnLog
from greenroom.transports.event_stream import EventStreamResponse, send_whole
from greenroom.transports.frames import EncoderOf, FrameReader, SharedFrames, numbered
from greenroom.transports.sse import KEEPALIVE
from greenroom.transports.turn_request import TurnRequest

SLICE = 64 * 1024
"""Bytes a write is made of at the most, unless one frame is larger: what a transport buffers before it says stop."""
WHOLE_EVENTS = 256
WHOLE_SIZE = SLICE // 8
"""A turn that has ended when its reader first looks, with no more events and text than this, is written at once:
protocols say a text up to four times, with some 200 bytes around it."""
LOOK_SECONDS = 1.0
"""How often a silent connection is looked at when its turn must know soon that the client is gone."""


@types.coroutine
def _others_step() -> Generator[None, None, None]:
    """Let what is scheduled run once; `asyncio.sleep(0)` without its two coroutines."""
    yield


class Follower:
    """One connection that follows one turn, as the frames that `encoder_of` makes of it.

    `position`: the first frame's number. `with_ids`: each frame has its `id:` line. `keepalive`: seconds. `reached`:
    whether the client was there when the first was written.
    """

    __slots__ = (
        "_encoder_of",
        "_frames",
        "_gone",
        "_keepalive",
        "_log",
        "_loop",
        "_position",
        "_quiet_since",
        "_request",
        "_response",
        "_timer",
        "_wake",
        "_with_ids",
        "reached",
    )

    def __init__(
        self,
        request: TurnRequest,
        log: TurnLog,
        encoder_of: EncoderOf,
        position: int = 0,
        *,
        with_ids: bool = False,
        keepalive: float,
    ) -> None:
        self._request = request
        self._log = log
        self._encoder_of = encoder_of
        self._position = position
        self._with_ids = with_ids
        self._keepalive = keepalive
        self._gone = False
        self.reached = False
        self._wake: asyncio.Future[None] | None = None

    async def run(self) -> web.StreamResponse:
        """Write the log's frames until its end. Raises `ConnectionError` when the client goes before."""
        # The actor's first step is scheduled already: after it, what a quick handler says leaves with the headers.
        await _others_step()
        if self._is_whole():
            self.reached = self._is_there()
            frames = self._encoder_of.whole(self._log.turn, self._log.events())
            if self._with_ids:
                frames = numbered(frames)
            sent = send_whole(self._request, frames)  # aiohttp before 3.14 has empty mappings for responses
            return await self._begin_whole(frames) if sent is None else sent
        response = self._response = EventStreamResponse(self._request)
        self._frames: FrameReader = SharedFrames.of(self._log, self._encoder_of).reader(
            self._position, self._with_ids
        )
        self._timer: asyncio.TimerHandle | None = None
        try:
            # No name is given to the frames: it would hold them for as long as the stream is open.
            self.reached = self._is_there()
            await response.begin(self._frames.take(SLICE), last=self._frames.ended)
            if not self._frames.ended:
                self._watch()
            # Here and not in a coroutine of its own, which every open stream would hold.
            while not self._frames.ended:
                if self._gone:
                    raise ConnectionResetError("the client has gone, or the turn has")
                if self._request.protocol.writing_paused:
                    await self._request.writer.drain()
                    self._flush()
                else:
                    self._wake = self._loop.create_future()
                    await self._wake
            return response
        finally:
            self._leave()

    async def _begin_whole(self, frames: list[bytes]) -> web.StreamResponse:
        response = EventStreamResponse(self._request)
        await response.begin(frames, last=True)
        return response

    def _is_there(self) -> bool:
        transport = self._request.transport
        return transport is not None and not transport.is_closing()

    def _is_whole(self) -> bool:
        """Whether the turn has ended and is small, and nobody else reads it as this one does."""
        log = self._log
        return (
            log.terminal is not None
            and log.size <= WHOLE_SIZE
            and len(log) <= WHOLE_EVENTS
            and not self._position
            and not log.views
            and not log.expired
        )

    def _watch(self) -> None:
        self._loop = asyncio.get_running_loop()
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
        except SessionLost:  # it goes on in another process, and the client comes back for the rest
            self._gone = True
            self._wake_up()
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
