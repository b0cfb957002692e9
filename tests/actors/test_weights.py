"""What waits and runs is bounded in bytes too: over a bound a turn is refused, and nothing of it is kept."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import structs

from greenroom.actors.errors import GreenroomError, MailboxFull, Overloaded, SessionHeld
from greenroom.actors.limits import Limits
from greenroom.actors.messages import (
    AgentRequest,
    Content,
    Data,
    File,
    FunctionTool,
    Image,
    Message,
    Overlap,
    Turn,
    TurnOptions,
)
from greenroom.actors.weights import weight_of
from kits.sharing import LIMITS, Diary, Process, processes
from kits.system import running_system, turn
from kits.virtual_time import virtual_time

MIB = 1024 * 1024
BIG = "y" * MIB


def with_part(part: Content) -> Turn:
    return structs.replace(turn(), request=AgentRequest(input=(Message((part,)),)))


@pytest.mark.parametrize(
    "heavy",
    [
        turn(BIG),
        with_part(Image(BIG)),
        with_part(File(file_data=BIG)),
        with_part(Data({"a": [BIG]})),
        with_part(Data({"a": list(range(MIB))})),
        structs.replace(turn(), request=AgentRequest(input=(Message(metadata={"a": BIG}),))),
        turn(something=BIG),
        structs.replace(turn(), request=AgentRequest(input=(), tools=[{"description": BIG}])),
        turn(options=TurnOptions(instructions=BIG)),
        turn(options=TurnOptions(tools=(FunctionTool(name="t", description=BIG),))),
        turn(something=["\ud800", BIG]),
        turn(something=[2**70, BIG]),
        turn(something=[object(), BIG]),
    ],
)
def test_all_that_a_request_says_has_its_weight(heavy: Turn) -> None:
    assert MIB <= weight_of(heavy) < 6 * MIB
    assert weight_of(turn("hello")) < 100


def test_texts_weigh_what_they_take_in_memory() -> None:
    assert weight_of(turn("é" * MIB)) < 1.1 * MIB < 2 * MIB <= weight_of(turn("語" * MIB)) < 2.1 * MIB


gate = asyncio.Event()


@pytest.fixture(autouse=True)
def closed_gate() -> None:
    gate.clear()
    Diary.begun.clear()


async def waiting(msgs: Any) -> AsyncIterator[str]:
    await gate.wait()
    yield "done"


async def test_what_waits_for_one_session_is_bounded_in_bytes() -> None:
    async with running_system(waiting, limits=Limits(waiting_bytes=8 * MIB)) as system:
        logs = [await system.submit(turn("first"))]
        logs += [await system.submit(turn(BIG)) for _ in range(7)]
        with pytest.raises(MailboxFull, match="waiting_bytes") as refused:
            await system.submit(turn(BIG))
        assert (refused.value.status, refused.value.retry_after) == (429, 1.0)
        logs.append(await system.submit(turn("small")))
        logs.append(await system.submit(turn(BIG, session="other")))
        assert system.statistics().accepted_turns == len(logs)
        await system.cancel(logs[1].id)
        logs.append(await system.submit(turn(BIG)))
        gate.set()
        for log in logs:
            await log.ended()
        gate.clear()
        for _ in range(8):  # one runs
            await system.submit(turn(BIG))
        gate.set()


async def test_one_alone_may_wait_whatever_its_size() -> None:
    async with running_system(waiting, limits=Limits(waiting_bytes=1, input_bytes=1)) as system:
        log = await system.submit(turn(BIG))
        with pytest.raises(Overloaded, match="input_bytes"):
            await system.submit(turn("x", session="other"))
        gate.set()
        await log.ended()
    async with running_system(waiting, limits=Limits(waiting_bytes=1)) as system:
        gate.clear()
        await system.submit(turn("runs"))
        await system.submit(turn(BIG))
        with pytest.raises(MailboxFull):
            await system.submit(turn("x"))
        gate.set()


async def test_what_all_requests_at_work_say_is_bounded() -> None:
    async with running_system(waiting, limits=Limits(input_bytes=4 * MIB)) as system:
        logs = [await system.submit(turn(BIG, session=str(number))) for number in range(3)]
        with pytest.raises(Overloaded, match="input_bytes") as refused:
            await system.submit(turn(BIG, session="new"))
        assert (refused.value.status, refused.value.retry_after) == (503, 2.0)
        assert system.statistics().accepted_turns == 3
        await system.cancel(logs[0].id)
        await logs[0].ended()
        logs.append(await system.submit(turn(BIG, session="new")))
        gate.set()
        for log in logs:
            await log.ended()
        gate.clear()
        for number in range(3):
            await system.submit(turn(BIG, session=str(number)))
        gate.set()


async def test_requests_of_ended_turns_count_with_what_is_kept() -> None:
    gate.set()
    async with running_system(waiting, limits=Limits(kept_bytes=4 * MIB)) as system:
        for number in range(9):
            await (await system.submit(turn(BIG, session=str(number)))).ended()
        assert system.statistics().kept_turns == 3


@virtual_time
async def test_what_waits_to_be_taken_in_is_bounded_where_the_store_is_shared() -> None:
    limits = structs.replace(LIMITS, waiting_bytes=8 * MIB, input_bytes=12 * MIB, elsewhere_seconds=60.0)
    async with processes(limits=limits) as (first, second):
        await first.system.submit(turn("a 30"))
        asked = [await begun(second, turn("b", pad=BIG)) for _ in range(20)]
        refused = [answer for one in asked if isinstance(answer := outcome(one), GreenroomError)]
        assert {type(error) for error in refused} == {SessionHeld}
        assert 12 <= len(refused) <= 13
        others = [await begun(second, turn("c 20", session=str(number), pad=BIG)) for number in range(20)]
        await asyncio.sleep(1)
        assert any(isinstance(outcome(one), Overloaded) for one in others)
        await asyncio.wait([*asked, *others])
        await asyncio.sleep(60)
        again = [await begun(second, turn("d", pad=BIG)) for _ in range(5)]
        await asyncio.wait(again)
        assert [outcome(one) for one in again] == [None] * 5, "what is over weighs nothing"


@virtual_time
async def test_clients_that_go_free_nothing_that_still_waits() -> None:
    limits = structs.replace(LIMITS, waiting_bytes=100 * MIB, input_bytes=8 * MIB, elsewhere_seconds=60.0)
    async with processes(limits=limits) as (first, second):
        await first.system.submit(turn("a 30"))
        refusals = 0
        for _ in range(20):
            asking = await begun(second, turn("b", pad=BIG))
            refusals += isinstance(outcome(asking), Overloaded)
            asking.cancel()
            await asyncio.wait([asking])
        assert refusals >= 12


async def begun(process: Process, asked: Turn) -> asyncio.Task[Any]:
    """A turn that is asked for, and refused by now if that needs no waiting."""
    task = asyncio.create_task(process.system.submit(asked))
    await asyncio.sleep(0.001)
    return task


def outcome(task: asyncio.Task[Any]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


@virtual_time
@pytest.mark.parametrize("overlap", ["queue", "reject"])
async def test_what_is_refused_is_let_go_at_once(overlap: Overlap) -> None:
    """Not when the garbage collector comes by: of large requests it sees few objects, and comes late."""

    def large() -> int:
        return sum(1 for one in gc.get_objects() if isinstance(one, Turn) and weight_of(one) > MIB)

    limits = structs.replace(LIMITS, waiting_bytes=MIB, elsewhere_seconds=3.0)
    async with processes(limits=limits) as (first, second):
        await first.system.submit(turn("a 60"))
        await first.system.submit(turn("small"))
        gc.collect()
        before = large()
        gc.disable()
        try:
            for process in (first, second, second):
                with pytest.raises(GreenroomError):
                    await process.system.submit(turn("b" + BIG, overlap=overlap))
            in_line = [await begun(second, turn("b" + BIG, overlap=overlap)) for _ in range(3)]
            await asyncio.wait(in_line)
            assert all(isinstance(outcome(one), GreenroomError) for one in in_line)
            del in_line
            await asyncio.sleep(10)
            assert large() == before
        finally:
            gc.enable()
