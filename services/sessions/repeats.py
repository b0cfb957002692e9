"""What a repeat gets of a turn of which nothing is kept: its answer, for some minutes, in every process that shares the
storage.

Such a turn leaves no trace in its session. If it has an idempotency key, the write that ends it also makes a folder of
kind `repeat`, and the key's name goes over to it: nothing else leads there. The folder is nobody's and open, so that
any process finds those whose time is over, whichever wrote them and whatever became of it.

| section | number | value |
|---|---|---|
| `entry` | 0 | the turn as it was accepted (`turn_codec`) |
| `log` | 0 | all its events |
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from msgspec import DecodeError, Struct, msgpack

from greenroom.actors.errors import StoreUnavailable
from greenroom.actors.messages import SessionKey
from greenroom.services.durable import ForRepeats, TurnEntry
from greenroom.services.sessions.head import ENTRY, LOG, OpenTurn, folder_of
from greenroom.services.sessions.reading import legible
from greenroom.services.sessions.turn_codec import decode_events, decode_turn, encode_events, encode_turn
from greenroom.services.sessions.turn_names import key_name, value_of
from greenroom.services.storage import Cell, Change, Conflict, FolderKey, Head, Named, Span, Storage

logger = logging.getLogger("greenroom.services")

KIND: Final = "repeat"
Forget: TypeAlias = Callable[[SessionKey], Awaitable[object]]
AT_ONCE: Final = 64
"""Folders that one write removes, at most."""
WRITES: Final = 16
"""Of one round, at most: what is left is the next round's."""


class _Head(Struct, frozen=True, array_like=True):
    """`since`, `until`: seconds since the epoch. `number`, `taken_at`: as `TurnEntry` says. `fork`: the id of the
    turn's session, if that was a fork for this turn alone."""

    since: float
    until: float
    number: int
    taken_at: int | None = None
    fork: str | None = None

    def is_over(self, now: float) -> bool:
        """Also long before it began: then it was written by a clock that was wrong, and could stay for years."""
        return not 2 * self.since - self.until <= now < self.until


_encoder = msgpack.Encoder()
_decoder = msgpack.Decoder(_Head)


def change_for(repeats: ForRepeats, opened: OpenTurn) -> Change:
    """What keeps it, to be written after the session's folder has given up its names.

    Raises `HandlerError` for events that cannot be kept.
    """
    turn = repeats.turn
    name, fork = key_name(turn), turn.key.session_id if turn.temporary else None
    head = _Head(repeats.since, repeats.until, opened.number, opened.taken_at, fork)
    return Change(
        key=FolderKey(KIND, turn.key.user_id, name.hex()),
        delete=True,
        head=_encoder.encode(head),
        open=True,
        put=((Cell(ENTRY, 0), encode_turn(turn)), (Cell(LOG, 0), encode_events(repeats.events))),
        names=((name, value_of(opened.number)),),
    )


async def entry_for_repeats(storage: Storage, named: Named) -> TurnEntry | None:
    """The turn that its key's name leads to; none: its time is over. Raises `SessionDamaged`."""
    folder = await storage.read(named.key, (Span(ENTRY, 0, 0), Span(LOG, 0, 0)))
    if folder is None:
        return None
    with legible(SessionKey(*named.key[1:])):
        ((_, turn),), ((_, events),) = folder.spans
        head = _decoder.decode(folder.head.body)
        return TurnEntry(
            turn=decode_turn(turn),
            number=head.number,
            status="ended",
            events=decode_events(events),
            taken_at=head.taken_at,
        )


async def forget_repeats(storage: Storage, now: float, forget: Forget) -> bool:
    """Keep nothing of those whose time is over; whether that was all of them. `forget`: called with each fork for one
    of them that its process did not come to forget. Raises `StoreUnavailable`."""
    for _ in range(WRITES):
        heads = await storage.orphans(KIND, AT_ONCE)
        over = [head for head in heads if _is_over(head, now)]
        for fork in filter(None, map(_fork_of, over)):
            await _forget_fork(storage, fork, forget)
        if over:
            try:
                await storage.write([Change(key=head.key, expected=head.fence, delete=True) for head in over])
            except Conflict:  # another process is at it
                return False
        if len(over) < AT_ONCE:
            return True
    return False


async def _forget_fork(storage: Storage, fork: SessionKey, forget: Forget) -> None:
    """One that cannot be forgotten is in the way of nothing else."""
    if await storage.read(folder_of(fork)) is None:
        return
    try:
        await forget(fork)
    except StoreUnavailable:
        raise
    except Exception:
        logger.exception("forgetting %r, which was for a turn of which nothing is kept, failed", fork)


def _is_over(head: Head, now: float) -> bool:
    read = _read(head)
    return read is None or read.is_over(now)


def _fork_of(head: Head) -> SessionKey | None:
    read = _read(head)
    return None if read is None or read.fork is None else SessionKey(head.key.user_id, read.fork)


def _read(head: Head) -> _Head | None:
    try:
        return _decoder.decode(head.body)
    except DecodeError:
        logger.exception("an answer for repeats cannot be read, and is let go: %r", head.key)
        return None
