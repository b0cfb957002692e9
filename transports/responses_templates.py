"""The wire's objects and frames that turns write, as templates for `%`.

Filling a template costs a third of making a struct and encoding it, and `responses_wire` stays the one place that says
which fields there are and in what order: a template is a struct's own encoding, with holes where the values were. All
holes take bytes but those of numbers and indices, which take integers.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct
from msgspec.json import Encoder

from greenroom.transports import responses_wire as wire

_encode = Encoder().encode
_INDEX: Any = Raw(b"%d")
_LATER: Any = {"number": Raw(b"%%d"), "text": Raw(b"%%b")}  # holes once the others are filled
_WORD: Any = Raw(b'"%b"')  # of the protocol's own: nothing in it needs escaping
_JSON: Any = Raw(b"%b")

# -- items and their parts -----------------------------------------------------------------------------------------

OUTPUT_TEXT = _encode(wire.OutputText(_JSON))
REFUSAL = _encode(wire.RefusalText(_JSON))
SUMMARY_TEXT = _encode(wire.SummaryText(_JSON))

MESSAGE = _encode(wire.MessageItem(id=_JSON, status=_WORD, content=_JSON))
"""Of id, status, content."""
REASONING = _encode(wire.ReasoningItem(id=_JSON, summary=_JSON, status=_WORD))
"""Of id, summary, status."""
SEALED_REASONING = _encode(wire.ReasoningItem(id=_JSON, summary=_JSON, encrypted_content=_JSON, status=_WORD))
"""Of id, summary, encrypted content, status."""
FUNCTION_CALL = _encode(
    wire.FunctionCallItem(id=_JSON, call_id=_JSON, name=_JSON, arguments=_JSON, status=_WORD)
)
"""Of id, call id, name, arguments, status."""
FUNCTION_CALL_OUTPUT = _encode(
    wire.FunctionCallOutputItem(id=_JSON, call_id=_JSON, output=_JSON, status=_WORD)
)
"""Of id, call id, output, status."""
MCP_CALL = _encode(
    wire.McpCallItem(id=_JSON, server_label=_JSON, name=_JSON, arguments=_JSON, output=_JSON, status=_WORD)
)
"""Of id, label, name, arguments, output, status."""

# -- frames --------------------------------------------------------------------------------------------------------


def _frame(kind: type[Struct], type_: str, number: Any = _INDEX, **holes: Any) -> bytes:
    event = kind(type=type_, sequence_number=number, **holes)
    return b"event: %b\ndata: %b\n\n" % (type_.encode(), _encode(event))


def _of_item(kind: type[Struct], type_: str, **holes: Any) -> bytes:
    return _frame(kind, type_, item_id=_JSON, output_index=_INDEX, **holes)


RESPONSE = {
    word: _frame(wire.ResponseEvent, f"response.{word}", response=_JSON)
    for word in ("created", "queued", "in_progress", "completed", "failed", "incomplete")
}
"""Each of number, response."""
ITEM_ADDED, ITEM_DONE = (
    _frame(wire.ItemEvent, f"response.output_item.{word}", output_index=_INDEX, item=_JSON)
    for word in ("added", "done")
)
PART_ADDED, PART_DONE = (
    _of_item(wire.PartEvent, f"response.content_part.{word}", content_index=_INDEX, part=_JSON)
    for word in ("added", "done")
)
TEXT_DELTA = _of_item(
    wire.TextDelta,
    "response.output_text.delta",
    content_index=_INDEX,
    number=_LATER["number"],
    delta=_LATER["text"],
)
"""Of item id, index, part: gives a template, of number and text."""
TEXT_DONE = _of_item(wire.TextDone, "response.output_text.done", content_index=_INDEX, text=_JSON)
REFUSAL_DELTA = _of_item(wire.RefusalDelta, "response.refusal.delta", content_index=_INDEX, delta=_JSON)
REFUSAL_DONE = _of_item(wire.RefusalDone, "response.refusal.done", content_index=_INDEX, refusal=_JSON)
SUMMARY_ADDED, SUMMARY_DONE = (
    _of_item(
        wire.SummaryPartEvent, f"response.reasoning_summary_part.{word}", summary_index=_INDEX, part=_JSON
    )
    for word in ("added", "done")
)
SUMMARY_DELTA = _of_item(
    wire.SummaryDelta,
    "response.reasoning_summary_text.delta",
    summary_index=_INDEX,
    number=_LATER["number"],
    delta=_LATER["text"],
)
"""As `TEXT_DELTA`."""
SUMMARY_TEXT_DONE = _of_item(
    wire.SummaryDone, "response.reasoning_summary_text.done", summary_index=_INDEX, text=_JSON
)
FUNCTION_DELTA = _of_item(wire.ArgumentsDelta, "response.function_call_arguments.delta", delta=_JSON)
FUNCTION_DONE = _of_item(
    wire.ArgumentsDone, "response.function_call_arguments.done", arguments=_JSON, name=_JSON
)
MCP_DELTA = _of_item(wire.ArgumentsDelta, "response.mcp_call_arguments.delta", delta=_JSON)
MCP_DONE = _of_item(wire.ArgumentsDone, "response.mcp_call_arguments.done", arguments=_JSON)
MCP_IN_PROGRESS, MCP_COMPLETED, MCP_FAILED = (
    _of_item(wire.ItemProgress, f"response.mcp_call.{word}")
    for word in ("in_progress", "completed", "failed")
)
