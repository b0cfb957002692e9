"""A `/process` turn as one object instead of a stream: what `"stream": false` and `GET /process/{id}` answer."""

from __future__ import annotations

from collections.abc import Iterable

from greenroom.actors.events import (
    ArgumentsDelta,
    Event,
    Item,
    ItemDone,
    ItemStarted,
    Part,
    PartDone,
    TextDelta,
    ToolProgress,
)
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Content, Text, ToolCall, ToolOutput
from greenroom.transports.process_encode import ProcessEncoder


def response_object(log: TurnLog) -> bytes:
    """The turn so far as one JSON `response`: the last one of its stream if it has ended, else one in progress.

    It holds what the stream's frames say up to its `sequence_number`. Raises `TurnNotFound`.
    """
    events = log.events()
    encoder = ProcessEncoder(log.turn)
    terminal = log.terminal
    for event in events if terminal is None else events[:-1]:
        encoder.skip(event)
    return encoder.snapshot(_open_items(events)) if terminal is None else encoder.ending(terminal)


class _OpenText:
    """What an item that is not done has said: its start, its done parts, and the pieces and progress since."""

    __slots__ = ("output", "parts", "pieces", "start")

    def __init__(self, start: ItemStarted) -> None:
        self.start = start
        self.parts: list[Part] = []
        self.pieces: list[str] = []
        self.output: tuple[Content, ...] | None = None

    def item(self) -> Item:
        start, parts, text = self.start, self.parts, "".join(self.pieces)
        name = (start.call_id or "", start.name or "")
        if start.kind == "tool_call" and not parts:
            parts = [ToolCall(*name, text, start.server_label)]
        elif start.kind == "tool_output" and not parts and self.output is not None:
            parts = [ToolOutput(*name, self.output, start.server_label)]
        elif text:
            parts = [*parts, Text(text)]
        return Item(start.item, start.kind, start.role, tuple(parts), complete=False)


def _open_items(events: Iterable[Event]) -> list[Item]:
    texts: dict[str, _OpenText] = {}
    for event in events:
        match event:
            case TextDelta() | ArgumentsDelta():
                texts[event.item].pieces.append(event.text)
            case ItemStarted():
                texts[event.item] = _OpenText(event)
            case ToolProgress():
                texts[event.item].output = event.output
            case PartDone():
                texts[event.item].parts.append(event.content)
                texts[event.item].pieces.clear()
            case ItemDone():
                del texts[event.item]
    return [text.item() for text in texts.values()]
