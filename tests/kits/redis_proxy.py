"""Something on the way to a Redis server that breaks connections at the worst moments."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kits.redis_server import QUOTED


class RedisProxy:
    """Hands on what comes. `cut_answers`: so many answers are not handed on, the connection is cut instead. `hold`: so
    many requests are held back, and the connection is cut as well; `let_go` hands them on late."""

    def __init__(self, server: Path, socket: Path) -> None:
        self._server = server
        self._socket = socket
        self._held: list[tuple[bytes, StreamWriter]] = []
        self._late: asyncio.Queue[bytes] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self.cut_answers = 0
        self.hold = 0

    def url(self) -> str:
        return f"unix://:{QUOTED}@{self._socket}"

    async def let_go(self) -> bytes:
        """Hand on what was held back first. What the server answered, which nobody else hears."""
        request, to_server = self._held.pop(0)
        to_server.write(request)
        answer = await self._late.get()
        to_server.close()
        return answer

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self._server)
        for one in self._requests(reader, writer, to_server), self._answers(from_server, writer):
            task = asyncio.create_task(one)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _requests(self, reader: StreamReader, writer: StreamWriter, to_server: StreamWriter) -> None:
        while request := await reader.read(65_536):
            if self.hold:
                self.hold -= 1
                self._held.append((request, to_server))
                writer.close()
                return
            to_server.write(request)
        to_server.close()

    async def _answers(self, from_server: StreamReader, writer: StreamWriter) -> None:
        while answer := await from_server.read(65_536):
            if self.cut_answers:
                self.cut_answers -= 1
                writer.close()
            elif writer.is_closing():
                self._late.put_nowait(answer)
            else:
                writer.write(answer)
        writer.close()

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _, to_server in self._held:
            to_server.close()


@asynccontextmanager
async def redis_proxy(server: Path, socket: Path) -> AsyncIterator[RedisProxy]:
    """One in front of the server's socket."""
    proxy = RedisProxy(server, socket)
    listening = await asyncio.start_unix_server(proxy.serve, socket)
    try:
        yield proxy
    finally:
        listening.close()
        await proxy.end()
