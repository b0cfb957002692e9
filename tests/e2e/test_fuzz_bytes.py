"""Bytes that are no requests, or odd ones, at every route: never a defect, never a hang, always an answer in its form.

What goes out is written by hand, so that nothing on the way makes it better than it is.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, NamedTuple

import hypothesis
import pytest
from hypothesis import strategies as st

from kits.api_fuzz import SLOW
from kits.stage import Stage

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SECONDS = 20
TIMES = {"memory": 5, "sqlite": 7, "redis": 2, "postgres": 2}
"""How much more is sent than a property test usually tries, by where sessions are: to each place other bytes."""
PATIENCE = 10.0
"""An answer to what is complete takes no longer."""
V1 = b"/compatible-mode/v1"
HEADERS = 8000
"""A header that is longer than aiohttp takes has more than this."""


# -- what is sent --------------------------------------------------------------------------------------------------

DEEP = 100_000
BODIES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b'"text"',
            b"1e999",
            b"-",
            b"\xff\xfe{\x00",
            b"\xef\xbb\xbf{}",
            b'{"input": "\xc3\x28"}',
            b'{"input": "\xed\xa0\x80"}',
            rb'{"input": "\ud800"}',
            rb'{"input": [{"content": "\udc00\ud800"}]}',
            b'{"input": [{"content": "x"}], "n": ' + b"9" * 400 + b"}",
            b'{"input": [{"content": "x"}], "metadata": {"n": ' + b"9" * 5000 + b"}}",
            b'{"input": [{"content": "x"}], "n": 1e400}',
            b'{"input": NaN, "messages": Infinity}',
            b'{"input": "a", "input": "b", "messages": [], "items": []}',
            b"[" * DEEP,
            b"[" * DEEP + b"]" * DEEP,
            b'{"a":' * DEEP + b"1" + b"}" * DEEP,
            b'{"input": [{"content": "x", "metadata": ' + b'{"a":' * 120 + b"1" + b"}" * 120 + b"}]}",
            b'{"input": [{"content": "x"}], "model": "' + b"\\u0000" * 50 + b'"}',
            b'{"messages": [{"role": "user", "content": "' + b"\xf0\x9f\x98\x80" * 50 + b'"}]}',
            b'{"input": [{"content": "x"}], "session_id": "\\u0000", "user_id": "\\n"}',
            b'{"input": [{"content": "hello"}]}',
            b'{"input": "hello", "messages": [{"role": "user", "content": "hello"}]}',
        ]
    ),
)
TYPES = st.sampled_from(
    [
        b"application/json",
        b"application/json; charset=utf-16",
        b"text/plain",
        b"multipart/form-data",
        b"multipart/form-data; boundary=x",
        b"application/x-www-form-urlencoded",
        b"application/octet-stream",
        b"*/*",
        b"/",
        b";;;",
        b"",
        b"\xff",
    ]
)
METHODS = st.sampled_from(
    [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS", b"TRACE", b"BREW", b"get", b"CONNECT"]
)
SEGMENTS = st.sampled_from(
    b"process task events cancel responses conversations items models chat completions compact compatible-mode v1 "
    b"health sessions browser live books . .. %2e%2e %00 %0a %2f %ff % %zz {id} * \xc3\xa9 LONG ".split(b" ")
).map(lambda segment: b"a" * 300 if segment == b"LONG" else segment)
ROUTES = st.sampled_from(
    b"/ /health /ready /openapi.json /process /process/x /process/x/events /process/x/cancel /process/task "
    b"/process/task/x /book /echo /count?to=2 /books/a/1 /sessions/s/browser /sessions/s/browser/live V1 V1/ "
    b"V1/responses V1/responses/x V1/responses/x/cancel V1/responses/x/input_items V1/responses/compact "
    b"V1/responses/input_tokens V1/chat/completions V1/models V1/models/x V1/conversations V1/conversations/c "
    b"V1/conversations/c/items V1/conversations/c/items/i".replace(b"V1", V1).split()
)
PATHS = st.one_of(ROUTES, ROUTES, st.lists(SEGMENTS, max_size=6).map(lambda some: b"/" + b"/".join(some)))
QUERIES = st.sampled_from(
    b" ? ?a ?= ?limit=0 ?limit=-1 ?order=up ?after=%00 ?stream=maybe ?starting_after=-1 ?starting_after=%D9%A3 "
    b"?last_event_id=x ?user_id=%0a ?%ff=%ff ?to=x ?x=\xff ?limit=LONG ?user_id=LONG ?ticket=..LONG ?a=1&a=2".split(
        b" "
    )
).map(lambda query: query.replace(b"LONG", b"9" * 2000))
ODD = st.sampled_from(
    [
        b"Expect: 100-continue",
        b"Expect: tea",
        b"Accept: nothing/*; q=x",
        b"Accept-Encoding: snappy",
        b"Content-Encoding: gzip",
        b"Content-Encoding: deflate",
        b"Authorization: Bearer \xff",
        b"Last-Event-ID: x",
        b"Last-Event-ID: " + b"9" * 100,
        b"Idempotency-Key: " + b"k" * 2000,
        b"Idempotency-Key: \xff\xfe",
        b"Cookie: =;=;",
        b"Origin: null",
        b"Range: bytes=0-1",
        b"Connection: close, Upgrade\r\nUpgrade: websocket",
        b"Connection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x",
        b"Connection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 99",
        b"Upgrade: h2c",
        b"X-Forwarded-For: \xff, ,,",
        b"X-Forwarded-For: 999.1.1.1",
        b"x-stainless-retry-count: many",
        b"If-None-Match: *",
        b"X: " + b"x" * HEADERS,
    ]
)


class Raw(NamedTuple):
    """One request, as bytes. `chunked`: its body is sent in chunks."""

    method: bytes
    path: bytes
    query: bytes
    content_type: bytes
    odd: list[bytes]
    body: bytes
    chunked: bool

    def written(self) -> bytes:
        """As it goes out, asking for the connection to end."""
        length = b"Transfer-Encoding: chunked" if self.chunked else b"Content-Length: %d" % len(self.body)
        body = (
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.body), self.body)
            if self.chunked and self.body
            else self.body
        )
        if self.chunked and not self.body:
            body = b"0\r\n\r\n"
        lines = [b"%b %b%b HTTP/1.1" % (self.method, self.path, self.query), b"Host: x"]
        lines += [b"Content-Type: " + self.content_type, length, *self.odd]
        if not any(line.startswith(b"Connection") for line in self.odd):
            lines.append(b"Connection: close")
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


RAW = st.builds(Raw, METHODS, PATHS, QUERIES, TYPES, st.lists(ODD, max_size=2), BODIES, st.booleans())

# -- what comes back -----------------------------------------------------------------------------------------------

HEAD = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


async def answer(port: int, sent: bytes) -> bytes:
    """All that comes until the server ends the connection, or makes it a WebSocket.

    What the server takes for a part of a request ends when we close our half.
    """
    got = b""
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(sent)
            while piece := await _piece(reader, writer):
                got += piece
                if got.startswith(b"HTTP/1.1 101"):
                    break
        except ConnectionError:
            pass  # it was answered before it was read to its end
        finally:
            writer.close()
    return got


async def _piece(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    try:
        async with asyncio.timeout(PATIENCE):
            return await reader.read(1 << 16)
    except TimeoutError:
        writer.write_eof()
        return await reader.read()


def check(sent: bytes, got: bytes) -> None:
    """One answer, or none to what was cut off; never a defect; errors are JSON, or of HTTP itself."""
    if not got:
        return None
    found = HEAD.match(got)
    assert found, got[:200]
    head, _, body = got.partition(b"\r\n\r\n")
    status = int(found[1])
    if status == 100:
        return check(sent, body)
    lower = head.lower()
    if status in (429, 503):
        assert b"retry-after:" in lower, head
    else:
        assert status < 500, (sent[:500], got[:1000])
    if status >= 400 and body:
        assert b"application/json" in lower, head
        error = json.loads(body)["error"]
        assert error["message"]
        assert "code" in error
    return None


def run(port: int, loop: asyncio.AbstractEventLoop, examples: int, seed: str) -> int:
    """Send all kinds of bytes; how many were answered."""
    answered = 0

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=SLOW,
    )
    @hypothesis.given(raw=RAW)
    def send(raw: Raw) -> None:
        nonlocal answered
        sent = raw.written()
        got = asyncio.run_coroutine_threadsafe(answer(port, sent), loop).result(SECONDS + 5)
        answered += bool(got)
        check(sent, got)

    send()
    return answered


async def test_whatever_bytes_come_the_server_answers_and_goes_on(fuzzed: Stage, kept_in: str) -> None:
    port = int(fuzzed.process.url.rsplit(":", 1)[1])
    examples = TIMES[kept_in] * hypothesis.settings().max_examples
    answered = await asyncio.to_thread(run, port, asyncio.get_running_loop(), examples, kept_in)
    assert answered > examples // 2
    status, standing = await fuzzed.client.json("GET", "/turns")
    assert (status, standing["open_turns"]) == (200, 0)


@pytest.mark.parametrize("path", ["/process", "/process/task", "/echo", "/book", "/books/a/1"] + [
    f"/compatible-mode/v1{path}"
    for path in (
        "/responses",
        "/responses/compact",
        "/responses/input_tokens",
        "/conversations",
        "/conversations/c",
        "/conversations/c/items",
        "/chat/completions",
    )
])  # fmt: skip
async def test_every_route_that_takes_a_body_bounds_it(fuzzed: Stage, path: str) -> None:
    method = "PUT" if path.startswith("/books") else "POST"
    document: Any = (await fuzzed.client.json("GET", "/openapi.json"))[1]
    taking = {
        (name.upper(), route)
        for route, operations in document["paths"].items()
        for name, operation in operations.items()
        if "requestBody" in operation
    }
    assert len(taking) == 12, "a new route takes a body; add it here"
    deep = b'{"input": ' + b"[" * 101 + b"]" * 101 + b"}"
    headers = {"Content-Type": "application/json"}
    status, error = await fuzzed.client.json(method, path, data=deep, headers=headers)
    assert (status, "deep" in error["error"]["message"]) == (400, True)
    # The size is declared, and nothing of it is ever sent.
    large = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(fuzzed.process.url.rsplit(":", 1)[1]))
    writer.write(f"{large}Content-Length: 100000000\r\n\r\n".encode())
    async with asyncio.timeout(SECONDS):
        got = await reader.readuntil(b"}}")
    writer.close()
    assert got.startswith(b"HTTP/1.1 413"), got
    assert b"body_too_large" in got
