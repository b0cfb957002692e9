"""Pauses where processes share a store: a random part of each is drawn from the sources, so that a test can own it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate, pairwise
from typing import Any

import pytest

from greenroom.actors.events import TurnCompleted
from greenroom.actors.ids import Sources
from greenroom.actors.limits import Limits
from greenroom.actors.messages import SessionKey, Turn
from greenroom.actors.system import ActorSystem
from greenroom.services.durable import Acceptance, Ending, TurnEntry
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.joining import Join
from kits.cut_storage import CutStorage
from kits.system import EPOCH, asked, running_system, turn
from kits.virtual_time import virtual_time

chances = pytest.mark.parametrize("chance", [0.0, 0.5, 0.75])
LIMITS = Limits(elsewhere_seconds=3600.0, store_seconds=3600.0, recovery_seconds=4.0)


async def sleepy(msgs: Any) -> AsyncIterator[str]:
    await asyncio.sleep(float(asked(msgs[-1])))
    yield "."


class Watched(DurableSessions):
    """Notes when it is asked."""

    def __init__(self, storage: CutStorage) -> None:
        super().__init__(storage, lease_seconds=3600.0, monotonic=asyncio.get_running_loop().time)
        self.cut = storage
        self.accepted: list[float] = []
        self.finished: list[float] = []
        self.searched: list[float] = []
        self.looked: list[float] = []

    async def accept(self, turn: Turn, join: Join | None = None) -> Acceptance:
        self.accepted.append(asyncio.get_running_loop().time())
        return await super().accept(turn, join)

    async def finish(self, key: SessionKey, ending: Ending) -> None:
        self.finished.append(asyncio.get_running_loop().time())
        await super().finish(key, ending)

    async def orphans(self, limit: int) -> Sequence[SessionKey]:
        self.searched.append(asyncio.get_running_loop().time())
        return await super().orphans(limit)

    async def find(self, turn_id: str, principal: str | None, first: int = 0) -> TurnEntry | None:
        self.looked.append(asyncio.get_running_loop().time())
        return await super().find(turn_id, principal, first)


@asynccontextmanager
async def two(chance: float) -> AsyncIterator[tuple[ActorSystem, ActorSystem, Watched]]:
    """Processes that share a store; what the second one asks its own is noted."""
    loop = asyncio.get_running_loop()
    shared = MemoryStorage(monotonic=loop.time)
    await shared.start()
    watched = Watched(CutStorage(shared))
    async with (
        running_system(sleepy, store=Watched(CutStorage(shared)), limits=LIMITS) as one,
        running_system(
            sleepy,
            store=watched,
            limits=LIMITS,
            first_id=1000,
            now=lambda: EPOCH + loop.time(),
            chance=lambda: chance,
        ) as other,
    ):
        yield one, other, watched
    await shared.stop()


def pauses(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]


def doubling(first: float, longest: float, count: int, share: float) -> list[float]:
    whole = accumulate(range(count - 1), lambda pause, _: min(2 * pause, longest), initial=first)
    return [pause * share for pause in whole]


@virtual_time
@chances
async def test_a_turn_that_waits_for_another_process_is_tried_again(chance: float) -> None:
    async with two(chance) as (one, other, watched):
        running = await one.submit(turn("5", id="a"))
        waiting = await other.submit(turn("0", after="a"))
        assert isinstance(await waiting.ended(), TurnCompleted)
        assert running.terminal is not None
    found = pauses(watched.accepted)
    assert len(found) > 8
    assert found == pytest.approx(doubling(0.02, 0.5, len(found), 0.5 + chance / 2))


@virtual_time
@chances
async def test_an_ending_that_waits_for_the_store_is_tried_again(chance: float) -> None:
    async with two(chance) as (_, other, watched):
        log = await other.submit(turn("1"))
        watched.cut.cut = True
        await asyncio.sleep(20)
        watched.cut.cut = False
        assert isinstance(await log.ended(), TurnCompleted)
    found = pauses(watched.finished)
    assert len(found) > 8
    assert found == pytest.approx(doubling(0.05, 2.0, len(found), 0.5 + chance / 2))


@virtual_time
@chances
@pytest.mark.parametrize(("ahead", "longest"), [(0, 0.25), (1, 0.25), (2, 1.0)])
async def test_a_turn_of_another_process_that_says_nothing_is_looked_at_again(
    ahead: int, longest: float, chance: float
) -> None:
    async with two(chance) as (one, other, watched):
        logs = [await one.submit(turn("20" if number == 0 else "0")) for number in range(ahead + 1)]
        followed = await other.locate(logs[-1].id)
        ended = asyncio.create_task(followed.ended())
        await asyncio.sleep(18)
        found = pauses(watched.looked)
        assert isinstance(await ended, TurnCompleted)
    share = 0.5 + chance / 2
    assert found[:4] == pytest.approx(doubling(0.05, longest, 4, share))
    assert found[-8:] == pytest.approx([longest * share] * 8)


@virtual_time
@chances
async def test_it_is_looked_for_what_dead_processes_left(chance: float) -> None:
    async with two(chance) as (_, _, watched):
        await asyncio.sleep(100)
    found = pauses(watched.searched)
    assert len(found) > 8
    assert found == pytest.approx([4.0 * (0.75 + chance / 2)] * len(found))


def test_chance_that_nobody_owns_is_from_0_up_to_1_and_varies() -> None:
    drawn = {Sources().chance() for _ in range(100)}
    assert len(drawn) > 90
    assert all(0 <= number < 1 for number in drawn)
