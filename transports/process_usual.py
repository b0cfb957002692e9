"""The frames of a turn that has ended and was like nearly all: one message, one text.

What `ProcessEncoder` would write event by event, from one look at the whole: it spares a tenth of a short turn's time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import TypeAlias

from msgspec.json import Encoder

from greenroom.actors.events import Event, Item, TurnCompleted
from greenroom.actors.messages import Text, Turn
from greenroom.transports.process_templates import (
    ACCEPTED,
    DELTA,
    DELTA_HEAD,
    MESSAGE,
    NULL,
    OPENED,
    RESPONSE,
    STARTED,
    TEXT,
)
from greenroom.transports.sse import DONE

BEFORE, AFTER = 3, 3
"""Events before the deltas (accepted, started, item started) and after them (part done, item done, completed)."""
NUMBERS = [b"%d" % number for number in range(1024)]
"""As they are written: those of nearly all frames."""

_encode_lines = Encoder().encode_lines
_join = b"".join

UsualTurn: TypeAlias = tuple[Item, Text, list[str], TurnCompleted]
"""What there is to a turn that was like nearly all: its message, the text of that, its deltas and the turn's ending."""


def usual_turn(events: Sequence[Event]) -> UsualTurn | None:
    """The turn; none when it was of another kind.

    Whatever was said is in the ending's output, and how a turn's events follow one another is law: one message of one
    text, complete, can only have come by deltas.
    """
    ended = events[-1] if events else None
    if type(ended) is not TurnCompleted or ended.usage is not None or len(ended.output) != 1:
        return None
    item = ended.output[0]
    if item.kind != "message" or item.usage is not None or item.metadata is not None or len(item.parts) != 1:
        return None
    text = item.parts[0]
    if type(text) is not Text:
        return None
    return item, text, [delta.text for delta in events[BEFORE:-AFTER]], ended  # type: ignore[union-attr]


def json_texts(texts: list[str]) -> list[bytes]:
    """Each as JSON. Raises `UnicodeEncodeError` for half a surrogate pair, which takes mending."""
    return _encode_lines(texts).splitlines()  # line ends within a text are escaped


def numbers_to(end: int) -> Sequence[bytes]:
    """The numbers from 0 on, at least to `end`, as they are written."""
    return NUMBERS if end <= len(NUMBERS) else [b"%d" % number for number in range(end)]


def cut(template: bytes, *values: bytes | int) -> list[bytes]:
    """What stands around those of a template's holes whose value is `OPEN`.

    Joining it with what goes between costs half of filling the template.
    """
    filled = tuple(value if isinstance(value, bytes) else b"%d" % value for value in values)
    return (template.replace(b"%d", b"%b") % filled).split(OPEN)


OPEN = b"\0"  # JSON has no such byte: text has it escaped
_LINE, _END = b"data: ", b"\n\n"
_KIND = b'"message"'
_A0, _A1, _A2, _A3 = cut(ACCEPTED, 0, OPEN, OPEN, OPEN)
_S0 = cut(STARTED, 1, OPEN, OPEN, OPEN)[0]
_O0, _O1, _O2 = cut(OPENED, 2, OPEN, _KIND, OPEN)
_H0, _H1 = cut(DELTA_HEAD, 0, OPEN)
_D0, _, _, _D3 = cut(DELTA, OPEN, OPEN, OPEN)
_T0, _T1, _T2, _T3 = cut(TEXT, OPEN, b"completed", 0, NULL, OPEN, OPEN)
_M0, _M1, _M2, _M3, _M4 = cut(MESSAGE, OPEN, b"completed", OPEN, _KIND, OPEN, b"[%b]" % OPEN, NULL, NULL)
_R0, _R1, _R2, _R3, _R4, _R5, _R6 = cut(
    RESPONSE, OPEN, b"completed", NULL, OPEN, OPEN, OPEN, b"[%b]" % OPEN, NULL, OPEN
)


def usual_frames(turn: Turn, events: Sequence[Event]) -> list[bytes] | None:
    """All frames of the turn; none when it was another kind of turn, or said what is not easily said in JSON."""
    usual = usual_turn(events)
    if usual is None:
        return None
    try:
        return _frames(turn, *usual)
    except UnicodeEncodeError:
        return None


def _frames(turn: Turn, said: Item, text: Text, pieces: list[str], ended: TurnCompleted) -> list[bytes]:
    turn_id, session_id, item, role, whole, *deltas = json_texts(
        [turn.id, turn.key.session_id, said.id, said.role, text.text, *pieces]
    )
    at, until = b"%d" % int(turn.created_at), b"%d" % int(ended.at)
    last = BEFORE + len(deltas)
    numbers = numbers_to(last + AFTER)
    part = _join((_T0, numbers[last], _T1, item, _T2, whole, _T3))
    message = _join((_M0, numbers[last + 1], _M1, item, _M2, role, _M3, part, _M4))
    response = _join(
        (_R0, numbers[last + 2], _R1, turn_id, _R2, at, _R3, until, _R4, message, _R5, session_id, _R6)
    )
    head = _join((_H0, item, _H1))
    labels = _join((turn_id, _A1, at, _A2, session_id, _A3))
    return [
        _A0 + labels,
        _S0 + labels,
        _join((_O0, item, _O1, role, _O2)),
        *map(_join, zip(repeat(_D0), numbers[BEFORE:last], repeat(head), deltas, repeat(_D3), strict=False)),
        _LINE + part + _END,
        _LINE + message + _END,
        _LINE + response + _END,
        DONE,
    ]
