"""The turn log: readable from any position, by any number of readers, without waiting for them."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.errors import TurnNotFound
from greenroom.actors.events import Event, TextDelta, TurnAccepted, TurnCompleted
from greenroom.actors.log import TurnLog
from kits.system import turn
from kits.virtual_time import virtual_time

pytestmark = virtual_time
END = TurnCompleted(2.0)


def sample(count: int) -> list[Event]:
    return [TurnAccepted("t", 1.0), *(TextDelta(str(number), "m") for number in range(count)), END]


@given(
    count=st.integers(0, 20),
    positions=st.lists(st.integers(0, 25), min_size=1, max_size=5),
    pauses=st.sets(st.integers(0, 21)),
)
async def test_every_reader_gets_each_event_from_its_position_once_and_in_order(
    count: int, positions: list[int], pauses: set[int]
) -> None:
    log = TurnLog(turn())
    events = sample(count)

    async def collect(position: int) -> list[Event]:
        return [event async for event in log.read(position)]

    readers = [asyncio.create_task(collect(position)) for position in positions]
    for number, event in enumerate(events):
        if number in pauses:
            await asyncio.sleep(1)
        log.append(event)
    assert await asyncio.gather(*readers) == [events[position:] for position in positions]
    assert not log.watched


async def test_an_event_appended_between_replay_and_following_is_delivered_once() -> None:
    log = TurnLog(turn())
    log.append(TurnAccepted("t", 1.0))
    seen: list[Event] = []
    async for event in log.read():
        seen.append(event)
        if len(seen) == 1:
            log.append(
                TextDelta("gap", "m")
            )  # while the reader is between what it has replayed and what comes
        elif len(seen) == 2:
            log.append(END)
    assert seen == [TurnAccepted("t", 1.0), TextDelta("gap", "m"), END]


async def test_a_burst_is_announced_once() -> None:
    log = TurnLog(turn())
    calls: list[int] = []
    log.watch(lambda: calls.append(len(log)))
    for event in sample(50):
        log.append(event)
    assert calls == []
    await asyncio.sleep(0)
    assert calls == [52]


async def test_a_reader_that_leaves_early_is_forgotten() -> None:
    log = TurnLog(turn())
    log.append(TurnAccepted("t", 1.0))
    reader = log.read()
    await anext(reader)
    assert log.watched
    await reader.aclose()
    assert not log.watched


async def test_an_expired_log_says_so_and_still_knows_its_ending() -> None:
    log = TurnLog(turn())
    for event in sample(3):
        log.append(event)
    log.expire()
    with pytest.raises(TurnNotFound):
        log.events(2)
    with pytest.raises(TurnNotFound):
        async for _ in log.read():
            pass
    assert await log.ended() is END


async def test_a_watcher_that_fails_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    log = TurnLog(turn())
    calls: list[str] = []

    def broken() -> None:
        calls.append("broken")
        raise ValueError("cannot write")

    log.watch(broken)
    log.watch(lambda: calls.append("whole"))
    for event in sample(1):
        log.append(event)
        await asyncio.sleep(0)
    assert calls == ["broken", "whole", "whole", "whole"]
    assert "cannot write" in caplog.text
