"""The mailbox in front of an actor that is at work: whom it refuses."""

from __future__ import annotations

from greenroom.actors.errors import MailboxFull, SessionBusy
from greenroom.actors.messages import Overlap, Turn


def check_room(turn: Turn, waiting: int, most: int, overlap: Overlap) -> None:
    """Raises `SessionBusy` or `MailboxFull` when there is no room for this turn behind the `waiting` others.

    `most`: how many may wait; `overlap`: what a turn wants that does not say.
    """
    session_id = turn.key.session_id
    if (turn.overlap or overlap) == "reject":
        raise SessionBusy(
            f"session {session_id!r} is working on a turn and this request asked not to wait "
            '(overlap "reject"); send it again later, or with overlap "queue" or "interrupt"'
        )
    if waiting >= most:
        raise MailboxFull(
            f"{waiting} turns wait for session {session_id!r} already; send it again when some are done"
        )
