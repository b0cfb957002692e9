"""What processes tell the owners of turns, in notes that come with an owner's renewals: that a turn is to be cancelled,
and that somebody follows it in another process.

An owner is left a bounded number of notes between two renewals, and the oldest go. So what is said of many turns at
once, or again and again, shares notes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from msgspec import DecodeError, Struct, msgpack

from greenroom.actors.messages import SessionKey
from greenroom.services.sessions.head import KIND, OpenTurn, decode_head
from greenroom.services.sessions.note_rounds import NoteRounds
from greenroom.services.sessions.owner_life import OwnerLife
from greenroom.services.sessions.reading import legible
from greenroom.services.sessions.turn_names import id_name, number_in
from greenroom.services.storage import Storage

logger = logging.getLogger("greenroom.services")


class Cancelled(Struct, frozen=True, array_like=True):
    """A turn that is to be cancelled, and why."""

    turn_id: str
    principal: str | None
    reason: str


class CancelNote(Struct, frozen=True, array_like=True, tag="cancel"):
    """The turn is to be cancelled, and so are `others`, which processes of older versions neither write nor read: to
    them the turn is the only one."""

    turn_id: str
    principal: str | None
    reason: str
    others: Sequence[Cancelled] = ()


class Followed(Struct, frozen=True, array_like=True):
    """`seconds`: for how long it holds that the turn is followed, 0: it is no longer."""

    turn_id: str
    principal: str | None
    seconds: float


class FollowedNote(Struct, frozen=True, array_like=True, tag="followed"):
    """The turns are followed in the process of that name; what is said later of one holds."""

    process: str
    turns: Sequence[Followed]


_decoder = msgpack.Decoder(CancelNote | FollowedNote)


class OwnerNotes:
    """Leaves notes for owners, and reads those for this process.

    `cancel` is called with (turn id, principal, reason), maybe more than once; `followed` with (turn id, principal,
    process, seconds).
    """

    def __init__(self, storage: Storage, life: OwnerLife) -> None:
        self.cancel: Callable[[str, str | None, str], object] = _nobody
        self.followed: Callable[[str, str | None, str, float], object] = _nobody
        self._storage = storage
        self._life = life
        self._cancels = NoteRounds(self._leave_cancels)
        self._followed = NoteRounds(self._leave_followed)

    async def ask_to_cancel(self, owner: str, turn: Cancelled) -> bool:
        """Ask the owner of an open turn to cancel it. Whether that lives. Those who want many turns cancelled at once
        share notes."""
        if owner == self._life.name:
            self.cancel(turn.turn_id, turn.principal, turn.reason)
            return True
        return await self._cancels.say(owner, turn)

    async def tell_followed(self, turn_id: str, principal: str | None, seconds: float) -> bool:
        """Tell the living owner of an open turn that it is followed here. Whether there was one to tell. Those who say
        something of many turns at once share notes."""
        followed = Followed(turn_id, principal, seconds)
        owner = await self._living_owner(turn_id, principal)
        if owner is None:
            return False
        if owner == self._life.name:
            self._heed(FollowedNote(owner, (followed,)))
            return True
        return await self._followed.say(owner, followed)

    def marked(self, turn: OpenTurn) -> None:
        """An open turn of this process may have been marked by another one, as to be cancelled."""
        if turn.cancelled is None:
            return
        try:
            self.cancel(turn.turn_id, turn.principal, turn.cancelled)
        except Exception:  # what is to be written of the session may be of other turns
            logger.exception("turn %s could not be cancelled", turn.turn_id)

    def read(self, note: bytes) -> None:
        """A note was left for this process."""
        try:
            meant = _decoder.decode(note)
        except DecodeError:
            logger.warning("a note of another version was left for this process: %r", note)
        else:
            self._heed(meant)

    async def _leave_cancels(self, owner: str, turns: Sequence[Cancelled]) -> bool:
        first, *others = turns
        return await self._leave(owner, CancelNote(first.turn_id, first.principal, first.reason, others))

    async def _leave_followed(self, owner: str, turns: Sequence[Followed]) -> bool:
        return await self._leave(owner, FollowedNote(self._life.name, turns))

    async def _leave(self, owner: str, note: CancelNote | FollowedNote) -> bool:
        return await self._storage.note(owner, msgpack.encode(note))

    def _heed(self, note: CancelNote | FollowedNote) -> None:
        if isinstance(note, CancelNote):
            self.cancel(note.turn_id, note.principal, note.reason)
            for turn in note.others:
                self.cancel(turn.turn_id, turn.principal, turn.reason)
            return
        for one in note.turns:
            self.followed(one.turn_id, one.principal, note.process, one.seconds)

    async def _living_owner(self, turn_id: str, principal: str | None) -> str | None:
        """Who works on the turn; none: it has ended, or nobody does."""
        named = await self._storage.lookup(id_name(turn_id, principal))
        folder = None if named is None else await self._storage.read(named.key)
        if named is None or folder is None or folder.head.owner_state == "gone" or named.key.kind != KIND:
            return None
        with legible(SessionKey(*named.key[1:])):
            numbers = {one.number for one in decode_head(folder.head.body).open}
        return folder.head.owner if number_in(named.value) in numbers else None


def _nobody(*_: object) -> None:
    """Until somebody asks to be told."""
