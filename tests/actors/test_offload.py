"""The user's functions, called where they belong."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import aclosing
from typing import Any

import pytest
from anyio import wait_all_tasks_blocked

from greenroom.actors.events import TurnCancelled
from greenroom.actors.limits import Limits
from greenroom.actors.offload import as_stream, call, in_thread, iterate_in_thread
from kits.system import running_system, said, turn


async def test_a_generator_runs_in_threads_and_ends_where_it_ends() -> None:
    threads: set[int] = set()

    def count() -> Generator[int, None, None]:
        for number in range(3):
            threads.add(threading.get_ident())
            yield number

    assert [number async for number in iterate_in_thread(count())] == [0, 1, 2]
    assert threading.get_ident() not in threads


async def test_a_generator_left_early_is_closed_in_a_thread() -> None:
    closed: list[int] = []

    def count() -> Generator[int, None, None]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(threading.get_ident())

    async with aclosing(iterate_in_thread(count())) as numbers:
        assert await anext(numbers) == 1
    assert len(closed) == 1
    assert closed != [threading.get_ident()]


async def test_a_generator_cancelled_in_a_step_is_closed_after_it() -> None:
    loop = asyncio.get_running_loop()
    entered, closed, release = asyncio.Event(), asyncio.Event(), threading.Event()

    def slow() -> Generator[int, None, None]:
        try:
            loop.call_soon_threadsafe(entered.set)
            release.wait(10)
            yield 1
        finally:
            loop.call_soon_threadsafe(closed.set)

    async def iterate() -> None:
        async for _ in iterate_in_thread(slow()):
            raise AssertionError("heard")

    task = asyncio.create_task(iterate())
    await entered.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    release.set()
    await closed.wait()


class Held:
    """A synchronous handler whose calls stay in their threads until they are let go, and how many do."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._count = threading.Lock()
        self.let_go = threading.Semaphore(0)
        self.entered = asyncio.Semaphore(0)
        self.inside = self.most = 0

    def __call__(self, msgs: Any) -> str:
        with self._count:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self._loop.call_soon_threadsafe(self.entered.release)
        assert self.let_go.acquire(timeout=60)
        with self._count:
            self.inside -= 1
        return "done"


async def test_threads_of_cancelled_turns_are_as_many_as_there_may_be_threads() -> None:
    """A thread that nobody listens to is a thread: the next call waits until one of them is through."""
    held = Held()
    handler = held.__call__
    async with running_system(handler, limits=Limits(worker_threads=2)) as system:
        try:
            for session in "ab":
                await system.submit(turn(session=session, id=session))
                await held.entered.acquire()
            for session in "ab":
                await system.cancel(session, None)
            late = [await system.submit(turn(session=session, id=session)) for session in "cdef"]
            await system.cancel("c", None)
            assert isinstance(await late[0].ended(), TurnCancelled)
            await wait_all_tasks_blocked()
            assert (held.inside, held.entered.locked()) == (2, True)
            held.let_go.release()
            await held.entered.acquire()
            held.let_go.release(10)
            assert [said(await log.ended()) for log in late[1:]] == ["done"] * 3
            assert held.most == 2
        finally:
            held.let_go.release(100)


async def test_a_call_that_is_cancelled_before_its_thread_begins_gives_its_place_back() -> None:
    async with running_system(lambda msgs: "done", limits=Limits(worker_threads=1)) as system:
        for number in range(20):
            log = await system.submit(turn(session="s", id=f"t{number}"))
            for _ in range(number):
                await asyncio.sleep(0)
            await system.cancel(f"t{number}", None)
            await log.ended()
        assert said(await (await system.submit(turn(session="s"))).ended()) == "done"


async def test_an_exception_in_a_thread_is_the_callers() -> None:
    def broken() -> None:
        raise LookupError("there")

    with pytest.raises(LookupError, match="there"):
        await in_thread(broken)


async def test_what_is_returned_becomes_a_stream() -> None:
    def numbers() -> Generator[int, None, None]:
        yield 1
        yield 2

    async def later() -> str:
        return "x"

    async def collect(value: object) -> list[object]:
        return [item async for item in as_stream(value)]

    assert await collect(numbers()) == [1, 2]
    assert await collect(iter([3])) == [3]
    assert await collect(None) == []
    assert await collect(("a", True)) == [("a", True)]
    assert await call(later) == "x"
