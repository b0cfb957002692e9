"""What the head of a session's folder says: how much there is of it, and which of its turns are open.

The folder of a session (kind `session`) has these sections:

| section | number | value |
|---|---|---|
| `turn` | the commit's | the turn's record (`compact.encode_turn`) |
| `state` | 0 | the state after the newest turn; none while there was no state |
| `earlier` | the commit's | the state after it, for those before the newest (`earlier_states.shortened`) |
| `entry` | the turn's | the turn as it was accepted (`turn_codec`) |
| `log` | the turn's * 4096 + the chunk's | some of its events |
| `ended` | the turn's | what is to be dropped with it, of a turn that has ended (`EndedTurn`) |

Commits are numbered from 1, and so are turns, each by its own count: a turn that is not kept, or is still open, has an
entry and no record. Folders hold such bytes: a field may be added at the end, with a default, but none moved or taken
away.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct, msgpack

from greenroom.actors.messages import SessionKey
from greenroom.services.durable import InLine
from greenroom.services.storage import FolderKey, Span

KIND: Final = "session"
TURN: Final = "turn"
STATE: Final = "state"
EARLIER: Final = "earlier"
ENTRY: Final = "entry"
LOG: Final = "log"
ENDED: Final = "ended"

CHUNKS: Final = 4096
"""Of a turn's log, at most."""


class OpenTurn(Struct, frozen=True, array_like=True):
    """A turn that has not ended. `attempts`, `taken_at`: as `TurnEntry` says. `mark`: of its acceptance, which no
    other has. `followed`: somebody follows it in another process, and nothing will be kept of it:
    its ending is to be left where he finds it. `size`: bytes of its entry, 0 where that was not noted. `cancelled`: why
    it is to be cancelled, by whoever has it; none: it is not.

    A process of an older version, while processes are replaced, drops the fields that it does not know with each write
    to the session. Of `cancelled` that costs no more than that version: the turn's owner is asked as well, until the
    turn has ended, and who asks marks it again.
    """

    number: int
    turn_id: str
    principal: str | None
    running: bool
    attempts: int
    mark: str = ""
    taken_at: int | None = None
    followed: bool = False
    size: int = 0
    cancelled: str | None = None


class SessionHead(Struct, frozen=True, array_like=True):
    """A session's counts, and its open turns in their order.

    `commits`: the number of the newest turn's record, 0 for none. `oldest_turn`, `oldest_state`: the first commit whose
    record, or the state after it, is kept; the next commit's number when none is. `size`: bytes of the records and
    states that are kept. `next_entry`: the number of the turn that is accepted next. `oldest_entry`: no turn before it
    has an entry, open or ended. `ended_size`: bytes of the entries and logs of ended turns that are kept.
    """

    commits: int = 0
    oldest_turn: int = 1
    oldest_state: int = 1
    size: int = 0
    next_entry: int = 1
    open: tuple[OpenTurn, ...] = ()
    oldest_entry: int = 1
    ended_size: int = 0


class EndedTurn(Struct, frozen=True, array_like=True):
    """What is kept of an ended turn besides its record. `size`: bytes of its entry and log. `chunks`: of its log.
    `names`: those that lead to it. `taken_at`: as `TurnEntry` says."""

    size: int
    chunks: int
    names: tuple[bytes, ...]
    taken_at: int | None = None


def new_mark(owner: str, count: int) -> str:
    """What marks an acceptance by a process, which has counted so many."""
    return f"{owner}-{count}"


def is_marked(mark: str, owner: str) -> bool:
    """Whether that process made the mark, under that name."""
    return mark.rpartition("-")[0] == owner


def in_line(opened: OpenTurn) -> InLine:
    """An open turn, for who is told what there is in the session's line."""
    return InLine(opened.turn_id, opened.principal, opened.size)


_encoder = msgpack.Encoder()
_head_decoder = msgpack.Decoder(SessionHead)
_ended_decoder = msgpack.Decoder(EndedTurn)


def encode_head(head: SessionHead) -> bytes:
    """The head as it is written."""
    return _encoder.encode(head)


def decode_head(body: bytes) -> SessionHead:
    """A head as it was written."""
    return _head_decoder.decode(body)


def encode_ended(ended: EndedTurn) -> bytes:
    """What is kept of an ended turn, as it is written."""
    return _encoder.encode(ended)


def decode_ended(raw: bytes) -> EndedTurn:
    """The same as it was written."""
    return _ended_decoder.decode(raw)


def folder_of(key: SessionKey) -> FolderKey:
    """The session's folder."""
    user_id, session_id = key
    return FolderKey(KIND, user_id, session_id)


def log_span(number: int) -> Span:
    """Where the log of a turn lies."""
    return Span(LOG, number * CHUNKS, number * CHUNKS + CHUNKS - 1)
