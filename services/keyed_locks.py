"""A lock for each key, which is there only while somebody holds it or waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class KeyedLocks(Generic[K]):
    """Those who want the same key's lock get it one after the other, in the order in which they asked."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[K, tuple[asyncio.Lock, int]] = {}

    def __repr__(self) -> str:
        return f"<KeyedLocks: {len(self._locks)} in use>"

    def __len__(self) -> int:
        return len(self._locks)

    def users(self, key: K) -> int:
        """How many hold the key's lock or wait for it."""
        found = self._locks.get(key)
        return 0 if found is None else found[1]

    @asynccontextmanager
    async def of(self, key: K) -> AsyncIterator[None]:
        """Hold the key's lock."""
        lock, users = self._locks.get(key) or (asyncio.Lock(), 0)
        self._locks[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            users = self._locks[key][1] - 1
            if users:
                self._locks[key] = lock, users
            else:
                del self._locks[key]
