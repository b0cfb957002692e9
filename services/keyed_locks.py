"""A lock for each key, which is there only while somebody holds it or waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeAlias, TypeVar

K = TypeVar("K", bound=Hashable)

_Queue: TypeAlias = "deque[asyncio.Future[bool]]"
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

    def of(self, key: K, unless: asyncio.Future[Any] | None = None) -> AbstractAsyncContextManager[bool]:
        """Hold the key's lock. Who waits for it when `unless` is done waits no more; gives whether it is held."""
        return _Holding(self._locks, key, unless)


class _Holding(Generic[K]):
    """One use of a lock. A turn has several: a generator around an `asyncio.Lock` would take three times as long."""

    __slots__ = ("_held", "_key", "_locks", "_unless")

    def __init__(self, locks: dict[K, _Queue], key: K, unless: asyncio.Future[Any] | None) -> None:
        self._locks = locks
        self._key = key
        self._unless = unless
        self._held = True

    async def __aenter__(self) -> bool:
        queue = self._locks.get(self._key)
        if queue is None:
            self._locks[self._key] = deque()
            return True
        mine: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        queue.append(mine)
        if self._unless is not None:
            self._unless.add_done_callback(lambda _: _leave(queue, mine))
        try:
            self._held = await mine
            return self._held
        except BaseException:
            if mine in queue:
                queue.remove(mine)
            elif not mine.cancelled() and mine.result():  # it was handed over just before
                self._hand_on()
            raise

    async def __aexit__(self, *_: object) -> None:
        if self._held:
            self._hand_on()

    def _hand_on(self) -> None:
        queue = self._locks[self._key]
        while queue:
            following = queue.popleft()
            if not following.cancelled():
                following.set_result(True)
                return
        del self._locks[self._key]


def _leave(queue: _Queue, mine: asyncio.Future[bool]) -> None:
    if mine in queue and not mine.cancelled():
        queue.remove(mine)
        mine.set_result(False)
