"""Heads of sessions, and what is kept of ended turns, as versions before and after this one read and write them."""

from __future__ import annotations

from msgspec import Struct, msgpack

from greenroom.services.sessions.head import (
    EndedTurn,
    OpenTurn,
    SessionHead,
    decode_ended,
    decode_head,
    encode_ended,
    encode_head,
)

OPEN_BEFORE = bytes.fromhex(
    "98 02 01 01 cd06b4 05"  # 2 commits, 1, 1, 1,716 bytes, 5 is next
    "92"  # two open turns
    "96 03 a6 7475726e2d33 a3 416461 c3 02 a3 702d37"  # 3, "turn-3", "Ada", running, begun twice, "p-7"
    "96 04 a6 7475726e2d34 c0 c2 00 a3 702d38"  # 4, "turn-4", no principal, waiting, never begun, "p-8"
    "01 cd012c"  # 1, 300 bytes
)
"""A head of the version before `taken_at`."""
OPEN_AT_FIRST = bytes.fromhex("96 00 01 01 00 02 91 95 01 a1 74 c0 c3 01")
"""One of the version before marks, and the sizes of ended turns."""
ENDED_BEFORE = bytes.fromhex("93 cd012c 02 92 c4016b c40169")
"""What was kept of an ended turn: 300 bytes, two chunks, the names `k` and `i`."""


class OpenBefore(Struct, frozen=True, array_like=True):
    """As the version before `taken_at` has it."""

    number: int
    turn_id: str
    principal: str | None
    running: bool
    attempts: int
    mark: str = ""


class HeadBefore(Struct, frozen=True, array_like=True):
    """The same of heads."""

    commits: int = 0
    oldest_turn: int = 1
    oldest_state: int = 1
    size: int = 0
    next_entry: int = 1
    open: tuple[OpenBefore, ...] = ()
    oldest_entry: int = 1
    ended_size: int = 0


class EndedBefore(Struct, frozen=True, array_like=True):
    """The same of ended turns."""

    size: int
    chunks: int
    names: tuple[bytes, ...]


def test_open_turns_of_the_version_before_were_never_taken_over() -> None:
    assert decode_head(OPEN_BEFORE) == SessionHead(
        commits=2,
        size=1_716,
        next_entry=5,
        open=(
            OpenTurn(3, "turn-3", "Ada", True, 2, "p-7", taken_at=None),
            OpenTurn(4, "turn-4", None, False, 0, "p-8", taken_at=None),
        ),
        ended_size=300,
    )
    assert decode_head(OPEN_AT_FIRST) == SessionHead(next_entry=2, open=(OpenTurn(1, "t", None, True, 1),))


def test_ended_turns_of_the_version_before_were_never_taken_over() -> None:
    assert decode_ended(ENDED_BEFORE) == EndedTurn(300, 2, (b"k", b"i"), taken_at=None)


def test_the_version_before_reads_what_this_one_writes() -> None:
    """While a deploy replaces one process after the other, both have the store."""
    opened = OpenTurn(3, "turn-3", "Ada", True, 2, "p-7", taken_at=17)
    head = SessionHead(commits=2, next_entry=5, open=(opened,), ended_size=300)
    before = msgpack.decode(encode_head(head), type=HeadBefore)
    assert before == HeadBefore(
        commits=2, next_entry=5, open=(OpenBefore(3, "turn-3", "Ada", True, 2, "p-7"),), ended_size=300
    )
    ended = msgpack.decode(encode_ended(EndedTurn(300, 2, (b"k",), 17)), type=EndedBefore)
    assert ended == EndedBefore(300, 2, (b"k",))


def test_what_is_written_is_read() -> None:
    head = SessionHead(open=(OpenTurn(1, "t", None, True, 1, "m", 17), OpenTurn(2, "u", "Eve", False, 0)))
    assert decode_head(encode_head(head)) == head
    assert decode_ended(encode_ended(EndedTurn(1, 2, (b"k",), 17))) == EndedTurn(1, 2, (b"k",), 17)
