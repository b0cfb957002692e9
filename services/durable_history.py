"""The messages of sessions in a storage: they outlive the process, and several processes share them.

A session's messages are a folder (`history_folder`). Outside a turn each change is one conditional write, done again
from how things stand when another process was faster: no message is lost. Inside a turn, changes are staged and
written with the turn's ending; what others added meanwhile stays.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from greenroom.actors.errors import TurnOver
from greenroom.actors.messages import SessionKey
from greenroom.services.compact import decode_message
from greenroom.services.history_cache import HistoryCache, Known
from greenroom.services.history_folder import (
    GONE,
    KIND,
    SECTION,
    HistoryBounds,
    Messages,
    decode_messages,
    encode_messages,
)
from greenroom.services.keyed_locks import KeyedLocks
from greenroom.services.marks import standing
from greenroom.services.session_history import AnyMessage, HistoryChange, Session, encoded_messages
from greenroom.services.session_map import DEFAULT_BOUNDS
from greenroom.services.storage import Cell, Change, Conflict, FolderKey, Head, Span, Storage
from greenroom.services.storage_service import MOST_TRIES, StorageService, change_folder, fence, too_busy
from greenroom.services.work import current_work


class _Staged:
    """What one turn did, and how the folders stood when it last looked."""

    __slots__ = ("_service", "changed", "found", "storage")

    def __init__(self, service: DurableSessionHistoryService) -> None:
        self._service = service
        self.storage = service.storage
        self.found: dict[SessionKey, Head | None] = {}
        self.changed: dict[SessionKey, HistoryChange] = {}

    def changes(self, turn_id: str) -> list[Change]:
        return [
            change
            for key, changed in self.changed.items()
            for change in self._service._changes(key, self.found[key], changed, turn_id)
        ]

    def look_again(self, conflict: Conflict) -> bool:
        key = SessionKey(conflict.key.user_id, conflict.key.session_id)
        if conflict.key.kind != KIND or key not in self.changed:
            return False
        self.found[key] = conflict.found
        return True

    def apply(self, turn_id: str) -> None:
        """Nothing is left to do: the messages were written with the turn's ending."""


class DurableSessionHistoryService(StorageService):
    """A `SessionHistoryService` in a storage.

    `messages_kept`: of each session, the newest. `turns_kept`: it is known how a session was after so many of its last
    turns (`Forkable`), unless it is deleted outside of turns. `session_bytes`: of all messages that are held of one
    session; over it the oldest go. Sessions that nobody writes to for the storage's `idle_seconds` are forgotten.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        messages_kept: int = 2_000,
        turns_kept: int = 50,
        session_bytes: int = DEFAULT_BOUNDS.session_bytes,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        super().__init__(storage)
        self._bounds = HistoryBounds(
            messages_kept=messages_kept, turns_kept=turns_kept, session_bytes=session_bytes
        )
        self._new_id = new_id
        self._writing: KeyedLocks[SessionKey] = KeyedLocks()
        self._cache = HistoryCache()

    async def create_session(self, user_id: str, session_id: str | None = None) -> Session:
        """A new, empty session; see `SessionHistoryService.create_session`."""
        if session_id is None or not session_id.strip():
            session_id = self._new_id()
        await self._write(SessionKey(user_id, session_id), [], fresh=True)
        return Session(session_id, user_id)

    async def get_session(self, user_id: str, session_id: str) -> Session | None:
        """The session with its messages. One that is not there is created (not so by late code of a turn)."""
        key = SessionKey(user_id, session_id)
        kept = await self._read(key)
        if kept is None:
            kept = []
            if current_work.get() is None or self._staged() is not None:
                await self._write(key, [])
        return Session(session_id, user_id, [decode_message(raw) for raw in kept])

    async def delete_session(self, user_id: str, session_id: str) -> None:
        """Forget the session. One that is not there is fine."""
        key = SessionKey(user_id, session_id)
        if current_work.get() is None:
            await self.forget(key)
        else:
            await self._write(key, [], fresh=True, gone=True)

    async def list_sessions(self, user_id: str) -> list[Session]:
        """The user's sessions in the order of their ids, without their messages."""
        storage = self._use()
        kept = await storage.sessions(KIND, user_id)
        gone = await storage.sessions(GONE, user_id) if kept else ()
        ids = dict.fromkeys(kept)
        for session_id in gone:
            ids.pop(session_id, None)
        staged = self._staged()
        for key, changed in staged.changed.items() if staged is not None else ():
            if key.user_id == user_id and changed.gone:
                ids.pop(key.session_id, None)
            elif key.user_id == user_id:
                ids[key.session_id] = None
        return [Session(session_id, user_id) for session_id in ids]

    async def append_message(self, session: Session, message: AnyMessage | Sequence[AnyMessage]) -> None:
        """Add one message, or several, all or none; see `SessionHistoryService.append_message`."""
        read, encoded = encoded_messages(message, "message", self._bounds.session_bytes)
        await self._write(SessionKey(session.user_id, session.id), encoded)
        session.messages.extend(read)

    async def replace_messages(self, session: Session, messages: Sequence[AnyMessage]) -> None:
        """Keep these messages instead of those there are; `session.messages` becomes them too."""
        read, encoded = encoded_messages(messages, "messages", self._bounds.session_bytes)
        await self._write(SessionKey(session.user_id, session.id), encoded, fresh=True)
        session.messages = read

    async def fork(self, source: SessionKey, turn_id: str, turns: Sequence[str], target: SessionKey) -> bool:
        """Make `target` what `source` was after that turn; see `Forkable.fork`."""
        storage = self._use()
        folder = await storage.read(_folder(source), [Span(SECTION)])
        messages = _messages(None if folder is None else folder.head)
        messages.mark_before()
        place = standing([mark.turn for mark in messages.marks], turn_id, turns)
        if folder is None or place < 0:
            await self.forget(target)
            return folder is None or not messages.lost
        messages.cut(place)
        cells = messages.cells()
        put = [(Cell(SECTION, number), raw) for number, raw in folder.spans[0] if number in cells]
        # Taken, so that its cells are in no epoch in which somebody may have read others of their numbers.
        change = Change(key=_folder(target), take=True, delete=True, head=encode_messages(messages), put=put)
        await storage.write([change, *_gone(target, messages.gone, True)])
        return True

    async def forget(self, key: SessionKey) -> None:
        """Keep nothing of the session any more."""
        await self._use().write(self.to_forget(key))

    def to_forget(self, key: SessionKey) -> Sequence[Change]:
        """What that writes; see `ForgottenTogether`."""
        return [Change(key=_folder(key), delete=True), *_gone(key, False, True)]

    def _staged(self) -> _Staged | None:
        """What this turn did. None outside a turn, and after its end, when what is committed is what counts."""
        work = current_work.get()
        if work is None:
            return None
        try:
            return work.staging(self, _Staged)
        except TurnOver:
            return None

    async def _read(self, key: SessionKey) -> list[bytes] | None:
        """The messages as the code that asks sees them; none when there is no such session."""
        kept = await self._kept(key)
        staged = self._staged()
        changed = staged.changed.get(key) if staged is not None else None
        if changed is None:
            return kept
        if changed.gone:
            return None
        before = [] if changed.fresh or kept is None else kept
        return [*before, *changed.added][-self._bounds.messages_kept :]

    async def _kept(self, key: SessionKey) -> list[bytes] | None:
        """The messages as they are kept, of which only those are read that are not known yet. Not to be changed."""
        known = self._cache.find(key)
        first = known.end - 1 if known is not None else 0
        for _ in range(MOST_TRIES):
            folder = await self._use().read(_folder(key), [Span(SECTION, first)])
            staged = self._staged()
            if staged is not None:
                staged.found[key] = None if folder is None else folder.head
            messages = _messages(None if folder is None else folder.head)
            if folder is None or messages.gone:
                self._cache.keep(key, None)
                return None
            epoch = folder.head.fence.epoch
            kept = [raw for number, raw in folder.spans[0] if number >= messages.start]
            if known is not None and known.goes_on(epoch, messages.start, folder.spans[0]):
                kept = known.messages[messages.start - known.first : -1] + kept
            if len(kept) == messages.next - messages.start:
                self._cache.keep(key, Known(epoch, messages.start, kept))
                return kept
            known, first = None, messages.start
        raise too_busy(_folder(key))

    async def _write(
        self, key: SessionKey, encoded: list[bytes], *, fresh: bool = False, gone: bool = False
    ) -> None:
        storage = self._use()
        if current_work.get() is not None:
            await self._stage(key, encoded, fresh, gone)
            return
        changed = HistoryChange()
        changed.then(encoded, fresh=fresh, gone=gone)
        async with self._writing.of(key):
            await change_folder(
                storage, _folder(key), lambda head: (self._changes(key, head, changed, None), None)
            )

    async def _stage(self, key: SessionKey, encoded: list[bytes], fresh: bool, gone: bool) -> None:
        work = current_work.get()
        assert work is not None
        if key not in work.staging(self, _Staged).found:
            folder = await self._use().read(_folder(key))
            work.staging(self, _Staged).found.setdefault(key, None if folder is None else folder.head)
        staged = work.staging(self, _Staged)  # the turn may have ended while this waited
        changed = staged.changed.setdefault(key, HistoryChange())
        changed.then(encoded, fresh=fresh, gone=gone)
        del changed.added[: -self._bounds.messages_kept]

    def _changes(
        self, key: SessionKey, head: Head | None, changed: HistoryChange, turn_id: str | None
    ) -> list[Change]:
        """The writes to a folder that stands so."""
        messages = _messages(head)
        was_gone = messages.gone
        if turn_id is not None and head is not None:
            messages.mark_before()
        put, drop = messages.write(
            changed.added, turn_id, self._bounds, fresh=changed.fresh, gone=changed.gone
        )
        change = Change(
            key=_folder(key), expected=fence(head), head=encode_messages(messages), put=put, drop=drop
        )
        return [change, *_gone(key, messages.gone, was_gone)]


def _gone(key: SessionKey, gone: bool, before: bool) -> list[Change]:
    """What says that a session is deleted, so that it is not listed."""
    folder = FolderKey(GONE, *key)
    if gone:
        return [Change(key=folder, head=b"")]
    return [Change(key=folder, delete=True)] if before else []


def _folder(key: SessionKey) -> FolderKey:
    return FolderKey(KIND, *key)


def _messages(head: Head | None) -> Messages:
    return decode_messages(None if head is None else head.body)
