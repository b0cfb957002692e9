"""The wire's objects that every turn writes, as templates for `%`.

Filling a template costs a third of making a struct and encoding it, and `process_wire` stays the one place that says
which fields there are and in what order: a template is a struct's own encoding, with holes where the values were.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw
from msgspec.json import Encoder

from greenroom.transports import process_wire as wire

_encode = Encoder().encode
_INTEGER: Any = Raw(b"%d")
_WORD: Any = Raw(b'"%b"')  # of the protocol's own: nothing in it needs escaping
_JSON: Any = Raw(b"%b")

NULL = b"null"
"""What goes into a JSON hole that has no value."""


FRAME = b"data: %b\n\n"
DELTA = b'data: {"sequence_number":%d%b%b}\n\n'
"""A delta's number, its head and its text."""


def _frame(line: wire.WireObject) -> bytes:
    return FRAME % _encode(line)


ACCEPTED = _frame(
    wire.Response(sequence_number=_INTEGER, status="created", id=_JSON, created_at=_INTEGER, session_id=_JSON)
)
STARTED = _frame(
    wire.Response(
        sequence_number=_INTEGER, status="in_progress", id=_JSON, created_at=_INTEGER, session_id=_JSON
    )
)
OPENED = _frame(
    wire.Message(sequence_number=_INTEGER, status="in_progress", id=_JSON, type=_JSON, role=_JSON)
)
"""These three are whole frames; what follows are lines, which also nest."""
DELTA_HEAD = _encode(
    wire.TextContent(
        sequence_number=0,
        status="in_progress",
        type="text",
        index=_INTEGER,
        delta=True,
        msg_id=_JSON,
        text="",
    )
)[len(b'{"sequence_number":0') : -len(b'""}')]
"""What stands between a delta's number and its text."""
RESPONSE = _encode(
    wire.Response(
        sequence_number=_JSON,
        status=_WORD,
        error=_JSON,
        id=_JSON,
        created_at=_INTEGER,
        completed_at=_JSON,
        output=_JSON,
        usage=_JSON,
        session_id=_JSON,
    )
)
MESSAGE = _encode(
    wire.Message(
        sequence_number=_INTEGER,
        status=_WORD,
        id=_JSON,
        type=_JSON,
        role=_JSON,
        content=_JSON,
        usage=_JSON,
        metadata=_JSON,
    )
)
TEXT = _encode(
    wire.TextContent(
        sequence_number=_INTEGER,
        status=_WORD,
        type="text",
        index=_INTEGER,
        delta=_JSON,
        msg_id=_JSON,
        text=_JSON,
    )
)
