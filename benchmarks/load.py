"""The load client: keep-alive connections, a loop over a selector, and no more.

It must cost less than what it measures, so it looks at an answer once, when that is whole: the pieces received are
joined, and the chunks in them counted with `bytes.count`. A delta frame holds no CR LF, so the end of the body can be
seen at the end of a piece, and every chunk begins with CR LF and how frames of the protocol begin. The first answer of
each connection is taken apart chunk by chunk; those after it must have its length.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from types import TracebackType

from msgspec import Struct

from benchmarks.plans import Plan

END = b"\r\n0\r\n\r\n"
DONE = b"data: [DONE]\n\n"
DONE_AND_END = b"\r\n" + DONE + END
HEAD_END = b"\r\n\r\n"
PIECE = 256 * 1024
PATIENCE = 60.0
"""Seconds without a byte after which open answers count as errors."""


class Answer(Struct):
    """A whole answer, taken apart."""

    status: int
    headers: dict[str, str]
    chunks: list[bytes]


class Broken(Exception):
    """An answer that is not what it should be."""


def take_apart(raw: bytes) -> Answer:
    """Read an answer strictly. Raises `Broken`."""
    head, found, body = raw.partition(HEAD_END)
    if not found:
        raise Broken("the headers did not end")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split()[1]), headers, chunks_of(body))


def chunks_of(body: bytes) -> list[bytes]:
    """The chunks of a chunked body, without the last, empty one. Raises `Broken`."""
    chunks: list[bytes] = []
    at = 0
    while True:
        line_end = body.find(b"\r\n", at)
        if line_end < 0:
            raise Broken("the body ended within a chunk's size")
        size = int(body[at:line_end], 16)
        end = line_end + 2 + size
        if body[end : end + 2] != b"\r\n":
            raise Broken(f"a chunk is not {size} bytes as it says")
        if not size:
            if len(body) != end + 2:
                raise Broken("bytes follow the last chunk")
            return chunks
        chunks.append(body[line_end + 2 : end])
        at = end + 2


class Connection:
    """One connection with, at most, one request on its way."""

    __slots__ = ("_begins", "_length", "_pieces", "_plan", "_request", "first_at", "sent_at", "socket")

    def __init__(self, port: int, plan: Plan) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._plan = plan
        self._begins = b"\r\n" + plan.protocol.begins
        path, body = plan.protocol.path.encode(), plan.body
        self._request = (
            b"POST %b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (path, port, len(body), body)
        )
        self._length = 0
        self._pieces: list[bytes] = []
        self.sent_at = 0.0
        self.first_at = 0.0

    def send(self) -> None:
        self.first_at = 0.0
        self.sent_at = time.perf_counter()
        self.socket.send(self._request)

    def receive(self) -> bool:
        """Take what there is. Whether the answer is whole now. Raises `Broken` and `OSError`."""
        piece = self.socket.recv(PIECE)
        if not self.first_at:
            self.first_at = time.perf_counter()
        if not piece:
            raise Broken("the connection was closed within an answer")
        pieces = self._pieces
        pieces.append(piece)
        return piece.endswith(END) if len(piece) >= len(END) else b"".join(pieces[-len(END) :]).endswith(END)

    def whole(self) -> bytes:
        """The answer that has just come. Raises `Broken` when it is not what the plan says."""
        raw = b"".join(self._pieces)
        self._pieces.clear()
        if not self._length:
            check(take_apart(raw), self._plan)
            self._length = len(raw)
        elif len(raw) != self._length or self._frames_in(raw) != self._plan.frames:
            raise Broken(f"an answer of {len(raw)} bytes, where the first had {self._length}")
        elif not raw.endswith(DONE_AND_END) or not raw.startswith(b"HTTP/1.1 200 "):
            raise Broken(f"an answer that begins {raw[:20]!r} and ends {raw[-40:]!r}")
        return raw

    def _frames_in(self, raw: bytes) -> int:
        return raw.count(self._begins, 0, -len(DONE_AND_END)) + 1


def check(answer: Answer, plan: Plan) -> None:
    """Raises `Broken` for an answer that is not the plan's."""
    if answer.status != 200:
        raise Broken(f"status {answer.status}")
    if len(answer.chunks) != plan.frames or answer.chunks[-1] != DONE:
        raise Broken(f"{len(answer.chunks)} chunks instead of {plan.frames}, the last {answer.chunks[-1:]!r}")
    begins = plan.protocol.begins
    if any(not chunk.startswith(begins) or not chunk.endswith(b"\n\n") for chunk in answer.chunks[:-1]):
        raise Broken("a chunk that is not one frame")


class Client:
    """Connections to one server, all for one plan. Use it as a context manager."""

    def __init__(self, port: int, plan: Plan, connections: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._open: set[Connection] = set()
        self.errors: list[str] = []
        for _ in range(connections):
            connection = Connection(port, plan)
            self._open.add(connection)
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for connection in self._open:
            connection.socket.close()
        self._selector.close()

    def send_all(self) -> None:
        """A request on every connection."""
        for connection in self._open:
            connection.send()

    def until_whole(self, whole: Callable[[Connection], bool]) -> None:
        """Receive until no answer is awaited. `whole` hears of each; whether it has sent the next request."""
        awaited = len(self._open)
        while awaited:
            ready = self._selector.select(PATIENCE)
            if not ready:
                self.errors.extend(["an answer did not end"] * awaited)
                return
            for key, _ in ready:
                connection: Connection = key.data
                try:
                    if connection.receive():
                        connection.whole()
                        awaited -= not whole(connection)
                except (Broken, OSError) as error:
                    self._drop(connection, error)
                    awaited -= 1

    def until_first(self) -> None:
        """Receive until every connection has had bytes and there are none for a while."""
        while ready := self._selector.select(1.0):
            for key, _ in ready:
                key.data.receive()
        if any(not connection.first_at for connection in self._open):
            self.errors.append("an answer did not begin")

    def first_bytes(self) -> list[float]:
        """Seconds from each connection's last request to the first byte of its answer."""
        return [c.first_at - c.sent_at for c in self._open]

    def _drop(self, connection: Connection, error: Exception) -> None:
        self.errors.append(f"{type(error).__name__}: {error}")
        self._selector.unregister(connection.socket)
        self._open.discard(connection)
        connection.socket.close()


class Rate(Struct, frozen=True):
    """Whole answers, how many a second that was, and what went wrong."""

    requests: int
    per_second: float
    errors: list[str]


def rate(port: int, plan: Plan, connections: int, seconds: float) -> Rate:
    """Keep each connection busy for so long."""
    done = 0
    with Client(port, plan, connections) as client:
        start = time.perf_counter()
        stop = start + seconds

        def again(connection: Connection) -> bool:
            nonlocal done
            done += 1
            if time.perf_counter() > stop:
                return False
            connection.send()
            return True

        client.send_all()
        client.until_whole(again)
        return Rate(done, done / (time.perf_counter() - start), client.errors)


class Crowd(Struct, frozen=True):
    """What many streams at once had to wait for. Times in seconds."""

    first_bytes: list[float]
    seconds: float
    errors: list[str]


def crowd(port: int, plan: Plan, streams: int) -> Crowd:
    """Open so many streams at once, on connections that are there already, and see them end."""
    with Client(port, plan, streams) as client:
        start = time.perf_counter()
        client.send_all()
        client.until_whole(lambda _: False)
        return Crowd(client.first_bytes(), time.perf_counter() - start, client.errors)


def record(port: int, plan: Plan) -> Answer:
    """One answer, taken apart. Raises `Broken`."""
    connection = Connection(port, plan)
    try:
        connection.socket.setblocking(True)
        connection.send()
        while not connection.receive():
            pass
        return take_apart(connection.whole())
    finally:
        connection.socket.close()
