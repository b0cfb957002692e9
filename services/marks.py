"""Which of the marks that turns left in a service stands after a turn.

A mark says how a session was when a turn was committed. Turns that changed nothing left none.
"""

from __future__ import annotations

from collections.abc import Sequence

BEFORE = ""
"""The turn of the mark that says how a session was before its first turn."""


def standing(marks: Sequence[str], turn_id: str, turns: Sequence[str]) -> int:
    """The place of the mark that stood after `turn_id`; -1: it is from before the first.

    `marks`: the turns that left one, `turns`: all of the session that are known, both oldest first.
    """
    after = len(turns) - 1 - turns[::-1].index(turn_id)
    earlier = frozenset(turns[: after + 1])
    for place in range(len(marks) - 1, -1, -1):
        if marks[place] in earlier:
            return place
    # Those that are there are from before the turns that are known, and then come those of later turns.
    later = frozenset(turns[after + 1 :])
    return next((place for place, mark in enumerate(marks) if mark in later), len(marks)) - 1
