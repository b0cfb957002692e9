"""The user's functions, called where they belong."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import aclosing

import pytest

from greenroom.actors.offload import as_stream, call, in_thread, iterate_in_thread


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
