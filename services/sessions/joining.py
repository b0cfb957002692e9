"""A turn that joins the line of another process's session, which is at work on turns that came before it.

Its record is written into the session's folder as it stands: its owner keeps the session, and finds it changed by
somebody who did not take it, at the latest with its next write, the ending of the turn that runs. It reads how the
session stands, and has the turn run when its time comes (`DurableStore.line`). So the line is one, wherever turns come
in, and in the order in which they were recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from greenroom.actors.errors import StoreUnavailable
from greenroom.actors.messages import Turn
from greenroom.services.durable import SessionElsewhere, TurnEntry, TurnJoined
from greenroom.services.sessions.draft import Draft
from greenroom.services.sessions.head import SessionHead, in_line
from greenroom.services.sessions.hold import hold_of
from greenroom.services.sessions.passing import marks_of
from greenroom.services.storage import Conflict, Head, NameTaken, Storage

Join: TypeAlias = Callable[[SessionElsewhere], object]
"""As `DurableStore.accept` has it."""


class MaybeJoined(StoreUnavailable):
    """Whether the turn has joined is not known, and its owner may run it: nobody else takes it back."""


def elsewhere(found: Head, head: SessionHead) -> SessionElsewhere:
    """How a session stands that is another process's. `head`: what `found` says."""
    return SessionElsewhere(found.owner, tuple(in_line(one) for one in head.open))


async def join_line(
    storage: Storage, turn: Turn, raw: bytes, mark: str, found: Head, head: SessionHead, join: Join
) -> TurnJoined:
    """Record a turn that was encoded as the last of the line. Raises `Conflict` when the session stands otherwise by
    now, or the turn's names are another's: look again; what `join` raises, and `StoreUnavailable`."""
    stands = elsewhere(found, head)
    join(stands)
    draft = Draft(hold_of(found.fence, head, found.owner))
    number = draft.accept(turn, raw, mark)
    if not turn.kept:
        draft.follow(number)
    try:
        await storage.write([draft.change(turn.key), *marks_of(turn, found.owner)])
    except NameTaken as taken:
        raise Conflict(found.key, found) from taken
    except StoreUnavailable as error:
        if error.nothing_kept:
            raise
        raise MaybeJoined(error.message, retry_after=error.retry_after, maybe_done=True) from error
    entry = TurnEntry(
        turn=turn, number=number, status="waiting", attempts=0, ahead=len(head.open), owned=True, events=[]
    )
    return TurnJoined(entry, stands)
