"""Requests that come again: they join the turn they began, or get its result, and begin no other (law 6 for keys)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import structs

from greenroom.actors.errors import KeyReused, NotServing, TurnExists
from greenroom.actors.events import TurnCompleted
from greenroom.actors.limits import Limits
from greenroom.actors.messages import Disconnect, Turn
from kits.system import asked, running_system, said, turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time


class Letters:
    """Says a letter a second, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def answer(self, msgs: Any) -> AsyncIterator[str]:
        self.asked.append(asked(msgs[-1]))
        for letter in self.asked[-1]:
            yield letter
            await asyncio.sleep(1)


def keyed(text: str = "abc", key: str | None = "k", **fields: Any) -> Turn:
    """A request with a key. Its text stands for its body."""
    made = turn(text, **fields)
    return structs.replace(made, idempotency_key=key, fingerprint=text.encode())


async def test_a_repeat_joins_the_turn_that_runs_and_later_gets_its_result() -> None:
    letters = Letters()
    async with running_system(letters.answer) as system:
        first = await system.submit(keyed())
        await asyncio.sleep(1)
        assert await system.submit(keyed()) is first
        assert said(await first.ended()) == "abc"
        assert await system.submit(keyed()) is first
        assert system.statistics().accepted_turns == 1
    assert letters.asked == ["abc"]


async def test_repeats_at_the_same_moment_begin_one_turn() -> None:
    letters = Letters()
    async with running_system(letters.answer) as system:
        logs = await asyncio.gather(*(system.submit(keyed()) for _ in range(10)))
        assert len({log.id for log in logs}) == 1
        await logs[0].ended()
    assert letters.asked == ["abc"]


async def test_a_key_names_one_request() -> None:
    letters = Letters()
    async with running_system(letters.answer) as system:
        first = await system.submit(keyed("abc"))
        with pytest.raises(KeyReused) as reused:
            await system.submit(keyed("abd"))
        assert first.id in reused.value.message
        await first.ended()
        with pytest.raises(KeyReused):
            await system.submit(keyed("abd"))
    assert letters.asked == ["abc"]


async def test_an_id_names_one_request() -> None:
    letters = Letters()
    async with running_system(letters.answer) as system:
        first = await system.submit(keyed("abc", key=None, id="mine"))
        assert await system.submit(keyed("abc", key=None, id="mine")) is first
        with pytest.raises(TurnExists):
            await system.submit(keyed("abd", key=None, id="mine"))
        with pytest.raises(TurnExists):
            await system.submit(turn("abc", id="mine"))  # from where nothing tells what was asked for
        await first.ended()
        with pytest.raises(TurnExists):
            await system.submit(keyed("abd", key="another", id="mine"))
    assert letters.asked == ["abc"]


async def test_keys_of_two_principals_have_nothing_to_do_with_each_other() -> None:
    letters = Letters()
    async with running_system(letters.answer) as system:
        one = await system.submit(keyed("abc", principal="ann", session="a"))
        other = await system.submit(keyed("xyz", principal="bob", session="b"))
        nobody = await system.submit(keyed("mno", session="c"))
        assert [said(await log.ended()) for log in (one, other, nobody)] == ["abc", "xyz", "mno"]
        assert await system.submit(keyed("abc", principal="ann")) is one


async def test_a_key_is_known_as_long_as_its_turn_is() -> None:
    letters = Letters()
    limits = Limits(kept_turns=3, kept_seconds=60)
    async with running_system(letters.answer, limits=limits) as system:
        logs = []
        for number in range(5):
            logs.append(await system.submit(keyed("a", key=f"k{number}")))
            await logs[-1].ended()
        keys = system._archive._keys
        assert [key for _, key in keys] == ["k2", "k3", "k4"]
        assert await system.submit(keyed("a", key="k4")) is logs[4]
        assert await system.submit(keyed("a", key="k0")) is not logs[0]
        await asyncio.sleep(120)
        assert not keys


async def test_a_refused_request_leaves_no_key() -> None:
    letters = Letters()
    async with running_system(letters.answer, limits=Limits(waiting_turns=0)) as system:
        first = await system.submit(keyed("abc", key="first"))
        with pytest.raises(Exception, match="wait for session"):
            await system.submit(keyed("xyz", key="second"))
        assert [key for _, key in system._archive._keys] == ["first"]
        await first.ended()
        assert said(await (await system.submit(keyed("xyz", key="second"))).ended()) == "xyz"


async def test_a_repeat_is_answered_while_the_system_drains() -> None:
    async with running_system(Letters().answer) as system:
        first = await system.submit(keyed())
        drain = asyncio.create_task(system.drain(30))
        await asyncio.sleep(0)
        with pytest.raises(NotServing):
            await system.submit(turn("new"))
        assert await system.submit(keyed()) is first
        await drain
        assert isinstance(first.terminal, TurnCompleted)


async def test_of_two_that_continue_an_earlier_turn_one_forks() -> None:
    letters = Letters()
    async with running_system(letters.answer) as system:
        first = await system.submit(turn("a", id="first"))
        await first.ended()
        await (await system.submit(turn("b", after="first"))).ended()
        logs = await asyncio.gather(*(system.submit(keyed("c", after="first")) for _ in range(4)))
        assert len({id(log) for log in logs}) == 1
        await logs[0].ended()
        assert logs[0].turn.key != first.turn.key
        assert len(system.store._sessions) == 2  # type: ignore[attr-defined]
    assert letters.asked == ["a", "b", "c"]


async def test_who_joins_and_leaves_does_not_end_what_another_follows() -> None:
    async with running_system(Letters().answer) as system:
        asked_for = Disconnect("cancel")
        first = await system.submit(keyed(disconnect=asked_for))
        follower = asyncio.create_task(first.ended())
        await asyncio.sleep(1)
        again = await system.submit(keyed(disconnect=asked_for))
        system.client_left(again)
        assert isinstance(await follower, TurnCompleted)


async def test_who_joins_within_the_grace_saves_the_turn() -> None:
    async with running_system(Letters().answer) as system:
        first = await system.submit(keyed("abcdefgh", disconnect=Disconnect("grace", 4.0)))
        system.client_left(first)
        await asyncio.sleep(2)
        again = await system.submit(keyed("abcdefgh", disconnect=Disconnect("grace", 4.0)))
        assert said(await again.ended()) == "abcdefgh"
