"""Filling the open items of a Responses stream: what a part, an output and the turn's end make of them.

Rule: no I/O; each frame is the item's own to write.
"""

from __future__ import annotations

from greenroom.actors.drafts import NOT_CALLED, OUTCOME_UNKNOWN
from greenroom.actors.events import Item, Part
from greenroom.actors.messages import Refusal, Text, ToolCall, ToolOutput
from greenroom.transports.json_text import encode
from greenroom.transports.responses_open import (
    COMPLETED,
    FAILED,
    INCOMPLETE,
    MESSAGE,
    OpenCall,
    OpenItem,
    OpenOutput,
    OpenText,
    Sink,
)
from greenroom.transports.responses_text import answer_text, output_text

_UNKNOWN_OUTCOMES = (Text(OUTCOME_UNKNOWN), Text(NOT_CALLED))


def write_part(sink: Sink, item: OpenItem, part: Part) -> None:
    """A part of the item is complete."""
    if type(part) is Text and type(item) is OpenText:
        item.text(sink, encode(part.text))
    elif isinstance(part, ToolCall):
        assert isinstance(item, OpenCall), "a call has an item of its own"
        item.done(sink, part.arguments)
    elif isinstance(part, ToolOutput):
        assert isinstance(item, OpenCall | OpenOutput), "an output is a call's, or has an item of its own"
        item.output = encode(output_text(part.output))
    else:
        assert isinstance(item, OpenText), "content has an item of its own"
        if isinstance(part, Refusal) and item.form is MESSAGE and not item.part_open:
            item.refusal(sink, encode(part.refusal))
        else:
            item.text(sink, encode(answer_text(part)))


def write_rest(sink: Sink, item: OpenItem, kept: Item | None) -> None:
    """The turn's end found the item open: write what it has not been told of what is `kept` of it."""
    parts = kept.parts if kept is not None else ()
    if isinstance(item, OpenText):
        parts = parts[len(item.parts) :]
    elif isinstance(item, OpenCall) and item.arguments is not None:
        parts = ()
    for part in parts:
        write_part(sink, item, part)


def tell_outcome(item: OpenItem, output: Item) -> None:
    """Its status is how the tool did, as far as its framework says. An output with an item of its own says in words
    that it did not do well."""
    last = output.parts[-1] if output.parts else None
    if (output.metadata or {}).get("state", "success") != "success":
        item.status = COMPLETED if isinstance(item, OpenOutput) else FAILED
    elif isinstance(last, ToolOutput) and last.output and last.output[-1] in _UNKNOWN_OUTCOMES:
        item.status = INCOMPLETE
    else:
        item.status = COMPLETED
