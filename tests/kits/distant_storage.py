"""A storage that is as far away as those in other processes: others get their turn while one waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.storage import Folder, FolderKey, Span


class DistantStorage(MemoryStorage):
    """What is read may be out of date before its reader has it. `reads`: how many values each read gave."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[int] = []

    async def read(self, key: FolderKey, spans: Sequence[Span] = ()) -> Folder | None:
        folder = await super().read(key, spans)
        self.reads.append(sum(map(len, folder.spans)) if folder is not None else 0)
        await asyncio.sleep(0)
        return folder
