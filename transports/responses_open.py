"""Items of a Responses stream while they are open: each writes its frames, and its line when it is done.

Rule: no I/O. Lines and parts are JSON whose bytes go, once made, into every frame that repeats them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

from greenroom.transports import responses_templates as t
from greenroom.transports.json_text import encode

EMPTY = b'""'
NO_ARGUMENTS = b'"{}"'
"""What a call without arguments is told with: clients read arguments as JSON, which nothing is not."""
NULL = b"null"

IN_PROGRESS, COMPLETED, INCOMPLETE, FAILED = b"in_progress", b"completed", b"incomplete", b"failed"


class Sink(Protocol):
    """Where frames go. It numbers them."""

    def add(self, template: bytes, *holes: Any) -> None:
        """A frame: `holes` are those of the template after the number."""
        ...


def wire_name(prefix: str, item: str) -> str:
    """An item's id as its kind has it, from our own: `msg_…`, `rs_…`, `fc_…`, `mcp_…`."""
    return f"{prefix}_{item.removeprefix('msg_').replace('-', '')}"


def wire_id(prefix: str, item: str) -> bytes:
    """The same as JSON."""
    return encode(wire_name(prefix, item))


def json_list(lines: list[bytes]) -> bytes:
    """A JSON list of what is JSON already."""
    return b"[%b]" % b",".join(lines)


class Form(NamedTuple):
    """The templates of messages, or of reasoning."""

    prefix: str
    part_added: bytes
    delta: bytes
    text_done: bytes
    part_done: bytes
    part: bytes
    empty: bytes


MESSAGE = Form(
    "msg", t.PART_ADDED, t.TEXT_DELTA, t.TEXT_DONE, t.PART_DONE, t.OUTPUT_TEXT, t.OUTPUT_TEXT % EMPTY
)
REASONING = Form(
    "rs",
    t.SUMMARY_ADDED,
    t.SUMMARY_DELTA,
    t.SUMMARY_TEXT_DONE,
    t.SUMMARY_DONE,
    t.SUMMARY_TEXT,
    t.SUMMARY_TEXT % EMPTY,
)


class OpenText:
    """A message or reasoning. `seal`: makes, of the JSON of reasoning's parts, its `encrypted_content`; none: it has
    none."""

    __slots__ = ("form", "id", "index", "part_open", "parts", "seal", "status")

    def __init__(
        self, form: Form, item: str, index: int, seal: Callable[[bytes], bytes] | None = None
    ) -> None:
        self.form = form
        self.seal = seal
        self.id = wire_id(form.prefix, item)
        self.index = index
        self.parts: list[bytes] = []
        self.part_open = False
        self.status = COMPLETED

    def start(self, sink: Sink) -> None:
        """Say that there is an item."""
        sink.add(t.ITEM_ADDED, self.index, self._line(IN_PROGRESS))

    def grow(self, sink: Sink) -> bytes:
        """Open the next part, unless it is; gives the template of its deltas' frames, of a number and text."""
        if not self.part_open:
            self.part_open = True
            sink.add(self.form.part_added, self.id, self.index, len(self.parts), self.form.empty)
        return self.form.delta % (self.id.replace(b"%", b"%%"), self.index, len(self.parts))

    def text(self, sink: Sink, text: bytes) -> None:
        """The part is complete; this is all of it."""
        form = self.form
        if not self.part_open:
            sink.add(self.grow(sink), text)
        part = form.part % text
        item, index, number = self.id, self.index, len(self.parts)
        sink.add(form.text_done, item, index, number, text)
        sink.add(form.part_done, item, index, number, part)
        self.parts.append(part)
        self.part_open = False

    def refusal(self, sink: Sink, text: bytes) -> None:
        """A part of a message that declines."""
        part = t.REFUSAL % text
        place = (self.id, self.index, len(self.parts))
        sink.add(t.PART_ADDED, *place, t.REFUSAL % EMPTY)
        sink.add(t.REFUSAL_DELTA, *place, text)
        sink.add(t.REFUSAL_DONE, *place, text)
        sink.add(t.PART_DONE, *place, part)
        self.parts.append(part)

    def close(self, sink: Sink) -> bytes:
        """The item is done. A message has a part, if an empty one: clients look at the first."""
        if self.part_open or (self.form is MESSAGE and not self.parts):
            self.text(sink, EMPTY)
        line = self._line(self.status)
        sink.add(t.ITEM_DONE, self.index, line)
        return line

    def _line(self, status: bytes) -> bytes:
        if self.form is MESSAGE:
            return t.MESSAGE % (self.id, status, json_list(self.parts))
        parts = json_list(self.parts)
        if self.seal is None or status == IN_PROGRESS:
            return t.REASONING % (self.id, parts, status)
        return t.SEALED_REASONING % (self.id, parts, self.seal(parts), status)


class OpenCall:
    """A call of a tool. `label`: of the server that runs it and tells its output; none: it is a `function_call`."""

    __slots__ = ("arguments", "call_id", "growing", "id", "index", "label", "name", "output", "status")

    def __init__(self, item: str, index: int, call_id: str, name: str, label: str | None) -> None:
        self.id = wire_id("fc" if label is None else "mcp", item)
        self.index = index
        self.call_id = encode(call_id)
        self.name = encode(name)
        self.label = None if label is None else encode(label)
        self.growing = False
        self.arguments: bytes | None = None
        """Once they are complete."""
        self.output = NULL
        self.status = COMPLETED
        """What becomes of it unless the turn's end cuts it off."""

    def start(self, sink: Sink) -> None:
        """Say that there is a call."""
        sink.add(t.ITEM_ADDED, self.index, self._line(IN_PROGRESS, EMPTY))
        if self.label is not None:
            sink.add(t.MCP_IN_PROGRESS, self.id, self.index)

    def grow(self, sink: Sink, text: str) -> None:
        """More of the arguments."""
        self.growing = True
        sink.add(self._delta, self.id, self.index, encode(text))

    def done(self, sink: Sink, arguments: str) -> None:
        """The arguments are complete; these are all of them."""
        text = self.arguments = encode(arguments) if arguments else NO_ARGUMENTS
        if not self.growing:
            sink.add(self._delta, self.id, self.index, text)
        if self.label is None:
            sink.add(t.FUNCTION_DONE, self.id, self.index, text, self.name)
        else:
            sink.add(t.MCP_DONE, self.id, self.index, text)

    def close(self, sink: Sink) -> bytes:
        """The call is over. A status other than completed says that it did not go well."""
        if self.arguments is None:
            self.done(sink, "")
        if self.label is not None:
            ended = t.MCP_COMPLETED if self.status == COMPLETED else t.MCP_FAILED
            sink.add(ended, self.id, self.index)
        line = self._line(self.status, self.arguments or NO_ARGUMENTS)
        sink.add(t.ITEM_DONE, self.index, line)
        return line

    @property
    def _delta(self) -> bytes:
        return t.FUNCTION_DELTA if self.label is None else t.MCP_DELTA

    def _line(self, status: bytes, arguments: bytes) -> bytes:
        if self.label is None:
            return t.FUNCTION_CALL % (self.id, self.call_id, self.name, arguments, status)
        return t.MCP_CALL % (self.id, self.label, self.name, arguments, self.output, status)


class OpenOutput:
    """A tool's output that is an item of its own."""

    __slots__ = ("_call_id", "id", "index", "output", "status")

    def __init__(self, item: str, index: int, call_id: str) -> None:
        self.id = wire_id("fco", item)
        self.index = index
        self._call_id = encode(call_id)
        self.output = EMPTY
        self.status = COMPLETED

    def start(self, sink: Sink) -> None:
        """Say that there is an output."""
        sink.add(t.ITEM_ADDED, self.index, self._line(IN_PROGRESS))

    def close(self, sink: Sink) -> bytes:
        """It is all there. There are no events for less."""
        line = self._line(self.status)
        sink.add(t.ITEM_DONE, self.index, line)
        return line

    def _line(self, status: bytes) -> bytes:
        return t.FUNCTION_CALL_OUTPUT % (self.id, self._call_id, self.output, status)


OpenItem: TypeAlias = OpenText | OpenCall | OpenOutput
