"""A session's messages, and which of them there were after each of its last turns.

A turn leaves a mark: a list, which is only ever added to, and from where to where of it. So marks share the messages,
and a session that only grows has one list whatever the number of its turns.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, field

from greenroom.services.session_map import Resident


class Mark(Struct, frozen=True, gc=False):
    """Which messages there were after a turn: those of a list from `start` to `end`. No list: there was no session."""

    turn: str
    messages: list[bytes] | None
    start: int
    end: int


class History(Resident, gc=False):
    """One session's messages, each encoded: appending touches none of those before.

    Those before `start` are there for the marks only. `gone`: a turn deleted it, and only its marks are there. `lost`:
    there were marks before those there are.
    """

    messages: list[bytes] = field(default_factory=list)
    start: int = 0
    marks: tuple[Mark, ...] = ()
    gone: bool = False
    lost: bool = False

    def mark(self, turn_id: str) -> Mark:
        """The session as it is now."""
        return Mark(turn_id, None if self.gone else self.messages, self.start, len(self.messages))

    def begin_anew(self) -> int:
        """Have no messages. Gives the bytes of those that nobody has any more."""
        before, self.messages, self.start = self.messages, [], 0
        return 0 if _marked(self.marks, before) else sum(map(len, before))

    def drop_marks(self, count: int) -> int:
        """Drop the oldest marks. Gives the bytes of the messages that nobody has any more."""
        dropped, self.marks = self.marks[:count], self.marks[count:]
        self.lost = self.lost or bool(dropped)
        lists = {id(mark.messages): mark.messages for mark in dropped if mark.messages is not None}
        return sum(
            sum(map(len, messages))
            for messages in lists.values()
            if messages is not self.messages and not _marked(self.marks, messages)
        )

    def release(self) -> int:
        """Let go of the messages that only dropped marks had. Gives their bytes."""
        messages = self.messages
        low = min([self.start, *(mark.start for mark in self.marks if mark.messages is messages)])
        if not low:
            return 0
        freed = sum(map(len, messages[:low]))
        del messages[:low]
        self.start -= low
        self.marks = tuple(
            Mark(mark.turn, messages, mark.start - low, mark.end - low) if mark.messages is messages else mark
            for mark in self.marks
        )
        return freed


def _marked(marks: Sequence[Mark], messages: list[bytes]) -> bool:
    return any(mark.messages is messages for mark in marks)


def forked(marks: Sequence[Mark], lost: bool) -> History:
    """A history as it was at the last mark, with those before it. It shares the messages and no list."""
    lists: dict[int, list[bytes]] = {}
    for mark in reversed(marks):  # of each list the latest mark comes first, which has most of it
        if mark.messages is not None and id(mark.messages) not in lists:
            lists[id(mark.messages)] = mark.messages[: mark.end]
    own = tuple(
        mark if mark.messages is None else Mark(mark.turn, lists[id(mark.messages)], mark.start, mark.end)
        for mark in marks
    )
    last = own[-1]
    return History(
        messages=[] if last.messages is None else last.messages,
        start=last.start,
        marks=own,
        gone=last.messages is None,
        lost=lost,
    )
