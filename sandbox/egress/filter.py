"""The egress filter: the one way out of a box, and who decides where it leads.

A box has no network. Its tool server relays 127.0.0.1:3128 to a UNIX socket in the box's directory, at the other end of
which this filter speaks the proxy's side of HTTP/1.1: CONNECT, and requests in absolute form, one a connection.

Theory of operation. Nothing that a box sends is passed on as it is: a request's head is read strictly and written
anew, from what was understood (`request`). The host is looked up here, once, and the very addresses that were
judged are connected to (`rules`, `dial`): a name that changes its address between the two has no between.
What a refused box reads says why; the operator's log says where the name led.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from msgspec import Struct

from greenroom.sandbox.box_sockets import FOR_THE_BOX, listening_socket, remove_socket
from greenroom.sandbox.egress.bodies import Body, begins_like_the_web
from greenroom.sandbox.egress.dial import CHUNK, Lookups, Resolver, Streams, SystemResolver, dial
from greenroom.sandbox.egress.refusal import Refusal, forbidden
from greenroom.sandbox.egress.relay import relay_exchange, relay_tunnel, send
from greenroom.sandbox.egress.request import HEAD_END, PlainRequest, TunnelRequest, find_head_end, read_head
from greenroom.sandbox.egress.rules import Policy, Route, Target
from greenroom.sandbox.settings import EgressRules

__all__ = ["EgressFilter", "EgressLimits", "EgressListener", "EgressStatistics", "Resolver"]

_log = logging.getLogger(__name__)

ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
LOOKUPS_AT_A_TIME: Final = 4
"""Of one box."""
LAST_WORD_SECONDS: Final = 2.0
LAST_WORDS: Final = 16
"""Connections over the bound that are told so at a time; the next wait until they are accepted."""
PAUSE_SECONDS: Final = 1.0
"""After the system had no file descriptors left."""
KINDS_LOGGED: Final = 200
"""Different refusals of one box that are logged; what comes after is counted."""


class EgressLimits(Struct, frozen=True, kw_only=True):
    """Bounds of one box's way out. Times are in seconds."""

    connections: int = 128
    """At a time; a browser opens up to 32 to a proxy, and more for WebSockets."""
    connections_a_second: float = 200.0
    """On average: each costs the host work."""
    head_seconds: float = 15.0
    """For a request's head, and for the first bytes in a tunnel."""
    connect_seconds: float = 15.0
    """For looking up and connecting."""
    idle_seconds: float = 600.0
    """A connection through which nothing goes for so long is ended."""


class EgressStatistics(Struct, frozen=True):
    """What went through one listener so far: connections that are open, were accepted, were refused what they asked."""

    open: int
    accepted: int
    refused: int


class EgressFilter:
    """Lets boxes go where `rules` say. One filter serves any number of boxes.

    Raises `ConfigurationError` for rules that cannot be understood.
    """

    def __init__(
        self, rules: EgressRules, *, resolver: Resolver | None = None, limits: EgressLimits | None = None
    ) -> None:
        self._policy = Policy(rules)
        self._resolver = resolver or SystemResolver()
        self._limits = limits or EgressLimits()

    @asynccontextmanager
    async def listen(self, path: Path, who: str) -> AsyncIterator[EgressListener]:
        """Serve a box at the UNIX socket `path`, until the context is left: then its connections end too.

        `who` (the lease's id) is what refusals are logged with. Another task may leave the context than entered it.
        Raises `OSError` when nothing can listen there.
        """
        listening, file = await anyio.to_thread.run_sync(listening_socket, path, FOR_THE_BOX)
        listener = EgressListener(who, self._policy, self._resolver, self._limits)
        serving = asyncio.create_task(listener.serve(listening), name=f"egress of {who}")
        try:
            yield listener
        finally:
            with anyio.CancelScope(shield=True):
                serving.cancel()
                await asyncio.wait([serving])
                listening.close()
                listener.close()
                await anyio.to_thread.run_sync(remove_socket, path, file)


class EgressListener:
    """One box's way out while it is open. `EgressFilter.listen` makes it."""

    def __init__(self, who: str, policy: Policy, resolver: Resolver, limits: EgressLimits) -> None:
        self._who = who
        self._policy = policy
        self._limits = limits
        self._lookups = Lookups(resolver, LOOKUPS_AT_A_TIME)
        self._room = anyio.Semaphore(limits.connections + LAST_WORDS)
        self._turn = anyio.Lock()
        self._open = 0
        self._accepted = 0
        self._refusals: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<EgressListener of {self._who[:8]}: {self._open} open>"

    def statistics(self) -> EgressStatistics:
        """How many connections are open, were accepted, were refused."""
        return EgressStatistics(self._open, self._accepted, self._refusals.total())

    async def serve(self, listening: socket.socket) -> None:
        """Accept connections until cancelled."""
        loop = asyncio.get_running_loop()
        pace = _Pace(self._limits.connections_a_second)
        async with anyio.create_task_group() as group:
            while True:
                await pace.wait()
                await self._room.acquire()
                try:
                    accepted, _ = await loop.sock_accept(listening)
                except OSError as error:
                    self._room.release()
                    _log.error("egress of %s: cannot accept a connection: %s", self._who, error)
                    await anyio.sleep(PAUSE_SECONDS)
                    continue
                self._begin(accepted, group)

    def _begin(self, accepted: socket.socket, group: TaskGroup) -> None:
        self._accepted += 1
        self._open += 1
        group.start_soon(self._run, accepted)

    async def _run(self, accepted: socket.socket) -> None:
        try:
            async with _closing(await _streams_of(accepted)) as box:
                await self._answer(box)
        except OSError as error:
            _log.debug("egress of %s: a connection broke: %s", self._who, error)
        except Exception:  # noqa: BLE001 - the other connections of the box go on
            _log.exception("egress of %s: a connection failed, which is a defect of Greenroom", self._who)
        finally:
            self._open -= 1
            self._room.release()

    async def _answer(self, box: Streams) -> None:
        try:
            if self._open > self._limits.connections:
                raise Refusal(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    f"{self._limits.connections} connections are open, which is as many as a box may have",
                )
            await self._serve_request(box)
        except Refusal as refusal:
            self._log(refusal)
            with anyio.move_on_after(LAST_WORD_SECONDS):
                await send(box[1], refusal.encode())
                box[1].write_eof()
                while await box[0].read(CHUNK):
                    pass  # one that is still sending must get to read why it was refused

    async def _serve_request(self, box: Streams) -> None:
        request, early = await self._read_request(box[0])
        server = await self._connect(request.target)
        async with _closing(server):
            if isinstance(request, TunnelRequest):
                await self._open_tunnel(request, box, server, early)
            else:
                await self._exchange(request, box, server, early)

    async def _read_request(self, reader: asyncio.StreamReader) -> tuple[TunnelRequest | PlainRequest, bytes]:
        """The request, and what came behind its head."""
        seen = bytearray()
        with anyio.move_on_after(self._limits.head_seconds):
            while (end := find_head_end(seen)) is None:
                data = await reader.read(CHUNK)
                if not data:
                    raise ConnectionAbortedError("the box left before its request was whole")
                seen += data
            return read_head(bytes(seen[:end])), bytes(seen[end + len(HEAD_END) :])
        raise Refusal(
            HTTPStatus.REQUEST_TIMEOUT, f"the request took longer than {self._limits.head_seconds:g} seconds"
        )

    async def _connect(self, target: Target) -> Streams:
        seconds = self._limits.connect_seconds
        with anyio.move_on_after(seconds):
            return await dial(target, await self._route(target))
        raise Refusal(HTTPStatus.GATEWAY_TIMEOUT, f"{target} did not answer within {seconds:g} seconds")

    async def _route(self, target: Target) -> Route:
        route = self._policy.before_lookup(target)
        if route is not None:
            return route
        try:
            found = await self._lookups.addresses(target.host.text)
        except (OSError, UnicodeError) as error:
            raise Refusal(
                HTTPStatus.BAD_GATEWAY, f"the name of {target} was not found", detail=str(error)
            ) from None
        return self._policy.after_lookup(target, found)

    async def _open_tunnel(self, request: TunnelRequest, box: Streams, server: Streams, first: bytes) -> None:
        """Let a tunnel begin that begins as the web's connections do: with the browser's side, in TLS or HTTP."""
        await send(box[1], ESTABLISHED)
        with anyio.move_on_after(self._limits.head_seconds) as scope:
            while (good := begins_like_the_web(first)) is None:
                data = await box[0].read(CHUNK)
                if not data:
                    return
                first += data
            if not good:
                self._log(forbidden(f"what was sent to {request.target} is neither TLS nor HTTP"))
                return
            await send(server[1], first)
        if not scope.cancelled_caught:
            await relay_tunnel(box, server, self._limits.idle_seconds)

    async def _exchange(self, request: PlainRequest, box: Streams, server: Streams, early: bytes) -> None:
        await send(server[1], request.head)
        await relay_exchange(box, server, Body(request.framing), early, self._limits.idle_seconds, self._turn)

    def _log(self, refusal: Refusal) -> None:
        """Log a refusal; the same one again is only counted, and so is what a box tries without end."""
        text = refusal.for_log
        if text not in self._refusals and len(self._refusals) >= KINDS_LOGGED:
            text = "other refusals"
        self._refusals[text] += 1
        if self._refusals[text] == 1:
            wanted = (
                refusal.status is not HTTPStatus.FORBIDDEN
            )  # a server that is down is no attempt at anything
            _log.log(logging.INFO if wanted else logging.WARNING, "egress of %s refused: %s", self._who, text)

    def close(self) -> None:
        """Forget lookups under way, and log how often refusals were repeated."""
        self._lookups.close()
        repeated = [f"{count} times: {text}" for text, count in self._refusals.items() if count > 1]
        if repeated:
            _log.warning("egress of %s, refused in all: %s", self._who, "; ".join(repeated))


class _Pace:
    """At most so many a second on average, as many at once after a quiet second."""

    def __init__(self, per_second: float) -> None:
        self._step = 1 / per_second
        self._next = anyio.current_time()

    async def wait(self) -> None:
        now = anyio.current_time()
        self._next = max(self._next + self._step, now - 1)
        if self._next > now:
            await anyio.sleep_until(self._next)


async def _streams_of(accepted: socket.socket) -> Streams:
    reader = asyncio.StreamReader(limit=CHUNK)
    protocol = asyncio.StreamReaderProtocol(reader)
    loop = asyncio.get_running_loop()
    try:
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, accepted)
    except BaseException:
        accepted.close()
        raise
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


@asynccontextmanager
async def _closing(streams: Streams) -> AsyncIterator[Streams]:
    """Nothing waits in the transport for a slow reader, so nothing is lost when it is ended."""
    transport = streams[1].transport
    transport.set_write_buffer_limits(0)
    try:
        yield streams
    finally:
        transport.abort()
