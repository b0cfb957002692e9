"""What a turn weighs while it waits and runs: bytes of what its request says."""

from __future__ import annotations

import msgspec

from greenroom.actors.messages import Text, Turn


def weight_of(turn: Turn) -> int:
    """Bytes: of texts as they lie in memory, of data as it is written. Cheap for what nearly all requests are."""
    request = turn.request
    weight = 0
    for message in request.input:
        for part in message.content:
            weight += part.text.__sizeof__() if type(part) is Text else _weight(part)
        if message.metadata:
            weight += _weight(message.metadata)
    for more in (request.extra, request.tools, turn.options):
        if more:
            weight += _weight(more)
    return weight


def _nothing(value: object) -> None:
    """What cannot be written came from this process and is there anyway."""


_encoder = msgspec.msgpack.Encoder(enc_hook=_nothing)


def _weight(value: object) -> int:
    try:
        return len(_encoder.encode(value))
    except (ValueError, OverflowError, RecursionError):  # lone surrogates, large numbers, circles
        return len(repr(value))
