"""The way out of a box: a port inside it, which leads to the socket of the egress filter outside."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

CONNECTIONS: Final = 256
PIECE: Final = 65536
NO_WAY: Final = (
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"The sandbox's way out does not answer.\n"
)


class Relay:
    """Listens at 127.0.0.1 and joins each connection with one to the socket."""

    def __init__(self, egress: Path, port: int) -> None:
        self._egress = egress
        self._port = port
        self._server: asyncio.Server | None = None
        self._busy: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises `OSError` when the port is taken."""
        self._server = await asyncio.start_server(self._joined, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """What programs are given as their proxy."""
        return f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Close all."""
        if self._server is not None:
            self._server.close()
        for task in self._busy:
            task.cancel()
        if self._busy:
            await asyncio.wait(self._busy)

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._busy.add(task)
        try:
            if len(self._busy) > CONNECTIONS:
                return
            await self._join(reader, writer)
        except OSError as error:
            logger.debug("a connection out ended: %s", error)
        finally:
            self._busy.discard(task)
            writer.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            out_reader, out_writer = await asyncio.open_unix_connection(self._egress)
        except OSError as error:
            logger.warning("the way out (%s) cannot be reached: %s", self._egress, error)
            writer.write(NO_WAY)
            await writer.drain()
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, out_writer))
                both.create_task(_pump(out_reader, writer))
        except* OSError as errors:
            logger.debug("a connection out ended: %s", errors.exceptions[0])
        finally:
            out_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(PIECE):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
