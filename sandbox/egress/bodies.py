"""What follows a request's head, and what comes back: where a body ends, and an answer that closes. No I/O."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final, Literal, TypeAlias

from greenroom.sandbox.egress.refusal import Refusal, malformed
from greenroom.sandbox.egress.request import HEAD_END, MOST_HEADERS, Framing

LONGEST_LINE: Final = 8 * 1024
"""Bytes of a chunk's first line, or of one trailer."""
LONGEST_ANSWER_HEAD: Final = 256 * 1024
"""What browsers take."""
MOST_ANSWER_HEADERS: Final = 1000
MOST_EARLY_ANSWERS: Final = 20
"""Before the one that was asked for. Each is work, and a server could send them without end."""

_HEX: Final = frozenset(b"0123456789abcdefABCDEF")
_METHODS: Final = (
    *(b"%s " % name for name in (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")),
    b"PRI * HTTP/2",
)


Expected: TypeAlias = Literal["bytes", "size", "end of chunk", "trailers", "nothing"]


class Body:
    """Passes on one body and nothing after it: a second request in the same bytes goes nowhere.

    Chunks are written anew, so that what the server reads is what was read here.
    """

    def __init__(self, framing: Framing) -> None:
        self.chunked = framing == "chunked"
        self._left = 0 if framing == "chunked" else framing
        self._expected: Expected = "size" if self.chunked else "bytes"
        self._line = bytearray()
        self._trailers = 0
        if framing == 0:
            self._expected = "nothing"

    @property
    def done(self) -> bool:
        """Whether all of it has come."""
        return self._expected == "nothing"

    def feed(self, data: bytes) -> bytes:
        """What of the data is body, in the form that is sent on. Raises `Refusal` for chunks that are none."""
        out = bytearray()
        place = 0
        while place < len(data) and not self.done:
            take = self._take_bytes if self._expected == "bytes" else self._take_line
            place = take(data, place, out)
        return bytes(out)

    def _take_bytes(self, data: bytes, place: int, out: bytearray) -> int:
        piece = data[place : place + self._left]
        out += piece
        self._left -= len(piece)
        if self._left == 0:
            self._expected = "end of chunk" if self.chunked else "nothing"
        return place + len(piece)

    def _take_line(self, data: bytes, place: int, out: bytearray) -> int:
        end = data.find(b"\n", place)
        stop = len(data) if end < 0 else end + 1
        self._line += data[place:stop]
        if len(self._line) > LONGEST_LINE:
            raise malformed("a line between the chunks of its body has no end")
        if end >= 0:
            line = bytes(self._line)
            self._line.clear()
            if not line.endswith(b"\r\n"):
                raise malformed("a chunk of its body ends in half a line end")
            self._end_line(line[:-2], out)
        return stop

    def _end_line(self, line: bytes, out: bytearray) -> None:
        if self._expected == "trailers":
            self._end_trailer(line, out)
        elif self._expected == "size":
            self._begin_chunk(line, out)
        elif line:
            raise malformed("a chunk of its body is longer than it says")
        else:
            out += b"\r\n"
            self._expected = "size"

    def _end_trailer(self, line: bytes, out: bytearray) -> None:
        self._trailers += 1
        if self._trailers > MOST_HEADERS:
            raise malformed("it has too many trailers")
        if not line:
            out += b"0\r\n\r\n"
            self._expected = "nothing"

    def _begin_chunk(self, line: bytes, out: bytearray) -> None:
        size = line.partition(b";")[0].rstrip(b" \t")
        if not size or len(size) > 15 or not _HEX.issuperset(size):
            raise malformed("a chunk of its body has no size")
        self._left = int(size, 16)
        if self._left == 0:
            self._expected = "trailers"
        else:
            out += b"%x\r\n" % self._left
            self._expected = "bytes"


class Answer:
    """Passes on one answer, and says in it that the connection ends: a browser must send its next request on another
    one, since here it would go nowhere."""

    def __init__(self) -> None:
        self._head: bytearray | None = bytearray()
        self._early = 0

    @property
    def begun(self) -> bool:
        """Whether the head of the answer itself has come, and something was passed on."""
        return self._head is None

    def feed(self, data: bytes) -> bytes:
        """What of the data may go on to the box. Raises `Refusal` for what is no answer of HTTP/1."""
        if self._head is None:
            return data
        self._head += data
        out = b""
        while self._head is not None and (end := self._head.find(HEAD_END)) >= 0:
            head, rest = bytes(self._head[:end]), bytes(self._head[end + len(HEAD_END) :])
            status = _status_of(head)
            if 100 <= status < 200:
                self._early += 1
                if self._early > MOST_EARLY_ANSWERS:
                    raise no_answer("the server says again and again that its answer will come")
                out += head + HEAD_END
                self._head = bytearray(rest)
            else:
                out += _closing(head) + HEAD_END + rest
                self._head = None
        if self._head is not None and len(self._head) > LONGEST_ANSWER_HEAD:
            raise no_answer("the head of the server's answer is too long")
        return out


def no_answer(what: str) -> Refusal:
    """The server did not do its part."""
    return Refusal(HTTPStatus.BAD_GATEWAY, what)


def _status_of(head: bytes) -> int:
    version, _, rest = head.partition(b"\r\n")[0].partition(b" ")
    code = rest[:3]
    if version not in {b"HTTP/1.1", b"HTTP/1.0"} or not code.isdigit() or len(code) != 3:
        raise no_answer("the server does not speak HTTP/1.1")
    if code == b"101":
        raise no_answer("the server changed the protocol, which was not asked for")
    return int(code)


def _closing(head: bytes) -> bytes:
    if head.count(b"\r\n") > MOST_ANSWER_HEADERS:
        raise no_answer(f"the server's answer has more than {MOST_ANSWER_HEADERS} headers")
    first, *lines = head.split(b"\r\n")
    kept = [
        line
        for line in lines
        if line.partition(b":")[0].strip().lower() not in {b"connection", b"keep-alive", b"proxy-connection"}
    ]
    return b"\r\n".join([first, *kept, b"Connection: close"])


def begins_like_the_web(first: bytes) -> bool | None:
    """Whether a tunnel's first bytes are TLS's or HTTP's; none: too few to say."""
    if first[:1] == b"\x16":
        return None if len(first) < 2 else first[1] == 3
    for method in _METHODS:
        if first.startswith(method):
            return True
        if method.startswith(first):
            return None
    return False
