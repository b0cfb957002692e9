"""Messages that were read before, so that a long history is not read anew with each turn.

What makes it safe: in one epoch of a folder a cell never changes, since messages are numbered by one count that only
goes up (`history_folder`), and a folder that is made anew has another epoch. Which cells there are the head says, and
that is read each time.

A server that lost its last writes in a crash may number other messages the same. So the last known one is read once
more, and what is known counts only when that is still the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from greenroom.actors.messages import SessionKey

SESSIONS: Final = 10_000
BYTES: Final = 64 * 1024 * 1024
MESSAGE_BYTES: Final = 50
"""What a message takes here besides its own."""


class Known(Struct, frozen=True):
    """The cells of a folder from `first` on. Not to be changed."""

    epoch: int
    first: int
    messages: list[bytes]

    @property
    def end(self) -> int:
        """The number of the first cell that is not known."""
        return self.first + len(self.messages)

    def goes_on(self, epoch: int, start: int, cells: Sequence[tuple[int, bytes]]) -> bool:
        """Whether a session that begins at `start` has some of this, and goes on from there. `cells`: those its folder
        has from the last one on that is known."""
        last = self.end - 1
        return (
            self.epoch == epoch and self.first <= start < last and cells[:1] == ((last, self.messages[-1]),)
        )


class HistoryCache:
    """The sessions read last, within bounds."""

    __slots__ = ("_known", "_most", "_sizes")

    def __init__(self, most_bytes: int = BYTES) -> None:
        self._most = most_bytes
        self._known: OrderedDict[SessionKey, tuple[Known, int]] = OrderedDict()
        self._sizes = 0

    def __repr__(self) -> str:
        return f"<HistoryCache: {len(self._known)} sessions, {self._sizes} bytes>"

    def find(self, key: SessionKey) -> Known | None:
        """What is known of the session."""
        found = self._known.get(key)
        if found is None:
            return None
        self._known.move_to_end(key)
        return found[0]

    def keep(self, key: SessionKey, known: Known | None) -> None:
        """Know this of the session; none: nothing."""
        before = self._known.pop(key, None)
        if before is not None:
            self._sizes -= before[1]
        if known is None or not known.messages:
            return
        size = sum(map(len, known.messages)) + MESSAGE_BYTES * len(known.messages)
        self._known[key] = known, size
        self._sizes += size
        while self._sizes > self._most or len(self._known) > SESSIONS:
            _, (_, size) = self._known.popitem(last=False)
            self._sizes -= size
