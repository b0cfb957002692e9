"""Server-sent events as bytes: writing frames and reading them back.

Rule 1: no I/O. Frames are values; the parser is fed whatever pieces the network makes of them.
Rule 2: a frame is whole. It ends in a blank line, so that it can travel as one HTTP chunk of its own.
"""

from __future__ import annotations

import re

from msgspec import Struct

DONE = b"data: [DONE]\n\n"
"""The last frame of a stream."""

KEEPALIVE_BYTES = 4096
"""A keepalive fills the buffer that proxies commonly hold back (4 KiB): it goes on, and what waits before it."""

_LINE_END = re.compile(rb"\r\n|\r|\n")
_TEXT_LINE_END = re.compile(r"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"


def data_frame(line: bytes) -> bytes:
    """A frame of one line of data, such as compact JSON, which holds no line ends."""
    return b"data: " + line + b"\n\n"


def with_id(number: int, frame: bytes) -> bytes:
    """The frame with an `id:` line, which browsers send back as `Last-Event-ID`."""
    return b"id: %d\n%b" % (number, frame)


def event_frame(data: str, *, event: str | None = None, event_id: str | None = None) -> bytes:
    """A frame of any text: each line becomes a `data:` line. Line ends in `event` and `event_id` become spaces."""
    lines = [
        f"{name}: {_one_line(value)}"
        for name, value in (("event", event), ("id", event_id))
        if value is not None
    ]
    lines += [f"data: {line}" for line in _TEXT_LINE_END.split(data)]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


def comment(text: str, size: int = 0) -> bytes:
    """A frame that readers ignore, padded with spaces to `size` bytes."""
    return b": " + _one_line(text).encode("utf-8", "replace").ljust(size - 4) + b"\n\n"


def _one_line(text: str) -> str:
    return _TEXT_LINE_END.sub(" ", text)


KEEPALIVE = comment("keepalive", KEEPALIVE_BYTES)


class ServerEvent(Struct, frozen=True, gc=False):
    """One event as a client receives it. `id` is the last id the stream named, also when an earlier event did."""

    data: str
    event: str = "message"
    id: str = ""


class SSEParser:
    """Reads a stream fed in pieces of any size, by the rules of the HTML standard's `EventSource`.

    Line ends may be LF, CR or CRLF; comments and unknown fields are skipped; bytes that are not UTF-8 become U+FFFD; an
    event that the end of the stream cuts off is none.
    """

    __slots__ = ("_after_cr", "_begun", "_data", "_event", "_id", "_line")

    def __init__(self) -> None:
        self._line: list[bytes] = []
        self._data: list[str] = []
        self._event = ""
        self._id = ""
        self._after_cr = False
        self._begun = False

    def feed(self, piece: bytes) -> list[ServerEvent]:
        """The events that this piece completes."""
        if not piece:
            return []
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
            self._after_cr = False
            if not piece:
                return []
        self._after_cr = piece.endswith(b"\r")
        first, *rest = _LINE_END.split(piece)
        self._line.append(first)
        events: list[ServerEvent] = []
        for start in rest:
            self._end_line(events)
            self._line.append(start)
        return events

    def _end_line(self, events: list[ServerEvent]) -> None:
        line = b"".join(self._line)
        self._line.clear()
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        if line:
            self._field(line.decode("utf-8", "replace"))
        elif self._data:
            events.append(ServerEvent("\n".join(self._data), self._event or "message", self._id))
            self._data.clear()
            self._event = ""
        else:
            self._event = ""

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
