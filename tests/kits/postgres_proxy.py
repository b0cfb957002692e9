"""Between a client and PostgreSQL: a socket that passes on what each says, until the test wants a fault."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kits.postgres_server import PORT, QUOTED, PostgresServer

READ_BYTES = 65_536


class PostgresProxy:
    """A way to the server. `opened`: how many connections were made on it."""

    def __init__(self, folder: Path, server: PostgresServer) -> None:
        self._folder = folder
        self._target = str(server.folder / f".s.PGSQL.{PORT}")
        self._tasks: set[asyncio.Task[None]] = set()
        self._losing = False
        self._silent: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self.opened = 0
        self.lost = asyncio.Event()
        self.let_in = asyncio.Event()
        self.let_in.set()

    def url(self) -> str:
        return f"postgresql://postgres:{QUOTED}@/postgres?host={self._folder}&port={PORT}"

    def lose_an_answer(self) -> None:
        """What the server answers next does not arrive: the connection ends instead, and `lost` is set."""
        self._losing = True
        self.lost.clear()

    def be_silent(self) -> None:
        """From now on nothing passes on the connections there are, and nobody is told."""
        self._silent |= self._clients

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        await self.let_in.wait()
        server_reader, server_writer = await asyncio.open_unix_connection(self._target)
        self._clients.add(writer)
        ways = [
            asyncio.create_task(self._asks(reader, server_writer, writer)),
            asyncio.create_task(self._answers(server_reader, writer)),
        ]
        self._tasks.update(ways)
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._tasks.difference_update(ways)
            self._clients.discard(writer)
            for one in (writer, server_writer):
                one.transport.abort()

    async def _asks(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(READ_BYTES):
                if client not in self._silent:
                    server.write(data)

    async def _answers(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await server.read(READ_BYTES):
                if self._losing:
                    self._losing = False
                    self.lost.set()
                    return
                if client not in self._silent:
                    client.write(data)


@asynccontextmanager
async def postgres_proxy(server: PostgresServer) -> AsyncIterator[PostgresProxy]:
    with tempfile.TemporaryDirectory(prefix="greenroom-proxy-", dir="/tmp") as folder:
        proxy = PostgresProxy(Path(folder), server)
        connected: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(proxy.client(reader, writer))
            connected.add(task)
            task.add_done_callback(connected.discard)

        listening = await asyncio.start_unix_server(accept, Path(folder) / f".s.PGSQL.{PORT}")
        try:
            yield proxy
        finally:
            listening.close()
            for task in connected:
                task.cancel()
            await asyncio.gather(*connected, return_exceptions=True)
