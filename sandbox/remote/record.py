"""Who has the one remote box: a small file, which also says whether the box may be given to anybody at all.

The file's name is made of the box's URL and token, so a new box, which has a new token, has a new record.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import msgspec
from anyio import to_thread
from msgspec import Struct

from greenroom.sandbox.places import private_folder, state_folder

LOOK_SECONDS: Final = 0.05
"""Between two looks at whether another process has let go of the file."""


class Holding(Struct, frozen=True, kw_only=True):
    """`lease` none: nobody has the box. `spent`: it cannot be reset and somebody had it: nobody else may. `ended`: it
    no longer answered."""

    lease: str | None = None
    owner: str = ""
    spent: bool = False
    ended: bool = False


class RemoteRecord:
    """The record of one box. One machine's processes share it; those of several machines cannot share a box."""

    def __init__(self, url: str, token: str, folder: Path | None = None) -> None:
        self._folder = folder
        self._name = hashlib.sha256(f"{url}\0{token}".encode()).hexdigest()[:32]

    @property
    def path(self) -> Path:
        """The file."""
        return (self._folder or state_folder() / "remote") / f"{self._name}.json"

    async def read(self) -> Holding:
        """What it says."""
        return await to_thread.run_sync(self._read)

    async def write(self, holding: Holding) -> None:
        """Change it; only while it is `locked`."""
        await to_thread.run_sync(self._write, holding)

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[Holding]:
        """What it says, while nobody else changes it, in this process or another one that may die meanwhile."""
        handle = await to_thread.run_sync(self._open)
        try:
            while not _lock(handle):  # noqa: ASYNC110 - another process may hold it
                await anyio.sleep(LOOK_SECONDS)
            yield await self.read()
        finally:
            os.close(handle)

    def _open(self) -> int:
        private_folder(self.path.parent.parent)
        private_folder(self.path.parent)
        return os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _read(self) -> Holding:
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Holding)
        except FileNotFoundError:
            return Holding()

    def _write(self, holding: Holding) -> None:
        unfinished = self.path.with_suffix(".new")
        with unfinished.open("wb") as file:
            file.write(msgspec.json.encode(holding))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.path)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
