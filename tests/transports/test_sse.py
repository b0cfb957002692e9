"""Frames are written as the standard says, and read back whatever pieces the network makes of them."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.transports.sse import (
    DONE,
    KEEPALIVE,
    KEEPALIVE_BYTES,
    ServerEvent,
    SSEParser,
    comment,
    data_frame,
    event_frame,
    with_id,
)

LINE_ENDS = ["\n", "\r\n", "\r"]
FIELDS = ["data", "data: x", "data:x", "data:  two spaces", "event: news", "event", "id: 7", "id", "id: a\0b"]
LINES = [*FIELDS, ": comment", "retry: 10", "unknown: x", "data: é😀", "", "", ""]


def parse(stream: bytes) -> list[ServerEvent]:
    return SSEParser().feed(stream)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


def reference(stream: str) -> list[ServerEvent]:
    """The standard's algorithm on the whole stream at once, told the plain way."""
    events, data, event, last_id = [], list[str](), "", ""
    lines = re.split("\r\n|\r|\n", stream)[:-1]
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data:
                events.append(ServerEvent("\n".join(data), event or "message", last_id))
            data, event = [], ""
        elif name == "data":
            data.append(value)
        elif name == "event":
            event = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return events


@st.composite
def streams(draw: st.DrawFn) -> str:
    lines = draw(st.lists(st.sampled_from(LINES) | st.text("ab: \ufeff\0", max_size=6), max_size=12))
    return "".join(line + draw(st.sampled_from(LINE_ENDS)) for line in lines)


@given(streams(), st.lists(st.integers(min_value=0), max_size=8))
def test_the_pieces_do_not_matter(stream: str, cuts: list[int]) -> None:
    parser = SSEParser()
    events = [event for piece in pieces(stream.encode(), cuts) for event in parser.feed(piece)]
    assert events == reference(stream.removeprefix("\ufeff"))


@given(st.lists(st.text()), st.sampled_from([None, "news"]), st.sampled_from([None, "17"]))
def test_what_is_written_is_read(texts: list[str], event: str | None, event_id: str | None) -> None:
    stream = b"".join(event_frame(text, event=event, event_id=event_id) + KEEPALIVE for text in texts)
    said = [ServerEvent(re.sub("\r\n|\r", "\n", text), event or "message", event_id or "") for text in texts]
    assert parse(stream) == said


@given(st.binary(), st.lists(st.integers(min_value=0), max_size=4))
def test_no_bytes_break_the_parser(stream: bytes, cuts: list[int]) -> None:
    parser = SSEParser()
    events = [event for piece in pieces(stream, cuts) for event in parser.feed(piece)]
    assert events == parse(stream)


def test_a_byte_at_a_time() -> None:
    parser = SSEParser()
    stream = b"\xef\xbb\xbfid: 1\r\ndata: \xf0\x9f\x98\x80\r\ndata: b\r\n\r\ndata: [DONE]\r\r"
    events = [event for byte in stream for event in parser.feed(bytes([byte]))]
    assert events == [ServerEvent("😀\nb", id="1"), ServerEvent("[DONE]", id="1")]


def test_an_event_cut_off_by_the_end_is_none() -> None:
    assert parse(b"data: whole\n\ndata: half\n") == [ServerEvent("whole")]


def test_an_event_without_data_is_none_and_its_name_is_forgotten() -> None:
    assert parse(b"event: x\n\ndata: y\n\n") == [ServerEvent("y")]


def test_frames() -> None:
    assert data_frame(b"{}") == b"data: {}\n\n"
    assert with_id(3, data_frame(b"{}")) == b"id: 3\ndata: {}\n\n"
    assert DONE == b"data: [DONE]\n\n"
    assert event_frame("a\r\nb", event="x\ny") == b"event: x y\ndata: a\ndata: b\n\n"


@pytest.mark.parametrize("size", [0, 5, 64, KEEPALIVE_BYTES])
def test_a_comment_is_padded_and_says_nothing(size: int) -> None:
    frame = comment("still\nhere", size)
    assert len(frame) == max(size, len(": still here\n\n"))
    assert parse(frame + data_frame(b"x")) == [ServerEvent("x")]


def test_the_keepalive_fills_a_proxys_buffer() -> None:
    assert len(KEEPALIVE) == KEEPALIVE_BYTES
    assert KEEPALIVE.startswith(b": keepalive ")
    assert KEEPALIVE.endswith(b"\n\n")
