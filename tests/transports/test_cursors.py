"""Cursors of readers that had their frames from a process that is gone: taken when those frames are certain to be the
log's, refused when they may be others, and waited for no longer than that takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.errors import CursorExpired, InvalidRequest
from greenroom.actors.events import Event, ItemStarted, TextDelta, TurnFailed
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import ErrorInfo
from greenroom.transports.frames import CATCHING_UP, EncoderOf, position_after, resume
from greenroom.transports.process_encode import ProcessEncoder
from greenroom.transports.responses_encode import ResponsesEncoder
from kits.turns import ENDED, Telling, a_turn, told_turns
from kits.virtual_time import virtual_time

FIELD = "starting_after"
PROTOCOLS: tuple[EncoderOf, ...] = (ProcessEncoder, ResponsesEncoder)
NEVER_TOLD: tuple[tuple[Event, ...], ...] = (
    (TurnFailed(ENDED, ErrorInfo("never_told", "no turn of these tests ends so")),),
    (ItemStarted("never_told"), TextDelta("says no turn of these tests", "never_told")),
)
"""What a process may have told at any time."""


def frames_of(encoder_of: EncoderOf, events: Sequence[Event]) -> list[bytes]:
    frames: list[bytes] = []
    encoder_of(a_turn()).feed_all(events, frames)
    return frames


def log_of(events: Sequence[Event], *, taken_at: int | None = None, behind: bool = False) -> TurnLog:
    log = TurnLog(a_turn(), taken_at=taken_at, behind=behind)
    for event in events:
        log.append(event)
    return log


def said(words: int) -> Telling:
    """A turn that has said so many words, and says more."""
    told = Telling()
    told.start()
    for number in range(words):
        told.composer.say(f"{number} ")
    return told


# -- what may have been others ---------------------------------------------------------------------------------------


@given(events=told_turns(), encoder_of=st.sampled_from(PROTOCOLS), data=st.data())
async def test_a_cursor_is_refused_exactly_if_the_frames_up_to_it_could_be_others(
    events: list[Event], encoder_of: EncoderOf, data: st.DataObject
) -> None:
    """Whatever the process that is gone has told after the events that are known to be its own."""
    taken_at = data.draw(st.integers(1, len(events) - 1), "taken_at")
    position = data.draw(st.integers(1, len(frames_of(encoder_of, events)) + 3), "position")
    known = events[:taken_at]
    here = frames_of(encoder_of, events)[:position]
    others = [frames_of(encoder_of, [*known, *never_told])[:position] for never_told in NEVER_TOLD]
    log = log_of(events, taken_at=taken_at)
    if all(here == other for other in others):
        assert await position_after(position - 1, log, encoder_of, FIELD) == position
    else:
        with pytest.raises(CursorExpired) as refused:
            await position_after(position - 1, log, encoder_of, FIELD)
        assert refused.value.field == FIELD
        assert f"after number {len(frames_of(encoder_of, known)) - 1} " in refused.value.message


@given(events=told_turns(), encoder_of=st.sampled_from(PROTOCOLS), data=st.data())
async def test_a_turn_that_never_changed_hands_takes_every_cursor_of_what_it_has_said(
    events: list[Event], encoder_of: EncoderOf, data: st.DataObject
) -> None:
    frames = frames_of(encoder_of, events)
    position = data.draw(st.integers(1, len(frames) - 1), "position")  # the last frame has no number
    assert await position_after(position - 1, log_of(events), encoder_of, FIELD) == position


@given(events=told_turns(), encoder_of=st.sampled_from(PROTOCOLS), beyond=st.integers(0, 3))
async def test_the_number_of_no_frame_is_wrong_and_not_lost(
    events: list[Event], encoder_of: EncoderOf, beyond: int
) -> None:
    after = len(frames_of(encoder_of, events)) - 1 + beyond
    with pytest.raises(InvalidRequest) as refused:
        await position_after(after, log_of(events), encoder_of, FIELD)
    assert refused.value.field == FIELD


async def test_of_a_log_that_does_not_know_when_it_was_taken_what_is_past_its_end_counts_as_lost() -> None:
    told = said(2)
    told.fail(ErrorInfo("turn_interrupted", "its process ended"))
    frames = frames_of(ProcessEncoder, told.events)
    log = log_of(told.events)
    assert await resume(str(len(frames) - 2), log, ProcessEncoder) == len(frames) - 1
    with pytest.raises(CursorExpired, match="without Last-Event-ID") as refused:
        await resume(str(len(frames) - 1), log, ProcessEncoder)
    assert refused.value.field == "Last-Event-ID"


# -- a log that is behind its turn -----------------------------------------------------------------------------------


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual_time
async def test_a_log_that_is_behind_has_five_seconds_to_catch_up() -> None:
    told = said(3)
    tip = len(frames_of(ProcessEncoder, told.events))
    log = log_of(told.events, behind=True)
    assert await position_after(tip - 1, log, ProcessEncoder, FIELD) == tip
    assert now() == 0.0, "what is there is not waited for"
    with pytest.raises(CursorExpired, match="is not written down") as refused:
        await position_after(tip, log, ProcessEncoder, FIELD)
    assert now() == CATCHING_UP == 5.0
    assert refused.value.field == FIELD
    assert not log.watched


@virtual_time
@pytest.mark.parametrize("late", [0.1, 4.9])
async def test_what_comes_in_that_time_is_gone_on_from(late: float) -> None:
    told = said(3)
    tip = len(frames_of(ProcessEncoder, told.events))
    log = log_of(told.events, behind=True)
    waiting = asyncio.create_task(position_after(tip + 1, log, ProcessEncoder, FIELD))
    for part in (1, 2):  # the first word is not enough yet
        await asyncio.sleep(late / 2)
        assert not waiting.done()
        told.composer.say(f"more {part}")
        log.append(told.events[-1])
    assert await waiting == tip + 2
    assert now() == late


@virtual_time
@pytest.mark.parametrize("ending", ["completed", "taken over"])
async def test_once_it_is_known_that_it_will_not_come_it_is_waited_for_no_longer(ending: str) -> None:
    told = said(3)
    tip = len(frames_of(ProcessEncoder, told.events))
    log = log_of(told.events, behind=True)
    waiting = asyncio.create_task(position_after(tip + 20, log, ProcessEncoder, FIELD))
    await asyncio.sleep(1.0)
    if ending == "completed":
        before = len(told.events)
        told.complete()
        for event in told.events[before:]:
            log.append(event)
    else:  # as `Elsewhere` does, also when the process that took it over says nothing yet
        log.taken(len(log))
    with pytest.raises(CursorExpired):
        await waiting
    assert now() == 1.0
