"""The frames of a turn that has ended and was like nearly all: one message, one text.

What `ResponsesEncoder` would write event by event, from one look at the whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.json import Encoder

from greenroom.actors.events import Event
from greenroom.transports import responses_templates as t
from greenroom.transports.process_usual import UsualTurn, usual_turn
from greenroom.transports.responses_object import NONE, ResponseShape
from greenroom.transports.responses_open import COMPLETED, IN_PROGRESS, MESSAGE, wire_id
from greenroom.transports.sse import DONE

BEFORE = 4
"""Frames before the deltas."""

_encode = Encoder().encode


def usual_frames(shape: ResponseShape, events: Sequence[Event]) -> list[bytes] | None:
    """All frames of the turn; none when it was another kind of turn, or said what is not easily said in JSON."""
    usual = usual_turn(events)
    if usual is None or not usual.deltas or usual.ended.incomplete is not None or shape.echo.background:
        return None
    try:
        return _frames(shape, usual)
    except (TypeError, ValueError):  # half a surrogate pair: it takes mending, which is not done here
        return None


def _frames(shape: ResponseShape, usual: UsualTurn) -> list[bytes]:
    item, text = wire_id(MESSAGE.prefix, usual.opened.item), _encode(usual.text.text)
    begun, part = shape.line(IN_PROGRESS), t.OUTPUT_TEXT % text
    message = t.MESSAGE % (item, COMPLETED, b"[%b]" % part)
    delta = t.TEXT_DELTA % (item.replace(b"%", b"%%"), 0, 0)
    after = BEFORE + len(usual.deltas)
    return [
        t.RESPONSE["created"] % (0, begun),
        t.RESPONSE["in_progress"] % (1, begun),
        t.ITEM_ADDED % (2, 0, t.MESSAGE % (item, IN_PROGRESS, NONE)),
        t.PART_ADDED % (3, item, 0, 0, MESSAGE.empty),
        *[delta % (number, _encode(said.text)) for number, said in enumerate(usual.deltas, BEFORE)],  # type: ignore[union-attr]
        t.TEXT_DONE % (after, item, 0, 0, text),
        t.PART_DONE % (after + 1, item, 0, 0, part),
        t.ITEM_DONE % (after + 2, 0, message),
        t.RESPONSE["completed"] % (after + 3, shape.ended(usual.ended, b"[%b]" % message)),
        DONE,
    ]
