"""A lock for each key, which is there only while somebody holds it or waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeAlias, TypeVar

K = TypeVar("K", bound=Hashable)

_Queue: TypeAlias = "deque[asyncio.Future[None]]"
"""Those who wait for the one who holds the lock."""


class KeyedLocks(Generic[K]):
    """Those who want the same key's lock get it one after the other, in the order in which they asked."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[K, _Queue] = {}

    def __repr__(self) -> str:
        return f"<KeyedLocks: {len(self._locks)} in use>"

    def __len__(self) -> int:
        return len(self._locks)

    def users(self, key: K) -> int:
        """How many hold the key's lock or wait for it."""
        queue = self._locks.get(key)
        return 0 if queue is None else 1 + len(queue)

    def of(self, key: K) -> AbstractAsyncContextManager[None]:
        """Hold the key's lock."""
        return _Holding(self._locks, key)


class _Holding(Generic[K]):
    """One use of a lock. A turn has several: a generator around an `asyncio.Lock` would take three times as long."""

    __slots__ = ("_key", "_locks")

    def __init__(self, locks: dict[K, _Queue], key: K) -> None:
        self._locks = locks
        self._key = key

    async def __aenter__(self) -> None:
        queue = self._locks.get(self._key)
        if queue is None:
            self._locks[self._key] = deque()
            return
        mine = asyncio.get_running_loop().create_future()
        queue.append(mine)
        try:
            await mine
        except BaseException:
            if mine in queue:
                queue.remove(mine)
            elif not mine.cancelled():  # it was handed over just before
                self._hand_on()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._hand_on()

    def _hand_on(self) -> None:
        queue = self._locks[self._key]
        while queue:
            following = queue.popleft()
            if not following.cancelled():
                following.set_result(None)
                return
        del self._locks[self._key]
