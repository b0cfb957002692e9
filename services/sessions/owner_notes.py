"""What processes tell the owners of turns, in notes that come with an owner's renewals: that a turn is to be cancelled,
and that somebody follows it in another process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec import DecodeError, Struct, msgpack

from greenroom.actors.messages import SessionKey
from greenroom.services.sessions.head import KIND, decode_head
from greenroom.services.sessions.owner_life import OwnerLife
from greenroom.services.sessions.reading import legible
from greenroom.services.sessions.turn_names import id_name, number_in
from greenroom.services.storage import Storage

logger = logging.getLogger("greenroom.services")


class CancelNote(Struct, frozen=True, array_like=True, tag="cancel"):
    """The turn is to be cancelled."""

    turn_id: str
    principal: str | None
    reason: str


class FollowedNote(Struct, frozen=True, array_like=True, tag="followed"):
    """The turn is followed in the process of that name; `seconds`: for how long that holds, 0: it is no longer."""

    turn_id: str
    principal: str | None
    process: str
    seconds: float


_decoder = msgpack.Decoder(CancelNote | FollowedNote)


class OwnerNotes:
    """Leaves notes for owners, and reads those for this process.

    `cancel` is called with (turn id, principal, reason), `followed` with (turn id, principal, process, seconds).
    """

    def __init__(self, storage: Storage, life: OwnerLife) -> None:
        self.cancel: Callable[[str, str | None, str], object] = _nobody
        self.followed: Callable[[str, str | None, str, float], object] = _nobody
        self._storage = storage
        self._life = life

    async def ask_to_cancel(self, turn_id: str, principal: str | None, reason: str) -> bool:
        """Ask the living owner of an open turn to cancel it. Whether there was one to ask."""
        said = reason.encode("utf-8", "replace").decode()
        return await self._leave(CancelNote(turn_id, principal, said))

    async def tell_followed(self, turn_id: str, principal: str | None, seconds: float) -> bool:
        """Tell the living owner of an open turn that it is followed here. Whether there was one to tell."""
        return await self._leave(FollowedNote(turn_id, principal, self._life.name, seconds))

    def read(self, note: bytes) -> None:
        """A note was left for this process."""
        try:
            meant = _decoder.decode(note)
        except DecodeError:
            logger.warning("a note of another version was left for this process: %r", note)
        else:
            self._heed(meant)

    async def _leave(self, note: CancelNote | FollowedNote) -> bool:
        owner = await self._living_owner(note.turn_id, note.principal)
        if owner is None:
            return False
        if owner == self._life.name:
            self._heed(note)
            return True
        return await self._storage.note(owner, msgpack.encode(note))

    def _heed(self, note: CancelNote | FollowedNote) -> None:
        if isinstance(note, CancelNote):
            self.cancel(note.turn_id, note.principal, note.reason)
        else:
            self.followed(note.turn_id, note.principal, note.process, note.seconds)

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
