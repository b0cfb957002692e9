"""The mailbox in front of an actor that is at work: whom it refuses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from greenroom.actors.errors import MailboxFull, SessionBusy
from greenroom.actors.limits import Limits
from greenroom.actors.messages import Overlap, Turn
from greenroom.actors.turn import TurnRun
from greenroom.actors.weights import weight_of


def check_room(turn: Turn, waiting: Sequence[TurnRun], limits: Limits, overlap: Overlap) -> None:
    """Raises `SessionBusy` or `MailboxFull` when there is no room for this turn behind the `waiting` others.

    `overlap`: what a turn wants that does not say.
    """
    if (turn.overlap or overlap) == "reject":
        raise SessionBusy(
            f"session {turn.key.session_id!r} is working on a turn and this request asked not to wait "
            '(overlap "reject"); send it again later, or with overlap "queue" or "interrupt"'
        )
    check_bounds(turn, len(waiting), bytes_of(waiting), limits)


def check_waits(turn: Turn, overlap: Overlap) -> None:
    """Raises `SessionBusy` for a turn that does not wait for one that runs in another process. `overlap`: as above."""
    if (turn.overlap or overlap) == "reject":
        raise SessionBusy(
            f"session {turn.key.session_id!r} is working on a turn, in another process, and this request asked not to "
            'wait (overlap "reject"); send it again later, or with overlap "queue"'
        )


def check_bounds(turn: Turn, waiting: int, size: int, limits: Limits) -> None:
    """Raises `MailboxFull` when no more may wait than the `waiting` others, which are of `size` bytes. One alone may
    wait whatever its size."""
    if waiting >= limits.waiting_turns:
        raise MailboxFull(
            f"{waiting} turns wait for session {turn.key.session_id!r} already; send it again when some are done"
        )
    if size and size + weight_of(turn) > limits.waiting_bytes:
        raise MailboxFull(
            f"turns of {size:,} bytes wait for session {turn.key.session_id!r} already, and with this one of "
            f"{weight_of(turn):,} it would be more than {limits.waiting_bytes:,} (Limits.waiting_bytes); send it again "
            "when some are done"
        )


def bytes_of(waiting: Iterable[TurnRun]) -> int:
    """What the requests of these turns weigh."""
    return sum(run.log.weight for run in waiting)
