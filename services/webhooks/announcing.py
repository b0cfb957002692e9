"""The seam between turns that end and whoever is told of it: `Turn.webhook`.

It has two steps, so that nothing is lost between them. What is to be told is written with the turn's ending, in the
same write, where the store is durable; then, when the ending is there, it is told. Who died between the two is followed
by another process, which finds what was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from greenroom.actors.events import Terminal
from greenroom.actors.messages import Turn
from greenroom.services.storage import Change


class Announcer(Protocol):
    """Tells those who asked for it that their turns have ended."""

    def changes(self, turn: Turn, ending: Terminal) -> Sequence[Change]:
        """What is to be written with the turn's ending: nothing for a turn that nobody is told of, or where what is to
        be told is not kept in a storage."""
        ...

    def ended(self, turn: Turn, ending: Terminal) -> None:
        """The turn has this ending; tell it. Does not wait and does not fail."""
        ...
