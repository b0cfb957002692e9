"""Sessions kept in this process's memory: the store of an application that names none."""

from __future__ import annotations

import time
from collections.abc import Callable

from greenroom.actors.messages import SessionKey
from greenroom.actors.setting_checks import Share, check_settings
from greenroom.services.compact import decode_turn, encode_turn
from greenroom.services.service import not_started
from greenroom.services.session_map import DEFAULT_BOUNDS, Bounds, Resident, SessionMap
from greenroom.services.sessions.earlier_states import lengthened, shortened
from greenroom.services.store import SessionRecord, TurnCommit


class _Session(Resident, gc=False):
    """`turns` is a tuple, not a list: it is smaller, and the garbage collector leaves a tuple of bytes alone.

    `state` is that after the newest turn, `earlier` what is kept of those after the turns before it (`earlier_states`).
    """

    revision: int = 0
    state: bytes | None = None
    turns: tuple[bytes, ...] = ()
    earlier: tuple[bytes, ...] = ()


class InMemoryStore:
    """A `SessionStore` that lasts as long as the object does: stopping it loses nothing, the process's end all.

    It forgets turns over `turns_kept` of a session, the states after all but the last `states_kept` turns, and what is
    over the bounds of `session_map.Bounds`. A session's newest state and turn are kept whatever their size, which
    `Limits.turn_bytes` bounds.

    Raises `ConfigurationError` for a bound that is none.
    """

    def __init__(
        self,
        *,
        turns_kept: int = 200,
        states_kept: int = 50,
        max_sessions: int = DEFAULT_BOUNDS.max_sessions,
        max_bytes: int = DEFAULT_BOUNDS.max_bytes,
        session_bytes: int = DEFAULT_BOUNDS.session_bytes,
        idle_seconds: float = DEFAULT_BOUNDS.idle_seconds,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        check_settings("InMemoryStore", locals(), {"turns_kept": Share, "states_kept": Share})
        self._turns_kept = turns_kept
        self._states_kept = states_kept
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
        raw = encode_turn(turn.record)
        session = sessions.find(key)
        if session is None:
            session = _Session(revision=1, state=turn.state, turns=(raw,))
            sessions.keep(key, session, len(raw) + len(turn.state or b""))
            return
        size = session.size + len(raw)
        state = session.state if turn.state is None else turn.state
        if session.turns and self._states_kept > 1:
            short = shortened(session.state, state)
            size += len(short)
            session.earlier = (*session.earlier, short)
        if state is not session.state:
            size += len(state or b"") - len(session.state or b"")
            session.state = state
        session.revision += 1
        session.turns = (*session.turns, raw)
        if session.earlier:
            size -= self._drop_oldest_states(session, size)
        if len(session.turns) > 1:
            size -= self._drop_oldest(session, size)
        sessions.keep(key, session, size)

    async def fork(self, source: SessionKey, turn_id: str, target: SessionKey) -> bool:
        """Make `target` what `source` was after that turn; see `SessionStore.fork`."""
        sessions = self._use()
        session = sessions.find(source)
        if session is None:
            return False
        states = [session.state, *lengthened(session.state, session.earlier)]
        for back, state in enumerate(states):
            turns = session.turns[: len(session.turns) - back]
            if decode_turn(turns[-1]).turn_id == turn_id:
                earlier = session.earlier[: len(session.earlier) - back]
                forked = _Session(0, 0.0, session.revision - back, state, turns, earlier)
                size = sum(map(len, (*turns, *earlier))) + len(state or b"")
                sessions.keep(target, forked, size)
                return True
        return False

    async def forget(self, key: SessionKey) -> None:
        """Keep nothing of the session any more."""
        self._use().drop(key)

    def _use(self) -> SessionMap[_Session]:
        if not self._started:
            raise not_started(self)
        return self._sessions

    def _drop_oldest_states(self, session: _Session, size: int) -> int:
        """Drop the states over the bounds, but not the newest. Gives their size."""
        dropped = 0
        count = 0
        over = len(session.earlier) + 1 - self._states_kept
        for short in session.earlier:
            if count >= over and size - dropped <= self._bounds.session_bytes:
                break
            dropped += len(short)
            count += 1
        if count:
            session.earlier = session.earlier[count:]
        return dropped

    def _drop_oldest(self, session: _Session, size: int) -> int:
        """Drop the turns over the bounds, but not the newest, and the states after them. Gives their size."""
        dropped = 0
        count = 0
        turns = session.turns
        over = len(turns) - self._turns_kept
        while count < len(turns) - 1 and (count < over or size - dropped > self._bounds.session_bytes):
            dropped += len(turns[count])
            count += 1
        if count:
            session.turns = turns[count:]
            spare = max(0, len(session.earlier) + 1 - len(session.turns))
            dropped += sum(map(len, session.earlier[:spare]))
            session.earlier = session.earlier[spare:]
        return dropped
