"""What a repeat gets of a turn of which nothing is kept: its answer, for some minutes, in every process that shares the
storage.

Such a turn leaves no trace in its session. If it has an idempotency key, the write that ends it also makes a folder of
kind `repeat`, and the key's name goes over to it: nothing else leads there. The folder is open, and has an owner that
lives for as long as the answer is to be kept and is renewed by nobody: when it is gone any process finds the folder,
whichever wrote it and whatever became of it. So it is the storage's clock that counts, and no process whose own is
wrong lets others' answers go.

| section | number | value |
|---|---|---|
| `entry` | 0 | the turn as it was accepted (`turn_codec`) |
| `log` | 0 | all its events |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct, msgpack

from greenroom.actors.messages import SessionKey
from greenroom.services.durable import ForRepeats, TurnEntry
from greenroom.services.sessions.aside import Aside
from greenroom.services.sessions.head import ENTRY, LOG, OpenTurn
from greenroom.services.sessions.reading import legible
from greenroom.services.sessions.turn_codec import decode_events, decode_turn, encode_turn
from greenroom.services.sessions.turn_names import left_name, value_of
from greenroom.services.storage import Cell, Change, Conflict, FolderKey, Named, Span, Storage

KIND: Final = "repeat"
AT_ONCE: Final = 64
"""Folders that one write removes, at most."""
WRITES: Final = 16
"""Of one round, at most: what is left is the next round's."""
PART: Final = 1 / 8
"""Of the time that answers are kept: for so long those that are written get one owner, and stay longer by as much."""
LONGEST: Final = 30 * 86_400.0
"""Seconds that an answer is kept, at most."""


class Terms:
    """Gives the owners of what is for repeats. `new_name`: a name that no owner had before. `monotonic`: seconds."""

    def __init__(self, storage: Storage, new_name: Callable[[], str], monotonic: Callable[[], float]) -> None:
        self._storage = storage
        self._new_name = new_name
        self._monotonic = monotonic
        self._owners: dict[float, tuple[str, float]] = {}
        """By the time that they live for: the newest, and until when it is given."""

    async def owner(self, seconds: float) -> str:
        """One that lives for `seconds` from now on, or a little longer. Raises `StoreUnavailable`."""
        seconds, now = min(seconds, LONGEST), self._monotonic()
        name, until = self._owners.get(seconds, ("", now))
        if now < until:
            return name
        name = self._new_name()
        await self._storage.renew(name, seconds * (1 + PART))
        self._owners = {seconds: (name, now + seconds * PART)}
        return name


class _Head(Struct, frozen=True, array_like=True):
    """`number`, `taken_at`: as `TurnEntry` says."""

    number: int
    taken_at: int | None = None


_encoder = msgpack.Encoder()
_decoder = msgpack.Decoder(_Head)


async def change_for(repeats: ForRepeats, opened: OpenTurn, terms: Terms, aside: Aside) -> Change:
    """What keeps it for its time, to be written after the session's folder has given up its names.

    Raises `HandlerError` for events that cannot be kept, and `StoreUnavailable`.
    """
    turn = repeats.turn
    name, said = left_name(turn), await aside.events(repeats.events)
    return Change(
        key=FolderKey(KIND, turn.key.user_id, name.hex()),
        delete=True,
        head=_encoder.encode(_Head(opened.number, opened.taken_at)),
        owner=await terms.owner(repeats.seconds),
        open=True,
        put=((Cell(ENTRY, 0), encode_turn(turn)), (Cell(LOG, 0), said)),
        names=((name, value_of(opened.number)),),
    )


async def entry_for_repeats(storage: Storage, aside: Aside, named: Named) -> TurnEntry | None:
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
            events=await aside.read(folder.spans, lambda: decode_events(events)),
            taken_at=head.taken_at,
        )


async def forget_repeats(storage: Storage) -> bool:
    """Keep nothing of those whose time is over; whether that was all of them. Raises `StoreUnavailable`."""
    for _ in range(WRITES):
        over = await storage.orphans(KIND, AT_ONCE)
        if over:
            try:
                await storage.write([Change(key=head.key, expected=head.fence, delete=True) for head in over])
            except Conflict:  # another process is at it
                return False
        if len(over) < AT_ONCE:
            return True
    return False
