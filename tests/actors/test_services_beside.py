"""Services that keep what they have beside the sessions, where a process begins anew: forks and deletions take them
along, although no turn has used them in this process yet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from greenroom.actors.events import TurnCompleted
from greenroom.actors.messages import SessionKey
from greenroom.actors.system import ActorSystem
from greenroom.services.durable_state import DurableStateService
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.storage import Storage
from kits.system import running_system, turn

KEY = SessionKey("u", "s")


@asynccontextmanager
async def process(
    storage: Storage, first_id: int = 1
) -> AsyncIterator[tuple[ActorSystem, DurableStateService]]:
    async with DurableStateService(storage) as states:

        async def count(session: Any) -> AsyncIterator[str]:
            before = await states.export_state(*session.key) or {"turns": 0}
            await states.save_state(
                session.user_id, {"turns": before["turns"] + 1}, session_id=session.session_id
            )
            yield "."

        async with running_system(count, store=DurableSessions(storage), first_id=first_id) as system:
            yield system, states


async def told(system: ActorSystem, turn_id: str, after: str | None = None) -> SessionKey:
    log = await system.submit(turn(id=turn_id, after=after))
    assert isinstance(await log.ended(), TurnCompleted)
    return log.turn.key


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    """With a session of three turns that a process had which is gone."""
    storage = MemoryStorage()
    await storage.start()
    async with process(storage) as (system, _):
        for turn_id in "abc":
            await told(system, turn_id)
    yield storage
    await storage.stop()


async def test_a_fork_has_what_they_had_then(storage: Storage) -> None:
    async with process(storage, first_id=100) as (system, states):
        fork = await told(system, "d", after="b")
        assert fork != KEY
        assert await states.export_state(*fork) == {"turns": 3}
        assert await states.export_state(*KEY) == {"turns": 3}
        again = await told(system, "e", after="a")
        assert await states.export_state(*again) == {"turns": 2}


async def test_nothing_of_a_forgotten_session_stays_with_them(storage: Storage) -> None:
    async with process(storage) as (system, states):
        await system.forget(KEY)
        assert await states.export_state(*KEY) is None


async def test_one_that_is_stopped_is_left_alone(storage: Storage) -> None:
    async with process(storage, first_id=100) as (system, states):
        await states.stop()
        await system.forget(KEY)
        await states.start()
        assert await states.export_state(*KEY) == {"turns": 3}
