"""What processes tell the owners of turns, in notes that come with an owner's renewals: that a turn is to be cancelled,
and that somebody follows it in another process.

An owner is left a bounded number of notes between two renewals, and the oldest go. So what is said of many turns at
once, or again and again, shares notes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from msgspec import DecodeError, Struct, field, msgpack

from greenroom.actors.errors import StoreUnavailable
from greenroom.actors.messages import SessionKey
from greenroom.services.sessions.head import KIND, decode_head
from greenroom.services.sessions.owner_life import OwnerLife
from greenroom.services.sessions.reading import legible
from greenroom.services.sessions.turn_names import id_name, number_in
from greenroom.services.storage import Storage

logger = logging.getLogger("greenroom.services")

APART: Final = 0.25
"""Between two notes of followed turns for one owner, seconds, when `AT_ONCE` were left in a row."""
AT_ONCE: Final = 16
TURNS: Final = 256
"""In one note, at most."""


class CancelNote(Struct, frozen=True, array_like=True, tag="cancel"):
    """The turn is to be cancelled."""

    turn_id: str
    principal: str | None
    reason: str


class Followed(Struct, frozen=True, array_like=True):
    """`seconds`: for how long it holds that the turn is followed, 0: it is no longer."""

    turn_id: str
    principal: str | None
    seconds: float


class FollowedNote(Struct, frozen=True, array_like=True, tag="followed"):
    """The turns are followed in the process of that name; what is said later of one holds."""

    process: str
    turns: tuple[Followed, ...]


class _Word(Struct, eq=False):
    """What is to be said of a turn. `outcome`: whether there was one to tell, why nobody could be; none: it waits."""

    followed: Followed
    outcome: bool | StoreUnavailable | None = None


class _Round(Struct, eq=False):
    """What is to be said to one owner. `due`: when it may be left a note, by the loop's clock."""

    due: float
    words: list[_Word] = field(default_factory=list)
    order: asyncio.Lock = field(default_factory=asyncio.Lock)


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
        self._rounds: dict[str, _Round] = {}

    async def ask_to_cancel(self, turn_id: str, principal: str | None, reason: str) -> bool:
        """Ask the living owner of an open turn to cancel it. Whether there was one to ask."""
        said = reason.encode("utf-8", "replace").decode()
        note = CancelNote(turn_id, principal, said)
        owner = await self._living_owner(turn_id, principal)
        if owner == self._life.name:
            self._heed(note)
        return owner is not None and (owner == self._life.name or await self._leave(owner, note))

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
        return await self._tell(owner, _Word(followed))

    def read(self, note: bytes) -> None:
        """A note was left for this process."""
        try:
            meant = _decoder.decode(note)
        except DecodeError:
            logger.warning("a note of another version was left for this process: %r", note)
        else:
            self._heed(meant)

    async def _tell(self, owner: str, word: _Word) -> bool:
        """Whoever has his turn says what all have to say that wait by then."""
        told = self._round(owner)
        told.words.append(word)
        loop = asyncio.get_running_loop()
        try:
            async with told.order:
                while word.outcome is None:
                    await asyncio.sleep(told.due - loop.time())
                    told.due = max(told.due, loop.time() - AT_ONCE * APART) + APART
                    await self._say(owner, told)
        finally:
            if word.outcome is None:  # it was given up, and is not said any more
                word.outcome = False
        if isinstance(word.outcome, StoreUnavailable):
            raise StoreUnavailable(word.outcome.message)
        return word.outcome

    def _round(self, owner: str) -> _Round:
        found = self._rounds.get(owner)
        if found is None:
            rested = asyncio.get_running_loop().time() - AT_ONCE * APART
            self._rounds = {
                name: one for name, one in self._rounds.items() if one.order.locked() or one.due > rested
            }
            found = self._rounds[owner] = _Round(rested)
        return found

    async def _say(self, owner: str, told: _Round) -> None:
        told.words = [word for word in told.words if word.outcome is None]
        words = told.words[:TURNS]
        outcome: bool | StoreUnavailable
        try:
            note = FollowedNote(self._life.name, tuple(word.followed for word in words))
            outcome = await self._leave(owner, note)
        except StoreUnavailable as error:
            outcome = error
        for word in words:
            word.outcome = outcome

    async def _leave(self, owner: str, note: CancelNote | FollowedNote) -> bool:
        return await self._storage.note(owner, msgpack.encode(note))

    def _heed(self, note: CancelNote | FollowedNote) -> None:
        if isinstance(note, CancelNote):
            self.cancel(note.turn_id, note.principal, note.reason)
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
