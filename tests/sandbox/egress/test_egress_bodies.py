"""One body goes out and one answer comes in, however the bytes are cut."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.sandbox.egress.bodies import (
    LONGEST_ANSWER_HEAD,
    LONGEST_LINE,
    MOST_ANSWER_HEADERS,
    MOST_EARLY_ANSWERS,
    Answer,
    Body,
    begins_like_the_web,
)
from greenroom.sandbox.egress.refusal import Refusal

SMUGGLED = b"GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"


def in_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:stop] for start, stop in zip([0, *places], [*places, len(data)], strict=True)]


cuts = st.lists(st.integers(0), max_size=8)


@given(st.binary(max_size=100), cuts)
def test_what_follows_a_body_goes_nowhere(body: bytes, places: list[int]) -> None:
    reader = Body(len(body))
    assert b"".join(map(reader.feed, in_pieces(body + SMUGGLED, places))) == body
    assert reader.done


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), cuts, st.sampled_from([b"", b";a=b", b" "]))
def test_a_server_reads_the_chunks_that_were_read_here(
    chunks: list[bytes], places: list[int], more: bytes
) -> None:
    sent = b"".join(b"%X%s\r\n%s\r\n" % (len(chunk), more, chunk) for chunk in chunks)
    sent += b"0\r\nTrailer: x\r\n\r\n" + SMUGGLED
    reader = Body("chunked")
    passed = b"".join(map(reader.feed, in_pieces(sent, places)))
    assert reader.done

    server = h11.Connection(h11.SERVER)
    server.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + passed)
    read = b""
    while True:
        event = server.next_event()
        assert not isinstance(event, type) or event not in {h11.NEED_DATA, h11.PAUSED}
        if isinstance(event, h11.Data):
            read += event.data
        if isinstance(event, h11.EndOfMessage):
            break
    assert read == b"".join(chunks)
    assert server.trailing_data == (b"", False)


@pytest.mark.parametrize(
    "data",
    [
        b"5\nabcde\r\n",
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+5\r\n",
        b"0x5\r\n",
        b"5_0\r\n",
        b"fffffffffffffffff\r\n",
        b" 5\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n",
        b"0\r\na\n",
        b"1" * (LONGEST_LINE + 1),
        b"0\r\n" + b"a: b\r\n" * 300,
    ],
    ids=lambda data: repr(data[:20]),
)
def test_chunks_that_could_be_misread_are_refused(data: bytes) -> None:
    with pytest.raises(Refusal, match="no request for a proxy"):
        Body("chunked").feed(data)


@pytest.mark.parametrize("end", [b"", b"\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5"])
@given(cuts)
def test_an_answer_says_that_the_connection_ends(end: bytes, places: list[int]) -> None:
    answer = Answer()
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    sent = early + b"HTTP/1.1 200 OK\r\nA: b" + end + b"\r\n\r\nbody\r\n\r\nmore"
    got = b"".join(map(answer.feed, in_pieces(sent, places)))
    assert got == early + b"HTTP/1.1 200 OK\r\nA: b\r\nConnection: close\r\n\r\nbody\r\n\r\nmore"
    assert answer.begun


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"x" * (LONGEST_ANSWER_HEAD + 1),
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * (MOST_EARLY_ANSWERS + 1),
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * (MOST_ANSWER_HEADERS + 1) + b"\r\n",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(Refusal, match="the server"):
        Answer().feed(data)


@pytest.mark.parametrize(
    ("first", "good"),
    [
        (b"", None),
        (b"\x16", None),
        (b"\x16\x03\x01\x02", True),
        (b"\x16\x02", False),
        (b"G", None),
        (b"GET / HTTP/1.1", True),
        (b"POST ", True),
        (b"PRI * HTTP/2.0", True),
        (b"SSH-2.0", False),
        (b"EHLO x", False),
        (b"GETX", False),
        (b"\x00", False),
        (b"get /", False),
    ],
)
def test_what_a_tunnel_may_begin_with(first: bytes, good: bool | None) -> None:
    assert begins_like_the_web(first) is good
