"""Calling the user's functions: synchronous code runs off the loop, with its context variables (law 5)."""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import anyio.to_thread
from anyio import CancelScope, CapacityLimiter

from greenroom.actors.scope import current_turn

T = TypeVar("T")

_END = object()
_UNBOUNDED = CapacityLimiter(math.inf)
"""For anyio, which would give a thread's place back while the thread still runs: places are counted here."""


async def in_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call `function` in a worker thread, of those that the turn's application has.

    Context variables are copied in (anyio does it). When the awaiting task is cancelled it goes on at once; the thread
    runs to its end unheard, and is one of the application's until then: the next call may have to wait for it (law 6).
    """
    turn = current_turn.get()
    places = turn.worker_threads if turn is not None else None
    place = _Place(places or anyio.to_thread.current_default_thread_limiter())
    await place.take()
    try:
        return await anyio.to_thread.run_sync(
            lambda: place.run(function, *args, **kwargs), abandon_on_cancel=True, limiter=_UNBOUNDED
        )
    finally:
        place.leave()


class _Place:
    """One call's place among the threads. Whoever is last to need it gives it back: the task that waits for the call,
    or, when that was cancelled, the thread."""

    __slots__ = ("_lock", "_loop", "_places", "_thread_runs", "_waiter_left")

    def __init__(self, places: CapacityLimiter) -> None:
        self._places = places
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._thread_runs = False
        self._waiter_left = False

    async def take(self) -> None:
        await self._places.acquire_on_behalf_of(self)

    def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """In the thread: call the function, unless nobody waits for it any more."""
        with self._lock:
            if self._waiter_left:
                raise asyncio.CancelledError  # unheard
            self._thread_runs = True
        try:
            return function(*args, **kwargs)
        finally:
            with self._lock:
                self._thread_runs = False
                last = self._waiter_left
            if last:
                with suppress(RuntimeError):  # the loop is closed, and its places with it
                    self._loop.call_soon_threadsafe(self._give_back)

    def leave(self) -> None:
        """On the loop: nobody waits for the call any more."""
        with self._lock:
            self._waiter_left = True
            last = not self._thread_runs
        if last:
            self._give_back()

    def _give_back(self) -> None:
        self._places.release_on_behalf_of(self)


async def iterate_in_thread(generator: Generator[T, None, object]) -> AsyncGenerator[T, None]:
    """Iterate a synchronous generator with each step in a worker thread.

    Each step sees the caller's context. When the iteration ends early the generator is closed, in a thread too: at
    once, or after the step that runs, which ends unheard.
    """
    left = False
    stepping = False

    def step() -> Any:
        item = next(generator, _END)
        if left:
            generator.close()
        return item

    try:
        while True:
            stepping = True
            item = await in_thread(step)
            stepping = False
            if item is _END:
                return
            yield item
    finally:
        left = True
        if not stepping:
            with CancelScope(shield=True):
                await in_thread(generator.close)


async def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function of the user's: asynchronous ones are awaited, synchronous ones run in a worker thread."""
    if inspect.iscoroutinefunction(function):
        return await function(*args, **kwargs)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return function(*args, **kwargs)
    result = await in_thread(function, *args, **kwargs)
    return await result if inspect.isawaitable(result) else result


def never_blocks(function: object) -> bool:
    """Whether a function that looks synchronous is marked as one that gives back what is to be awaited, or a stream,
    when a loop runs where it is called. It is called on the loop, which the stream is then read on. The mark is the
    attribute `never_blocks` (the tools of sandboxes have it)."""
    return getattr(function, "never_blocks", False) is True


def as_stream(result: object) -> AsyncIterator[object]:
    """What a handler returned, as something to iterate: a stream as it is, a single thing once, `None` as nothing."""
    if isinstance(result, AsyncIterator):
        return result
    if isinstance(result, Generator):
        return iterate_in_thread(result)
    return _each(result if isinstance(result, Iterator) else (() if result is None else (result,)))


async def _each(items: Any) -> AsyncIterator[object]:
    for item in items:
        yield item
