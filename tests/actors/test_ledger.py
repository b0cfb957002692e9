"""What a tool was asked and has answered is in the store before its turn goes on: no crash has a tool act again, or its
answer be told and forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from greenroom.actors.events import Event, ItemDone, ItemStarted, PartDone, TurnCompleted
from greenroom.actors.limits import Limits
from greenroom.actors.messages import Text, ToolCall, ToolOutput
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions.durable_store import DurableSessions
from kits.cut_storage import CutStorage
from kits.system import running_system, turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time

NEVER = Limits(journal_seconds=3600)
"""Nothing is written because its time has come."""
STEPS: tuple[Event, ...] = (
    ItemStarted("in", "tool_call", call_id="c", name="act"),
    PartDone(ToolCall("c", "act", "{}"), "in"),
    ItemDone("in"),
    ItemStarted("out", "tool_output", "tool", call_id="c", name="act"),
    PartDone(ToolOutput("c", "act", (Text("acted"),)), "out"),
    ItemDone("out"),
)


def acting(done: Callable[[], Any]) -> Callable[[Any], AsyncIterator[Event]]:
    """A handler that uses a tool. `done`: called when the call and when the output was taken, before it goes on."""

    async def act(msgs: Any) -> AsyncIterator[Event]:
        for step in STEPS:
            yield step
            if isinstance(step, ItemDone):
                await done()

    return act


async def test_each_step_of_a_tool_is_written_before_the_handler_goes_on() -> None:
    store, written = DurableSessions(MemoryStorage()), list[int]()

    async def look() -> None:
        entry = await store.find("t", None)
        assert entry is not None
        written.append(sum(isinstance(event, ItemDone) for event in entry.events))

    async with running_system(acting(look), store=store, limits=NEVER) as system:
        log = await system.submit(turn(id="t"))
        assert isinstance(await log.ended(), TurnCompleted)
    assert written == [1, 2]


async def test_it_waits_for_a_store_that_is_away() -> None:
    storage, passed = CutStorage(MemoryStorage()), list[float]()
    loop = asyncio.get_running_loop()

    async def cut() -> None:
        passed.append(loop.time())
        storage.cut = len(passed) == 1

    async with running_system(acting(cut), store=DurableSessions(storage), limits=NEVER) as system:
        log = await system.submit(turn(id="t"))
        await asyncio.sleep(4)
        assert len(passed) == 1, "its output may be lost"
        storage.cut = False
        assert isinstance(await log.ended(), TurnCompleted)
    assert len(passed) == 2
