"""Values of JSON, as JSON schema tells them apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

SHOWN_CHARS = 60
TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")

_TYPES: Mapping[str, Any] = {
    "string": str,
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}


def shown(value: Any) -> str:
    """A value in an error; of a container only what it is, as it may be large."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str) and len(value) > SHOWN_CHARS:
        value = f"{value[:SHOWN_CHARS]}…"
    return msgspec.json.encode(value).decode()


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same: true is not 1, but 1.0 is."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def is_of_type(value: Any, name: str) -> bool:
    """Whether a value is of one of the `TYPES`."""
    if name == "integer":
        return is_number(value) and (isinstance(value, int) or value.is_integer())
    if name == "number":
        return is_number(value)
    return isinstance(value, _TYPES[name])


def is_number(value: Any) -> bool:
    """Whether it is a number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def canonical(value: Any) -> bytes:
    """The same bytes for values that are the same."""
    return msgspec.json.encode(_whole_numbers(value), order="sorted")


def _whole_numbers(value: Any) -> Any:
    """The value with 1.0 as 1."""
    if isinstance(value, dict):
        return {name: _whole_numbers(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
