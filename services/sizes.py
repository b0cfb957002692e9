"""How much text events and records have. What is large is encoded and decoded off the loop (`sessions.aside`).

Every turn is weighed, so this is quick for what nearly all turns are: texts of messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import astuple

from greenroom.actors.events import (
    ArgumentsDelta,
    Event,
    Item,
    ItemDone,
    PartDone,
    TextDelta,
    ToolProgress,
    TurnCancelled,
    TurnCompleted,
    TurnFailed,
)
from greenroom.actors.messages import Message, Text
from greenroom.services.store import TurnRecord

LARGE: Final = 1024 * 1024
"""Characters of text, or bytes of it, some ms of the loop."""
DEEPEST: Final = 32
"""Levels that are looked into for text."""


def size_of(event: Event) -> int:
    """Characters of text in an event."""
    sized = _SIZED.get(type(event))
    return 0 if sized is None else sized(event)


def size_of_all(events: Iterable[Event]) -> int:
    """Characters of text in the events."""
    size = 0
    for event in events:
        sized = _SIZED.get(type(event))
        if sized is not None:
            size += sized(event)
    return size


def size_of_record(record: TurnRecord) -> int:
    """Characters of text in a turn's record, but for the short ones."""
    output = record.output
    size = sum(map(_item, output)) if type(output) is tuple else text_in(output)
    return size + (sum(map(_message, record.input)) if type(record.input) is tuple else 0)


def text_in(value: object, depth: int = 0) -> int:
    """Characters of text in whatever events and records are made of."""
    if isinstance(value, str):
        return len(value)
    if depth == DEEPEST:
        return 0
    parts: Iterable[object] = ()
    if isinstance(value, Struct):
        parts = astuple(value)
    elif isinstance(value, list | tuple):
        parts = value
    elif isinstance(value, Mapping):
        parts = value.values()
    return sum(text_in(part, depth + 1) for part in parts)


# What is no event, with a number for a text, is refused when it is encoded, not here.


def _delta(event: Any) -> int:
    return len(event.text) if type(event.text) is str else 0


def _part(part: Any) -> int:
    return len(part.text) if type(part) is Text and type(part.text) is str else text_in(part)


def _parts(parts: Any) -> int:
    return _part(parts[0]) if type(parts) is tuple and len(parts) == 1 else text_in(parts)


def _item(item: Any) -> int:
    if type(item) is not Item:
        return text_in(item)
    return _parts(item.parts) if item.metadata is None else _parts(item.parts) + text_in(item.metadata)


def _message(message: Any) -> int:
    if type(message) is not Message or message.metadata is not None:
        return text_in(message)
    return _parts(message.content)


def _ending(event: Any) -> int:
    return sum(map(_item, event.output)) if type(event.output) is tuple else text_in(event)


_SIZED: Final[dict[type, Callable[[Any], int]]] = {
    TextDelta: _delta,
    ArgumentsDelta: _delta,
    PartDone: lambda event: _part(event.content),
    ItemDone: lambda event: _item(event.done),
    ToolProgress: lambda event: text_in(event.output),
    TurnCompleted: _ending,
    TurnFailed: _ending,
    TurnCancelled: _ending,
}
