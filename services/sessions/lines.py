"""The sizes of what is kept of a session, from the oldest on: what goes when something is over its bounds.

Only the oldest are remembered, as only they are about to go; more are read when these are used up.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from msgspec import Struct

MOST: Final = 64
"""Remembered of one section of a session."""
READ_AT_ONCE: Final = 32

V = TypeVar("V")


class NotRead(Exception):
    """What is wanted must be read from the storage first: that in the section from this number on."""

    def __init__(self, section: str, number: int) -> None:
        super().__init__(f"{section} {number} was not read yet")
        self.section = section
        self.number = number


class Line(Struct, Generic[V], frozen=True):
    """Of a section's values from `first` on. `whole`: there are no others after these."""

    section: str
    first: int
    values: tuple[V | None, ...] = ()
    whole: bool = True

    def at(self, number: int) -> V | None:
        """The value; none: there is none with that number. Raises `NotRead`."""
        place = number - self.first
        if place < len(self.values):
            return self.values[place]
        if self.whole:
            return None
        raise NotRead(self.section, self.first + len(self.values))

    def add(self, number: int, value: V) -> Line[V]:
        """The line with one value more."""
        place, values = number - self.first, self.values
        if place < len(values):
            return Line(self.section, self.first, (*values[:place], value, *values[place + 1 :]), self.whole)
        if self.whole and place < MOST:
            gap = (None,) * (place - len(values))
            return Line(self.section, self.first, (*values, *gap, value))
        return Line(self.section, self.first, values, False)

    def since(self, number: int) -> Line[V]:
        """The line without what comes before that number."""
        if number <= self.first:
            return self
        return Line(self.section, number, self.values[number - self.first :], self.whole)

    def read(self, values: dict[int, V], end: int, newest: int) -> Line[V]:
        """The line with what was read of the storage: all that there is before `end`. `newest`: the last number that
        something has there."""
        start = self.first + len(self.values)
        more = tuple(values.get(number) for number in range(start, min(end, newest + 1)))
        return Line(self.section, self.first, self.values + more, end > newest)
