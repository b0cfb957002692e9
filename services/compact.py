"""Messages and turns as the few bytes they are kept in.

Fields go by position instead of by name, which saves a third of a short message. Files of sessions hold such bytes, of
messages, items and turns: a field may be added at the end, with a default, but none moved or taken away
(`sqlite.schema`).
"""

from __future__ import annotations

from msgspec import Struct, json, msgpack, to_builtins
from msgspec.structs import astuple

from greenroom.actors.events import Item, TurnStatus
from greenroom.actors.messages import Message
from greenroom.services.pieces import BUILT_IN, abridged, in_pieces
from greenroom.services.plain_json import refusal
from greenroom.services.store import TurnRecord


class CompactMessage(Message, frozen=True, array_like=True):
    """A message whose fields go by position."""


class CompactItem(Item, frozen=True, array_like=True):
    """An item whose fields go by position."""


class CompactTurn(Struct, frozen=True, array_like=True):
    """A turn's record, all fields by position."""

    turn_id: str
    status: TurnStatus
    at: float
    input: tuple[CompactMessage, ...]
    output: tuple[CompactItem, ...]


_message_decoder = json.Decoder(CompactMessage)
_turn_decoder = msgpack.Decoder(CompactTurn)
_turn_encoder = msgpack.Encoder()


def read_message(raw: bytes) -> CompactMessage:
    """A message from JSON of its fields by position. Raises `msgspec.ValidationError` for what is no message."""
    return _message_decoder.decode(raw)


def decode_message(raw: bytes) -> Message:
    """The same as a `Message`, as its readers expect it."""
    return Message(*astuple(_message_decoder.decode(raw)))


def encode_turn(record: TurnRecord) -> bytes:
    """A turn's record as bytes, which were read once: what cannot be read again would lock its session for good.

    Raises `HandlerError` for a record that is none, or whose metadata cannot be written; its `field` names the flaw.
    """
    try:
        raw = _turn_encoder.encode(_fields(record))
        _turn_decoder.decode(raw)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise refusal(record, "turn", error) from error
    return raw


def _fields(record: TurnRecord) -> tuple[object, ...]:
    """As they go into the bytes."""
    return (
        record.turn_id,
        record.status,
        record.at,
        list(map(astuple, record.input)),
        list(map(astuple, record.output)),
    )


def turn_in_pieces(record: TurnRecord) -> list[bytes]:
    """The same, for a large record: bytes that are to be joined, made in short steps. Raises as that does."""
    try:
        values = to_builtins(_fields(record), builtin_types=BUILT_IN)
        pieces = in_pieces(values, _turn_encoder.encode)
        _turn_decoder.decode(_turn_encoder.encode(abridged(values)))
    except (TypeError, ValueError, RecursionError, OverflowError):
        return [encode_turn(record)]  # which says what is wrong
    return pieces


def decode_turn(raw: bytes) -> TurnRecord:
    """A turn from the bytes of `encode_turn`."""
    turn = _turn_decoder.decode(raw)
    return TurnRecord(
        turn.turn_id,
        turn.status,
        turn.at,
        tuple(Message(*astuple(message)) for message in turn.input),
        tuple(Item(*astuple(item)) for item in turn.output),
    )
