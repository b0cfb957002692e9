"""A session's earlier states in few bytes: each is kept as what differs from the state after it.

The states of an agent mostly grow at one place, so that what a state shares with the next one is all of it but some
words. They are read from the newest backwards. Files of sessions hold such bytes (`sqlite.schema`).
"""

from __future__ import annotations

from collections.abc import Iterator

_NO_STATE = b""
"""Stands for a turn after which there was no state yet."""
_SAME = b"="
"""Stands for a turn after which the state was the one after the next turn too."""
_LENGTH = 8


def shortened(state: bytes | None, after: bytes | None) -> bytes:
    """`state` as it is kept when the state after it is `after`."""
    if state is None:
        return _NO_STATE
    if state == after:
        return _SAME
    after = after or b""
    head = _common_start(state, after)
    tail = _common_end(state[head:], after[head:])
    return head.to_bytes(_LENGTH) + tail.to_bytes(_LENGTH) + state[head : len(state) - tail]


def lengthened(newest: bytes | None, kept: tuple[bytes, ...]) -> Iterator[bytes | None]:
    """The states before `newest`, the latest first, from what is kept of them (oldest first)."""
    after = newest
    for short in reversed(kept):
        if short != _SAME:
            after = None if short == _NO_STATE else _lengthened(short, after or b"")
        yield after


def _lengthened(short: bytes, after: bytes) -> bytes:
    head = int.from_bytes(short[:_LENGTH])
    tail = int.from_bytes(short[_LENGTH : 2 * _LENGTH])
    return after[:head] + short[2 * _LENGTH :] + after[len(after) - tail :]


def _common_start(one: bytes, other: bytes) -> int:
    """How many bytes the two begin with alike. It halves what is left to compare, which the library does in C."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_end(one: bytes, other: bytes) -> int:
    """How many bytes the two end with alike."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[len(one) - middle : len(one) - low] == other[len(other) - middle : len(other) - low]:
            low = middle
        else:
            high = middle - 1
    return low
