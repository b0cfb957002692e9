"""Two applications that remember, on one store, as two processes have them, each with a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from greenroom import Limits
from kits.memory_app import Memory
from kits.responses_http import Answer, ResponsesClient, responses_of
from kits.until import until_answered

LIMITS = Limits(recovery_seconds=0.1, cancel_seconds=1.0)


class Side:
    """One of the two. `arrived`: set when a request comes."""

    def __init__(self, folder: Path) -> None:
        self.arrived = asyncio.Event()
        self.memory = Memory(
            state=f"sqlite:///{folder}/sessions.db", limits=LIMITS, authenticate=self._authenticate
        )

    async def _authenticate(self, headers: Mapping[str, str]) -> str | None:
        self.arrived.set()
        return "somebody"

    @asynccontextmanager
    async def served(self) -> AsyncIterator[Side]:
        async with responses_of(self.memory.app) as self.client:
            yield self

    client: ResponsesClient

    async def ask(self, path: str, **options: Any) -> Answer:
        """A request: a POST of `json`, else a GET."""
        http, url = self.client.http, self.client.plain.url
        method = "POST" if "json" in options else "GET"
        async with http.request(method, url + path, **options) as response:
            if response.content_type != "application/json":
                return Answer(response.status, response.headers, await response.text())
            return Answer(response.status, response.headers, await response.json())

    async def begin_to_ask(self, path: str, **options: Any) -> asyncio.Task[Answer]:
        """One that has come, and is not answered yet."""
        self.arrived.clear()
        asking = asyncio.create_task(self.ask(path, **options))
        await self.arrived.wait()
        await self.ask("/health")  # by then it has been read
        return asking

    async def leave(self, asking: asyncio.Task[Answer]) -> None:
        """Its client goes, and the server has seen it."""
        asking.cancel()
        await asyncio.wait([asking])
        await self.ask("/health")

    async def has_open(self, turns: int) -> None:
        """Wait until so many turns are open here."""

        async def are_open() -> bool:
            return self.memory.app.statistics().open_turns == turns

        await until_answered(are_open)


@asynccontextmanager
async def app_pair(folder: Path) -> AsyncIterator[tuple[Side, Side]]:
    """Served, both."""
    async with Side(folder).served() as here, Side(folder).served() as there:
        yield here, there
