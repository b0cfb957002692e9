"""Sessions that are to go with the process that made them: the mark that says so in the storage.

It is a folder of kind `passing`, with nothing in it, of the same user and session as the session's own. It is written
with what makes the session, is open, and has this process as its owner: when that is gone without having forgotten the
session, any process finds the mark, and forgets the session and what services have of it. It goes with the session, or
with the turn that makes it one that stays (`Turn.passing`).

What services keep elsewhere cannot go in one write with the session, and goes after it. Until it has, a mark stays
behind (`unforgotten`), so that it goes too when the process dies in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from greenroom.actors.messages import SessionKey, Turn
from greenroom.services.durable import Passed
from greenroom.services.sessions.head import folder_of
from greenroom.services.storage import NOT_THERE, Change, Conflict, Fence, FolderKey, Storage

KIND: Final = "passing"
GONE: Final = b"gone"
"""What the head of a mark says whose session has gone."""


def marked(key: SessionKey, owner: str) -> Change:
    """What marks a session."""
    return Change(key=FolderKey(KIND, *key), head=b"", owner=owner, open=True)


def unmarked(key: SessionKey, mark: Fence | None = None) -> Change:
    """What takes a session's mark away, if it has one. `mark`: the version it must have."""
    return Change(key=FolderKey(KIND, *key), expected=mark, delete=True)


def unforgotten(key: SessionKey, owner: str, mark: Fence | None = None) -> Change:
    """What marks a session that goes in the same write, of which services have something elsewhere."""
    return Change(key=FolderKey(KIND, *key), expected=mark, head=GONE, owner=owner, open=True)


async def forgotten(storage: Storage, key: SessionKey, owner: str) -> None:
    """Services elsewhere have nothing of the session any more: what marks it goes, unless somebody has marked it anew.
    Raises `StoreUnavailable`."""
    folder = await storage.read(FolderKey(KIND, *key))
    if folder is not None and folder.head.body == GONE and folder.head.owner == owner:
        await _unmark(storage, key, folder.head.fence)


async def _unmark(storage: Storage, key: SessionKey, mark: Fence) -> None:
    with suppress(Conflict):  # it is another one's by now
        await storage.write([unmarked(key, mark)])


def changes_to_forget(
    key: SessionKey, expected: Fence | None, mark: Fence | None, others: Sequence[Change]
) -> Sequence[Change]:
    """What has a session go, with its mark, if that is not among `others` (`unforgotten`)."""
    gone = Change(key=folder_of(key), expected=expected, delete=True)
    marks = [] if any(one.key.kind == KIND for one in others) else [unmarked(key, mark)]
    return [gone, *marks, *others]


def marks_of(turn: Turn, owner: str) -> Sequence[Change]:
    """What is to be written with a turn's acceptance by that process."""
    if turn.passing is None:
        return ()
    return (marked(turn.key, owner) if turn.passing else unmarked(turn.key),)


async def passed(storage: Storage, limit: int) -> tuple[Sequence[Passed], Sequence[SessionKey]]:
    """Up to `limit` sessions that were to go with a process that is gone, or have gone, and services elsewhere may have
    something of them: those that may go, and those that are to be left alone, as turns of them are open still. A
    session that has begun anew since it went is not marked any more. Raises `StoreUnavailable`."""
    free: list[Passed] = []
    busy: list[SessionKey] = []
    for head in await storage.orphans(KIND, limit):
        key = SessionKey(*head.key[1:])
        folder = await storage.read(folder_of(key))
        if folder is not None and head.body == GONE:
            await _unmark(storage, key, head.fence)
        elif folder is not None and folder.head.open:
            busy.append(key)
        else:
            free.append(Passed(key, NOT_THERE if folder is None else folder.head.fence, head.fence))
    return free, busy
