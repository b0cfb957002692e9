"""The log of a turn in its session's folder: chunks of events, each a cell, as they came.

What is added makes a new chunk. A turn has room for no more than `CHUNKS`, so from the `SINGLE`th on a chunk is filled
up to `CHUNK_BYTES` before the next begins, and the last one takes all that is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Raw, Struct, msgpack
from msgspec.structs import replace

from greenroom.actors.events import Event
from greenroom.services.sessions.head import CHUNKS, LOG
from greenroom.services.sessions.turn_codec import decode_events, encode_events, events_in_pieces
from greenroom.services.storage import Cell

SINGLE: Final = 1024
CHUNK_BYTES: Final = 64 * 1024


class _Chunk(Struct, frozen=True, array_like=True):
    """`first`: the number of its first event. `events`: as `turn_codec` encodes them."""

    first: int
    count: int
    events: Raw


_encoder = msgpack.Encoder()
_decoder = msgpack.Decoder(_Chunk)


class OpenLog(Struct, frozen=True):
    """Where the log of a turn that has not ended goes on.

    `names`: of the turn. `size`: bytes of the entry and of the chunks before the one that goes on. `chunks`: the number
    of that one. `events`: the number of the next event. `tail`: what is in that chunk already and is written again with
    what comes. `there`: chunks that there are, which may be more than are to stay.
    """

    names: tuple[bytes, ...]
    size: int
    chunks: int = 0
    events: int = 0
    tail: tuple[Event, ...] = ()
    there: int = 0


class Addition(Struct, frozen=True):
    """What adding events writes, and the log then. `size`: bytes of the entry and of all chunks."""

    log: OpenLog
    size: int
    put: tuple[tuple[Cell, bytes], ...] = ()
    drop: tuple[Cell, ...] = ()


def cells(number: int, first: int, end: int) -> list[Cell]:
    """The chunks of a turn's log from `first` up to but not `end`."""
    return [Cell(LOG, number * CHUNKS + chunk) for chunk in range(first, end)]


def chunk_in_pieces(first: int, events: Sequence[Event]) -> bytes:
    """Large events as a chunk of their own, made in short steps. `first`: the number of the first of them.

    Raises `HandlerError` for some that cannot be kept.
    """
    numbers = b"\x93" + _encoder.encode(first) + _encoder.encode(len(events))
    return b"".join([numbers, *events_in_pieces(events)])


def added(log: OpenLog, number: int, events: Sequence[Event], chunk: bytes | None = None) -> Addition:
    """Add events to the log of the turn with that number. `chunk`: large ones as a chunk of their own.

    Raises `HandlerError` for some that cannot be kept.
    """
    if chunk is not None and log.chunks + bool(log.tail) < CHUNKS - 1:
        return _added_apart(log, number, len(events), chunk)
    whole = (*log.tail, *events)
    stale = tuple(cells(number, log.chunks, log.there))
    if not whole:
        return Addition(replace(log, there=log.chunks), log.size, (), stale)
    first = log.events - len(log.tail)
    raw = _encoder.encode(_Chunk(first, len(whole), Raw(encode_events(whole))))
    size, there = log.size + len(raw), log.chunks + 1
    if goes_on(log.chunks, raw):
        after = replace(log, events=first + len(whole), tail=whole, there=there)
    else:
        after = OpenLog(log.names, size, there, first + len(whole), (), there)
    return Addition(after, size, ((Cell(LOG, number * CHUNKS + log.chunks), raw),), stale[1:])


def _added_apart(log: OpenLog, number: int, count: int, chunk: bytes) -> Addition:
    """What the log has of a chunk that would go on stays, as one that is shorter than others."""
    put, short = [chunk], log.tail
    if short:
        put.insert(0, _encoder.encode(_Chunk(log.events - len(short), len(short), Raw(encode_events(short)))))
    size, there = log.size + sum(map(len, put)), log.chunks + len(put)
    places = cells(number, log.chunks, there)
    after = OpenLog(log.names, size, there, log.events + count, (), there)
    return Addition(after, size, tuple(zip(places, put, strict=True)), tuple(cells(number, there, log.there)))


def read_log(
    names: tuple[bytes, ...], entry: bytes, chunks: Sequence[tuple[int, bytes]], end: int
) -> OpenLog:
    """A log as it is in the storage, to go on with event number `end`; what there is from there on is not to stay.

    Raises `IndexError` when the log does not reach so far.
    """
    log = OpenLog(names, len(entry), there=len(chunks))
    for index, (_, raw) in enumerate(chunks):
        chunk = _decoder.decode(raw)
        over = chunk.first + chunk.count > end
        if over or (index == len(chunks) - 1 and goes_on(index, raw)):
            tail = tuple(decode_events(chunk.events)[: max(0, end - chunk.first)])
            return _checked(replace(log, events=chunk.first + len(tail), tail=tail), end)
        log = replace(log, size=log.size + len(raw), chunks=index + 1, events=chunk.first + chunk.count)
    return _checked(log, end)


def goes_on(index: int, raw: bytes) -> bool:
    """Whether what comes after this chunk goes into it."""
    return index == CHUNKS - 1 or (index >= SINGLE and len(raw) < CHUNK_BYTES)


def _checked(log: OpenLog, end: int) -> OpenLog:
    if log.events < end:
        raise IndexError(f"the log has {log.events} events, and is to go on with number {end}")
    return log


def events_from(first: int, chunks: Iterable[tuple[int, bytes]]) -> list[Event]:
    """The events from number `first` on. Chunks before it are not decoded."""
    found: list[Event] = []
    for _, raw in chunks:
        chunk = _decoder.decode(raw)
        if chunk.first + chunk.count > first:
            found += decode_events(chunk.events)[max(0, first - chunk.first) :]
    return found


def first_of(chunks: Sequence[tuple[int, bytes]]) -> int:
    """The number of the first event in the chunks; -1: there are none."""
    return _decoder.decode(chunks[0][1]).first if chunks else -1


def count_of(chunks: Sequence[tuple[int, bytes]]) -> int:
    """The number of events in the log."""
    if not chunks:
        return 0
    last = _decoder.decode(chunks[-1][1])
    return last.first + last.count
