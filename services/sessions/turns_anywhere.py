"""Turns by id, in whatever process their sessions are: finding them, marking them, forgetting them, forking sessions
after them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from greenroom.actors.messages import SessionKey, Turn
from greenroom.services.durable import TurnEntry
from greenroom.services.sessions import repeats
from greenroom.services.sessions.acceptance import Acceptor
from greenroom.services.sessions.draft import Draft
from greenroom.services.sessions.head import (
    ENDED,
    KIND,
    decode_ended,
    decode_head,
    encode_head,
    folder_of,
)
from greenroom.services.sessions.hold import hold_of
from greenroom.services.sessions.owned import OwnedSessions
from greenroom.services.sessions.owner_notes import Cancelled
from greenroom.services.sessions.passing import marked
from greenroom.services.sessions.reading import WHOLE, fork_of, legible
from greenroom.services.sessions.turn_names import id_name, names_of, number_in
from greenroom.services.sessions.unwanted import removed
from greenroom.services.storage import Change, Named, Span

LONGEST_REASON: Final = 1_000
"""For which a turn is to be cancelled, characters: it is written again with each write to its session."""


class TurnsAnywhere:
    """Finds turns by their names."""

    def __init__(self, owned: OwnedSessions, acceptor: Acceptor, reached: Callable[[str], object]) -> None:
        self._owned = owned
        self._storage = owned.storage
        self._acceptor = acceptor
        self._reached = reached

    async def find(self, turn_id: str, principal: str | None, first: int) -> TurnEntry | None:
        """The turn's entry with the events from number `first` on; none: it never was, or is no longer kept."""
        name = id_name(turn_id, principal)
        for _ in range(2):  # it may end just now, and what is left of it lie in another folder then
            named = await self._storage.lookup(name)
            entry = None if named is None else await self._find(name, named, first)
            if named is None or entry is not None:
                return entry
        return None

    async def _find(self, name: bytes, named: Named, first: int) -> TurnEntry | None:
        if named.key.kind == repeats.KIND:
            left = await repeats.entry_for_repeats(self._storage, self._owned.aside, named)
            return None if left is None else replace(left, events=left.events[first:])
        return await self._acceptor.reader.entry_from(name, named, first)

    async def known(self, turn: Turn) -> TurnEntry | None:
        """The turn that has the id or the idempotency key of this one; none: there is none."""
        for name in names_of(turn):
            named = await self._storage.lookup(name)
            entry = None if named is None else await self._acceptor.entry(name, named)
            if entry is not None:
                return entry
        return None

    async def remove(self, turn_id: str, principal: str | None) -> bool:
        """Keep nothing of an ended turn but what its session's history has. Whether it was kept."""
        name = id_name(turn_id, principal)
        named = await self._storage.lookup(name)
        if named is None:
            return False
        key, number = SessionKey(*named.key[1:]), number_in(named.value)
        mark = removed(turn_id, principal)
        async with self._owned.locks.of(key):
            return await self._owned.until_written(key, lambda: self._remove(key, number, name, mark))

    async def leave_ending(self, turn_id: str, principal: str | None) -> bool:
        """Have the ending of a turn left for who follows it, although nothing is kept of it. Whether it is open."""
        named = await self._storage.lookup(id_name(turn_id, principal))
        if named is None or named.key.kind != KIND:
            return False
        key = SessionKey(*named.key[1:])
        async with self._owned.locks.of(key):
            return await self._owned.until_written(key, lambda: self._leave_ending(key, turn_id, principal))

    async def mark_cancelled(
        self, turn_id: str, principal: str | None, reason: str
    ) -> tuple[str, Cancelled] | None:
        """Write down that an open turn is to be cancelled, by whoever has it or takes it over; the first reason stays.
        Gives its living owner and what that is to be told; none: there is none, or the turn is not open."""
        named = await self._storage.lookup(id_name(turn_id, principal))
        if named is None or named.key.kind != KIND:
            return None
        key = SessionKey(*named.key[1:])
        turn = Cancelled(turn_id, principal, reason[:LONGEST_REASON].encode("utf-8", "replace").decode())
        async with self._owned.locks.of(key):
            return await self._owned.until_written(key, lambda: self._mark_cancelled(key, turn))

    async def fork(self, source: SessionKey, turn_id: str, target: SessionKey) -> bool:
        """Make `target` what `source` was after that turn; false: that is not known. A new session is marked as one
        that goes with this process, until a turn of it that is to stay is accepted. Raises `Conflict`."""
        folder = await self._storage.read(folder_of(source), WHOLE)
        if folder is None:
            return False
        with legible(source):
            fork = fork_of(folder, turn_id)
        if fork is None:
            return False
        expected = folder.head.fence if source == target else None
        head, to = encode_head(fork.head), folder_of(target)
        self._owned.drop(target)
        change = Change(key=to, expected=expected, delete=True, head=head, put=fork.cells)
        marks = [] if source == target else [marked(target, self._owned.life.name)]
        await self._storage.write([change, *marks])
        self._reached("fork.written")
        return True

    async def _leave_ending(self, key: SessionKey, turn_id: str, principal: str | None) -> bool:
        """Its process finds the session changed, as `_remove` says, and so hears of it before it ends the turn."""
        folder = await self._storage.read(folder_of(key))
        if folder is None:
            return False
        with legible(key):
            draft = Draft(hold_of(folder.head.fence, decode_head(folder.head.body), folder.head.owner))
            head = draft.hold.head
        opened = draft.hold.turn(turn_id, principal)
        if opened is None or not draft.follow(opened.number):
            return False
        if draft.hold.head == head:
            return True
        self._owned.drop(key)
        await self._storage.write([draft.change(key)])
        self._reached("followed.written")
        return True

    async def _mark_cancelled(self, key: SessionKey, turn: Cancelled) -> tuple[str, Cancelled] | None:
        """Once: who insists on it writes no more. The turn's process finds the session changed, as `_remove` says."""
        folder = await self._storage.read(folder_of(key))
        if folder is None:
            return None
        with legible(key):
            draft = Draft(hold_of(folder.head.fence, decode_head(folder.head.body), folder.head.owner))
        opened = draft.hold.turn(turn.turn_id, turn.principal)
        if opened is None:
            return None
        if opened.cancelled is None:
            draft.cancel(opened, turn.reason)
            self._owned.drop(key)
            await self._storage.write([draft.change(key)])
            self._reached("cancel.written")
        else:
            turn = replace(turn, reason=opened.cancelled)
        return None if folder.head.owner_state == "gone" else (folder.head.owner, turn)

    async def _remove(self, key: SessionKey, number: int, name: bytes, mark: Change) -> bool:
        """`name`: the turn's; the session may have begun anew since, and the number be another turn's.

        Also of another process's session, which finds it changed by nobody who took it, and reads it again."""
        folder = await self._storage.read(folder_of(key), [Span(ENDED, number, number)])
        if folder is None or not folder.spans[0]:
            return False
        with legible(key):
            head, ended = decode_head(folder.head.body), decode_ended(folder.spans[0][0][1])
            if name not in ended.names:
                return False
            draft = Draft(hold_of(folder.head.fence, head, folder.head.owner))
            draft.remove(number, ended)
        self._owned.drop(key)
        await self._storage.write([draft.change(key), mark])
        self._reached("remove.written")
        return True
