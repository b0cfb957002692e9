"""Reading a turn's entry and its log, whatever its size, in bounded parts.

A log is written in chunks of some 1 MiB at most, but for one that is a single large event. How large the next one is
nobody knows before it was read, so one is read at first, and more at a time as long as they are small.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from greenroom.actors.events import TERMINAL, Event
from greenroom.actors.messages import SessionKey
from greenroom.services.durable import TurnEntry
from greenroom.services.durable_responses import NO_EVENTS
from greenroom.services.sessions.aside import Aside
from greenroom.services.sessions.head import CHUNKS, decode_ended
from greenroom.services.sessions.log import count_of, first_of, goes_on
from greenroom.services.sessions.reading import entry_in, legible, one_turn
from greenroom.services.sessions.turn_names import names_of, number_in
from greenroom.services.sizes import LARGE
from greenroom.services.storage import Folder, Named, Storage

PLACES: Final = 1_000
"""In logs that are remembered."""
MOST: Final = 64
"""Chunks that are read in one go, at most, unless it is known that all of them are small."""
SMALL: Final = 64 * 1024
"""Bytes of a chunk after which the next two are small as well, in all likelihood."""
FASTER: Final = 2
"""So many times as many are read when those before were small."""


class _Place(Struct, frozen=True):
    """Where a log is read on. `chunk`: which is read next. `event`: the number of its first event. `last`: the chunk
    that was read last, -1 for none, `last_event` the number of its first, and `size` its bytes."""

    chunk: int = 0
    event: int = 0
    last: int = -1
    last_event: int = 0
    size: int = 0

    @property
    def again(self) -> bool:
        """Whether the chunk that was read last is read again."""
        return self.chunk == self.last

    def before(self) -> _Place:
        """At the chunk that was read last."""
        return replace(self, chunk=self.last, event=self.last_event)

    def next_time(self) -> _Place:
        """Where whoever asks again begins: at the last chunk, as it may be written again with more in it. A large one
        is not read again for that: when the chunk after it begins elsewhere than it ended, all is read anew."""
        return self if self.last < 0 or self.again or self.size > LARGE else self.before()

    def after(self, chunks: Sequence[tuple[int, bytes]]) -> _Place:
        """Where to go on when these were read from here on. One that may have more by then is read again."""
        if not chunks:
            return self
        number, raw = chunks[-1]
        last, event = number % CHUNKS, first_of(chunks[-1:])
        following = _Place(last + 1, count_of(chunks), last, event, len(raw))
        return following.before() if goes_on(last, raw) else following


class TurnReader:
    """Reads turns for the process `owner()`. Remembers where logs that were read from some number on end."""

    def __init__(self, storage: Storage, aside: Aside, owner: Callable[[], str]) -> None:
        self._storage = storage
        self._aside = aside
        self._owner = owner
        self._places: OrderedDict[bytes, _Place] = OrderedDict()
        """By the turn's name: who follows a turn asks again, for what comes after."""

    async def entry(self, name: bytes, named: Named) -> TurnEntry | None:
        """The turn that a name leads to, with all its events; none: it is no longer kept. Raises `SessionDamaged`."""
        with legible(SessionKey(*named.key[1:])):
            found = await self._read(named, 0, _Place())
        return None if found is None else _if_named(name, found[0])

    async def entry_from(self, name: bytes, named: Named, first: int) -> TurnEntry | None:
        """The same with the events from number `first` on, read from where the last reading ended if that will do. With
        `NO_EVENTS` none of the log is read."""
        if first >= NO_EVENTS:
            return _if_named(name, await self._without_events(named))
        place = self._places.pop(name, _Place())
        with legible(SessionKey(*named.key[1:])):
            found = await self._read(named, first, place if place.event <= first else _Place())
        if found is None:
            return None
        entry, place = found
        if place.last >= 0:
            self._places[name] = place
            if len(self._places) > PLACES:
                self._places.popitem(last=False)
        return _if_named(name, entry)

    async def _without_events(self, named: Named) -> TurnEntry | None:
        number = number_in(named.value)
        folder = await self._storage.read(
            named.key, one_turn(number, CHUNKS - 1, 1)
        )  # which hardly any log has
        if folder is None or not folder.spans[0]:
            return None
        with legible(SessionKey(*named.key[1:])):
            return entry_in(folder, number, self._owner(), ())

    async def _read(self, named: Named, first: int, place: _Place) -> tuple[TurnEntry, _Place] | None:
        """The entry, and where to read on."""
        events: list[Event] = []
        number = number_in(named.value)
        count = (
            1 + place.again + (place.again and place.size <= SMALL)
        )  # of a turn that says little one is new
        largest = place.size
        while True:
            folder = await self._storage.read(named.key, one_turn(number, place.chunk, count))
            if folder is None or not folder.spans[0]:
                return None
            _, chunks, ended = folder.spans
            if place.again if not chunks else first_of(chunks) != place.event:  # it was written again
                if chunks and not place.chunk:
                    raise ValueError("the log does not begin with its first event")
                events, place, count = [], _Place(), 1
                continue
            if ended and not chunks and place.chunk and not (events and type(events[-1]) in TERMINAL):
                place, count = place.before(), 2  # what was read last may have been, and have the ending
                continue
            del events[max(0, place.event - first) :]
            events += await self._aside.decoded(first, chunks)
            more, place = len(chunks) == count, place.after(chunks)
            if not more:
                entry = entry_in(folder, number, self._owner(), events)
                return entry, place.next_time()
            largest = max(largest, *(len(raw) for _, raw in chunks))
            count = _next_count(count, folder, largest) + place.again


def _if_named(name: bytes, entry: TurnEntry | None) -> TurnEntry | None:
    """None for another turn's, as the session has begun anew since the name was looked up."""
    return None if entry is None or name not in names_of(entry.turn) else entry


def _next_count(count: int, folder: Folder, largest: int) -> int:
    """How many chunks to read when so many were read, and there are more. `largest`: bytes of one of those before."""
    _, chunks, ended = folder.spans
    if ended and decode_ended(ended[0][1]).size <= LARGE:
        return CHUNKS
    if largest > LARGE // 2 or sum(len(raw) for _, raw in chunks) > LARGE:
        return 1
    return min(FASTER * count, MOST)
