"""A client on a bare socket that hangs up after so many bytes, wherever that is, and knows what it had by then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import h11

from greenroom.transports.sse import ServerEvent, SSEParser


class Had(NamedTuple):
    """What came of an answer: its status (0: not even that), and the events that were whole."""

    status: int
    events: list[ServerEvent]


class CutClient:
    """Asks a server on this port."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: Any = None, cut: int | None = None
    ) -> Had:
        """Send a request whole and read `cut` bytes of the answer, or all of it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(_request(method, path, headers, body))
            return await _answer(reader, cut)
        finally:
            writer.transport.abort()  # no goodbye: a reset, if the server still writes


def _request(method: str, path: str, headers: Mapping[str, str], body: Any) -> bytes:
    payload = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: test",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    if payload:
        lines += ["Content-Type: application/json", f"Content-Length: {len(payload)}"]
    return "\r\n".join([*lines, "", ""]).encode() + payload


async def _answer(reader: asyncio.StreamReader, cut: int | None) -> Had:
    http, sse = h11.Connection(h11.CLIENT), SSEParser()
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "test")]))
    http.send(h11.EndOfMessage())
    status, events, left = 0, [], cut
    while left is None or left > 0:
        piece = await reader.read(4096 if left is None else min(left, 4096))
        if not piece:
            break
        left = None if left is None else left - len(piece)
        http.receive_data(piece)
        while not isinstance(event := http.next_event(), type(h11.NEED_DATA)):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                events += sse.feed(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                return Had(status, events)
    return Had(status, events)
