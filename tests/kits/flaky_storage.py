"""A way to a storage on which writes go wrong: for tests of what stands on storages. Each process of a test has one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal, TypeAlias

from greenroom.actors.errors import StoreUnavailable
from greenroom.services.storage import (
    Change,
    Fence,
    Folder,
    FolderKey,
    Head,
    Named,
    OwnerState,
    Span,
    Storage,
)

Fault: TypeAlias = Literal["refused", "unsure", "held", "unheard"]
"""Of a write: not done; done, and said to be not; done at `go_on`; done at once, and heard of at `go_on`."""


class FlakyStorage:
    """A `Storage` that goes to another one. `fault`: of the next write."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.fault: Fault | None = None
        self.stuck = asyncio.Event()
        """Somebody waits for `go_on`."""
        self._gate = asyncio.Event()
        self._late: set[asyncio.Task[tuple[Fence, ...]]] = set()

    def __repr__(self) -> str:
        return f"<FlakyStorage to {self._storage!r}>"

    async def go_on(self) -> None:
        """Let go what waits, and wait for writes that are held, also those whose callers have given them up."""
        self._gate.set()
        self._gate = asyncio.Event()
        self.stuck.clear()
        if self._late:
            await asyncio.wait(self._late)

    async def start(self) -> None:
        """The other's."""
        await self._storage.start()

    async def stop(self) -> None:
        """The other's."""
        await self._storage.stop()

    async def write(self, changes: Sequence[Change]) -> tuple[Fence, ...]:
        """The other's, with the fault."""
        fault, self.fault = self.fault, None
        if fault is None:
            return await self._storage.write(changes)
        if fault == "refused":
            raise StoreUnavailable("refused by the test")
        if fault == "unsure":
            await self._storage.write(changes)
            raise StoreUnavailable("done, although the test says it was not", maybe_done=True)
        if fault == "unheard":
            fences = await self._storage.write(changes)
            await self._wait(self._gate)
            return fences
        task = asyncio.get_running_loop().create_task(self._later(changes, self._gate))
        self._late.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)  # who gives it up does not keep it from being done

    async def read(self, key: FolderKey, spans: Sequence[Span] = ()) -> Folder | None:
        """The other's."""
        return await self._storage.read(key, spans)

    async def lookup(self, name: bytes) -> Named | None:
        """The other's."""
        return await self._storage.lookup(name)

    async def sessions(self, kind: str, user_id: str) -> tuple[str, ...]:
        """The other's."""
        return await self._storage.sessions(kind, user_id)

    async def orphans(self, kind: str, limit: int) -> tuple[Head, ...]:
        """The other's."""
        return await self._storage.orphans(kind, limit)

    async def renew(self, owner: str, seconds: float, state: OwnerState = "serving") -> tuple[bytes, ...]:
        """The other's."""
        return await self._storage.renew(owner, seconds, state)

    async def note(self, owner: str, note: bytes) -> bool:
        """The other's."""
        return await self._storage.note(owner, note)

    async def _later(self, changes: Sequence[Change], gate: asyncio.Event) -> tuple[Fence, ...]:
        await self._wait(gate)
        return await self._storage.write(changes)

    async def _wait(self, gate: asyncio.Event) -> None:
        self.stuck.set()
        await gate.wait()

    def _done(self, task: asyncio.Task[tuple[Fence, ...]]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may have waited for it
