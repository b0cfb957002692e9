"""What the head of a folder of saved states says: which rounds there are, and there were after each of the last turns.

Each state that was saved has a cell of its own, numbered in the order of saving. A cell counts from one mark on, and up
to another once its round was overwritten or dropped; so marks cost their turn's id, and nothing for what they share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct, field, msgpack

from greenroom.actors.setting_checks import Count, Share, check_fields
from greenroom.services.marks import BEFORE, standing
from greenroom.services.storage import Cell

KIND: Final = "rounds"
SECTION: Final = "state"


class RoundBounds(Struct, frozen=True, kw_only=True):
    """How much is kept of one session: see `DurableStateService`."""

    rounds_kept: Share
    turns_kept: Count
    session_bytes: Share

    def __post_init__(self) -> None:
        check_fields(self, "a state service")


class Saved(Struct, array_like=True, gc=False):
    """A saved state of a round. `cell`: where it lies. `since`: the first mark that has it; `until`: the first
    that has it no more, none: the session has it now."""

    number: int
    cell: int
    size: int
    since: int
    until: int | None = None


class Rounds(Struct, array_like=True):
    """A session's rounds. Folders hold it as bytes: a field may be added at the end, with a default, none moved.

    `next`: the number of the next cell. `first`: the number of the oldest mark; `turns`: the turns that left marks.
    `lost`: there were marks before those.
    """

    saved: list[Saved] = field(default_factory=list)
    next: int = 0
    first: int = 0
    turns: list[str] = field(default_factory=list)
    lost: bool = False

    @property
    def now(self) -> int:
        """The number of the mark that the next turn leaves."""
        return self.first + len(self.turns)

    @property
    def size(self) -> int:
        """The bytes of all states that are held."""
        return sum(one.size for one in self.saved)

    def current(self) -> dict[int, Saved]:
        """The session's rounds as they are."""
        return {one.number: one for one in self.saved if one.until is None}

    def latest(self) -> Saved | None:
        """The round with the highest number."""
        return max(self.current().values(), key=lambda one: one.number, default=None)

    def cells(self) -> set[int]:
        """Those that are held."""
        return {one.cell for one in self.saved}

    def save(
        self, new: Mapping[int, bytes], turn_id: str | None, bounds: RoundBounds
    ) -> tuple[list[tuple[Cell, bytes]], list[Cell]]:
        """Add rounds, of a turn or of none. Gives the cells to write, and those to remove."""
        before = self.cells()
        if turn_id is not None and self.next and not self.turns and not self.lost:
            self.turns.append(BEFORE)
        written: dict[int, bytes] = {}
        for number, raw in new.items():
            self._end(self.current().get(number))
            self.saved.append(Saved(number, self.next, len(raw), self.now))
            written[self.next] = raw
            self.next += 1
        self._keep_within(bounds)
        if turn_id is not None:
            self.turns.append(turn_id)
            self._drop_marks(len(self.turns) - bounds.turns_kept)
        after = self.cells()
        put = [(Cell(SECTION, cell), raw) for cell, raw in written.items() if cell in after]
        return put, [Cell(SECTION, cell) for cell in sorted(before - after)]

    def forked(self, turn_id: str, turns: Sequence[str]) -> Rounds | None:
        """This as it was after that turn, which may be nothing; none: that is no longer known. See `Forkable.fork`."""
        if not self.turns and not self.lost:  # no turn has changed it
            return self
        place = standing(self.turns, turn_id, turns)
        if place < 0:
            return None if self.lost else Rounds()
        mark = self.first + place
        self.turns = self.turns[: place + 1]
        self.saved = [one for one in self.saved if one.since <= mark]
        for one in self.saved:
            if one.until is not None and one.until > mark:
                one.until = None
        return self

    def _keep_within(self, bounds: RoundBounds) -> None:
        """Drop what is over the bounds: the oldest rounds; over the bytes, marks first. The latest round stays."""
        while len(current := self.current()) > bounds.rounds_kept:
            self._end(current[min(current)])
        while self.size > bounds.session_bytes:
            if self.turns:
                self._drop_marks(1)
            elif len(current := self.current()) > 1:
                self._end(current[min(current)])
            else:
                return

    def _end(self, one: Saved | None) -> None:
        """The session does not have it any more; marks may."""
        if one is not None and one.since < self.now:
            one.until = self.now
        elif one is not None:
            self.saved.remove(one)

    def _drop_marks(self, count: int) -> None:
        if count > 0:
            self.first += count
            self.turns = self.turns[count:]
            self.lost = True
            self.saved = [one for one in self.saved if one.until is None or one.until > self.first]


_decoder = msgpack.Decoder(Rounds)
_encoder = msgpack.Encoder()


def encode_rounds(rounds: Rounds) -> bytes:
    """The head's body."""
    return _encoder.encode(rounds)


def decode_rounds(body: bytes | None) -> Rounds:
    """What the head's body says, for the caller to change; none: no folder."""
    return Rounds() if body is None else _decoder.decode(body)
