"""What the head of a folder of a session's messages says: which there are, and there were after each of the last turns.

Each message has a cell of its own, numbered in the order of writing, and the session has those of one stretch. So has
a mark, which a turn leaves; stretches mostly overlap, so that a session that only grows keeps each message once
whatever the number of its turns. Sizes are in the head so that bounds are kept without reading messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct, field, msgpack

from greenroom.actors.setting_checks import Count, Share, check_fields
from greenroom.services.marks import BEFORE
from greenroom.services.storage import Cell

KIND: Final = "history"
GONE: Final = "history-gone"
"""The kind of an empty folder that is there as long as the session is deleted, and its marks are kept."""
SECTION: Final = "message"


class HistoryBounds(Struct, frozen=True, kw_only=True):
    """How much is kept of one session: see `DurableSessionHistoryService`."""

    messages_kept: Share
    turns_kept: Count
    session_bytes: Share

    def __post_init__(self) -> None:
        check_fields(self, "a session history service")


class Stretch(Struct, array_like=True, frozen=True, gc=False):
    """Which messages there were after a turn: the cells from `start` up to `end`. `gone`: there was no session."""

    turn: str
    start: int
    end: int
    gone: bool = False


class Held(Struct, array_like=True):
    """The sizes of cells without a gap between them, from `first` on."""

    first: int
    sizes: list[int]


class Messages(Struct, array_like=True):
    """A session's messages. Folders hold it as bytes: a field may be added at the end, with a default, none moved.

    The session has the cells from `start` up to `next`, the number of the next one. `gone`: a turn deleted it, and only
    its marks are there. `lost`: there were marks before those there are.
    """

    start: int = 0
    next: int = 0
    gone: bool = False
    lost: bool = False
    marks: list[Stretch] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)

    @property
    def size(self) -> int:
        """The bytes of all messages that are held."""
        return sum(sum(one.sizes) for one in self.held)

    def mark(self, turn_id: str) -> Stretch:
        """The session as it is now."""
        return Stretch(turn_id, self.start, self.next, self.gone)

    def cells(self) -> set[int]:
        """Those that are held."""
        return {one.first + place for one in self.held for place in range(len(one.sizes))}

    def write(
        self, added: Sequence[bytes], turn_id: str | None, bounds: HistoryBounds, *, fresh: bool, gone: bool
    ) -> tuple[list[tuple[Cell, bytes]], list[Cell]]:
        """Add messages, in a turn or in none. `fresh`: instead of those there are; `gone`: there is no session then.

        Gives the cells to write, and those to remove.
        """
        if fresh:
            self.start = self.next
        self.gone = gone
        first = self.next
        if added:
            self.held.append(Held(first, list(map(len, added))))
            self.next += len(added)
        self.start = max(self.start, self.next - bounds.messages_kept)
        dropped = self._let_go()
        dropped += self._fit(bounds.session_bytes)
        if turn_id is not None:
            self.marks.append(self.mark(turn_id))
            self._drop_marks(len(self.marks) - bounds.turns_kept)
            dropped += self._let_go()
        unwritten = {number for number in dropped if number >= first}
        put = [
            (Cell(SECTION, first + place), raw)
            for place, raw in enumerate(added)
            if first + place not in unwritten
        ]
        return put, [Cell(SECTION, number) for number in dropped if number < first]

    def mark_before(self) -> None:
        """Say how the session was before its first turn."""
        if not self.marks and not self.lost:
            self.marks.append(self.mark(BEFORE))

    def cut(self, place: int) -> None:
        """Become what the session was at that mark, with the marks up to it."""
        del self.marks[place + 1 :]
        last = self.marks[-1]
        self.start, self.next, self.gone = last.start, last.end, last.gone
        self._let_go()

    def _fit(self, session_bytes: int) -> list[int]:
        """Drop what is over the bytes, but not the newest message: turns that share nothing, then the oldest messages
        with the turns that had them, then turns. Gives the cells that nobody has any more."""
        dropped: list[int] = []
        while (over := self.size - session_bytes) > 0:
            if self.marks and (self.marks[0].gone or self.marks[0].end <= self.start):
                self._drop_marks(1)
            elif self.next - self.start > 1:
                self._advance(over)
            elif self.marks:
                self._drop_marks(1)
            else:
                break
            dropped += self._let_go()
        return dropped

    def _advance(self, over: int) -> None:
        """Begin later, so that about `over` bytes less are held, without the marks that began before."""
        last = self.held[-1]
        while True:
            over -= last.sizes[self.start - last.first]
            self.start += 1
            if over <= 0 or self.next - self.start == 1:
                break
        self._drop_marks(sum(1 for mark in self.marks if mark.start < self.start))

    def _drop_marks(self, count: int) -> None:
        if count > 0:
            del self.marks[:count]
            self.lost = True

    def _let_go(self) -> list[int]:
        """Hold only what the session and its marks have. Gives the other cells."""
        kept: list[Held] = []
        dropped: list[int] = []
        stretches = list(self._stretches())
        for one in self.held:
            end = one.first + len(one.sizes)
            at = one.first
            for low, high in stretches:
                low, high = max(low, one.first), min(high, end)
                if low < high:
                    dropped += range(at, low)
                    _hold(kept, low, one.sizes[low - one.first : high - one.first])
                    at = high
            dropped += range(at, end)
        self.held = kept
        return dropped

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """From where to where somebody has cells, in order and apart from each other."""
        had = sorted((mark.start, mark.end) for mark in [*self.marks, self.mark("")] if not mark.gone)
        low, high = -1, -1
        for start, end in had:
            if start > high:
                if low < high:
                    yield low, high
                low, high = start, end
            else:
                high = max(high, end)
        if low < high:
            yield low, high


def _hold(kept: list[Held], first: int, sizes: list[int]) -> None:
    if kept and kept[-1].first + len(kept[-1].sizes) == first:
        kept[-1].sizes += sizes
    else:
        kept.append(Held(first, sizes))


_decoder = msgpack.Decoder(Messages)
_encoder = msgpack.Encoder()


def encode_messages(messages: Messages) -> bytes:
    """The head's body."""
    return _encoder.encode(messages)


def decode_messages(body: bytes | None) -> Messages:
    """What the head's body says, for the caller to change; none: no folder."""
    return Messages() if body is None else _decoder.decode(body)
