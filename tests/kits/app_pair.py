"""Two applications that remember, on one store, as two processes have them, each with a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from greenroom import Limits
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Turn
from kits.memory_app import Memory
from kits.responses_http import Answer, ResponsesClient, responses_of
from kits.until import until_answered

LIMITS = Limits(recovery_seconds=0.1, cancel_seconds=1.0)


class Side:
    """One of the two."""

    def __init__(self, memory: Memory, client: ResponsesClient) -> None:
        self.memory = memory
        self.client = client

    async def ask(self, path: str, **options: Any) -> Answer:
        """A request: a POST of `json`, else a GET."""
        http, url = self.client.http, self.client.plain.url
        method = "POST" if "json" in options else "GET"
        async with http.request(method, url + path, **options) as response:
            if response.content_type != "application/json":
                return Answer(response.status, response.headers, await response.text())
            return Answer(response.status, response.headers, await response.json())

    async def begin_to_ask(self, path: str, **options: Any) -> asyncio.Task[Answer]:
        """One whose turn is being taken in."""
        assert self.memory.app._runtime is not None
        system = self.memory.app._runtime.system
        submit, arrived = system.submit, asyncio.Event()

        async def noticed(turn: Turn) -> TurnLog:
            arrived.set()
            return await submit(turn)

        system.submit = noticed  # type: ignore[method-assign]
        try:
            asking = asyncio.create_task(self.ask(path, **options))
            await arrived.wait()
        finally:
            system.submit = submit  # type: ignore[method-assign]
        return asking

    async def leave(self, asking: asyncio.Task[Answer]) -> None:
        """Its client goes, and the server has seen it."""
        asking.cancel()
        await asyncio.wait([asking])
        await self.ask("/health")

    @property
    def followed(self) -> list[TurnLog]:
        """The turns of the other one that are followed here."""
        assert self.memory.app._runtime is not None
        sharing = self.memory.app._runtime.system._sharing
        assert sharing is not None
        return list(sharing.elsewhere._logs.values())

    async def has_open(self, turns: int) -> None:
        """Wait until so many turns are open here."""

        async def are_open() -> bool:
            return self.memory.app.statistics().open_turns == turns

        await until_answered(are_open)


@asynccontextmanager
async def app_pair(folder: Path) -> AsyncIterator[tuple[Side, Side]]:
    """Served, both."""
    here, there = (Memory(state=f"sqlite:///{folder}/sessions.db", limits=LIMITS) for _ in range(2))
    async with responses_of(here.app) as one, responses_of(there.app) as other:
        yield Side(here, one), Side(there, other)
