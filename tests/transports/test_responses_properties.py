"""Whatever an application says becomes a valid Responses stream, however it is cut, batched and joined again."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greenroom.actors.events import (
    ArgumentsDelta,
    Event,
    Part,
    PartDone,
    Terminal,
    TextDelta,
    TurnCancelled,
    TurnFailed,
)
from greenroom.actors.messages import AnswerFormat, FunctionTool, ToolCall, ToolOutput, Turn, TurnOptions
from greenroom.transports.json_text import whole
from greenroom.transports.responses_echo import ResponseEcho, ToolDisplay
from greenroom.transports.responses_encode import ResponsesEncoder, event_json
from greenroom.transports.responses_text import answer_text
from greenroom.transports.responses_whole import output_items, response_object, with_tutorial_key
from greenroom.transports.sse import DONE
from kits.responses_rules import check_response, check_stream, validate_types
from kits.turns import a_turn, told_turns

DISPLAYS: tuple[ToolDisplay, ...] = ("mcp_call", "function_call", "hidden")

# The strategies' tools are called "", "call_1", "tööl" and '"quoted"\n'.
turns = st.builds(
    lambda display, background, tools, answer: msgspec.structs.replace(
        a_turn("resp_1"),
        options=TurnOptions(tools=tuple(FunctionTool(name=name) for name in tools), answer=answer),
        echo=ResponseEcho(model="friday", label="friday", display=display, background=background),
    ),
    st.sampled_from(DISPLAYS),
    st.booleans(),
    st.sets(st.sampled_from(["call_1", "tööl"])),
    st.none() | st.just(AnswerFormat(kind="json_object")),
)
slow = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)


def frames_of(turn: Turn, events: list[Event]) -> list[bytes]:
    encoder = ResponsesEncoder(turn)
    frames: list[bytes] = []
    for event in events:
        encoder.feed(event, frames)
        assert encoder.number == len(frames)
    return frames


def decoded(frames: list[bytes]) -> list[dict[str, Any]]:
    lines = [event_json(frame) for frame in frames if frame is not DONE]
    return [msgspec.json.decode(line) for line in lines if line is not None]


def adds_up(events: list[Event]) -> bool:
    """Whether each text is what its deltas say: the application took nothing back, and cut no character in two."""
    said: dict[str, str] = {}
    for event in events:
        if isinstance(event, TextDelta | ArgumentsDelta):
            if event.text != whole(event.text):
                return False
            said[event.item] = said.get(event.item, "") + event.text
        elif (
            isinstance(event, PartDone)
            and (deltas := said.pop(event.item, ""))
            and deltas != text_of(event.content)
        ):
            return False
    ending = events[-1]
    assert isinstance(ending, Terminal)
    cut_off = {item.id: text_of(item.parts[-1]) for item in ending.output if item.id in said}
    return cut_off == said


def text_of(part: Part) -> str:
    assert not isinstance(part, ToolOutput), "outputs have no deltas"
    return part.arguments if isinstance(part, ToolCall) else answer_text(part)


@slow
@given(turns, told_turns())
def test_any_turn_is_a_valid_stream(turn: Turn, events: list[Event]) -> None:
    frames = frames_of(turn, events)
    assert frames[-1] is DONE
    assert DONE not in frames[:-1]
    said = decoded(frames)
    for frame, event in zip(frames, said, strict=False):
        assert frame.startswith(b"event: %b\ndata: {" % event["type"].encode())
        assert frame.endswith(b"}\n\n")
        assert frame.count(b"\n") == 3
    cancelled = isinstance(events[-1], TurnCancelled)
    last = check_stream(said, cancelled=cancelled, rewrites=not adds_up(events))
    assert last["id"] == "resp_1"
    validate_types(said)
    if isinstance(events[-1], TurnFailed):
        assert last["status"] == "failed"


@given(turns, told_turns(), st.data())
def test_batches_make_no_difference(turn: Turn, events: list[Event], data: st.DataObject) -> None:
    at_once = frames_of(turn, events)
    encoder, left = ResponsesEncoder(turn), events
    frames: list[bytes] = []
    while left:
        size = data.draw(st.integers(1, len(left)))
        encoder.feed_all(left[:size], frames)
        left = left[size:]
        assert encoder.number == len(frames)
    assert frames == at_once


@given(turns, told_turns(), st.data())
def test_a_replay_from_any_event_is_the_tail(turn: Turn, events: list[Event], data: st.DataObject) -> None:
    all_frames = frames_of(turn, events)
    skipped = data.draw(st.integers(0, len(events)))
    encoder = ResponsesEncoder(turn)
    for event in events[:skipped]:
        encoder.skip(event)
    start = encoder.number
    tail: list[bytes] = []
    encoder.feed_all(events[skipped:], tail)
    assert all_frames[start:] == tail


@slow
@given(turns, told_turns(), st.data())
def test_the_object_is_what_the_stream_says(turn: Turn, events: list[Event], data: st.DataObject) -> None:
    """At any point of a turn: while it is queued, in progress, and when it has ended."""
    so_far = events[: data.draw(st.integers(1, len(events)))]
    response = msgspec.json.decode(response_object(turn, so_far))
    check_response(response)
    validate_types(response)
    assert response["output"] == output_items(turn, so_far)
    said = decoded(frames_of(turn, so_far))
    done = {
        event["output_index"]: event["item"] for event in said if "item" in event and "done" in event["type"]
    }
    assert response["output"] == [done[index] for index in sorted(done)]
    if len(so_far) == len(events) and not isinstance(events[-1], TurnCancelled):
        assert response == said[-1]["response"]


@given(turns, told_turns())
def test_the_tutorials_key_holds_the_last_message(turn: Turn, events: list[Event]) -> None:
    body = msgspec.json.decode(with_tutorial_key(turn, events))
    last = body.pop("response")
    assert body == msgspec.json.decode(response_object(turn, events))
    messages = [item for item in body["output"] if item["type"] == "message"]
    assert last == {**body, "output": messages[-1:]}
    for message in last["output"]:
        assert "text" in message["content"][0] or "refusal" in message["content"][0]


@pytest.mark.parametrize("display", DISPLAYS)
@given(told_turns())
def test_a_delta_of_text_that_is_said_already_is_one_frame(display: ToolDisplay, events: list[Event]) -> None:
    echo = ResponseEcho(model="friday", display=display)
    encoder = ResponsesEncoder(msgspec.structs.replace(a_turn("resp_1"), echo=echo))
    before: Event | None = None
    for event in events:
        frames: list[bytes] = []
        encoder.feed(event, frames)
        if isinstance(event, TextDelta) and isinstance(before, TextDelta) and event.item == before.item:
            assert len(frames) == 1
        before = event
