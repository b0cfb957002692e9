"""Arguments of a call, checked against the tool's schema and put right where it is plain what was meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from greenroom.sandbox.image.answers import ToolError
from greenroom.sandbox.image.tool_schemas import TOOLS, Schema

_LENIENT: Final = frozenset({"element", "startElement", "endElement", "text"})
"""Needed by the schema, so that a model thinks of them, but clients drop empty texts: empty when missing."""


def checked(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by their names, null ones left out. Raises `ToolError` that says what is wrong with which."""
    parameters = TOOLS[name]["parameters"]
    properties: dict[str, Schema] = parameters["properties"]
    given = {key: value for key, value in arguments.items() if value is not None}
    for key in given.keys() - properties.keys():
        raise ToolError(f"{name} has no argument {key!r}. It takes: {', '.join(properties) or 'none'}.")
    for key in parameters["required"]:
        if key not in given and key in _LENIENT:
            given[key] = ""
        elif key not in given or given[key] == "":
            raise ToolError(f"{name} needs {key!r}: {properties[key]['description']}")
    return {key: _value(key, value, properties[key]) for key, value in given.items()}


def _value(key: str, value: Any, schema: Schema) -> Any:
    kind = schema["type"]
    meant = _READERS[kind](value)
    if meant is None:
        raise ToolError(f"{key!r} must be of the type {kind}, not {value!r}. {schema['description']}")
    low, high = schema.get("minimum"), schema.get("maximum")
    if (low is not None and meant < low) or (high is not None and meant > high):
        raise ToolError(
            f"{key!r} must be at least {low}" + (f" and at most {high}." if high is not None else ".")
        )
    return meant


def _string(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e9 else None  # leaves out what is not finite as well


def _integer(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number == int(number) else None


def _boolean(value: Any) -> bool | None:
    words = {"true": True, "false": False}
    return words.get(value.lower()) if isinstance(value, str) else value if isinstance(value, bool) else None


def _strings(value: Any) -> list[str] | None:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return list(value)
    return None


_READERS: Final = {
    "string": _string,
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "array": _strings,
}
