"""The frames of a turn that has ended and was like nearly all: one message, one text.

What `ResponsesEncoder` would write event by event, from one look at the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

from greenroom.actors.events import Event
from greenroom.transports import responses_templates as t
from greenroom.transports.process_usual import OPEN, UsualTurn, cut, json_texts, numbers_to, usual_turn
from greenroom.transports.responses_object import NONE, ResponseShape
from greenroom.transports.responses_open import COMPLETED, IN_PROGRESS, MESSAGE, wire_name
from greenroom.transports.sse import DONE

BEFORE, AFTER = 4, 4
"""Frames before the deltas and after them."""

_join = b"".join
_B0, _B1 = cut(t.RESPONSE["created"], 0, OPEN)
_P0, _P1 = cut(t.RESPONSE["in_progress"], 1, OPEN)
_I0, _I1 = cut(t.ITEM_ADDED, 2, 0, t.MESSAGE % (OPEN, IN_PROGRESS, NONE))
_A0, _A1 = cut(t.PART_ADDED, 3, OPEN, 0, 0, MESSAGE.empty)
_D0, _D1, _D2, _D3 = cut(t.TEXT_DELTA % (OPEN, 0, 0), OPEN, OPEN)
_T0, _T1, _T2, _T3 = cut(t.TEXT_DONE, OPEN, OPEN, 0, 0, OPEN)
_X0, _X1, _X2, _X3 = cut(t.PART_DONE, OPEN, OPEN, 0, 0, t.OUTPUT_TEXT % OPEN)
_M0, _M1, _M2 = cut(t.MESSAGE, OPEN, COMPLETED, b"[%b]" % (t.OUTPUT_TEXT % OPEN))
_E0, _E1, _E2 = cut(t.ITEM_DONE, OPEN, 0, OPEN)
_R0, _R1, _R2 = cut(t.RESPONSE["completed"], OPEN, OPEN)


def usual_frames(shape: ResponseShape, events: Sequence[Event]) -> list[bytes] | None:
    """All frames of the turn; none when it was another kind of turn, or said what is not easily said in JSON."""
    usual = usual_turn(events)
    if usual is None:
        return None
    _, _, deltas, ended = usual
    if not deltas or ended.incomplete is not None or shape.echo.background:
        return None
    try:
        return _frames(shape, usual)
    except UnicodeEncodeError:
        return None


def _frames(shape: ResponseShape, usual: UsualTurn) -> list[bytes]:
    said, whole, pieces, ended = usual
    item, text, *deltas = json_texts([wire_name(MESSAGE.prefix, said.id), whole.text, *pieces])
    begun = shape.line(IN_PROGRESS)
    message = _join((_M0, item, _M1, text, _M2))
    last = BEFORE + len(deltas)
    numbers = numbers_to(last + AFTER)
    after = _join((_D1, item, _D2))
    return [
        _join((_B0, begun, _B1)),
        _join((_P0, begun, _P1)),
        _join((_I0, item, _I1)),
        _join((_A0, item, _A1)),
        *map(_join, zip(repeat(_D0), numbers[BEFORE:last], repeat(after), deltas, repeat(_D3), strict=False)),
        _join((_T0, numbers[last], _T1, item, _T2, text, _T3)),
        _join((_X0, numbers[last + 1], _X1, item, _X2, text, _X3)),
        _join((_E0, numbers[last + 2], _E1, message, _E2)),
        _join((_R0, numbers[last + 3], _R1, shape.ended(ended, b"[%b]" % message), _R2)),
        DONE,
    ]
