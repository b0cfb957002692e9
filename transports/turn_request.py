"""What the handlers of turns use of an HTTP request, whoever made it: aiohttp, or a connection of our own server.

A handler that takes a `TurnRequest` takes any `web.Request` too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import HttpVersion, StreamReader, web
from multidict import CIMultiDictProxy


class Connection(Protocol):
    """What a stream needs to know of the connection it is written to."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """None when the connection is lost."""

    @property
    def writing_paused(self) -> bool:
        """Whether the client reads slower than it is written to."""


class Writer(Protocol):
    """Where the answer goes."""

    output_size: int
    """Bytes of the answer so far: after the first there can be no other answer."""

    async def drain(self) -> None:
        """Wait until the connection takes more. Raises `ConnectionError`."""


class TurnRequest(Protocol):
    """A request for a turn. Sizes are in bytes."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def remote(self) -> str | None: ...
    @property
    def version(self) -> HttpVersion: ...
    @property
    def headers(self) -> CIMultiDictProxy[str]: ...
    @property
    def keep_alive(self) -> bool: ...
    @property
    def content(self) -> StreamReader: ...
    @property
    def content_type(self) -> str: ...
    @property
    def content_length(self) -> int | None: ...
    @property
    def client_max_size(self) -> int: ...
    @property
    def transport(self) -> asyncio.Transport | None: ...
    @property
    def protocol(self) -> Connection: ...
    @property
    def writer(self) -> Writer: ...

    def __contains__(self, key: object, /) -> bool:
        """Whether it is marked so: see `DIRECT`."""

    async def read(self) -> bytes:
        """The whole body."""


TurnHandler = Callable[[TurnRequest], Awaitable[web.StreamResponse]]
