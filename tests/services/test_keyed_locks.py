"""Locks by key: who gets one when, and that nothing of it stays."""

from __future__ import annotations

import asyncio

import pytest

from greenroom.services.keyed_locks import KeyedLocks


async def hold(locks: KeyedLocks[str], key: str, name: str, said: list[str], steps: int = 3) -> None:
    async with locks.of(key):
        said.append(f"{name} has it")
        for _ in range(steps):
            await asyncio.sleep(0)
        said.append(f"{name} lets go")


def turns_of(*names: str) -> list[str]:
    return [f"{name} {what}" for name in names for what in ("has it", "lets go")]


async def test_one_after_the_other_in_the_order_in_which_they_asked() -> None:
    locks: KeyedLocks[str] = KeyedLocks()
    said: list[str] = []
    await asyncio.gather(*(hold(locks, "key", name, said) for name in "abcd"))
    assert said == turns_of(*"abcd")
    assert repr(locks) == "<KeyedLocks: 0 in use>"


async def test_keys_do_not_wait_for_each_other() -> None:
    locks: KeyedLocks[str] = KeyedLocks()
    async with locks.of("one"), locks.of("other"):
        assert (len(locks), locks.users("one"), locks.users("none")) == (2, 1, 0)
    assert len(locks) == 0


async def test_who_gives_up_waiting_is_passed_over() -> None:
    locks: KeyedLocks[str] = KeyedLocks()
    said: list[str] = []
    tasks = [asyncio.create_task(hold(locks, "key", name, said)) for name in "abc"]
    await asyncio.sleep(0)
    assert locks.users("key") == 3
    tasks[1].cancel()
    await asyncio.sleep(0)
    assert locks.users("key") == 2
    await asyncio.wait(tasks)
    assert said == turns_of("a", "c")
    assert len(locks) == 0


@pytest.mark.parametrize("after", ["cancelled first", "handed over first"])
async def test_who_gives_up_as_it_is_handed_over_hands_it_on(after: str) -> None:
    locks: KeyedLocks[str] = KeyedLocks()
    said: list[str] = []
    holding = locks.of("key")
    await holding.__aenter__()
    tasks = [asyncio.create_task(hold(locks, "key", name, said)) for name in "ab"]
    await asyncio.sleep(0)
    if after == "cancelled first":
        tasks[0].cancel()
        await holding.__aexit__(None, None, None)
    else:
        await holding.__aexit__(None, None, None)
        tasks[0].cancel()
    await asyncio.wait(tasks)
    assert tasks[0].cancelled()
    assert said == turns_of("b")
    assert len(locks) == 0


async def test_an_error_lets_go() -> None:
    locks: KeyedLocks[str] = KeyedLocks()
    with pytest.raises(ZeroDivisionError):
        async with locks.of("key"):
            raise ZeroDivisionError
    assert len(locks) == 0


async def test_who_is_closed_while_it_waits_is_passed_over() -> None:
    locks: KeyedLocks[str] = KeyedLocks()
    said: list[str] = []
    async with locks.of("key"):
        closed = hold(locks, "key", "a", said)
        closed.send(None)
        closed.close()
        assert locks.users("key") == 1
    await hold(locks, "key", "b", said)
    assert said == turns_of("b")


async def test_who_need_not_wait_any_more_leaves_its_place() -> None:
    locks: KeyedLocks[str] = KeyedLocks()
    said: list[str] = []
    told: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def impatient() -> bool:
        async with locks.of("key", unless=told) as held:
            return held

    async with locks.of("key"):
        first, behind = asyncio.create_task(impatient()), asyncio.create_task(hold(locks, "key", "b", said))
        await asyncio.sleep(0)
        told.set_result(None)
        assert await first is False
        assert locks.users("key") == 2
    await behind
    assert said == turns_of("b")
    assert len(locks) == 0


async def test_who_has_the_lock_keeps_it() -> None:
    locks: KeyedLocks[str] = KeyedLocks()
    told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    holding = locks.of("key")
    await holding.__aenter__()

    async def impatient() -> bool:
        async with locks.of("key", unless=told) as held:
            told.set_result(None)
            await asyncio.sleep(0)
            assert locks.users("key") == 1
            return held

    task = asyncio.create_task(impatient())
    await asyncio.sleep(0)
    await holding.__aexit__(None, None, None)
    assert await task is True
    assert len(locks) == 0
