"""Work that is told to break off is waited for."""

import asyncio

import pytest

from greenroom.sandbox.image.breaking_off import Calls, Halt


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_cancelled_caller_waits_for_the_work_to_break_off() -> None:
    calls, tidied, may_end = Calls(), asyncio.Event(), asyncio.Event()

    async def work(halt: Halt) -> str:
        assert not await halt.before(asyncio.Event().wait())
        tidied.set()
        await may_end.wait()
        return "nobody hears this"

    caller = asyncio.create_task(calls.run(work, 60))
    await settle()
    caller.cancel()
    await tidied.wait()
    caller.cancel()  # once more, as a server that ends does
    await settle()
    assert not caller.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await calls.ended()


async def test_work_that_fails_while_it_breaks_off_is_nobodys_trouble() -> None:
    calls = Calls()

    async def work(halt: Halt) -> None:
        await halt.before(asyncio.Event().wait())
        raise OSError

    caller = asyncio.create_task(calls.run(work, 60))
    await settle()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_all_that_is_under_way_can_be_broken_off() -> None:
    calls = Calls()

    async def work(halt: Halt) -> bool:
        return await halt.before(asyncio.Event().wait())

    callers = [asyncio.create_task(calls.run(work, 60)) for _ in range(3)]
    await settle()
    calls.break_off()
    await calls.ended()

    assert await asyncio.gather(*callers) == [False, False, False]


async def test_what_is_done_in_time_is_told_with_its_error() -> None:
    halt = Halt(60)

    async def fails() -> None:
        raise KeyError

    assert await halt.before(asyncio.sleep(0))
    with pytest.raises(KeyError):
        await halt.before(fails())


async def test_a_deadline_breaks_off() -> None:
    halt = Halt(0)

    assert halt.left == 0
    assert not await halt.before(asyncio.Event().wait())


async def test_what_stays_deaf_to_being_cancelled_is_waited_for() -> None:
    halt = Halt(0)
    ended = []

    async def tidies() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)
            raise OSError

    halt.abandoned.set()
    assert not await halt.before(tidies()) or ended
