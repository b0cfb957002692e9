"""JSON of whatever a handler said.

A handler is somebody else's code: it may say half of a surrogate pair (a model's emoji, cut in two), put an object of
its own into `metadata`, or a list that holds itself. A stream must not break on it, so `encode` always gives JSON.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import msgspec

NESTING = 100
"""Values nested deeper than this are cut: msgspec, like most readers of JSON, gives up at some depth."""

_BIG = 1 << 256
_encode = msgspec.json.Encoder().encode
_REFUSALS = (UnicodeEncodeError, TypeError, ValueError, OverflowError, RecursionError, NotImplementedError)


def encode(value: Any) -> bytes:
    """Compact JSON, raw UTF-8. What JSON cannot say is mended: see `plain`."""
    try:
        return _encode(value)
    except _REFUSALS:
        return _encode(plain(value))


def whole(text: str) -> str:
    """The text with halves of surrogate pairs joined where they meet, and else replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def plain(value: Any, inside: tuple[int, ...] = ()) -> Any:
    """The value with what JSON cannot say replaced. `inside`: the containers it lies in.

    Keys become strings, text is made `whole`, sets become lists, numbers without end become null, what is nested too
    deep or holds itself becomes null, and an object of an unknown class becomes the class's name in angle brackets.
    """
    if isinstance(value, str):
        return whole(value)
    if not isinstance(value, dict | list | tuple | set | frozenset | msgspec.Struct):
        return _scalar(value)
    if id(value) in inside or len(inside) >= NESTING:
        return None
    inside = (*inside, id(value))
    if isinstance(value, dict):
        return {_key(key): plain(item, inside) for key, item in value.items()}
    if isinstance(value, msgspec.Struct):
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        return {name: plain(item, inside) for name, item in fields.items() if item is not msgspec.UNSET}
    return [plain(item, inside) for item in value]


def _key(key: object) -> str:
    if isinstance(key, str):
        return whole(key)
    said = _scalar(key)
    return bytes(said).decode().strip('"') if isinstance(said, msgspec.Raw) else str(said)


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, bool | msgspec.Raw):
        return value
    if isinstance(value, int):
        return value if -_BIG < value < _BIG else None
    if isinstance(value, float):
        return value if isfinite(value) else None
    try:
        return msgspec.Raw(_encode(value))  # dates, decimals, UUIDs, enumerations, dataclasses
    except _REFUSALS:
        return f"<{type(value).__name__}>"
