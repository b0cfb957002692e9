"""What a box sends: the head of a request to a proxy, read strictly. No I/O.

Whatever two readers could understand differently is refused, since the filter would judge one meaning and the server
act on another: line ends, spaces, folded lines, repeated lengths, a host in a header that is not the target's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from greenroom.sandbox.egress.addresses import read_host
from greenroom.sandbox.egress.refusal import Refusal, malformed
from greenroom.sandbox.egress.rules import Target

LONGEST_HEAD: Final = 64 * 1024
"""Bytes. Browsers send cookies of up to 8 kB or so; servers take 8 to 32 kB of head."""
MOST_HEADERS: Final = 200

HEAD_END: Final = b"\r\n\r\n"

Framing: TypeAlias = int | Literal["chunked"]
"""How a body ends: after so many bytes, or with its last chunk."""
Header: TypeAlias = tuple[bytes, bytes]

_METHOD: Final = re.compile(rb"[A-Z][A-Z-]{0,31}\Z")
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\Z")
_PATH: Final = re.compile(rb"[\x21-\x7e\x80-\xff]*\Z")
_AUTHORITY: Final = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::([0-9]{0,5}))?\Z")
_SCHEME: Final = b"http://"

NOT_FORWARDED: Final = frozenset(
    [
        b"connection",
        b"host",  # written anew, from the target
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",  # WebSockets come through CONNECT
    ]
)
"""Headers that are between the box and the filter."""


class TunnelRequest(Struct, frozen=True):
    """CONNECT."""

    target: Target


class PlainRequest(Struct, frozen=True):
    """A request in absolute form. `head`: what the server gets to read."""

    target: Target
    head: bytes
    framing: Framing


def find_head_end(data: bytes | bytearray) -> int | None:
    """Where the head of what has come so far ends; none: more must come. Raises `Refusal` for one without an end."""
    end = data.find(HEAD_END)
    if 0 <= end <= LONGEST_HEAD:
        return end
    if len(data) > LONGEST_HEAD:
        raise Refusal(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"the request's head is longer than {LONGEST_HEAD} bytes",
        )
    return None


def read_head(head: bytes) -> TunnelRequest | PlainRequest:
    """A request's head, without the empty line. Raises `Refusal`."""
    first, *lines = head.split(b"\r\n")
    if len(lines) > MOST_HEADERS:
        raise malformed(f"it has more than {MOST_HEADERS} headers")
    method, where, version = _read_first_line(first)
    headers = [read_header(line) for line in lines]
    framing = read_framing(headers)
    if framing == "chunked" and version != b"HTTP/1.1":
        raise malformed("only HTTP/1.1 has chunks, so readers differ about where its body ends")
    if method == b"CONNECT":
        if framing != 0:
            raise malformed("a CONNECT has no body")
        return TunnelRequest(_read_target(where, default_port=None))
    return _read_plain(method, where, version, headers, framing)


def _read_first_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    parts = line.split(b" ")
    if len(parts) != 3 or not _METHOD.match(parts[0]) or not _PATH.match(parts[1]):
        raise malformed("its first line is not like GET http://example.com/ HTTP/1.1")
    if parts[2] not in {b"HTTP/1.1", b"HTTP/1.0"}:
        raise malformed("it is not of HTTP/1.1")
    return parts[0], parts[1], parts[2]


def read_header(line: bytes) -> Header:
    """Name and value. Raises `Refusal`."""
    name, colon, value = line.partition(b":")
    if not colon or not _NAME.match(name) or not _VALUE.match(value):
        raise malformed("a header is not like Name: value")
    return name, value.strip(b" \t")


def read_framing(headers: Sequence[Header]) -> Framing:
    """How the body ends that these headers announce. Raises `Refusal` where readers could disagree."""
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    codings = [value for name, value in headers if name.lower() == b"transfer-encoding"]
    if len(lengths) > 1 or len(codings) > 1 or (lengths and codings):
        raise malformed("it says twice how long its body is")
    if codings:
        if codings[0].lower() != b"chunked":
            raise malformed("its transfer encoding is not chunked")
        return "chunked"
    if not lengths:
        return 0
    if not lengths[0].isdigit() or len(lengths[0]) > 18:
        raise malformed("its content length is no number")
    return int(lengths[0])


def _read_plain(
    method: bytes, where: bytes, version: bytes, headers: Sequence[Header], framing: Framing
) -> PlainRequest:
    if where[: len(_SCHEME)].lower() != _SCHEME:
        raise malformed("it asks for no http:// address (others go through CONNECT)")
    authority, path = _split_url(where[len(_SCHEME) :])
    target = _read_target(authority, default_port=80)
    named = b",".join(value for name, value in headers if name.lower() == b"connection")
    left_out = NOT_FORWARDED | {token.strip().lower() for token in named.split(b",")}
    host = target.host.at(target.port).removesuffix(":80").encode()
    lines = [
        b" ".join([method, path, version]),  # the box's own version: an old client knows no chunks in answers
        b"Host: " + host,
        *(name + b": " + value for name, value in headers if not _is_left_out(name.lower(), left_out)),
        b"Connection: close",
    ]
    return PlainRequest(target, b"\r\n".join(lines) + HEAD_END, framing)


def _is_left_out(name: bytes, left_out: frozenset[bytes]) -> bool:
    """What ends the body stays, though a box may name it in its Connection header to have it left out."""
    return name in left_out and name not in {b"content-length", b"transfer-encoding"}


def _split_url(rest: bytes) -> tuple[bytes, bytes]:
    ends = [place for place in (rest.find(mark) for mark in b"/?") if place >= 0]
    end = min(ends, default=len(rest))
    path = rest[end:]
    if b"#" in rest or b"\\" in rest[:end]:
        raise malformed("its address has a character that no address has")
    return rest[:end], path if path.startswith(b"/") else b"/" + path


def _read_target(authority: bytes, *, default_port: int | None) -> Target:
    try:
        text = authority.decode()
    except UnicodeDecodeError:
        raise malformed("its host is not in UTF-8") from None
    if "@" in text:
        raise malformed("its host comes with a user's name, which hides what the host is")
    found = _AUTHORITY.match(text)
    if found is None:
        raise malformed("its host is not like example.com:443")
    host, digits = found.groups()
    port = int(digits) if digits else default_port
    if port is None or not 0 < port < 65536:
        raise malformed("its port is no number from 1 to 65535")
    try:
        return Target(read_host(host), port)
    except ValueError as error:
        raise malformed(f"its host is not one: {error}") from None
