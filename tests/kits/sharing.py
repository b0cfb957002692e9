"""Processes that share a store, for tests: actor systems on one storage in memory, each cut off from it at will."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from msgspec import structs

from greenroom.actors.events import TurnCompleted
from greenroom.actors.limits import Limits
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Overlap, SessionKey, Turn
from greenroom.actors.system import ActorSystem
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions.durable_store import DurableSessions
from kits.cut_storage import CutStorage
from kits.grammar import check_events
from kits.system import EPOCH, asked, running_system, said, turn

KEY = SessionKey("u", "s")
LIMITS = Limits(elsewhere_seconds=5.0, recovery_seconds=1.0, journal_seconds=0.25, cancel_seconds=1.0)
LEASE = 6.0


class Diary:
    """An agent that remembers what it was told. `begun`: every run of any of them, by turn."""

    begun: list[str] = []  # noqa: RUF012 - one for all, emptied by the fixture

    def __init__(self) -> None:
        self.told: list[str] = []

    async def reply(self, msgs: Any) -> AsyncIterator[str]:
        text = asked(msgs[-1])
        self.begun.append(text)
        words = text.split()
        yield " ".join([*self.told, words[0]])
        for word in words[1:]:
            await asyncio.sleep(float(word))
            yield "."
        self.told.append(words[0])

    def state_dict(self) -> list[str]:
        return self.told

    def load_state_dict(self, state: list[str]) -> None:
        self.told = list(state)


async def new_diary() -> Diary:
    return Diary()


class Process:
    """One of those that share the store."""

    def __init__(self, system: ActorSystem, storage: CutStorage) -> None:
        self.system = system
        self.storage = storage

    async def tell(self, text: str, **options: Any) -> TurnLog:
        """A turn, from its acceptance to its end."""
        log = await self.system.submit(turn(text, **options))
        await log.ended()
        return log


@asynccontextmanager
async def processes(
    count: int = 2,
    *,
    function: Any = new_diary,
    agent: bool = True,
    idempotent: bool | Sequence[bool] = False,
    limits: Limits = LIMITS,
    overlap: Overlap = "queue",
    logs_kept: int = 200,
) -> AsyncIterator[list[Process]]:
    loop = asyncio.get_running_loop()
    shared = MemoryStorage(monotonic=loop.time)
    await shared.start()
    async with AsyncExitStack() as stack:
        found = []
        for number in range(count):
            storage = CutStorage(shared)
            store = DurableSessions(storage, lease_seconds=LEASE, logs_kept=logs_kept, monotonic=loop.time)
            system = await stack.enter_async_context(
                running_system(
                    function,
                    agent=agent,
                    store=store,
                    limits=limits,
                    overlap=overlap,
                    idempotent=idempotent if isinstance(idempotent, bool) else idempotent[number],
                    first_id=1 + 1000 * number,
                    now=lambda: EPOCH + loop.time(),
                )
            )
            found.append(Process(system, storage))
        yield found
    await shared.stop()


def words(log: TurnLog) -> str:
    """What a turn that went well said."""
    assert isinstance(log.terminal, TurnCompleted), log.terminal
    check_events(log.events())
    return said(log.terminal)


def repeatable(text: str, **options: Any) -> Turn:
    return structs.replace(turn(text, **options), idempotency_key="k", fingerprint=text.encode())
