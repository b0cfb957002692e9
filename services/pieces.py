"""Large values as MessagePack, in pieces: no step takes long, so that other threads run in between.

An encoder encodes a text of 60 MiB in one step, of up to 0.3 s, in which no other thread of Python runs, also not the
one with the event loop. Here long texts are cut before they are encoded; joining the bytes lets others run.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from greenroom.services.sizes import text_in

SLICE: Final = 256 * 1024
"""Characters that are encoded in one step."""
BUILT_IN: Final = (bytes, bytearray, datetime)
"""Types that the encoder knows, and plain data would have in another form."""
_ARRAY, _MAP, _TEXT = b"\xdd", b"\xdf", b"\xdb"
"""How what has a length of 32 bits begins."""


def in_pieces(value: Any, encode: Callable[[Any], bytes]) -> list[bytes]:
    """The bytes of `value`, which is made of plain data, in an order to be joined. `encode`: for what is not large.

    Raises `UnicodeEncodeError`, and what `encode` raises.
    """
    if text_in(value) <= SLICE:
        return [encode(value)]
    if isinstance(value, str):
        cut = [value[start : start + SLICE].encode() for start in range(0, len(value), SLICE)]
        return [_begun(_TEXT, sum(map(len, cut))), *cut]
    if isinstance(value, dict):
        pieces = [_begun(_MAP, len(value))]
        for key, part in value.items():
            pieces += [encode(key), *in_pieces(part, encode)]
        return pieces
    if not isinstance(value, list | tuple):
        return [encode(value)]
    pieces = [_begun(_ARRAY, len(value))]
    for part in value:
        pieces += in_pieces(part, encode)
    return pieces


def abridged(value: Any) -> Any:
    """The same with no text but short ones, to be read as a test of whether the whole can be read."""
    if text_in(value) <= SLICE:
        return value
    if isinstance(value, dict):
        return {key: abridged(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [abridged(part) for part in value]
    return "" if isinstance(value, str) else value


def array_of(count: int) -> bytes:
    """How a list of so many begins; its members' bytes follow."""
    return _begun(_ARRAY, count)


def _begun(kind: bytes, length: int) -> bytes:
    return kind + length.to_bytes(4, "big")
