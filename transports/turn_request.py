"""Requests for turns: aiohttp's, or lean ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Union, cast

from aiohttp import HttpVersion11, StreamReader, hdrs, web
from aiohttp.http import RawRequestMessage, StreamWriter
from multidict import CIMultiDictProxy

if TYPE_CHECKING:
    from greenroom.transports.lean_connection import LeanConnection

TurnRequest: TypeAlias = Union[web.Request, "LeanRequest"]
"""Not a Protocol: aiohttp's cached properties are none that type checkers would take for one's."""
TurnHandler: TypeAlias = Callable[[TurnRequest], Awaitable[web.StreamResponse]]

DIRECT: Final[Any] = (
    web.RequestKey("greenroom_direct", bool) if hasattr(web, "RequestKey") else "greenroom_direct"
)
"""Set on requests that came the fast way: no application's signals wait for their responses. aiohttp before 3.14 has
words as keys."""


class LeanRequest:
    """A request that a connection of our own server answers: what the parser said of it.

    It has what handlers of turns use of aiohttp's. What they rarely ask for is asked of that, made for the purpose.
    """

    __slots__ = ("_message", "content", "handler", "headers", "keep_alive", "output_size", "protocol")

    method = hdrs.METH_POST
    version = HttpVersion11

    def __init__(
        self,
        message: RawRequestMessage,
        content: StreamReader,
        protocol: LeanConnection,
        handler: TurnHandler,
    ) -> None:
        self._message = message
        self.content = content
        self.protocol = protocol
        self.handler = handler
        self.headers: CIMultiDictProxy[str] = message.headers
        self.keep_alive = not message.should_close
        self.output_size = 0

    def __contains__(self, key: object) -> bool:
        return key is DIRECT

    @property
    def path(self) -> str:
        return self._message.path

    @property
    def transport(self) -> asyncio.Transport | None:
        return self.protocol.transport

    @property
    def writer(self) -> LeanRequest:
        """Itself: there is nothing to a writer but these two."""
        return self

    async def drain(self) -> None:
        await StreamWriter(self.protocol, asyncio.get_running_loop()).drain()

    @property
    def remote(self) -> str | None:
        peer = self.protocol.peername
        return str(peer[0]) if isinstance(peer, tuple) else peer

    @property
    def content_type(self) -> str:
        return self.usual().content_type

    @property
    def content_length(self) -> int | None:
        return self.usual().content_length

    @property
    def client_max_size(self) -> int:
        return self.protocol.body_bytes

    async def read(self) -> bytes:
        return await self.usual().read()

    def usual(self) -> web.Request:
        """The same request as aiohttp has it."""
        writer = StreamWriter(self.protocol, asyncio.get_running_loop())
        writer.output_size = self.output_size
        task = cast("asyncio.Task[None]", asyncio.current_task())
        request = self.protocol.server.request_factory(
            self._message, self.content, self.protocol, writer, task
        )
        return cast("web.Request", request)

    def _cancel(self, error: BaseException) -> None:
        """The connection is lost: so is the rest of the body. aiohttp calls it."""
        self.content.set_exception(error)
