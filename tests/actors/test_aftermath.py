"""Keeping responses: a store that never waits costs a turn no task, and whatever it does the turn has its ending."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from greenroom.actors.events import TurnCompleted
from greenroom.actors.log import TurnLog
from greenroom.services.memory_responses import InMemoryResponseStore
from greenroom.services.response_store import ResponseRecord, at_once, is_at_once
from kits.system import running_system, turn


async def answer() -> AsyncIterator[str]:
    yield "Hi"


async def stored_turn(responses: InMemoryResponseStore) -> TurnLog:
    await responses.start()
    async with running_system(answer, responses=responses) as system:
        log = await system.submit(turn("Hello", id="a", stored=True))
        assert isinstance(await log.ended(), TurnCompleted)
        return log


class Noting(InMemoryResponseStore):
    """Notes in which task responses are put."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[str] = []

    def note(self) -> None:
        task = asyncio.current_task()
        self.tasks.append(task.get_name() if task else "")

    @at_once
    async def put(self, record: ResponseRecord) -> None:
        self.note()
        await super().put(record)


class NotingTask(Noting):
    """One that may wait: it overrides what does not."""

    async def put(self, record: ResponseRecord) -> None:
        await super().put(record)


async def test_a_store_that_never_waits_costs_no_task() -> None:
    responses = Noting()
    log = await stored_turn(responses)
    assert responses.tasks == ["turn a of session 's'"]
    kept = await responses.get(None, "a")
    assert kept is not None
    assert (kept.text_size, kept.events) == (log.size, log.events())


async def test_a_put_that_overrides_one_that_never_waits_may_wait() -> None:
    responses = NotingTask()
    assert is_at_once(InMemoryResponseStore())
    assert not is_at_once(responses)
    await stored_turn(responses)
    assert responses.tasks == ["keeping the response of turn a"]


@pytest.mark.parametrize(("waits", "said"), [(True, "waited"), (False, "failed")])
async def test_a_turn_has_its_ending_whatever_such_a_store_does(
    waits: bool, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(InMemoryResponseStore):
        @at_once
        async def put(self, record: Any) -> None:
            if waits:
                await asyncio.sleep(1)
            raise OSError("disk full")

    await stored_turn(Broken())
    assert f"keeping the response of turn a {said}" in caplog.text
