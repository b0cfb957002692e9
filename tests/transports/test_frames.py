"""Many readers of one turn: each gets the same bytes from wherever it begins, and nobody holds the others up."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.errors import InvalidRequest, TurnNotFound
from greenroom.actors.events import Event, TextDelta
from greenroom.actors.log import TurnLog
from greenroom.transports import frames as frames_module
from greenroom.transports.frames import KEPT_FRAMES, FrameReader, SharedFrames, resume
from greenroom.transports.process_encode import ProcessEncoder
from greenroom.transports.sse import DONE
from kits.turns import Telling, a_turn, told_turns

SIZE = 64 * 1024


def all_frames(events: list[Event]) -> list[bytes]:
    encoder = ProcessEncoder(a_turn())
    frames: list[bytes] = []
    for event in events:
        encoder.feed(event, frames)
    return frames


def with_ids(frames: list[bytes], first: int = 0) -> list[bytes]:
    return [frame if frame == DONE else b"id: %d\n%b" % (n, frame) for n, frame in enumerate(frames, first)]


def fill(log: TurnLog, events: list[Event]) -> TurnLog:
    for event in events:
        log.append(event)
    return log


def drain(reader: FrameReader, size: int = SIZE) -> list[bytes]:
    taken: list[bytes] = []
    while frames := reader.take(size):
        taken += frames
    return taken


def long_turn(deltas: int) -> list[Event]:
    told = Telling()
    told.start()
    for number in range(deltas):
        told.composer.say(f"{number} ")
    told.complete()
    return told.events


class Seat:
    """A reader, where it began, and what it has had."""

    def __init__(self, log: TurnLog, position: int, ids: bool) -> None:
        self.position = position
        self.ids = ids
        self.reader = SharedFrames.of(log, ProcessEncoder).reader(position, ids)
        self.had: list[bytes] = []

    def take(self, size: int) -> None:
        frames = self.reader.take(size)
        assert len(frames) <= 1 or sum(map(len, frames)) <= size
        self.had += frames

    def check(self, frames: list[bytes]) -> None:
        wanted = frames[self.position :]
        assert self.had == (with_ids(wanted, self.position) if self.ids else wanted)[: len(self.had)]
        assert self.reader.ended == (self.had[-1:] == [DONE])
        assert self.reader.position == self.position + len(self.had)


async def run_readers(events: list[Event], draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    """Append, open, take and close in any order; then let everybody read to the end."""
    frames = all_frames(events)
    log, out, seats = TurnLog(a_turn()), 0, list[Seat]()
    for deed in draw(st.lists(st.sampled_from(["append", "open", "take", "take", "close"]), max_size=60)):
        if deed == "append":
            some = events[out : out + draw(st.integers(1, 6))]
            fill(log, some)
            out += len(some)
        elif deed == "open":
            so_far = len([frame for frame in all_frames(events[:out]) if frame != DONE])
            position = draw(st.integers(0, so_far))
            assert await resume(str(position - 1) if position else "", log, ProcessEncoder) == position
            seats.append(Seat(log, position, draw(st.booleans())))
        elif seats:
            seat = seats[draw(st.integers(0, len(seats) - 1))]
            if deed == "take":
                seat.take(draw(st.sampled_from([1, 300, 1000, SIZE])))
                seat.check(frames)
            else:
                seat.reader.close()
                seats.remove(seat)
    fill(log, events[out:])
    for seat in seats:
        seat.had += drain(seat.reader)
        seat.check(frames)
        assert seat.reader.ended
        seat.reader.close()
    assert log.views == {} or not seats


@given(told_turns(most=12), st.data())
async def test_everybody_gets_the_same_bytes(events: list[Event], data: st.DataObject) -> None:
    await run_readers(events, data.draw)


@given(told_turns(most=12), st.data())
async def test_also_when_hardly_anything_is_kept(events: list[Event], data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames_module, "KEPT_FRAMES", 2)
        await run_readers(events, data.draw)


@given(told_turns(most=12))
async def test_replay_from_any_position_is_the_tail(events: list[Event]) -> None:
    frames = all_frames(events)
    log = fill(TurnLog(a_turn()), events)
    for position in range(len(frames)):
        for size in (1, SIZE):
            reader = SharedFrames.of(log, ProcessEncoder).reader(position)
            assert drain(reader, size) == frames[position:]
            reader.close()


async def test_an_event_is_encoded_once_for_all_readers() -> None:
    events = long_turn(20)
    log = fill(TurnLog(a_turn()), events)
    shared = SharedFrames.of(log, ProcessEncoder)
    first, second = shared.reader(), shared.reader()
    for one, other in zip(drain(first), drain(second), strict=True):
        assert one is other


async def test_nothing_is_kept_for_readers_that_are_level() -> None:
    log = TurnLog(a_turn())
    shared = SharedFrames.of(log, ProcessEncoder)
    readers = [shared.reader(), shared.reader(with_ids=True)]
    for event in long_turn(50):
        log.append(event)
        for reader in readers:
            drain(reader)
        assert shared.base == shared.tip


async def test_a_stalled_reader_costs_a_bounded_number_of_frames() -> None:
    events = long_turn(5 * KEPT_FRAMES)
    log = fill(TurnLog(a_turn()), events)
    shared = SharedFrames.of(log, ProcessEncoder)
    stalled, quick = shared.reader(), shared.reader()
    had = stalled.take(1000)
    while quick.take(SIZE):
        assert shared.tip - shared.base <= KEPT_FRAMES
    assert had + drain(stalled) == all_frames(events)
    assert stalled.ended


async def test_who_goes_on_where_nobody_has_read_gets_the_right_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frames_module, "KEPT_FRAMES", 2)
    events = long_turn(40)
    log = fill(TurnLog(a_turn()), events[:20])
    shared = SharedFrames.of(log, ProcessEncoder)
    lagging, quick = shared.reader(), shared.reader()
    drain(quick)
    quick.close()
    had = lagging.take(1)  # on its own from here on: frames are left that nobody waits for
    fill(log, events[20:])
    frames = all_frames(events)
    late = shared.reader(30)
    assert had + drain(lagging, 1) == frames
    assert drain(late) == frames[30:]


async def test_nothing_is_encoded_before_somebody_takes_it() -> None:
    log = fill(TurnLog(a_turn()), long_turn(100))
    reader = SharedFrames.of(log, ProcessEncoder).reader()
    assert SharedFrames.of(log, ProcessEncoder).fed == 0
    reader.take(1)
    assert SharedFrames.of(log, ProcessEncoder).fed == 2  # the second did not fit


async def test_the_last_reader_of_an_ended_turn_leaves_nothing_behind() -> None:
    log = fill(TurnLog(a_turn()), long_turn(3))
    reader, other = (
        SharedFrames.of(log, ProcessEncoder).reader(),
        SharedFrames.of(log, ProcessEncoder).reader(),
    )
    drain(reader)
    reader.close()
    reader.close()
    assert log.views
    other.close()
    assert log.views == {}


async def test_an_expired_log_cannot_be_read() -> None:
    log = fill(TurnLog(a_turn()), long_turn(3))
    reader = SharedFrames.of(log, ProcessEncoder).reader()
    reader.take(1)
    log.expire()
    with pytest.raises(TurnNotFound):
        reader.take(1)
    with pytest.raises(TurnNotFound):
        await resume("1", log, ProcessEncoder)
    with pytest.raises(TurnNotFound):
        SharedFrames.of(log, ProcessEncoder).reader(3)


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", " 1", "٣", "1\n", "9" * 19, "1e3", "0x1", "id"])
async def test_a_cursor_that_is_no_number(cursor: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await resume(cursor, fill(TurnLog(a_turn()), long_turn(3)), ProcessEncoder)
    assert caught.value.field == "Last-Event-ID"
    assert "sequence_number" in caught.value.message


@pytest.mark.parametrize("read_before", [False, True])
async def test_a_cursor_of_what_has_not_been_said(read_before: bool) -> None:
    told = Telling()
    told.start()
    log = fill(TurnLog(a_turn()), told.events)
    reader = SharedFrames.of(log, ProcessEncoder).reader()
    if read_before:
        drain(reader)
    assert await resume("", log, ProcessEncoder) == 0
    assert await resume("1", log, ProcessEncoder) == 2
    with pytest.raises(InvalidRequest, match="the last event of turn response_1 is 1"):
        await resume("2", log, ProcessEncoder)
    told.complete()
    log.append(told.events[-1])
    if read_before:
        drain(reader)
    assert await resume("2", log, ProcessEncoder) == 3
    with pytest.raises(InvalidRequest, match="the last event of turn response_1 is 2"):
        await resume("3", log, ProcessEncoder)


async def test_after_the_last_event_only_the_end_is_sent() -> None:
    log = fill(TurnLog(a_turn()), long_turn(1))
    reader = SharedFrames.of(log, ProcessEncoder).reader(
        await resume("6", log, ProcessEncoder), with_ids=True
    )
    assert drain(reader) == [DONE]
    assert reader.ended


async def test_waiting_at_the_tip_gives_what_comes() -> None:
    told = Telling()
    log = fill(TurnLog(a_turn()), told.events)
    reader = SharedFrames.of(log, ProcessEncoder).reader(1)
    assert reader.take(SIZE) == []
    assert not reader.ended
    told.start()
    log.append(told.events[-1])
    assert [frame[:26] for frame in reader.take(SIZE)] == [b'data: {"sequence_number":1']


async def test_readers_say_where_they_stand() -> None:
    log = fill(TurnLog(a_turn()), long_turn(1))
    reader = SharedFrames.of(log, ProcessEncoder).reader()
    assert repr(reader) == "<FrameReader of response_1 at 0>"
    drain(reader)
    assert repr(reader) == "<FrameReader of response_1 at 8 (done)>"
    assert repr(SharedFrames.of(log, ProcessEncoder)) == "<SharedFrames 8 to 8, 1 readers>"


def test_a_delta_makes_no_copy_of_what_came_before() -> None:
    frames = all_frames(long_turn(2000))
    deltas = [frame for frame in frames if b'"delta":true' in frame]
    assert len(deltas) == 2000
    assert max(map(len, deltas)) - min(map(len, deltas)) < 10
    assert isinstance(long_turn(1)[3], TextDelta)
