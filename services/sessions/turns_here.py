"""Open turns of sessions that are this process's: read, written to, ended and let go of. Who calls holds the session's
lock.

Each attempt raises `Conflict` when another process wrote to the session meanwhile, and is to be made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from greenroom.actors.errors import SessionLost, TurnOver
from greenroom.actors.events import Event
from greenroom.actors.messages import SessionKey
from greenroom.services.durable import Ending, TurnEntry
from greenroom.services.sessions.draft import Draft
from greenroom.services.sessions.head import is_marked
from greenroom.services.sessions.owned import OwnedSessions
from greenroom.services.sessions.reading import entries_in, legible, turn_spans
from greenroom.services.sessions.repeats import Terms, change_for
from greenroom.services.storage import Conflict, NameTaken

_TurnKey: TypeAlias = tuple[SessionKey, str, str | None]


class _Tried(Struct, frozen=True):
    """An ending, and the mark that the turn had as it was tried: one that was taken since has another, and had not
    ended."""

    mark: str
    ending: Ending


class TurnsHere:
    """What an owner does with the turns of its sessions."""

    def __init__(self, owned: OwnedSessions, terms: Terms) -> None:
        self._owned = owned
        self._terms = terms
        self._tried: dict[_TurnKey, _Tried] = {}
        """Endings of which it is not known whether they were written."""

    def clear(self) -> None:
        """This process is another owner now."""
        self._tried.clear()

    async def line(
        self, key: SessionKey, new: Callable[[str, str | None], bool], most: int | None
    ) -> Sequence[TurnEntry]:
        """Of the open turns that were recorded under another owner's name the first `most` that `new` (turn id,
        principal) picks out, or all, in their order. Of its own this process knows, but of those that it refused, and
        is about to remove."""
        self._owned.drop(key)  # what is held may be older than what joined
        hold = await self._owned.mine(key)
        name = self._owned.life.name
        joined = (one for one in hold.head.open if not is_marked(one.mark, name))
        wanted = [one for one in joined if new(one.turn_id, one.principal)][:most]
        if not wanted:
            return ()
        folder = await self._owned.read(key, hold, turn_spans([one.number for one in wanted]))
        with legible(key):
            return entries_in(folder, name, wanted)

    async def append(self, key: SessionKey, turn_id: str, first: int, events: Sequence[Event]) -> None:
        """Add events to the log of a running turn."""
        chunk = await self._owned.aside.chunk(first, events)
        hold = await self._owned.mine(key)
        opened = next((one for one in hold.head.open if one.turn_id == turn_id), None)
        if opened is None:
            raise _over(turn_id)
        await self._owned.log_at(key, hold, opened, first)
        draft = Draft(hold)
        draft.append(opened, events, chunk)
        await self._owned.write(key, draft)

    async def finish(self, key: SessionKey, ending: Ending) -> None:
        """End a turn, as `DurableStore.finish` says; until it is known how that came out."""
        if ending.record is None and ending.state is not None:
            raise ValueError("a state is kept with the record of its turn")
        aside = self._owned.aside
        raw = None if ending.record is None else await aside.record(ending.record)
        chunk = await aside.chunk(ending.first, ending.events) if ending.kept else None
        tried = (key, ending.turn_id, ending.principal)
        try:
            await self._owned.until_written(key, lambda: self._finish(key, ending, raw, chunk))
        except SessionLost:
            self._tried.pop(tried, None)
            raise
        self._tried.pop(tried, None)

    async def release(self, key: SessionKey, begun: bool) -> None:
        """Let the session go, as `DurableStore.release` says."""
        hold = await self._owned.mine(key)
        if hold.head.open:
            draft = Draft(hold)
            draft.release(begun=begun)
            await self._owned.write(key, draft, owner="")

    async def _finish(self, key: SessionKey, ending: Ending, raw: bytes | None, chunk: bytes | None) -> None:
        hold = await self._owned.mine(key)
        owner, opened = hold.owner, hold.turn(ending.turn_id, ending.principal)
        tried = (key, ending.turn_id, ending.principal)
        if opened is None:
            self._owned.hear(key, hold.head)  # nobody has: how it ended may not have been known here before
            before = self._tried.get(tried)
            if before is None or before.ending != _alike(ending):
                raise _over(ending.turn_id)
            return
        await self._owned.log_at(key, hold, opened, ending.first)
        if raw is not None:
            await self._owned.with_state(key, hold)

        def draw(draft: Draft) -> None:
            draft.end(opened, ending.events, chunk, kept=ending.kept)
            if raw is not None:
                draft.commit(raw, ending.state)

        draft = await self._owned.bounded(key, hold, draw, opened.number)
        changes = list(ending.changes)
        left = ending.for_repeats
        if left is not None and (opened.followed or left.turn.idempotency_key is not None):
            changes.append(await change_for(left, opened, self._terms, self._owned.aside))
        try:
            await self._owned.write(key, draft, changes)
        except (Conflict, NameTaken):
            raise
        except BaseException:
            self._keep_tried(tried, owner, _Tried(opened.mark, _alike(ending)))
            raise
        if not is_marked(opened.mark, self._owned.life.name):
            self._owned.just_ended.add(key, opened.number)
        self._owned.hear(key, draft.hold.head)

    def _keep_tried(self, turn: _TurnKey, owner: str, tried: _Tried) -> None:
        """It stays the first one that was tried since the turn was recorded or taken: that may be the one that was
        written. `owner`: who tried, under another name than this process may have by now."""
        if owner != self._owned.life.name:
            return  # what that one had tried is forgotten
        before = self._tried.get(turn)
        if before is None or before.mark != tried.mark:
            self._tried[turn] = tried


def _alike(ending: Ending) -> Ending:
    """What is the same each time an ending is tried."""
    return replace(ending, changes=(), for_repeats=None)


def _over(turn_id: str) -> TurnOver:
    return TurnOver(f"turn {turn_id} is not open: it has ended, how can be looked up, or it never was")
