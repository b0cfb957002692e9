"""Large values in pieces: the bytes are those of the whole, and no step encodes more than a slice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from greenroom.actors.errors import HandlerError
from greenroom.actors.events import Event, Item, ItemDone, PartDone, TextDelta, TurnCompleted, TurnStarted
from greenroom.actors.messages import Message, Text, ToolCall
from greenroom.services import pieces
from greenroom.services.compact import decode_turn, encode_turn, turn_in_pieces
from greenroom.services.pieces import abridged, in_pieces
from greenroom.services.sessions import turn_codec
from greenroom.services.sessions.turn_codec import decode_events, encode_events, events_in_pieces
from greenroom.services.sizes import size_of, size_of_all, size_of_record, text_in
from greenroom.services.store import TurnRecord
from kits.turns import told_turns

SLICE = 3
WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.binary(max_size=9) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "SLICE", SLICE)
    monkeypatch.setattr(turn_codec, "SLICE", SLICE)


def kept(coded: Callable[[], object]) -> tuple[str, str | None]:
    """What comes back, or the words of the refusal and the field it names."""
    try:
        return repr(coded()), None
    except HandlerError as refused:
        return str(refused), refused.field


@given(value=VALUES)
def test_what_is_read_is_what_was_cut(value: Any) -> None:
    encoded = list[Any]()

    def encode(part: Any) -> bytes:
        encoded.append(part)
        return msgpack.encode(part)

    cut = in_pieces(value, encode)
    assert msgpack.decode(b"".join(cut), strict=False) == value
    assert all(text_in(part) <= SLICE for part in encoded if not isinstance(part, str)), "whole"


@given(value=VALUES)
def test_what_is_abridged_has_the_same_form(value: Any) -> None:
    short = abridged(value)
    assert type(short) is type(value)
    if isinstance(value, dict):
        assert short.keys() == value.keys()
    elif isinstance(value, list):
        assert len(short) == len(value)
    elif isinstance(value, str):
        assert short == (value if len(value) <= SLICE else "")
    else:
        assert short == value


@given(events=told_turns())
def test_events_in_pieces_are_read_as_if_they_were_whole(events: list[Event]) -> None:
    assert repr(decode_events(b"".join(events_in_pieces(events)))) == repr(
        decode_events(encode_events(events))
    )


@given(events=told_turns())
def test_records_in_pieces_are_read_as_if_they_were_whole(events: list[Event]) -> None:
    output = tuple(event.done for event in events if isinstance(event, ItemDone) and event.done is not None)
    record = TurnRecord("t", "completed", 1.0, (Message((Text("what do we know of it?"),)),), output)
    whole = kept(lambda: decode_turn(encode_turn(record)))
    assert kept(lambda: decode_turn(b"".join(turn_in_pieces(record)))) == whole


@pytest.mark.parametrize(
    "event",
    [TextDelta("too long", "i", "no number"), TextDelta("\ud83d half a pair"), TextDelta(17)],  # type: ignore[arg-type]
)
def test_a_large_event_is_refused_or_kept_as_a_short_one_is(event: Event) -> None:
    whole = kept(lambda: decode_events(encode_events([event])))
    assert kept(lambda: decode_events(b"".join(events_in_pieces([event])))) == whole


def test_the_size_is_that_of_all_that_may_be_large() -> None:
    parts = (Text("four"), ToolCall("call", "name", "arguments"))
    item = Item("1", "message", "assistant", parts, metadata={"a": ["b", {"c": "de"}]})
    size = len("fourcallnameargumentsbde")
    assert size_of_all([TextDelta("two"), TurnStarted(), ItemDone("1", item)]) == len("two") + size
    assert size_of(TurnCompleted(1.0, (item, item))) == 2 * size
    assert size_of(PartDone(parts[1])) == len("callnamearguments")
    asked = (Message((Text("seven"),)), Message((Text("more"), Text("words"))))
    record = TurnRecord("t", "completed", 1.0, asked, (item,))
    assert size_of_record(record) >= size + len("sevenmorewords")


def test_what_is_none_has_a_size_all_the_same() -> None:
    """It is refused where it is encoded."""
    circle: list[Any] = []
    circle.append(circle)
    assert text_in(circle) == 0
    assert size_of_all([TextDelta(17), ItemDone("1"), TurnCompleted(1.0, None), "event"]) == 0  # type: ignore[arg-type, list-item]
    assert size_of_record(TurnRecord("t", "completed", 1.0, (17,), None)) == 0  # type: ignore[arg-type]
