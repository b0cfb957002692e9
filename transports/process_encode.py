"""Writing `/process`: a turn's canonical events become frames of the stream.

Rule 1: no I/O, and nothing but the turn and its events decides the bytes: encoding them again gives the same ones.
Rule 2: sequence numbers start at 0 and have no gaps; nested objects keep the number of the event that completed them.
Rule 3: text is escaped once. A completed content's bytes are reused in its message's, and those in the response's.

What every turn writes is not encoded as structs: a struct with holes is encoded once, at import, and its holes are
filled. Deltas, the path every token takes, have all but the number and the text filled in once a part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, cast

from msgspec import UNSET, Struct, field
from msgspec.json import Encoder
from msgspec.structs import asdict

from greenroom.actors.events import (
    ArgumentsDelta,
    Event,
    Item,
    ItemDone,
    ItemKind,
    ItemStarted,
    Part,
    PartDone,
    Terminal,
    TextDelta,
    ToolProgress,
    TurnAccepted,
    TurnCancelled,
    TurnCompleted,
    TurnFailed,
    TurnStarted,
)
from greenroom.actors.messages import ErrorInfo, Text, ToolCall, ToolOutput, Turn, Usage
from greenroom.transports import process_wire as wire
from greenroom.transports.json_text import encode
from greenroom.transports.process_templates import (
    ACCEPTED,
    DELTA,
    DELTA_HEAD,
    FRAME,
    MESSAGE,
    NULL,
    OPENED,
    RESPONSE,
    STARTED,
    TEXT,
)
from greenroom.transports.process_usual import usual_frames
from greenroom.transports.sse import DONE
from greenroom.transports.tool_blocks import blocks

SNAPSHOT_BYTES = 1024
"""Snapshots of a call's arguments go out with every delta up to this size. Later each must have grown by a sixteenth,
so that the snapshots of long arguments come to a multiple of their size and not to its square."""

_encode = Encoder().encode
_common = lru_cache(maxsize=256)(encode)  # of words that nearly every item has, which then share the bytes
NO_CALL = ToolCall("", "")
_NUMBER = len(b'{"sequence_number":0')


class OpenItem(Struct, eq=False):
    """What the encoder keeps of an item that is being written. `labels`: its id, type and role as JSON."""

    labels: tuple[bytes, bytes, bytes]
    call: ToolCall
    parts: list[bytes] = field(default_factory=list)
    head: bytes = b""
    arguments: bytearray = field(default_factory=bytearray)
    sent: int = 0

    @classmethod
    def of(cls, item: str, type: str, role: str, call: ToolCall = NO_CALL) -> OpenItem:
        """An item of which nothing is written yet."""
        return cls((encode(item), _common(type), _common(role)), call)


class ProcessEncoder:
    """Encodes one turn. `number`: the next frame's, which is the count of frames so far, `[DONE]` included."""

    __slots__ = ("_done", "_head", "_item", "_items", "_labels", "_part", "_turn", "number")

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._labels = (encode(turn.id), int(turn.created_at), encode(turn.key.session_id))
        self._items: dict[str, OpenItem] = {}
        self._done: dict[str, bytes] = {}
        self._item = ""
        self._part = -1
        self._head = b""
        self.number = 0

    def __repr__(self) -> str:
        return f"<ProcessEncoder {self._turn.id} at {self.number}, {len(self._items)} items open>"

    @classmethod
    def whole(cls, turn: Turn, events: Sequence[Event]) -> list[bytes]:
        """All frames of a turn that has ended."""
        frames = usual_frames(turn, events)
        if frames is None:
            frames = []
            cls(turn).feed_all(events, frames)
        return frames

    def feed(self, event: Event, frames: list[bytes]) -> None:
        """Append the frames that the event makes: most make one, some two, a delta of long arguments perhaps none."""
        self.feed_all((event,), frames)

    def feed_all(self, events: Iterable[Event], frames: list[bytes]) -> None:
        """The same for events that follow one another. Every token comes this way: what can be looked up once is."""
        item, part, head, number = self._item, self._part, self._head, self.number
        for event in events:
            if type(event) is not TextDelta:
                self.number = number
                _WRITERS[type(event)](self, event, frames)
                number = self.number
                continue
            if event.item != item or event.part != part:
                item, part = event.item, event.part
                head = self._turn_to(item, part)
            try:
                text = _encode(event.text)
            except (TypeError, ValueError):  # what JSON cannot say as it is
                text = encode(event.text)
            frames.append(DELTA % (number, head, text))
            number += 1
        self.number = number

    def skip(self, event: Event) -> None:
        """Go past an event whose frames nobody wants."""
        if type(event) is TextDelta:
            self.number += 1
        else:
            self.feed(event, [])

    def ending(self, event: Terminal) -> bytes:
        """The response with which the turn ends, as JSON."""
        output = [
            self._done.get(item.id)
            or self._held(item, b"completed" if item.complete else b"incomplete", self.number)
            for item in event.output
        ]
        return self._response(
            self.number,
            _STATUSES[type(event)],
            error=encode(_error(event.error)) if isinstance(event, TurnFailed) else NULL,
            completed_at=b"%d" % event.at,
            output=_list(output),
            usage=_usage(event.usage),
        )

    def snapshot(self, open_items: Iterable[Item]) -> bytes:
        """The response of a turn that runs, as JSON, with the last frame's number. `open_items`: what they hold."""
        last = self.number - 1
        output = [*self._done.values(), *(self._held(item, b"in_progress", last) for item in open_items)]
        return self._response(last if self.number else None, b"in_progress", output=_list(output))

    # -- the turn ------------------------------------------------------------------------------------------------------

    def _response(
        self,
        number: int | None,
        status: bytes,
        *,
        error: bytes = NULL,
        completed_at: bytes = NULL,
        output: bytes = NULL,
        usage: bytes = NULL,
    ) -> bytes:
        turn_id, created_at, session_id = self._labels
        place = NULL if number is None else b"%d" % number
        return RESPONSE % (place, status, error, turn_id, created_at, completed_at, output, usage, session_id)

    def _accepted(self, _: TurnAccepted, frames: list[bytes]) -> None:
        frames.append(ACCEPTED % (self.number, *self._labels))
        self.number += 1

    def _started(self, _: TurnStarted, frames: list[bytes]) -> None:
        frames.append(STARTED % (self.number, *self._labels))
        self.number += 1

    def _ended(self, event: Terminal, frames: list[bytes]) -> None:
        self._add(self.ending(event), frames)
        frames.append(DONE)
        self.number += 1
        self._items.clear()
        self._done.clear()

    def _add(self, line: bytes, frames: list[bytes]) -> None:
        frames.append(FRAME % line)
        self.number += 1

    # -- items ---------------------------------------------------------------------------------------------------------

    def _open(self, event: ItemStarted, frames: list[bytes]) -> None:
        call = NO_CALL
        if event.kind == "tool_call" or event.kind == "tool_output":
            call = ToolCall(event.call_id or "", event.name or "", "", event.server_label)
        item = OpenItem.of(event.item, message_type(event.kind, event.server_label), event.role, call)
        self._items[event.item] = item
        frames.append(OPENED % (self.number, *item.labels))
        self.number += 1
        if event.kind == "tool_call":
            empty = _content(0, b"in_progress", event.item, 0, call)
            item.head = empty[_NUMBER : -len(b'"}}')]
            self._add_arguments(item, frames)

    def _close(self, event: ItemDone, frames: list[bytes]) -> None:
        item = self._items.pop(event.item)
        line = _message(self.number, b"completed", item, item.parts, event.done)
        self._done[event.item] = line
        self._add(line, frames)

    def _held(self, item: Item, status: bytes, number: int) -> bytes:
        """An item that is not done, as a message: its done parts as they went out, and what there is of the next."""
        opened = self._items.get(item.id) or _opened(item)
        parts = opened.parts.copy()
        for index in range(len(parts), len(item.parts)):
            parts.append(_content(number, status, item.id, index, item.parts[index]))
        return _message(number, status, opened, parts, item)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _turn_to(self, item: str, part: int) -> bytes:
        self._item, self._part = item, part
        self._head = DELTA_HEAD % (part, self._items[item].labels[0])
        return self._head

    def _arguments(self, event: ArgumentsDelta, frames: list[bytes]) -> None:
        item = self._items[event.item]
        item.arguments += encode(event.text)[1:-1]
        grown = len(item.arguments) - item.sent
        if len(item.arguments) <= SNAPSHOT_BYTES or grown >= item.sent >> 4:
            self._add_arguments(item, frames)

    def _add_arguments(self, item: OpenItem, frames: list[bytes]) -> None:
        item.sent = len(item.arguments)
        frames.append(
            b'data: {"sequence_number":%d%b%b"}}\n\n' % (self.number, item.head, bytes(item.arguments))
        )
        self.number += 1

    def _progress(self, event: ToolProgress, frames: list[bytes]) -> None:
        call = self._items[event.item].call
        so_far = ToolOutput(call.call_id, call.name, event.output, call.server_label)
        self._add(_content(self.number, b"in_progress", event.item, 0, so_far), frames)

    def _part_done(self, event: PartDone, frames: list[bytes]) -> None:
        item, part = self._items[event.item], event.content
        if type(part) is Text:
            line = TEXT % (self.number, b"completed", event.part, NULL, item.labels[0], encode(part.text))
        else:
            line = _content(self.number, b"completed", event.item, event.part, part)
        item.parts.append(line)
        self._add(line, frames)


_WRITERS: dict[type, Callable[[ProcessEncoder, Any, list[bytes]], None]] = {
    TurnAccepted: ProcessEncoder._accepted,
    TurnStarted: ProcessEncoder._started,
    ItemStarted: ProcessEncoder._open,
    ArgumentsDelta: ProcessEncoder._arguments,
    ToolProgress: ProcessEncoder._progress,
    PartDone: ProcessEncoder._part_done,
    ItemDone: ProcessEncoder._close,
    TurnCompleted: ProcessEncoder._ended,
    TurnFailed: ProcessEncoder._ended,
    TurnCancelled: ProcessEncoder._ended,
}
_STATUSES: dict[type, bytes] = {
    TurnCompleted: b"completed",
    TurnFailed: b"failed",
    TurnCancelled: b"canceled",
}


# -- the wire's objects from ours ----------------------------------------------------------------------------


def message_type(kind: ItemKind, server_label: str | None) -> str:
    """The wire's word for an item: a tool is a plugin, unless an MCP server has it."""
    if kind == "message" or kind == "reasoning":
        return kind
    owner = "plugin" if server_label is None else "mcp"
    return f"{owner}_call" if kind == "tool_call" else f"{owner}_call_output"


def _opened(item: Item) -> OpenItem:
    call = next((part for part in item.parts if isinstance(part, ToolCall | ToolOutput)), None)
    label = call.server_label if call else None
    return OpenItem.of(item.id, message_type(item.kind, label), item.role)


def _list(lines: list[bytes]) -> bytes:
    return b"[%b]" % b",".join(lines)


def _message(
    number: int, status: bytes, item: OpenItem, parts: list[bytes], said: Item | None = None
) -> bytes:
    content = _list(parts)
    if said is None:
        return MESSAGE % (number, status, *item.labels, content, NULL, NULL)
    metadata = NULL if said.metadata is None else encode(said.metadata)
    return MESSAGE % (number, status, *item.labels, content, _usage(said.usage), metadata)


def _content(number: int, status: bytes, item: str, index: int, part: Part) -> bytes:
    if type(part) is Text:
        return TEXT % (number, status, index, NULL, encode(item), encode(part.text))
    fields: dict[str, Any]
    if isinstance(part, ToolCall | ToolOutput):
        kind, fields, delta = "data", {"data": _tool_data(part)}, False
    else:
        kind, fields, delta = str(part.__struct_config__.tag), asdict(part), None
    return encode(
        wire.CONTENTS[kind](
            sequence_number=number,
            status=cast("wire.Status", status.decode()),
            type=kind,
            index=index,
            delta=delta,
            msg_id=item,
            **fields,
        )
    )


def _tool_data(part: ToolCall | ToolOutput) -> dict[str, str]:
    data = {"call_id": part.call_id, "name": part.name}
    if part.server_label is not None:
        data["server_label"] = part.server_label
    if isinstance(part, ToolCall):
        data["arguments"] = part.arguments  # last: snapshots of growing arguments are cut to end here
    else:
        data["output"] = encode(blocks(part.output)).decode()
    return data


def _error(error: ErrorInfo) -> wire.WireError:
    return wire.WireError(error.code, error.message, error.id, UNSET if error.field is None else error.field)


def _usage(usage: Usage | None) -> bytes:
    if usage is None:
        return NULL
    return encode(
        wire.WireUsage(
            usage.input_tokens,
            usage.output_tokens,
            usage.input_tokens + usage.output_tokens,
            wire.InputTokens(usage.cached_tokens),
            wire.OutputTokens(usage.reasoning_tokens),
        )
    )
