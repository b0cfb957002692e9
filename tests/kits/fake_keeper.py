"""A keeper for tests of what lies in front of it: it answers by a script of the test's, and has no boxes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from greenroom.sandbox.leases import LeaseKey
from greenroom.sandbox.result import ToolResult

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PICTURE = {"type": "image", "data": PIXEL, "mimeType": "image/png"}


class FakeKeeper:
    """`calls`: what was called, in order of beginning; `done`: what has ended, and how. A tool that `gates` names waits
    until its event is set; `answers` gives what a tool answers, or the error it raises."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.done: list[tuple[str, str]] = []
        self.keys: list[LeaseKey] = []
        self.answers: dict[str, ToolResult | Exception] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.begun = asyncio.Event()
        self.released: list[LeaseKey] = []
        self.stopped = False
        self.under_way = 0

    async def call(
        self, key: LeaseKey, tool: str, arguments: Mapping[str, Any], seconds: float | None = None
    ) -> ToolResult:
        assert self.under_way == 0, "calls of one object overlap"
        self.under_way += 1
        self.calls.append((tool, dict(arguments)))
        self.keys.append(key)
        self.begun.set()
        ending = "cancelled"
        try:
            await asyncio.sleep(0)
            gate = self.gates.get(tool)
            if gate is not None:
                await gate.wait()
            answer = self.answers.get(tool)
            ending = "failed"
            if isinstance(answer, Exception):
                raise answer
            ending = "answered"
            return answer or ToolResult.of_text(f"{tool} {dict(arguments)}")
        finally:
            self.under_way -= 1
            self.done.append((tool, ending))

    @asynccontextmanager
    async def client(self, key: LeaseKey) -> AsyncIterator[Any]:
        self.keys.append(key)
        yield FakeFiles(self)

    async def release(self, key: LeaseKey) -> None:
        self.released.append(key)

    async def stop(self) -> None:
        self.stopped = True


class FakeFiles:
    """The workspace, as a client of a box has it: a dict."""

    def __init__(self, keeper: FakeKeeper) -> None:
        self._files: dict[str, bytes] = keeper.__dict__.setdefault("files", {})

    async def read(self, path: str) -> bytes:
        return self._files[path]

    async def write(self, path: str, data: bytes) -> Any:
        from greenroom.sandbox.wire import Entry

        self._files[path] = data
        return Entry(path, path, "file", len(data))

    async def write_many(self, files: Mapping[str, bytes]) -> Any:
        return [await self.write(path, data) for path, data in files.items()]

    async def list(self, path: str, depth: int) -> Any:
        del path, depth
        return [await self.write(name, data) for name, data in self._files.items()]

    async def exists(self, path: str) -> bool:
        return path in self._files

    async def remove(self, path: str) -> None:
        self._files.pop(path, None)

    async def move(self, source: str, destination: str) -> Any:
        return await self.write(destination, self._files.pop(source))

    async def mkdir(self, path: str) -> bool:
        return path not in self._files
