"""Whose a session is: recording turns for it, taking it from an owner that is gone, and what becomes of a write when it
is not known whether it was done.

In the usual cases a turn is accepted with one write: the session is held, or is new. One that is not held costs a write
more, which tells how it stands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from greenroom.actors.errors import NotServing, SessionDamaged, SessionHeld, SessionLost, StoreUnavailable
from greenroom.actors.messages import SessionKey, Turn
from greenroom.services.durable import (
    Acceptance,
    InLine,
    SessionTaken,
    Standing,
    TurnAccepted,
    TurnEntry,
    TurnKnown,
    TurnsOpen,
)
from greenroom.services.sessions import repeats
from greenroom.services.sessions.draft import Draft
from greenroom.services.sessions.head import SessionHead, decode_head, folder_of, new_mark
from greenroom.services.sessions.hold import Hold, hold_of
from greenroom.services.sessions.joining import Join, MaybeJoined, elsewhere, join_line
from greenroom.services.sessions.owned import OwnedSessions
from greenroom.services.sessions.passing import marks_of
from greenroom.services.sessions.reading import (
    entries_in,
    legible,
    taken_hold,
    turn_spans,
)
from greenroom.services.sessions.turn_names import names_of
from greenroom.services.sessions.turn_reader import TurnReader
from greenroom.services.storage import NOT_THERE, Change, Conflict, Folder, Head, Named, NameTaken

UNSURE_SECONDS: Final = 60.0
"""For so long a write whose outcome is not known may still be done, at most."""


class Blocked(Exception):
    """The session cannot be had just now. `found`: how it stands; none: this process takes no more."""

    def __init__(self, found: Head | None) -> None:
        super().__init__(f"blocked by {found!r}")
        self.found = found

    def held(self, key: SessionKey) -> SessionHeld:
        """What who wanted the session is told."""
        return SessionHeld(
            f"session {key.session_id!r} has turns that another process works on, or that are to be taken from one "
            "that is gone, or this process is ending; try again when they have ended"
        )


class _Unsure(Struct):
    """What may have been written for a session without anybody having been told.

    `marks`: of acceptances. `taken`: the session was; `begun`: the number of its turn that had begun by then, if
    one had. `until`: when it is too late for that. `settled`: it was found out, and what is late finds a session that
    has changed; but one that goes and is not there looks as it did before there was any, so that acceptances are looked
    for until it is too late.
    """

    until: float
    marks: set[str]
    taken: bool = False
    begun: int | None = None
    settled: bool = False

    def has(self, head: SessionHead) -> bool:
        """Whether one of the acceptances was written."""
        return any(one.mark in self.marks for one in head.open)


def _as_found(entry: TurnEntry, unsure: _Unsure) -> TurnEntry:
    """A turn of a session that was taken, as it stood before: by having been taken it has not begun."""
    if entry.status != "running" or entry.number == unsure.begun:
        return entry
    return replace(entry, status="waiting")


class Acceptor:
    """Records turns, and takes sessions. Who calls holds the session's lock."""

    def __init__(
        self, owned: OwnedSessions, monotonic: Callable[[], float], reached: Callable[[str], object]
    ) -> None:
        self._owned = owned
        self._life = owned.life
        self._storage = owned.storage
        self.reader = TurnReader(owned.storage, owned.aside, lambda: owned.life.name)
        self._monotonic = monotonic
        self._reached = reached
        self._unsure: dict[SessionKey, _Unsure] = {}
        self._count = 0
        """Of turns that were to be recorded."""

    def clear(self) -> None:
        """This process is another owner now: what is not known is no longer its to find out."""
        self._unsure.clear()

    @property
    def half_taken(self) -> list[SessionKey]:
        """Sessions that may have been taken without their turns having been given to anybody."""
        return [key for key, unsure in self._unsure.items() if unsure.taken]

    async def accept(self, turn: Turn, raw: bytes, join: Join | None) -> Acceptance:
        """Record a turn that was encoded. Raises `Conflict` when another process wrote meanwhile: try again."""
        try:
            return await self._accept(turn, raw, join)
        except MaybeJoined:
            raise
        except StoreUnavailable as error:
            error.nothing_kept = True  # a turn that may have been recorded is found out, and removed
            raise

    async def _accept(self, turn: Turn, raw: bytes, join: Join | None) -> Acceptance:
        taken = await self.settle(turn.key)
        if taken:
            return SessionTaken(taken)
        self._reached("accept.before")
        try:
            return await self._record(turn, raw)
        except NameTaken as conflict:
            entry = await self.entry(conflict.name, conflict.named)
            if entry is None:  # it was removed meanwhile
                raise Conflict(folder_of(turn.key), None) from conflict
            return TurnKnown(entry)
        except Blocked as blocked:
            return await self._blocked(turn, raw, blocked.found, join)

    async def take(self, key: SessionKey) -> Sequence[TurnEntry]:
        """Make the session this process's if its owner is gone and turns are open; gives those. Raises `Conflict`."""
        taken = await self.settle(key)
        if taken:
            return taken
        folder = await self._storage.read(folder_of(key))
        if folder is None or folder.head.owner_state != "gone" or not folder.head.open or self._life.draining:
            return ()
        return await self._take(key, folder.head)

    async def standing(self, key: SessionKey) -> Standing:
        """How the session stands, which is taken if its owner is gone and turns are open. Raises `Conflict`."""
        taken = await self.settle(key)
        if taken:
            return SessionTaken(taken)
        folder = await self._storage.read(folder_of(key))
        if folder is None:
            return NOT_THERE
        with legible(key):
            opened = decode_head(folder.head.body).open
        if not opened:
            return folder.head.fence
        if folder.head.owner_state == "gone" and not self._life.draining:
            return SessionTaken(await self._take(key, folder.head))
        return TurnsOpen([(one.turn_id, one.principal) for one in opened])

    async def as_owner(
        self, key: SessionKey, draw: Callable[[Hold], Awaitable[Draft]], others: Sequence[Change] = ()
    ) -> bool:
        """Write what `draw` makes of the session, which is or becomes this process's, and `others`. Whether it was not.

        Raises `Blocked` when it is another's, `Conflict` when another process wrote meanwhile.
        """
        self._check_life()
        found: Head | None
        try:
            hold = self._owned.held(key)
            if hold is not None:
                await self._owned.write(key, await draw(hold), others)
                return False
            if not self._life.draining:
                new = hold_of(NOT_THERE, SessionHead(), "")
                await self._owned.write(key, await draw(new), others, owner=self._life.name)
                return True
            folder = await self._storage.read(folder_of(key))
            found = None if folder is None else folder.head
        except Conflict as conflict:
            if conflict.found is None or conflict.key != folder_of(key):
                raise
            found = conflict.found
        return await self._write_to(key, found, draw, others)

    async def settle(self, key: SessionKey) -> Sequence[TurnEntry]:
        """Find out what was written of which nobody was told. A turn that was accepted so is removed: who asked for it
        was refused. A session that was taken so gives its open turns. Raises `Conflict`."""
        unsure = self._unsure.get(key)
        if unsure is None:
            return ()
        late = self._monotonic() > unsure.until  # until then it may still be done, in the next moment
        folder = await self._storage.read(folder_of(key))
        if folder is None or folder.head.owner != self._life.name:
            if late:
                self._unsure.pop(key, None)
            return ()
        with legible(key):
            hold = hold_of(folder.head.fence, decode_head(folder.head.body), folder.head.owner)
        if unsure.settled and not unsure.has(hold.head):
            if late:
                self._unsure.pop(key, None)
            return ()
        gone = [one for one in hold.head.open if one.mark in unsure.marks]
        for opened in gone:
            await self._owned.log_at(key, hold, opened, 0)
        draft = Draft(hold)
        for opened in gone:
            draft.end(opened, (), kept=False)
        # Also with nothing to remove: what is still on its way then finds the session changed. Without open turns it is
        # let go, so that what this process remembers of it, which may be out of date, is not used.
        await self._owned.write(key, draft, owner=None if draft.hold.head.open else "")
        taken: Sequence[TurnEntry] = ()
        if unsure.taken and draft.hold.head.open:
            taken = [_as_found(entry, unsure) for entry in await self._entries(key, draft.hold)]
        self._settled(key)
        self._owned.hear(key, draft.hold.head)
        return taken

    async def settle_all(self) -> None:
        """Do that with all sessions, but those whose turns who takes them is given. Takes their locks."""
        for key in list(self._unsure):
            async with self._owned.locks.of(key):
                if key not in self.half_taken:  # only now: what held the lock may have taken it half
                    with suppress(SessionDamaged):  # that was logged, and concerns no other session
                        await self._owned.until_written(key, partial(self.settle, key))

    async def entry(self, name: bytes, named: Named) -> TurnEntry | None:
        """The turn that a name leads to, with all its events; none: it is no longer kept."""
        if named.key.kind == repeats.KIND:
            return await repeats.entry_for_repeats(self._storage, self._owned.aside, named)
        return await self.reader.entry(name, named)

    # ------------------------------------------------------------------------------------------------------------------

    async def _record(self, turn: Turn, raw: bytes) -> TurnAccepted:
        key, number, name = turn.key, 0, self._life.name
        mark = self._new_mark()
        joined: Sequence[InLine] = ()

        async def draw(hold: Hold) -> Draft:
            nonlocal number, joined
            joined = self._owned.joined(hold.head)
            draft = Draft(hold)
            number = draft.accept(turn, raw, mark)
            return draft

        try:
            fresh = await self.as_owner(key, draw, marks_of(turn, name))
            if self._life.name != name:
                raise StoreUnavailable(
                    f"turn {turn.id} was recorded when this process was late to tell others that it lives; try again"
                )
        except (Conflict, NameTaken, Blocked):
            raise
        except BaseException:
            self._unsure_of(key).marks.add(mark)
            raise
        self._reached("accept.written")
        self._settled(key)
        return TurnAccepted(number, fresh, joined)

    async def _write_to(
        self,
        key: SessionKey,
        found: Head | None,
        draw: Callable[[Hold], Awaitable[Draft]],
        others: Sequence[Change],
    ) -> bool:
        if found is None:
            raise Blocked(None)
        mine = found.owner == self._life.name
        if not mine and self._life.draining:
            raise Blocked(None)
        with legible(key):
            head = decode_head(found.body)
        unsure = self._unsure.get(key)
        if mine and unsure is not None and (not unsure.settled or unsure.has(head)):
            raise Conflict(found.key, found)  # it is to be settled first
        if not mine and head.open:
            raise Blocked(found)
        self._owned.heed(head)
        draft = await draw(hold_of(found.fence, head, found.owner))
        self._check_life()
        await self._owned.write(key, draft, others, owner=None if mine else self._life.name, take=not mine)
        return not mine

    async def _blocked(self, turn: Turn, raw: bytes, found: Head | None, join: Join | None) -> Acceptance:
        """A repeat of a turn is that turn, whoever has the session; any other finds it taken, or elsewhere."""
        if found is not None and found.owner_state == "gone":
            return SessionTaken(await self._take(turn.key, found))
        for name in names_of(turn):
            named = await self._storage.lookup(name)
            entry = None if named is None else await self.entry(name, named)
            if entry is not None:
                return TurnKnown(entry)
        if found is None:
            raise NotServing(
                "this process is ending, and takes no more sessions; ask again, for another one to answer"
            )
        with legible(turn.key):
            head = decode_head(found.body)
        if join is None:
            return elsewhere(found, head)
        answer = await join_line(self._storage, turn, raw, self._new_mark(), found, head, join)
        self._reached("join.written")
        return answer

    async def _take(self, key: SessionKey, found: Head) -> Sequence[TurnEntry]:
        with legible(key):
            numbers = [opened.number for opened in decode_head(found.body).open]
        folder = await self._storage.read(folder_of(key), turn_spans(numbers))
        if folder is None or folder.head.fence != found.fence:
            raise Conflict(folder_of(key), None if folder is None else folder.head)
        with legible(key):
            entries = await self._entries_in(folder)
            draft = Draft(taken_hold(folder))
        self._check_life()
        name = self._life.name  # only now: it may have changed while the turns were read
        draft.take(self._new_mark())
        try:
            await self._owned.write(key, draft, owner=name, take=True)
        except Conflict:
            raise
        except BaseException:
            unsure = self._unsure_of(key)
            unsure.taken = True
            unsure.begun = next((entry.number for entry in entries if entry.status == "running"), None)
            raise
        if self._life.name != name:
            raise SessionLost(
                f"session {key.session_id!r} was taken when this process was late to tell others that it lives; they "
                "have it now"
            )
        # Who takes a turn is given it, also one that this process had refused before: its mark is another one now.
        self._settled(key)
        self._reached("take.written")
        return [
            replace(entry, here=True, owned=True, taken_at=opened.taken_at)
            for entry, opened in zip(entries, draft.hold.head.open, strict=True)
        ]

    async def _entries(self, key: SessionKey, hold: Hold) -> Sequence[TurnEntry]:
        numbers = [opened.number for opened in hold.head.open]
        folder = await self._storage.read(folder_of(key), turn_spans(numbers))
        if folder is None or folder.head.fence != hold.fence:  # this process heard late of its own write
            raise Conflict(folder_of(key), None if folder is None else folder.head)
        with legible(key):
            return await self._entries_in(folder)

    async def _entries_in(self, folder: Folder) -> Sequence[TurnEntry]:
        return await self._owned.aside.read(folder.spans, lambda: entries_in(folder, self._life.name))

    def _new_mark(self) -> str:
        self._count += 1
        return new_mark(self._life.name, self._count)

    def _check_life(self) -> None:
        if not self._life.lives():
            raise StoreUnavailable(
                "this process could not tell the others in time that it lives, so it does nothing for its sessions "
                "until the storage answers; try again"
            )

    def _unsure_of(self, key: SessionKey) -> _Unsure:
        unsure = self._unsure.get(key)
        if unsure is None:
            unsure = self._unsure[key] = _Unsure(0.0, set())
        unsure.until = self._monotonic() + UNSURE_SECONDS
        unsure.settled = False
        return unsure

    def _settled(self, key: SessionKey) -> None:
        """How the session stands is known. This process may be another owner since, and have forgotten what was not."""
        unsure = self._unsure.get(key)
        if unsure is None:
            return
        unsure.taken, unsure.settled = False, True
        if not unsure.marks:
            del self._unsure[key]
