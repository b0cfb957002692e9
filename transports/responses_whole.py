"""A response as one object instead of a stream, and the items of its output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from greenroom.actors.events import Event, Terminal, TurnCancelled, TurnCompleted, TurnFailed
from greenroom.actors.messages import Turn
from greenroom.transports.responses_encode import ResponsesEncoder


class _Kind(msgspec.Struct):
    type: str


_kind = msgspec.json.Decoder(_Kind).decode


class _Encoded(NamedTuple):
    """What events have come to."""

    encoder: ResponsesEncoder
    ending: Terminal | None

    def response(self, output: Iterable[bytes] | None = None) -> bytes:
        return self.encoder.response(self.ending, output)


def _encoded(turn: Turn, events: Sequence[Event]) -> _Encoded:
    encoder = ResponsesEncoder(turn)
    for event in events:
        if isinstance(event, TurnCompleted | TurnFailed | TurnCancelled):
            encoder.close(event, [])
            return _Encoded(encoder, event)
        encoder.skip(event)
    return _Encoded(encoder, None)


def response_object(turn: Turn, events: Sequence[Event]) -> bytes:
    """The response as it stands after these events: queued, in progress or ended."""
    return _encoded(turn, events).response()


def with_tutorial_key(turn: Turn, events: Sequence[Event]) -> bytes:
    """The same with a key `response` on top: the response with its last message alone, where the tutorial looks."""
    encoded = _encoded(turn, events)
    messages = [line for line in encoded.encoder.done if _kind(line).type == "message"]
    return b'%b,"response":%b}' % (encoded.response()[:-1], encoded.response(messages[-1:]))


def output_items(turn: Turn, events: Sequence[Event]) -> list[dict[str, Any]]:
    """The items of the output that are done, as clients see them."""
    return [msgspec.json.decode(line) for line in _encoded(turn, events).encoder.done]
