"""What the folders of sessions say, read as history, as entries of turns, and as logs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from msgspec import DecodeError, Struct, msgpack
from msgspec.structs import replace

from greenroom.actors.errors import SessionDamaged
from greenroom.actors.events import Event
from greenroom.actors.messages import SessionKey
from greenroom.services.compact import decode_turn as decode_record
from greenroom.services.durable import EntryStatus, TurnEntry
from greenroom.services.sessions.earlier_states import lengthened
from greenroom.services.sessions.head import (
    EARLIER,
    ENDED,
    ENTRY,
    STATE,
    TURN,
    OpenTurn,
    SessionHead,
    decode_ended,
    decode_head,
    log_span,
)
from greenroom.services.sessions.hold import Hold, hold_of
from greenroom.services.sessions.log import count_of, events_from, read_log
from greenroom.services.sessions.turn_codec import decode_turn
from greenroom.services.sessions.turn_names import names_of
from greenroom.services.storage import Cell, Folder, Head, Span
from greenroom.services.store import SessionRecord

logger = logging.getLogger("greenroom.services")

STATE_SPAN = Span(STATE, 0, 0)
HISTORY = (STATE_SPAN, Span(TURN))
WHOLE = (STATE_SPAN, Span(TURN), Span(EARLIER))


class _Id(Struct, frozen=True, array_like=True):
    """The beginning of a turn's record."""

    turn_id: str


class Fork(Struct, frozen=True):
    """A session that goes on from a turn of another: its head, and what is in its folder."""

    head: SessionHead
    cells: Sequence[tuple[Cell, bytes]]


_id_decoder = msgpack.Decoder(_Id)


@contextmanager
def legible(key: SessionKey) -> Iterator[None]:
    """What is decoded in the block is of the session `key`. Raises `SessionDamaged` for what cannot be."""
    try:
        yield
    except (DecodeError, IndexError, ValueError) as error:
        logger.exception("what is kept of %r is damaged", key)
        raise SessionDamaged(
            "what is kept of the session cannot be read: it is damaged, or was written by a newer version; restore it "
            "from a backup, or forget the session"
        ) from error


def record_of(key: SessionKey, folder: Folder | None) -> SessionRecord | None:
    """The session's history and state (of the spans `HISTORY`); none: it has none."""
    if folder is None:
        return None
    head = decode_head(folder.head.body)
    if not head.commits:
        return None
    states, turns = folder.spans
    records = tuple(decode_record(raw) for _, raw in turns)
    return SessionRecord(SessionKey(*key), head.commits, states[0][1] if states else None, records)


def turn_spans(numbers: Sequence[int]) -> list[Span]:
    """Where the entries and logs of turns lie, for `entries_in`."""
    return [span for number in numbers for span in (Span(ENTRY, number, number), log_span(number))]


def one_turn(number: int, chunk: int, count: int) -> list[Span]:
    """Where a turn's entry lies, so many chunks of its log from that one on, and what is kept of it besides once it has
    ended, for `entry_in`."""
    log = log_span(number)
    first = log.first + chunk
    return [
        Span(ENTRY, number, number),
        Span(log.section, first, min(first + count - 1, log.last)),
        Span(ENDED, number, number),
    ]


def entry_in(folder: Folder, number: int, owner: str, events: Sequence[Event]) -> TurnEntry:
    """A turn of the spans `one_turn`, with these of its events, for the process `owner`."""
    ((_, entry),), _, ended = folder.spans
    found = entry_of(folder.head, decode_head(folder.head.body), number, entry, events, owner)
    return replace(found, taken_at=decode_ended(ended[0][1]).taken_at) if ended else found


def entries_in(folder: Folder, owner: str, turns: Sequence[OpenTurn] | None = None) -> tuple[TurnEntry, ...]:
    """The open turns of a session in their order, of the spans `turn_spans`, for the process `owner`. `turns`: those
    that were read, none: all."""
    head = decode_head(folder.head.body)
    pairs = zip(folder.spans[::2], folder.spans[1::2], strict=True)
    return tuple(
        entry_of(folder.head, head, opened.number, entry[0][1], events_from(0, chunks), owner)
        for opened, (entry, chunks) in zip(head.open if turns is None else turns, pairs, strict=True)
    )


def entry_of(
    stands: Head,
    head: SessionHead,
    number: int,
    entry: bytes,
    events: Sequence[Event],
    owner: str,
) -> TurnEntry:
    """A turn's entry with these of its events, for the process `owner`."""
    opened = next((one for one in head.open if one.number == number), None)
    status: EntryStatus = "ended" if opened is None else "running" if opened.running else "waiting"
    return TurnEntry(
        turn=decode_turn(entry),
        number=number,
        status=status,
        attempts=1 if opened is None else opened.attempts,
        ahead=0 if opened is None else head.open.index(opened),
        here=stands.owner == owner,
        owned=stands.owner_state != "gone",
        events=events,
        taken_at=None if opened is None else opened.taken_at,
        cancelled=None if opened is None else opened.cancelled,
    )


def taken_hold(folder: Folder) -> Hold:
    """What is known of a session whose open turns were read (of the spans `turn_spans`)."""
    hold = hold_of(folder.head.fence, decode_head(folder.head.body), folder.head.owner)
    pairs = zip(folder.spans[::2], folder.spans[1::2], strict=True)
    for opened, (entry, chunks) in zip(hold.head.open, pairs, strict=True):
        raw = entry[0][1]
        hold.logs[opened.number] = read_log(names_of(decode_turn(raw)), raw, chunks, count_of(chunks))
    return hold


def fork_of(folder: Folder, turn_id: str) -> Fork | None:
    """The session (of the spans `WHOLE`) as it was after that turn; none: that is not known."""
    head = decode_head(folder.head.body)
    states, turns, earlier = folder.spans
    matching = (
        number
        for number, raw in reversed(turns)
        if number >= head.oldest_state and _id_decoder.decode(raw).turn_id == turn_id
    )
    commits = next(matching, None)
    if commits is None:
        return None
    newest = states[0][1] if states else None
    later = tuple(short for number, short in earlier if number >= commits)
    state = [newest, *lengthened(newest, later)][-1]
    kept = [(Cell(TURN, number), raw) for number, raw in turns if number <= commits]
    kept += [(Cell(EARLIER, number), short) for number, short in earlier if number < commits]
    if state is not None:
        kept.append((Cell(STATE, 0), state))
    size = sum(len(raw) for _, raw in kept)
    return Fork(SessionHead(commits, head.oldest_turn, head.oldest_state, size), kept)
