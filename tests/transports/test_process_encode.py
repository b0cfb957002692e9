"""The `/process` stream: exact bytes for what clients know, and properties for whatever an application says."""

import asyncio
from datetime import date
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.events import Event, TextDelta, TurnAccepted, TurnStarted
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import (
    Audio,
    Content,
    Data,
    ErrorInfo,
    File,
    Image,
    Refusal,
    Text,
    Usage,
    Video,
)
from greenroom.transports import process_wire as wire
from greenroom.transports.json_text import whole
from greenroom.transports.process_encode import SNAPSHOT_BYTES, ProcessEncoder
from greenroom.transports.process_object import response_object
from greenroom.transports.process_usual import usual_frames
from greenroom.transports.sse import DONE
from kits.turns import Telling, a_turn, told_turns


def frames_of(events: list[Event]) -> list[bytes]:
    encoder = ProcessEncoder(a_turn())
    frames: list[bytes] = []
    for event in events:
        encoder.feed(event, frames)
        assert encoder.number == len(frames)
    return frames


def lines_of(events: list[Event]) -> list[bytes]:
    """The JSON of the numbered frames."""
    frames = frames_of(events)
    if frames[-1] == DONE:
        frames.pop()
    assert all(frame.startswith(b"data: {") and frame.endswith(b"}\n\n") for frame in frames)
    assert all(b"\n" not in frame[:-2] for frame in frames)
    return [frame[len(b"data: ") : -2] for frame in frames]


def objects_of(events: list[Event]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in lines_of(events)]


def contents_of(told: Telling) -> list[dict[str, Any]]:
    return [said for said in objects_of(told.events) if said["object"] == "content"]


def a_telling() -> Telling:
    told = Telling()
    told.start()
    return told


def log_of(events: list[Event]) -> TurnLog:
    async def fill() -> TurnLog:
        log = TurnLog(a_turn())
        for event in events:
            log.append(event)
        return log

    return asyncio.run(fill())


def brief(said: dict[str, Any]) -> str:
    kind = f" {said['type']}" if "type" in said else ""
    return f"{said['object']}/{said['status']}{kind}"


# -- the reference's example -------------------------------------------------------------------------------------


def test_the_example_to_the_byte() -> None:
    told = a_telling()
    for delta in ("The ", "capital é"):
        told.composer.say(delta)
    told.complete()
    response = ',"error":null,"id":"response_1","created_at":1795328012,"completed_at":null,"output":null,"usage":null'
    message = '"error":null,"id":"msg_1","type":"message","role":"assistant","content":'
    content = '"error":null,"type":"text","index":0,"delta":'
    rest = ',"code":null,"message":null,"usage":null,"metadata":null}'
    whole = f'"object":"content","status":"completed",{content}null,"msg_id":"msg_1","text":"The capital é"}}'
    contents = f'[{{"sequence_number":5,{whole}]'
    done = f'{{"sequence_number":6,"object":"message","status":"completed",{message}{contents}{rest}'
    ended = response.replace(
        '"completed_at":null,"output":null', f'"completed_at":1795328013,"output":[{done}]'
    )
    deltas = f'"object":"content","status":"in_progress",{content}true,"msg_id":"msg_1","text":'
    lines = [
        f'{{"sequence_number":0,"object":"response","status":"created"{response},"session_id":"s1"}}',
        f'{{"sequence_number":1,"object":"response","status":"in_progress"{response},"session_id":"s1"}}',
        f'{{"sequence_number":2,"object":"message","status":"in_progress",{message}null{rest}',
        f'{{"sequence_number":3,{deltas}"The "}}',
        f'{{"sequence_number":4,{deltas}"capital é"}}',
        f'{{"sequence_number":5,{whole}',
        done,
        f'{{"sequence_number":7,"object":"response","status":"completed"{ended},"session_id":"s1"}}',
    ]
    assert frames_of(told.events) == [f"data: {line}\n\n".encode() for line in lines] + [b"data: [DONE]\n\n"]


def test_reasoning_is_a_message_of_its_own() -> None:
    told = a_telling()
    thought = told.composer.reasoning()
    thought.text("well")
    thought.done()
    told.composer.say("Yes")
    told.complete()
    assert [brief(one) for one in objects_of(told.events)][2:-1] == [
        "message/in_progress reasoning",
        "content/in_progress text",
        "content/completed text",
        "message/completed reasoning",
        "message/in_progress message",
        "content/in_progress text",
        "content/completed text",
        "message/completed message",
    ]


# -- tools -------------------------------------------------------------------------------------------------------


def test_a_tool_call_and_its_output() -> None:
    told = a_telling()
    call = told.composer.call("c1", "add")
    for piece in ('{"a": 1', ', "b": "é"}'):
        call.arguments(piece)
    call.done()
    output = told.composer.output_of("c1", "add")
    output.progress([Text("…")])
    output.done([Text("3"), Image("data:image/png;base64,QUJD")])
    told.complete()
    said = objects_of(told.events)[2:-1]
    assert [brief(one) for one in said] == [
        "message/in_progress plugin_call",
        "content/in_progress data",
        "content/in_progress data",
        "content/in_progress data",
        "content/completed data",
        "message/completed plugin_call",
        "message/in_progress plugin_call_output",
        "content/in_progress data",
        "content/completed data",
        "message/completed plugin_call_output",
    ]
    contents = [one for one in said if one["object"] == "content"]
    assert {one["delta"] for one in contents} == {False}
    assert [one["data"]["arguments"] for one in contents[:4]] == [
        "", '{"a": 1', '{"a": 1, "b": "é"}', '{"a": 1, "b": "é"}'
    ]  # fmt: skip
    assert contents[3]["data"] == {"call_id": "c1", "name": "add", "arguments": '{"a": 1, "b": "é"}'}
    assert (said[0]["role"], said[6]["role"]) == ("assistant", "tool")
    assert contents[4]["data"] == {"call_id": "c1", "name": "add", "output": '[{"type":"text","text":"…"}]'}
    assert msgspec.json.decode(contents[5]["data"]["output"]) == [
        {"type": "text", "text": "3"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
    ]


def test_mcp_tools_name_their_server() -> None:
    told = a_telling()
    told.composer.call("c1", "add", "sums").done("{}")
    told.composer.output_of("c1", "add", "sums").done([])
    told.complete()
    said = objects_of(told.events)[2:-1]
    assert [one["type"] for one in said if one["object"] == "message"] == 2 * ["mcp_call"] + 2 * [
        "mcp_call_output"
    ]
    assert {one["data"]["server_label"] for one in said if one["object"] == "content"} == {"sums"}


def test_calls_may_interleave() -> None:
    told = a_telling()
    one, two = told.composer.call("c1", "a"), told.composer.call("c2", "b")
    one.arguments("1")
    two.arguments("2")
    one.arguments("1")
    two.done()
    one.done()
    told.complete()
    done = [said for said in contents_of(told) if said["status"] == "completed"]
    assert [(said["msg_id"], said["data"]["arguments"]) for said in done] == [("msg_2", "2"), ("msg_1", "11")]


def test_long_arguments_do_not_cost_their_square() -> None:
    told = a_telling()
    call = told.composer.call("c1", "write")
    for _ in range(25_000):
        call.arguments("abcd")
    told.complete()
    assert sum(map(len, frames_of(told.events))) < 25 * 100_000
    snapshots = [len(said["data"]["arguments"]) for said in contents_of(told)]
    assert snapshots == sorted(snapshots)
    assert snapshots[: SNAPSHOT_BYTES // 4] == list(range(0, SNAPSHOT_BYTES, 4))
    assert snapshots[-1] == 100_000


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (Image("https://x/y"), {"type": "image", "source": {"type": "url", "url": "https://x/y"}}),
        (Image("data:,x"), {"type": "image", "source": {"type": "url", "url": "data:,x"}}),
        (
            Image("data:;base64,QQ=="),
            {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "QQ=="}},
        ),
        (
            Video("data:video/webm;codecs=vp9;base64,QQ=="),
            {"type": "video", "source": {"type": "base64", "media_type": "video/webm", "data": "QQ=="}},
        ),
        (
            Audio("QQ==", "mp3"),
            {"type": "audio", "source": {"type": "base64", "media_type": "audio/mp3", "data": "QQ=="}},
        ),
        (
            Audio("QQ==", "audio/ogg"),
            {"type": "audio", "source": {"type": "base64", "media_type": "audio/ogg", "data": "QQ=="}},
        ),
        (Audio("https://x/y.wav"), {"type": "audio", "source": {"type": "url", "url": "https://x/y.wav"}}),
        (Data({"a": 1}), {"type": "data", "data": {"a": 1}}),
        (File(file_id="f"), {"type": "file", "file_id": "f"}),
        (Refusal("no"), {"type": "refusal", "refusal": "no"}),
    ],
)
def test_every_kind_of_tool_output_is_a_block(part: Content, block: dict[str, Any]) -> None:
    told = a_telling()
    told.composer.output_of("c1", "tool").done([part])
    told.complete()
    assert msgspec.json.decode(contents_of(told)[0]["data"]["output"]) == [block]


# -- other contents, usage, endings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "fields"),
    [
        (Image("https://x/y.png"), {"image_url": "https://x/y.png"}),
        (Audio("QUJD", "wav"), {"data": "QUJD", "format": "wav"}),
        (Video("https://x/y.mp4"), {"video_url": "https://x/y.mp4"}),
        (File("u", None, None, "n"), {"file_url": "u", "file_id": None, "filename": "n", "file_data": None}),
        (Data({"a": [1, None]}), {"data": {"a": [1, None]}}),
        (Refusal("no"), {"refusal": "no"}),
    ],
)
def test_every_part_of_a_message_goes_out_whole(part: Content, fields: dict[str, Any]) -> None:
    told = a_telling()
    told.composer.say("see:")
    told.composer.show(part)
    told.complete()
    said = contents_of(told)[-1]
    assert (said["status"], said["index"], said["delta"]) == ("completed", 1, None)
    assert said["type"] == type(part).__name__.lower()
    assert {name: said[name] for name in fields} == fields


def test_usage_on_the_message_and_on_the_response() -> None:
    told = a_telling()
    draft = told.composer.message()
    draft.usage = Usage(10, 5, cached_tokens=3, reasoning_tokens=2)
    draft.done()
    told.composer.report_usage(draft.usage)
    told.composer.report_usage(Usage(1, 1))
    told.complete()
    message, response = objects_of(told.events)[-2:]
    assert message["usage"] == {
        "input_tokens": 10,
        "output_tokens": 5,
        "total_tokens": 15,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens_details": {"reasoning_tokens": 2},
    }
    assert message["content"] == []
    assert response["usage"]["total_tokens"] == 17


def test_a_failed_turn_keeps_what_was_said() -> None:
    told = a_telling()
    told.composer.message().done()
    open_message = told.composer.message()
    open_message.text("whole")
    open_message.content(Image("https://x"))
    open_message.text("par")
    told.composer.call("c1", "add").arguments('{"a"')
    told.fail(ErrorInfo("ValueError", "the agent failed", "err_1"))
    said = objects_of(told.events)
    response = said[-1]
    assert brief(response) == "response/failed"
    assert response["error"] == {"code": "ValueError", "message": "the agent failed", "id": "err_1"}
    assert response["completed_at"] == 1795328013
    assert [(message["type"], message["status"]) for message in response["output"]] == [
        ("message", "completed"),
        ("message", "incomplete"),
        ("plugin_call", "incomplete"),
        ("plugin_call_output", "completed"),  # that the call was interrupted
    ]
    contents = response["output"][1]["content"]
    assert [part["status"] for part in contents] == ["completed", "completed", "incomplete"]
    assert contents[2]["text"] == "par"
    assert contents[2]["sequence_number"] == response["sequence_number"]
    assert response["output"][2]["content"][0]["data"]["arguments"] == '{"a"'


def test_a_turn_cancelled_while_it_waits() -> None:
    told = Telling()
    told.cancel("asked")
    assert [brief(said) for said in objects_of(told.events)] == ["response/created", "response/canceled"]
    assert objects_of(told.events)[-1]["output"] == []


# -- what JSON cannot say ----------------------------------------------------------------------------------------


def test_a_character_cut_in_two_is_whole_in_the_end() -> None:
    told = a_telling()
    for half in ("\ud83d", "\ude00"):
        told.composer.say(half)
    told.complete()
    assert [said["text"] for said in contents_of(told)] == ["�", "�", "😀"]


def test_an_objects_own_values_do_not_break_the_stream() -> None:
    around: list[Any] = [1]
    around.append(around)
    deep: Any = 0
    for _ in range(5000):
        deep = [deep]
    told = a_telling()
    draft = told.composer.message()
    odd: dict[Any, Any] = {
        "object": object(),
        "nan": float("nan"),
        1: {2},
        "date": date(2026, 1, 2),
        "half": "\ud83d",
    }
    odd |= {"huge": 10**5000, None: around, (1, 2): "x", "deep": deep, date(2026, 1, 2): 1}
    draft.metadata = odd
    told.complete()
    metadata = objects_of(told.events)[-2]["metadata"]
    assert metadata.pop("deep")
    assert metadata == {
        "object": "<object>",
        "nan": None,
        "1": [2],
        "date": "2026-01-02",
        "half": "�",
        "huge": None,
        "None": [1, None],
        "[1,2]": "x",
        "2026-01-02": 1,
    }


# -- whatever an application says --------------------------------------------------------------------------------


@given(told_turns())
def test_numbers_have_no_gaps_and_the_ending_is_one(events: list[Event]) -> None:
    frames, said = frames_of(events), objects_of(events)
    assert [one["sequence_number"] for one in said] == list(range(len(said)))
    assert frames[-1] == DONE
    assert len(frames) == len(said) + 1
    responses = [one["status"] for one in said if one["object"] == "response"]
    assert responses[0] == "created"
    assert said[-1]["status"] in {"completed", "failed", "canceled"}
    assert responses[1:-1] == (["in_progress"] if TurnStarted() in events else [])


@given(told_turns())
def test_templates_write_what_structs_do(events: list[Event]) -> None:
    for line in lines_of(events):
        assert msgspec.json.encode(wire.decode_object(line)) == line
        msgspec.json.decode(line, type=dict, strict=True)


@given(told_turns())
def test_nested_objects_are_the_ones_sent_before(events: list[Event]) -> None:
    lines = lines_of(events)
    for line in lines:
        said = wire.decode_object(line)
        nested = (
            said.content
            if isinstance(said, wire.Message)
            else said.output
            if isinstance(said, wire.Response)
            else []
        )
        for raw in nested or []:
            inner = wire.decode_object(raw)
            assert inner.sequence_number is not None
            if inner.status == "completed":
                assert lines[inner.sequence_number] == bytes(raw)
            else:
                assert (inner.status, inner.sequence_number) == ("incomplete", len(lines) - 1)


@given(told_turns())
def test_deltas_are_one_frame_each(events: list[Event]) -> None:
    deltas = [said["text"] for said in objects_of(events) if said.get("delta") is True]
    assert len(deltas) == sum(isinstance(event, TextDelta) for event in events)


@given(told_turns())
def test_one_object_instead_of_a_stream_at_any_moment(events: list[Event]) -> None:
    assert response_object(log_of(events)) == lines_of(events)[-1]
    for length in range(1, len(events)):
        lines = lines_of(events[:length])
        now = msgspec.json.decode(response_object(log_of(events[:length])))
        assert (now["sequence_number"], now["status"]) == (len(lines) - 1, "in_progress")
        sent = [wire.decode_object(line) for line in lines]
        messages = [one.id for one in sent if isinstance(one, wire.Message) and one.status == "in_progress"]
        assert sorted(one["id"] for one in now["output"]) == sorted(messages)
        for message in now["output"]:
            assert_as_told(message, events[:length])


def assert_as_told(message: dict[str, Any], events: list[Event]) -> None:
    """The text of a message in progress is what its deltas say."""
    for content in message["content"]:
        if content["status"] == "in_progress" and content["type"] == "text":
            place = (message["id"], content["index"])
            said = [
                event.text
                for event in events
                if isinstance(event, TextDelta) and (event.item, event.part) == place
            ]
            assert content["text"] == whole("".join(said))


def test_a_response_before_anything_has_happened() -> None:
    now = msgspec.json.decode(response_object(log_of([])))
    assert (now["sequence_number"], now["status"], now["output"]) == (None, "in_progress", [])


def test_a_waiting_turn_reads_as_in_progress() -> None:
    now = msgspec.json.decode(response_object(log_of([TurnAccepted("response_1", 0.0)])))
    assert (now["sequence_number"], now["status"]) == (0, "in_progress")


def test_an_open_tool_shows_what_it_has() -> None:
    told = a_telling()
    told.composer.call("c1", "add").arguments('{"a')
    told.composer.output_of("c2", "sum").progress([Text("so far")])
    told.composer.output_of("c3", "sum")
    now = msgspec.json.decode(response_object(log_of(told.events)))
    call, output, empty = now["output"]
    assert call["content"][0]["data"] == {"call_id": "c1", "name": "add", "arguments": '{"a'}
    assert msgspec.json.decode(output["content"][0]["data"]["output"]) == [{"type": "text", "text": "so far"}]
    assert (empty["type"], empty["content"]) == ("plugin_call_output", [])


@pytest.mark.parametrize("line", [b"{}", b"[]", b'{"object":"x"}', b'{"object":"content","type":"x"}', b"{"])
def test_what_is_no_wire_object(line: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        wire.decode_object(line)


def test_an_encoder_says_where_it_stands() -> None:
    encoder = ProcessEncoder(a_turn())
    encoder.feed(TurnAccepted("response_1", 0.0), [])
    assert repr(encoder) == "<ProcessEncoder response_1 at 1, 0 items open>"


# -- whole turns at once -----------------------------------------------------------------------------------------


def one_text(*deltas: str, reasoning: bool = False, usage: Usage | None = None) -> list[Event]:
    """A turn that says one text."""
    told = a_telling()
    draft = told.composer.reasoning() if reasoning else told.composer.message()
    for delta in deltas:
        draft.text(delta)
    draft.usage = usage
    told.complete()
    return told.events


SURROGATE = "half a pair \ud83d"


@given(
    told_turns() | st.lists(st.text(max_size=5) | st.just(SURROGATE), max_size=5).map(lambda d: one_text(*d))
)
def test_a_turn_that_is_read_whole_has_the_frames_it_has_event_by_event(events: list[Event]) -> None:
    assert ProcessEncoder.whole(a_turn(), events) == frames_of(events)


@pytest.mark.parametrize(
    ("events", "is_usual"),
    [
        (one_text("Hello", " you"), True),
        (one_text("Hello"), True),
        (one_text(), False),
        (one_text("Hello", reasoning=True), False),
        (one_text("Hello", usage=Usage(1, 2)), False),
        (one_text(SURROGATE), False),
        (one_text("Hello")[:-1], False),
        ([], False),
    ],
)
def test_which_turns_are_usual(events: list[Event], is_usual: bool) -> None:
    assert (usual_frames(a_turn(), events) is not None) == is_usual
