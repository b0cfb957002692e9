"""What the filter understands of a request is what a server reads: nothing is smuggled between the two."""

# ruff: noqa: RUF001 - letters that look like others are what is tested

from contextlib import suppress
from http import HTTPStatus

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.sandbox.egress.refusal import Refusal
from greenroom.sandbox.egress.request import (
    HEAD_END,
    LONGEST_HEAD,
    PlainRequest,
    TunnelRequest,
    find_head_end,
    read_head,
)


def head_of(*lines: str) -> bytes:
    return "\r\n".join(lines).encode("utf-8")


def plain(*lines: str) -> PlainRequest:
    request = read_head(head_of(*lines))
    assert isinstance(request, PlainRequest)
    return request


def refused(head: bytes) -> str:
    with pytest.raises(Refusal) as caught:
        read_head(head)
    assert caught.value.status is HTTPStatus.BAD_REQUEST
    return caught.value.reason


def test_a_tunnel() -> None:
    request = read_head(
        head_of("CONNECT Example.com:443 HTTP/1.1", "Host: other.test:443", "Proxy-Connection: x")
    )
    assert isinstance(request, TunnelRequest)
    assert str(request.target) == "example.com:443"


def test_a_plain_request_is_written_anew() -> None:
    request = plain(
        "GET http://Example.com:80/a?b=c HTTP/1.1",
        "Host: inner.corp",
        "Accept: */*",
        "Cookie: a=b",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic eA==",
        "Connection: keep-alive, X-Secret",
        "X-Secret: 1",
        "TE: trailers",
        "Upgrade: websocket",
    )
    assert str(request.target) == "example.com:80"
    assert request.head == (
        b"GET /a?b=c HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\nCookie: a=b\r\nConnection: close\r\n\r\n"
    )


def test_an_old_client_gets_an_answer_of_its_own_version() -> None:
    assert plain("GET http://a.test/ HTTP/1.0").head.startswith(b"GET / HTTP/1.0\r\nHost: a.test\r\n")
    assert "chunks" in refused(head_of("POST http://a.test/ HTTP/1.0", "Transfer-Encoding: chunked"))


@pytest.mark.parametrize(
    ("url", "target", "first"),
    [
        ("http://a.test", "a.test:80", "GET / HTTP/1.1"),
        ("http://a.test?q", "a.test:80", "GET /?q HTTP/1.1"),
        ("http://a.test?http://b.test/", "a.test:80", "GET /?http://b.test/ HTTP/1.1"),
        ("http://a.test/@b.test/", "a.test:80", "GET /@b.test/ HTTP/1.1"),
        ("HTTP://a.test:8080/x", "a.test:8080", "GET /x HTTP/1.1"),
        ("http://a.test:/x", "a.test:80", "GET /x HTTP/1.1"),
        ("http://a.test./x", "a.test:80", "GET /x HTTP/1.1"),
        ("http://[::1]:81/x", "[::1]:81", "GET /x HTTP/1.1"),
        ("http://[::ffff:1.2.3.4]/x", "1.2.3.4:80", "GET /x HTTP/1.1"),
        ("http://0x7f.1/x", "127.0.0.1:80", "GET /x HTTP/1.1"),
        ("http://münchen.de/", "xn--mnchen-3ya.de:80", "GET / HTTP/1.1"),
        ("http://a.test//b.test/", "a.test:80", "GET //b.test/ HTTP/1.1"),
        ("http://a.test/http://b.test/", "a.test:80", "GET /http://b.test/ HTTP/1.1"),
    ],
)
def test_the_target_is_the_address_of_the_first_line(url: str, target: str, first: str) -> None:
    request = plain(f"GET {url} HTTP/1.1", "Host: elsewhere.test")
    assert str(request.target) == target
    lines = request.head.decode().split("\r\n")
    assert lines[0] == first
    assert lines[1] == "Host: " + target.removesuffix(":80")


@pytest.mark.parametrize(
    "first",
    [
        "GET / HTTP/1.1",
        "GET a.test:80 HTTP/1.1",
        "GET //a.test/ HTTP/1.1",
        "GET https://a.test/ HTTP/1.1",
        "GET ftp://a.test/ HTTP/1.1",
        "GET ws://a.test/ HTTP/1.1",
        "GET file:///etc/passwd HTTP/1.1",
        "GET http:/a.test/ HTTP/1.1",
        "GET http:a.test/ HTTP/1.1",
        "GET http:///a.test/ HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET http://a.test/",
        "GET http://a.test/ HTTP/2.0",
        "GET http://a.test/ HTTP/0.9",
        "GET http://a.test/ HTTP/1.1 x",
        "GET  http://a.test/ HTTP/1.1",
        "GET\thttp://a.test/ HTTP/1.1",
        " GET http://a.test/ HTTP/1.1",
        "get http://a.test/ HTTP/1.1",
        "GET http://a.test/ b HTTP/1.1",
        "GET http://a.test/\x00 HTTP/1.1",
        "GET http://a.test/#x HTTP/1.1",
        "GET http://a.test\\@b.test/ HTTP/1.1",
        "GET http://a.test\\.b.test/ HTTP/1.1",
        "GET http://user@a.test/ HTTP/1.1",
        "GET http://user:pass@a.test/ HTTP/1.1",
        "GET http://a.test@b.test/ HTTP/1.1",
        "GET http://a.test:80@b.test/ HTTP/1.1",
        "GET http://a.test:80:81/ HTTP/1.1",
        "GET http://a.test:-1/ HTTP/1.1",
        "GET http://a.test:0/ HTTP/1.1",
        "GET http://a.test:65536/ HTTP/1.1",
        "GET http://a.test:8x/ HTTP/1.1",
        "GET http://a.test:８０/ HTTP/1.1",
        "GET http://::1/ HTTP/1.1",
        "GET http://[::1/ HTTP/1.1",
        "GET http://[::1%eth0]/ HTTP/1.1",
        "GET http://a..test/ HTTP/1.1",
        "GET http://1.2.3.4.5/ HTTP/1.1",
        "GET http://%6c%6fcalhost/ HTTP/1.1",
        "CONNECT a.test HTTP/1.1",
        "CONNECT a.test: HTTP/1.1",
        "CONNECT a.test:0 HTTP/1.1",
        "CONNECT a.test:443/ HTTP/1.1",
        "CONNECT http://a.test:443 HTTP/1.1",
        "CONNECT user@a.test:443 HTTP/1.1",
        "CONNECT a.test:443@b.test:443 HTTP/1.1",
        "CONNECT [::1]443 HTTP/1.1",
        "CONNECT ::1:443 HTTP/1.1",
        "",
        "\x16\x03\x01",
    ],
)
def test_a_first_line_that_could_be_misread_is_refused(first: str) -> None:
    assert refused(head_of(first, "Host: a.test")).startswith("this is no request for a proxy")


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: 5", "Content-Length: 5"),
        ("Content-Length: 5, 5",),
        ("Content-Length: +5",),
        ("Content-Length: 0x5",),
        ("Content-Length: ٥",),
        ("Content-Length: -5",),
        ("Content-Length:",),
        ("Content-Length: 9999999999999999999999",),
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: identity",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding: \x0bchunked",),
        ("Transfer-Encoding : chunked",),
        ("Transfer_Encoding\x00: chunked",),
        (" X: folded",),
        ("A: b", "\tfolded"),
        ("A: b\nHost: evil.test",),
        ("A: b\rHost: evil.test",),
        ("A: b\x00",),
        (": b",),
        ("no colon",),
        ("A B: c",),
        ("",),
        tuple("A: b" for _ in range(201)),
    ],
    ids=repr,
)
def test_headers_that_could_be_misread_are_refused(lines: tuple[str, ...]) -> None:
    assert refused(head_of("POST http://a.test/ HTTP/1.1", *lines))


def test_a_body_cannot_be_hidden_by_naming_its_length_in_connection() -> None:
    request = plain("POST http://a.test/ HTTP/1.1", "Connection: content-length", "Content-Length: 5")
    assert b"Content-Length: 5\r\n" in request.head
    assert request.framing == 5


def test_a_tunnel_has_no_body() -> None:
    assert "no body" in refused(head_of("CONNECT a.test:443 HTTP/1.1", "Content-Length: 5"))


def test_a_head_that_does_not_end_is_refused() -> None:
    assert find_head_end(b"GET http://a.test/ HTTP/1.1\r\n") is None
    assert find_head_end(b"GET http://a.test/ HTTP/1.1\r\n\r\nrest") == 27
    with pytest.raises(Refusal) as caught:
        find_head_end(b"x" * (LONGEST_HEAD + 1))
    assert caught.value.status is HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    with pytest.raises(Refusal):
        find_head_end(b"x" * (LONGEST_HEAD + 1) + HEAD_END)


tokens = st.text("abcXYZ019-_", min_size=1, max_size=12)
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)
hosts = st.sampled_from(
    ["a.test", "A.TEST.", "127.1", "[::1]", "user@a.test", "a.test@b.test", "münchen.de", ""]
)
paths = st.text(st.sampled_from("/?&=@:.%#\\ab \r\n\t\x00"), max_size=12)
lines = st.one_of(
    st.builds("{}: {}".format, tokens, values),
    st.builds("Connection: {}".format, tokens),
    st.sampled_from(
        ["Host: evil.test", "Host : evil.test", "Content-Length: 0", "Transfer-Encoding: chunked"]
    ),
    st.text(max_size=10),
)


@given(hosts, st.sampled_from(["", ":80", ":8080", ":x", ":"]), paths, st.lists(lines, max_size=6))
def test_a_server_reads_one_request_for_the_host_that_was_judged(
    host: str, port: str, path: str, headers: list[str]
) -> None:
    head = head_of(f"POST http://{host}{port}{path} HTTP/1.1", *headers)
    if HEAD_END in head:
        head = head[: head.index(HEAD_END)]
    try:
        request = read_head(head)
    except Refusal:
        return
    assert isinstance(request, PlainRequest)
    server = h11.Connection(h11.SERVER)
    server.receive_data(request.head)
    event = server.next_event()
    assert isinstance(event, h11.Request)
    assert [value for name, value in event.headers if name == b"host"] == [
        str(request.target).removesuffix(":80").encode()
    ]
    assert event.target.startswith(b"/")
    if request.framing == 0:
        assert isinstance(server.next_event(), h11.EndOfMessage)


@given(
    st.binary(max_size=200) | st.builds(lambda data: b"GET http://a.test/ HTTP/1.1\r\n" + data, st.binary())
)
def test_any_bytes_are_understood_or_refused(data: bytes) -> None:
    with suppress(Refusal):  # and nothing else
        end = find_head_end(data)
        if end is not None:
            read_head(data[:end])
