"""Sessions that are to go with the process that made them: the mark that says so in the storage.

It is a folder of kind `passing`, with nothing in it, of the same user and session as the session's own. It is written
with what makes the session, is open, and has this process as its owner: when that is gone without having forgotten the
session, any process finds the mark, and forgets the session and what services have of it. It goes with the session, or
with the turn that makes it one that stays (`Turn.passing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from greenroom.actors.messages import SessionKey, Turn
from greenroom.services.durable import Passed
from greenroom.services.sessions.head import folder_of
from greenroom.services.storage import NOT_THERE, Change, Fence, FolderKey, Storage

KIND: Final = "passing"


def marked(key: SessionKey, owner: str) -> Change:
    """What marks a session."""
    return Change(key=FolderKey(KIND, *key), owner=owner, open=True)


def unmarked(key: SessionKey, mark: Fence | None = None) -> Change:
    """What takes a session's mark away, if it has one. `mark`: the version it must have."""
    return Change(key=FolderKey(KIND, *key), expected=mark, delete=True)


def marks_of(turn: Turn, owner: str) -> Sequence[Change]:
    """What is to be written with a turn's acceptance by that process."""
    if turn.passing is None:
        return ()
    return (marked(turn.key, owner) if turn.passing else unmarked(turn.key),)


async def passed(storage: Storage, limit: int) -> tuple[Sequence[Passed], Sequence[SessionKey]]:
    """Up to `limit` sessions that were to go with a process that is gone: those that may go, and those that are to be
    left alone, as turns of them are open still. Raises `StoreUnavailable`."""
    free: list[Passed] = []
    busy: list[SessionKey] = []
    for head in await storage.orphans(KIND, limit):
        key = SessionKey(*head.key[1:])
        folder = await storage.read(folder_of(key))
        if folder is not None and folder.head.open:
            busy.append(key)
        else:
            free.append(Passed(key, NOT_THERE if folder is None else folder.head.fence, head.fence))
    return free, busy
