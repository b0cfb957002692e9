"""Sessions kept in this process's memory: the store of an application that names none."""

from __future__ import annotations

import time
from collections.abc import Callable

from greenroom.actors.messages import SessionKey
from greenroom.services.compact import decode_turn, encode_turn
from greenroom.services.plain_json import refusal
from greenroom.services.service import not_started
from greenroom.services.session_map import DEFAULT_BOUNDS, Bounds, Resident, SessionMap
from greenroom.services.store import SessionRecord, TurnCommit


class _Session(Resident, gc=False):
    """`turns` is a tuple, not a list: it is smaller, and the garbage collector leaves a tuple of bytes alone."""

    revision: int = 0
    state: bytes | None = None
    turns: tuple[bytes, ...] = ()


class InMemoryStore:
    """A `SessionStore` that lasts as long as the object does: stopping it loses nothing, the process's end all.

    It forgets turns over `turns_kept` of a session, and what is over the bounds of `session_map.Bounds`. A session's
    state and newest turn are kept whatever their size, which `Limits.turn_bytes` bounds.
    """

    def __init__(
        self,
        *,
        turns_kept: int = 200,
        max_sessions: int = DEFAULT_BOUNDS.max_sessions,
        max_bytes: int = DEFAULT_BOUNDS.max_bytes,
        session_bytes: int = DEFAULT_BOUNDS.session_bytes,
        idle_seconds: float = DEFAULT_BOUNDS.idle_seconds,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._turns_kept = turns_kept
        self._bounds = Bounds(
            max_sessions=max_sessions,
            max_bytes=max_bytes,
            session_bytes=session_bytes,
            idle_seconds=idle_seconds,
        )
        self._sessions: SessionMap[_Session] = SessionMap(self._bounds, monotonic)
        self._started = False

    def __repr__(self) -> str:
        return f"<InMemoryStore: {len(self._sessions)} sessions, {self._sessions.size} bytes>"

    async def start(self) -> None:
        """Be ready for use."""
        self._started = True

    async def stop(self) -> None:
        """Refuse further use, until started again."""
        self._started = False

    async def load(self, key: SessionKey) -> SessionRecord | None:
        """The session as of its last commit; none when there was none, or it was idle for too long."""
        session = self._use().find(key)
        if session is None:
            return None
        turns = tuple(decode_turn(raw) for raw in session.turns)
        return SessionRecord(SessionKey(*key), session.revision, session.state, turns)

    async def commit(self, key: SessionKey, turn: TurnCommit) -> None:
        """Keep a turn. Raises `HandlerError` for a record that cannot be encoded, or not be read again."""
        sessions = self._use()
        try:
            raw = encode_turn(turn.record)
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            raise refusal(turn.record, "turn", error) from error
        session = sessions.find(key) or _Session()
        size = session.size + len(raw)
        if turn.state is not None:
            size += len(turn.state) - len(session.state or b"")
            session.state = turn.state
        session.revision += 1
        session.turns = (*session.turns, raw)
        sessions.keep(key, session, size - self._drop_oldest(session, size))

    async def forget(self, key: SessionKey) -> None:
        """Keep nothing of the session any more."""
        self._use().drop(key)

    def _use(self) -> SessionMap[_Session]:
        if not self._started:
            raise not_started(self)
        return self._sessions

    def _drop_oldest(self, session: _Session, size: int) -> int:
        """Drop the turns over the bounds, but not the newest. Gives their size."""
        dropped = 0
        count = 0
        turns = session.turns
        over = len(turns) - self._turns_kept
        while count < len(turns) - 1 and (count < over or size - dropped > self._bounds.session_bytes):
            dropped += len(turns[count])
            count += 1
        if count:
            session.turns = turns[count:]
        return dropped
