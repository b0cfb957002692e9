"""Turns and events as bytes: they come back as they were, also those of an older version."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, msgpack, structs

from greenroom.actors.errors import HandlerError, InvalidRequest
from greenroom.actors.events import (
    Event,
    Item,
    ItemDone,
    ItemStarted,
    PartDone,
    TextDelta,
    ToolProgress,
    TurnCompleted,
    TurnFailed,
    UsageReported,
)
from greenroom.actors.messages import (
    AgentRequest,
    Data,
    Disconnect,
    ErrorInfo,
    Message,
    SessionKey,
    Text,
    ToolOutput,
    Turn,
    TurnOptions,
    Usage,
)
from greenroom.services.sessions import turn_codec
from greenroom.services.sessions.turn_codec import (
    decode_events,
    decode_turn,
    encode_events,
    encode_turn,
    register_echo,
)
from kits.turns import a_turn, told_turns


class Echo(Struct, frozen=True):
    """What a protocol repeats."""

    model: str
    items: tuple[dict[str, Any], ...] = ()


class Unknown(Struct, frozen=True):
    """Of a protocol that nobody has named."""

    model: str


register_echo("test", Echo)

TEXT = st.text(max_size=8) | st.sampled_from(["\ud83d", "\ud83d\ude00", "a\0b", "[", "é"])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(2**64, 2**70) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXT, PLAIN, max_size=3)
ECHOES = (
    st.none()
    | PLAIN.filter(lambda value: value is not None)
    | st.builds(Echo, TEXT, st.lists(OBJECTS, max_size=2).map(tuple))
)
MESSAGES = st.builds(
    Message,
    st.lists(st.builds(Text, TEXT) | st.builds(Data, OBJECTS), max_size=2).map(tuple),
    metadata=st.none() | OBJECTS,
    id=st.none() | TEXT,
)
REQUESTS = st.builds(
    AgentRequest,
    input=st.lists(MESSAGES, max_size=2).map(tuple),
    extra=OBJECTS,
    tools=st.none() | st.lists(OBJECTS, max_size=2),
    stop=st.none() | TEXT | st.lists(TEXT, max_size=2),
    session_id=st.none() | TEXT,
    user_id=st.none() | TEXT,
    id=st.none() | TEXT,
    model=st.none() | TEXT,
)
OPTIONS = st.builds(TurnOptions, instructions=st.none() | TEXT, temperature=st.none() | st.floats(0, 2))
TURNS = st.builds(
    Turn,
    id=TEXT,
    key=st.builds(SessionKey, TEXT, TEXT),
    request=REQUESTS,
    principal=st.none() | TEXT,
    overlap=st.sampled_from([None, "queue", "reject", "interrupt"]),
    disconnect=st.builds(Disconnect, st.sampled_from(["continue", "cancel", "grace"]), st.floats(0, 100)),
    created_at=st.floats(0, 2e9),
    options=st.none() | OPTIONS,
    after=st.none() | TEXT,
    kept=st.booleans(),
    stored=st.booleans(),
    background=st.booleans(),
    echo=ECHOES,
    idempotency_key=st.none() | TEXT,
    fingerprint=st.binary(max_size=16),
    webhook=st.none() | TEXT,
    idempotent=st.booleans(),
)


@given(turn=TURNS)
def test_a_turn_comes_back_as_it_was(turn: Turn) -> None:
    again = decode_turn(encode_turn(turn))
    assert again == turn
    assert type(again.request) is AgentRequest
    assert {type(message) for message in again.request.input} <= {Message}
    assert type(again.echo) is type(turn.echo)


@given(events=told_turns())
def test_events_come_back_as_they_were(events: list[Event]) -> None:
    again = decode_events(encode_events(events))
    assert repr(again) == repr(events)  # repr, as what is no number is unlike itself
    assert [type(event) for event in again] == [type(event) for event in events]


def test_every_event_and_every_field_is_kept() -> None:
    kept = {kind for kind in turn_codec._TAGS if kind is not UsageReported}
    assert kept == set(Event.__args__)
    done_when_accepted = {"passing"}
    assert set(turn_codec._Turn.__struct_fields__) == set(Turn.__struct_fields__) - done_when_accepted
    assert set(turn_codec._Request.__struct_fields__) == set(AgentRequest.__struct_fields__)


def test_what_an_older_version_wrote_with_fewer_fields_is_read() -> None:
    turn = a_turn()
    fields = msgpack.decode(encode_turn(turn))
    for fewer in range(7, len(fields)):
        assert decode_turn(msgpack.encode(fields[:fewer])) == structs.replace(turn, idempotent=True)
    request = fields[2]
    for fewer in range(1, len(request)):
        fields[2] = request[:fewer]
        assert decode_turn(msgpack.encode(fields)) == turn
    assert decode_events(msgpack.encode([[2, "1"], [3, "a"], [10, 1.0, "why"]]))[0] == ItemStarted("1")
    failed = msgpack.encode([[9, 1.0, {"code": "a", "message": "b", "id": "c"}]])
    assert decode_events(failed) == [TurnFailed(1.0, ErrorInfo("a", "b", "c"))]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"request": AgentRequest(input=(), extra={"a": [object()]})}, "turn.request.extra.a[0]"),
        ({"request": AgentRequest(input=(), extra={"a": {1: 2}})}, "turn.request.extra.a"),
        ({"request": AgentRequest(input=(), tools=[{"a": {1}}])}, "turn.request.tools[0].a"),
        (
            {"request": AgentRequest(input=(Message(metadata={"a": b""}),))},
            "turn.request.input[0].metadata.a",
        ),
        ({"request": AgentRequest(input=(), stream="no")}, "turn.request.stream"),  # type: ignore[arg-type]
        ({"echo": Unknown("m")}, "turn.echo"),
        ({"echo": object()}, "turn.echo"),
        ({"echo": Echo("m", ({"a": object()},))}, "turn.echo.items[0].a"),
        ({"principal": 5}, "turn.principal"),
        ({"webhook": object()}, "turn.webhook"),
        ({"options": TurnOptions(temperature="hot")}, "turn.options.temperature"),  # type: ignore[arg-type]
    ],
)
def test_a_turn_that_cannot_be_kept_is_refused_by_name(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        encode_turn(structs.replace(a_turn(), **change))
    assert refused.value.field == field
    assert field in refused.value.message


def test_what_contains_itself_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    with pytest.raises(InvalidRequest, match="levels deep"):
        encode_turn(structs.replace(a_turn(), request=AgentRequest(input=(), extra=endless)))
    with pytest.raises(HandlerError, match="levels deep"):
        encode_events([PartDone(Data(endless))])


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (PartDone(Data({"a": object()})), "PartDone.content.data.a"),
        (ToolProgress("1", (Data({1: 2}),)), "ToolProgress.output[0].data"),  # type: ignore[dict-item]
        (
            ItemDone("1", Item("1", "message", "assistant", (), metadata={"a": object()})),
            "ItemDone.done.metadata.a",
        ),
        (TextDelta(5), "TextDelta"),  # type: ignore[arg-type]
        (UsageReported(Usage()), "event"),
    ],
)
def test_events_that_cannot_be_kept_are_refused_by_name(event: Any, field: str) -> None:
    with pytest.raises(HandlerError) as refused:
        encode_events([TextDelta("fine"), event])
    assert refused.value.field == field


def test_only_what_needs_it_is_kept_in_the_longer_form() -> None:
    rich: list[Event] = [
        TextDelta("\ud83d", "1"),
        TextDelta("x" * 100, "1"),
        ToolProgress("2", (Text("so far"),)),
        PartDone(ToolOutput("c", "search", (Data({"big": 2**80}),)), "2"),
        TurnCompleted(1.0, (Item("1", "message", "assistant", (Text("x"),)),), Usage(1, 2)),
        TurnFailed(1.0, ErrorInfo("code", "\udc00")),
    ]
    raw = encode_events(rich)
    assert decode_events(raw) == rich
    assert [type(one) for one in msgpack.decode(raw)] == [bytes, list, list, bytes, list, bytes]


def test_an_echo_of_a_protocol_that_is_not_there_is_none() -> None:
    fields = msgpack.decode(encode_turn(structs.replace(a_turn(), echo=Echo("m"))))
    fields[12][0] = "of long ago"
    assert decode_turn(msgpack.encode(fields)).echo is None
