"""What is encoded off the loop, as it is large: the loop does other things meanwhile, renewals among them (law 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from anyio import CapacityLimiter, to_thread

from greenroom.actors.events import Event
from greenroom.services.compact import encode_turn, turn_in_pieces
from greenroom.services.sessions.log import chunk_in_pieces, events_from
from greenroom.services.sessions.turn_codec import encode_events, events_in_pieces
from greenroom.services.sizes import LARGE, size_of_all, size_of_record
from greenroom.services.store import TurnRecord

T = TypeVar("T")

THREADS: Final = 2
"""Of one store: each may hold copies of all that the largest turn said."""


class Aside:
    """Runs functions in threads that nobody else has, so that a busy application does not hold up its commits.

    A thread helps only where no single step of the function is long: Python runs one thread at a time.
    """

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places = CapacityLimiter(THREADS)

    async def chunk(self, first: int, events: Sequence[Event]) -> bytes | None:
        """Large events as a chunk of a log, the first of which has that number; none: they are not large.

        Raises `HandlerError` for some that cannot be kept.
        """
        if size_of_all(events) <= LARGE:
            return None
        return await self.do(lambda: chunk_in_pieces(first, events))

    async def events(self, events: Sequence[Event]) -> bytes:
        """Events as they are kept. Raises `HandlerError` for some that cannot be."""
        if size_of_all(events) <= LARGE:
            return encode_events(events)
        return await self.do(lambda: b"".join(events_in_pieces(events)))

    async def decoded(self, first: int, chunks: Sequence[tuple[int, bytes]]) -> list[Event]:
        """The events from number `first` on of some chunks of a log."""
        return await self.read([chunks], lambda: events_from(first, chunks))

    async def read(self, spans: Sequence[Sequence[tuple[int, bytes]]], function: Callable[[], T]) -> T:
        """What the function makes of these cells of a folder."""
        if sum(len(raw) for span in spans for _, raw in span) <= LARGE:
            return function()
        return await self.do(function)

    async def record(self, record: TurnRecord) -> bytes:
        """A turn's record as it is kept. Raises `HandlerError` for one that cannot be."""
        if size_of_record(record) <= LARGE:
            return encode_turn(record)
        return await self.do(lambda: b"".join(turn_in_pieces(record)))

    async def do(self, function: Callable[[], T]) -> T:
        """What the function gives, in a thread: to its end, also when the caller gives up."""
        return await to_thread.run_sync(function, limiter=self._places)
