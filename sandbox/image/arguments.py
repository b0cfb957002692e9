"""Arguments of a call, checked against the tool's schema and put right where it is plain what was meant."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from greenroom.sandbox.image.answers import ToolError, one_line
from greenroom.sandbox.image.tool_schemas import TOOLS, Schema

_LENIENT: Final = frozenset({"element", "startElement", "endElement", "text"})
"""Needed by the schema, so that a model thinks of them, but clients drop empty texts: empty when missing."""

_LARGE: Final = 1e9
"""No number that a tool takes is larger."""

_LOOK_SECONDS: Final = 5.0
"""Of a call that waits so many, but no more than a tenth, are left for what comes after: a look at the page."""

_SHOWN: Final = 80
"""Characters of a wrong value that are shown."""


def checked(name: str, arguments: Mapping[str, Any], seconds: float = math.inf) -> dict[str, Any]:
    """The arguments by their names, null ones left out. `seconds`: how long the call may take; it cannot wait for
    longer. Raises `ToolError` that says what is wrong with which."""
    parameters = TOOLS[name]["parameters"]
    properties: dict[str, Schema] = parameters["properties"]
    if name == "browser_wait_for":
        properties = {**properties, "time": _within(properties["time"], seconds)}
    given = {key: value for key, value in arguments.items() if value is not None}
    for key in given.keys() - properties.keys():
        raise ToolError(f"{name} has no argument {key!r}. It takes: {', '.join(properties) or 'none'}.")
    for key in parameters["required"]:
        if key not in given and key in _LENIENT:
            given[key] = ""
        elif key not in given or given[key] == "":
            raise ToolError(f"{name} needs {key!r}: {properties[key]['description']}")
    return {key: _value(key, value, properties[key]) for key, value in given.items()}


def _within(schema: Schema, seconds: float) -> Schema:
    """A number of seconds that a call of so many can wait."""
    return {**schema, "maximum": round(seconds - min(_LOOK_SECONDS, seconds / 10), 1)}


def _value(key: str, value: Any, schema: Schema) -> Any:
    kind = schema["type"]
    meant = _READERS[kind](value)
    if meant is None:
        raise ToolError(f"{key!r} must be of the type {kind}, not {_shown(value)}. {schema['description']}")
    if kind in {"number", "integer"}:
        low, high = schema.get("minimum", -_LARGE), min(schema.get("maximum", _LARGE), _LARGE)
        if not low <= meant <= high:
            most = f" and at most {high:g}" if "maximum" in schema or meant > high else ""
            raise ToolError(
                f"{key!r} must be at least {low:g}{most}, not {_shown(value)}. {schema['description']}"
            )
    return meant


def _shown(value: Any) -> str:
    return one_line(repr(value), _SHOWN)


def _string(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    except OverflowError:  # a whole number of more digits than there are
        number = math.inf if value > 0 else -math.inf  # type: ignore[operator]
    return None if math.isnan(number) else number


def _integer(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number.is_integer() else None


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
