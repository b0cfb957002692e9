"""The messages of sessions: the tutorial's session history.

Inside a turn, what is written is staged in the turn's unit of work (`greenroom.services.work`): the turn reads its own
writes, everybody else reads them after the turn's commit, and nobody when the turn fails.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, TypeAlias

from msgspec import Struct, ValidationError, convert, field
from msgspec.structs import astuple

from greenroom.actors.errors import HandlerError, TurnOver
from greenroom.actors.messages import Message, SessionKey, Text
from greenroom.actors.setting_checks import Count, Share, check_settings
from greenroom.services.compact import CompactMessage, decode_message, read_message
from greenroom.services.marks import BEFORE, standing
from greenroom.services.message_marks import History, forked
from greenroom.services.plain_json import encode, misread
from greenroom.services.service import Service, not_started
from greenroom.services.session_map import DEFAULT_BOUNDS, Bounds, SessionMap
from greenroom.services.started import note_start, note_stop
from greenroom.services.user_sessions import UserSessions
from greenroom.services.work import current_work


class Session(Struct):
    """A conversation as it was when it was read. Changing it changes nothing that is kept."""

    id: str
    user_id: str
    messages: list[Message] = field(default_factory=list)


AnyMessage: TypeAlias = Message | dict[str, Any]


class SessionHistoryService(Service, Protocol):
    """Histories of sessions. Its conformance kit is `tests/kits/history_kit.py`.

    A message may be given as a `Message` or as a dict like those in `/process` requests. Writing raises `HandlerError`
    for what is no message (`field` is the path to what is wrong) and `TurnOver` after the end of the turn it runs in.
    """

    async def create_session(self, user_id: str, session_id: str | None = None) -> Session:
        """A new, empty session, in place of one with the same id. Without an id, or with a blank one, it gets one."""
        ...

    async def get_session(self, user_id: str, session_id: str) -> Session | None:
        """The session with its messages. One that is not there is created.

        None is in the type for services of other makers, which may create sessions by `create_session` only.
        """
        ...

    async def delete_session(self, user_id: str, session_id: str) -> None:
        """Forget the session. One that is not there is fine."""
        ...

    async def list_sessions(self, user_id: str) -> list[Session]:
        """The user's sessions, without their messages."""
        ...

    async def append_message(self, session: Session, message: AnyMessage | Sequence[AnyMessage]) -> None:
        """Add one message, or several (all or none), to what is kept and to `session.messages`.

        Only the ids of `session` count for what is kept; a session that is not there is created.
        """
        ...

    async def replace_messages(self, session: Session, messages: Sequence[AnyMessage]) -> None:
        """Keep these messages instead of those there are: how single messages are removed or changed."""
        ...


class HistoryChange:
    """What one turn did to one session. `fresh`: what was there before does not count. `gone`: it was deleted last."""

    __slots__ = ("added", "fresh", "gone")

    def __init__(self) -> None:
        self.added: list[bytes] = []
        self.fresh = False
        self.gone = False

    def then(self, encoded: list[bytes], *, fresh: bool, gone: bool) -> None:
        """One more thing done. A deleted session that is written to is there again, without what it had."""
        if fresh:
            self.fresh = True
            self.added = []
        self.gone = gone
        self.added += encoded


class _Staged:
    """What one turn did."""

    __slots__ = ("_service", "changes")

    def __init__(self, service: InMemorySessionHistoryService) -> None:
        self._service = service
        self.changes: dict[SessionKey, HistoryChange] = {}

    def apply(self, turn_id: str) -> None:
        for key, change in self.changes.items():
            self._service._make(key, change, turn_id)


class InMemorySessionHistoryService:
    """A `SessionHistoryService` in this process's memory: stopping it forgets everything.

    `messages_kept`: of each session, the newest. `turns_kept`: it is known how a session was after so many of its last
    turns (`Forkable`), unless it is deleted outside of turns. The other bounds are those of `session_map.Bounds`.
    """

    def __init__(
        self,
        *,
        messages_kept: int = 2_000,
        turns_kept: int = 50,
        max_sessions: int = DEFAULT_BOUNDS.max_sessions,
        max_bytes: int = DEFAULT_BOUNDS.max_bytes,
        session_bytes: int = DEFAULT_BOUNDS.session_bytes,
        idle_seconds: float = DEFAULT_BOUNDS.idle_seconds,
        monotonic: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        kinds = {"messages_kept": Share, "turns_kept": Count}
        check_settings("InMemorySessionHistoryService", locals(), kinds)
        self._messages_kept = messages_kept
        self._turns_kept = turns_kept
        self._bounds = Bounds(
            max_sessions=max_sessions,
            max_bytes=max_bytes,
            session_bytes=session_bytes,
            idle_seconds=idle_seconds,
        )
        self._monotonic = monotonic
        self._new_id = new_id
        self._users = UserSessions()
        self._sessions: SessionMap[History] | None = None

    def __repr__(self) -> str:
        return (
            f"<InMemorySessionHistoryService: {'not started' if self._sessions is None else self._sessions}>"
        )

    async def __aenter__(self) -> InMemorySessionHistoryService:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Be ready for use."""
        note_start(self)
        if self._sessions is None:
            self._users = UserSessions()
            self._sessions = SessionMap(self._bounds, self._monotonic, self._users.discard)

    async def stop(self) -> None:
        """Forget all sessions."""
        note_stop(self)
        self._sessions = None
        self._users = UserSessions()

    async def health(self) -> bool:
        """Whether it is started."""
        return self._sessions is not None

    async def create_session(self, user_id: str, session_id: str | None = None) -> Session:
        """A new, empty session; see `SessionHistoryService.create_session`."""
        if session_id is None or not session_id.strip():
            session_id = self._new_id()
        self._write(SessionKey(user_id, session_id), [], fresh=True)
        return Session(session_id, user_id)

    async def get_session(self, user_id: str, session_id: str) -> Session | None:
        """The session with its messages. One that is not there is created (not so by late code of a turn)."""
        key = SessionKey(user_id, session_id)
        kept = self._read(key)
        if kept is None:
            kept = []
            if current_work.get() is None or self._staged() is not None:
                self._write(key, [])
        return Session(session_id, user_id, [decode_message(raw) for raw in kept])

    async def delete_session(self, user_id: str, session_id: str) -> None:
        """Forget the session. One that is not there is fine."""
        self._write(SessionKey(user_id, session_id), [], fresh=True, gone=True)

    async def list_sessions(self, user_id: str) -> list[Session]:
        """The user's sessions in the order they were created, without their messages."""
        self._use()
        ids = dict.fromkeys(self._users.of(user_id))
        staged = self._staged()
        for key, change in staged.changes.items() if staged is not None else ():
            if key.user_id == user_id and change.gone:
                ids.pop(key.session_id, None)
            elif key.user_id == user_id:
                ids[key.session_id] = None
        return [Session(session_id, user_id) for session_id in ids]

    async def append_message(self, session: Session, message: AnyMessage | Sequence[AnyMessage]) -> None:
        """Add one message, or several, all or none; see `SessionHistoryService.append_message`."""
        read, encoded = encoded_messages(message, "message", self._bounds.session_bytes)
        self._write(SessionKey(session.user_id, session.id), encoded)
        session.messages.extend(read)

    async def replace_messages(self, session: Session, messages: Sequence[AnyMessage]) -> None:
        """Keep these messages instead of those there are; `session.messages` becomes them too."""
        read, encoded = encoded_messages(messages, "messages", self._bounds.session_bytes)
        self._write(SessionKey(session.user_id, session.id), encoded, fresh=True)
        session.messages = read

    async def fork(self, source: SessionKey, turn_id: str, turns: Sequence[str], target: SessionKey) -> bool:
        """Make `target` what `source` was after that turn; see `Forkable.fork`."""
        sessions = self._use()
        history = sessions.find(source)
        sessions.drop(target)
        if history is None:
            return True  # it has nothing here, and had nothing
        marks = history.marks
        if not marks and not history.lost:  # no turn has changed it
            marks = (history.mark(BEFORE),)
        place = standing([mark.turn for mark in marks], turn_id, turns)
        if place < 0:
            return not history.lost
        fork = forked(marks[: place + 1], history.lost)
        lists = {id(mark.messages): mark.messages for mark in fork.marks if mark.messages is not None}
        sessions.keep(target, fork, sum(len(raw) for messages in lists.values() for raw in messages))
        if not fork.gone:
            self._users.add(target)
        return True

    async def forget(self, key: SessionKey) -> None:
        """Keep nothing of the session any more."""
        self._use().drop(key)

    def _use(self) -> SessionMap[History]:
        if self._sessions is None:
            raise not_started(self)
        return self._sessions

    def _staged(self) -> _Staged | None:
        """What this turn did. None outside a turn, and after its end, when what is committed is what counts."""
        work = current_work.get()
        if work is None:
            return None
        try:
            return work.staging(self, _Staged)
        except TurnOver:
            return None

    def _read(self, key: SessionKey) -> list[bytes] | None:
        """The messages as the code that asks sees them; none when there is no such session. Not to be changed."""
        history = self._use().find(key)
        kept = history.messages[history.start :] if history is not None and not history.gone else None
        staged = self._staged()
        change = staged.changes.get(key) if staged is not None else None
        if change is None:
            return kept
        if change.gone:
            return None
        before = [] if change.fresh or kept is None else kept
        return [*before, *change.added][-self._messages_kept :]

    def _write(
        self, key: SessionKey, encoded: list[bytes], *, fresh: bool = False, gone: bool = False
    ) -> None:
        self._use()
        work = current_work.get()
        change = (
            HistoryChange()
            if work is None
            else work.staging(self, _Staged).changes.setdefault(key, HistoryChange())
        )
        change.then(encoded, fresh=fresh, gone=gone)
        if work is None:
            self._make(key, change)
        else:
            del change.added[: -self._messages_kept]

    def _make(self, key: SessionKey, change: HistoryChange, turn_id: str | None = None) -> None:
        sessions = self._sessions
        if sessions is None:
            return  # stopped before the turn's end: everything is forgotten anyway
        if change.gone and turn_id is None:
            sessions.drop(key)
            return
        history = sessions.find(key)
        if history is None:
            history = History()
        elif turn_id is not None and not history.marks and not history.lost:
            history.marks = (history.mark(BEFORE),)
        size = history.size
        if change.fresh:
            size -= history.begin_anew()
        history.messages += change.added
        history.gone = change.gone
        size = self._bounded(history, size + sum(map(len, change.added)))
        if turn_id is not None:
            history.marks = (*history.marks, history.mark(turn_id))
            size -= history.drop_marks(max(0, len(history.marks) - self._turns_kept))
            size -= history.release()
        sessions.keep(key, history, size)
        (self._users.discard if change.gone else self._users.add)(key)

    def _bounded(self, history: History, size: int) -> int:
        """Drop what is over the bounds, but not the newest message. Gives the size then."""
        messages = history.messages
        history.start = max(history.start, len(messages) - self._messages_kept)
        size -= history.release()
        while size > self._bounds.session_bytes:
            if history.marks and history.marks[0].messages is not messages:
                size -= history.drop_marks(1)
            elif len(messages) - history.start > 1:
                history.start += 1
                stale = [mark for mark in history.marks if mark.start < history.start]
                size -= history.drop_marks(len(stale)) + history.release()
            elif history.marks:
                size -= history.drop_marks(1) + history.release()
            else:
                break
        return size


def encoded_messages(
    given: AnyMessage | Sequence[AnyMessage], name: str, most: int
) -> tuple[list[Message], list[bytes]]:
    """Messages as they will be read, and as they are kept.

    Raises `HandlerError` for what is no message, or is of more than `most` bytes; its `field` begins with `name`.
    """
    several = given if isinstance(given, list | tuple) else None
    if several is None:
        encoded = [_encoded(given, name, most)]
    else:
        encoded = [_encoded(one, f"{name}[{index}]", most) for index, one in enumerate(several)]
    return [decode_message(raw) for raw in encoded], encoded


def _encoded(given: object, path: str, most: int) -> bytes:
    raw = encode(CompactMessage(*astuple(_message(given, path))), path, read_message)
    if len(raw) > most:
        raise HandlerError(
            f"{path} has {len(raw)} bytes, more than a session may hold ({most}); keep files "
            "and pictures elsewhere and put their URLs in messages, or raise session_bytes",
            field=path,
        )
    return raw


def _message(given: object, path: str) -> Message:
    if isinstance(given, Message):
        return given
    if not isinstance(given, dict):
        raise HandlerError(
            f"{path} is a {type(given).__name__}; a message is a Message or a dict like "
            '{"role": "user", "content": [{"type": "text", "text": "Hello"}]}',
            field=path,
        )
    content = given.get("content")
    if content is None:
        content = ()
    elif isinstance(content, str):
        content = (Text(content),)
    try:
        return convert({**given, "content": content}, Message)
    except ValidationError as error:
        raise misread(given, path, error) from error
