"""A storage whose connection can be cut, for a while or in the middle of a write."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

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


class CutStorage:
    """What one process has of a storage that others have too. `cut`: nothing gets through. `cut_after`: so many writes
    from now on get through, then none. `lose_answers`: so many writes from now on are done, and nobody is told;
    `cut_then`: the last of them is the last that gets through. `gate`: what is written is answered when it is set.
    `seconds`: how long reads take, and answers to writes. `reads`, `writes`: how many there were. `deaf`: notes that
    are left for this process come to it when it is not."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.cut = False
        self.cut_after: int | None = None
        self.lose_answers = 0
        self.cut_then = False
        self.gate: asyncio.Event | None = None
        self.seconds = 0.0
        self.deaf = False
        self._unheard: tuple[bytes, ...] = ()
        self.reads = self.writes = 0

    def __repr__(self) -> str:
        return f"<CutStorage {'cut' if self.cut else 'whole'}>"

    def _check(self) -> None:
        if self.cut:
            raise StoreUnavailable("the connection is cut")

    async def start(self) -> None:
        await self._storage.start()

    async def stop(self) -> None:
        await self._storage.stop()

    async def write(self, changes: Sequence[Change]) -> tuple[Fence, ...]:
        self._check()
        if self.cut_after == 0:
            raise StoreUnavailable("nothing can be written")
        if self.cut_after is not None:
            self.cut_after -= 1
        self.writes += 1
        fences = await self._storage.write(changes)
        await asyncio.sleep(self.seconds)
        if self.gate is not None:
            await self.gate.wait()
        if self.lose_answers:
            self.lose_answers -= 1
            self.cut = self.cut or (self.cut_then and not self.lose_answers)
            raise StoreUnavailable("the connection broke before the answer came", maybe_done=True)
        return fences

    async def read(self, key: FolderKey, spans: Sequence[Span] = ()) -> Folder | None:
        self._check()
        self.reads += 1
        await asyncio.sleep(self.seconds)
        return await self._storage.read(key, spans)

    async def lookup(self, name: bytes) -> Named | None:
        self._check()
        return await self._storage.lookup(name)

    async def sessions(self, kind: str, user_id: str) -> tuple[str, ...]:
        self._check()
        return await self._storage.sessions(kind, user_id)

    async def orphans(self, kind: str, limit: int) -> tuple[Head, ...]:
        self._check()
        return await self._storage.orphans(kind, limit)

    async def renew(self, owner: str, seconds: float, state: OwnerState = "serving") -> tuple[bytes, ...]:
        self._check()
        notes = (*self._unheard, *await self._storage.renew(owner, seconds, state))
        self._unheard = notes if self.deaf else ()
        return () if self.deaf else notes

    async def note(self, owner: str, note: bytes) -> bool:
        self._check()
        return await self._storage.note(owner, note)
