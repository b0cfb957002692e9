"""Agent states by user, session and round: the tutorial's `save_state` and `export_state`.

A round is one saved state; the latest is the one with the highest number. Inside a turn, what is saved is staged in the
turn's unit of work (`greenroom.services.work`): the turn reads its own rounds, everybody else reads them after the
turn's commit, and nobody when the turn fails. Two turns at once that save under one key both count on from the rounds
they see; the one that commits last is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Any, Protocol

from msgspec import Struct, field

from greenroom.actors.errors import HandlerError, TurnOver
from greenroom.actors.messages import SessionKey
from greenroom.actors.setting_checks import Count, Share, check_settings
from greenroom.services.marks import BEFORE, standing
from greenroom.services.plain_json import decode, encode
from greenroom.services.service import Service, not_started
from greenroom.services.session_map import DEFAULT_BOUNDS, Bounds, Resident, SessionMap
from greenroom.services.started import note_start, note_stop
from greenroom.services.work import current_work

DEFAULT_SESSION = "default"
"""The session of states that are saved for a user alone."""


class StateService(Service, Protocol):
    """States of agents. Its conformance kit is `tests/kits/state_kit.py`."""

    async def save_state(
        self, user_id: str, state: dict[str, Any], session_id: str | None = None, round_id: int | None = None
    ) -> int:
        """Keep a copy of `state` as round `round_id`, or as the round after the latest (from 1). Gives the round.

        Raises `HandlerError` for a state that is not made of JSON's types (`field` is the path to what is not) or is
        too large, and for a round older than all that are kept; `TurnOver` after the end of the turn it runs in.
        """
        ...

    async def export_state(
        self, user_id: str, session_id: str | None = None, round_id: int | None = None
    ) -> dict[str, Any] | None:
        """A copy of the state of a round, or of the latest; none when it is not kept."""
        ...


class _Mark(Struct, frozen=True, gc=False):
    """The rounds as they were after a turn. Not to be changed."""

    turn: str
    rounds: dict[int, bytes]


class _States(Resident, gc=False):
    """One session's rounds, each as JSON. `lost`: there were marks before those there are."""

    rounds: dict[int, bytes] = field(default_factory=dict)
    marks: tuple[_Mark, ...] = ()
    lost: bool = False


class _Staged:
    """What one turn saved."""

    __slots__ = ("_service", "rounds")

    def __init__(self, service: InMemoryStateService) -> None:
        self._service = service
        self.rounds: dict[SessionKey, dict[int, bytes]] = {}

    def apply(self, turn_id: str) -> None:
        for key, rounds in self.rounds.items():
            self._service._keep(key, rounds, turn_id)


class InMemoryStateService:
    """A `StateService` in this process's memory: stopping it forgets everything.

    `rounds_kept`: of each session, those with the highest numbers. `turns_kept`: it is known how a session was after so
    many of its last turns (`Forkable`). The other bounds are those of `session_map.Bounds`.
    """

    def __init__(
        self,
        *,
        rounds_kept: int = 20,
        turns_kept: int = 50,
        max_sessions: int = DEFAULT_BOUNDS.max_sessions,
        max_bytes: int = DEFAULT_BOUNDS.max_bytes,
        session_bytes: int = DEFAULT_BOUNDS.session_bytes,
        idle_seconds: float = DEFAULT_BOUNDS.idle_seconds,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        check_settings("InMemoryStateService", locals(), {"rounds_kept": Share, "turns_kept": Count})
        self._rounds_kept = rounds_kept
        self._turns_kept = turns_kept
        self._bounds = Bounds(
            max_sessions=max_sessions,
            max_bytes=max_bytes,
            session_bytes=session_bytes,
            idle_seconds=idle_seconds,
        )
        self._monotonic = monotonic
        self._sessions: SessionMap[_States] | None = None

    def __repr__(self) -> str:
        return f"<InMemoryStateService: {'not started' if self._sessions is None else self._sessions}>"

    async def __aenter__(self) -> InMemoryStateService:
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
            self._sessions = SessionMap(self._bounds, self._monotonic)

    async def stop(self) -> None:
        """Forget all states."""
        note_stop(self)
        self._sessions = None

    async def health(self) -> bool:
        """Whether it is started."""
        return self._sessions is not None

    async def save_state(
        self, user_id: str, state: dict[str, Any], session_id: str | None = None, round_id: int | None = None
    ) -> int:
        """Keep a copy of `state` and give its round; see `StateService.save_state`."""
        key = SessionKey(user_id, session_id or DEFAULT_SESSION)
        raw = encoded_state(state, self._bounds.session_bytes)
        number = next_round(self._rounds(key), round_id, self._rounds_kept)
        work = current_work.get()
        if work is None:
            self._keep(key, {number: raw})
        else:
            staged = work.staging(self, _Staged).rounds.setdefault(key, {})
            _add(staged, {number: raw}, self._rounds_kept)
        return number

    async def export_state(
        self, user_id: str, session_id: str | None = None, round_id: int | None = None
    ) -> dict[str, Any] | None:
        """A copy of the state of a round, or of the latest; none when it is not kept."""
        rounds = self._rounds(SessionKey(user_id, session_id or DEFAULT_SESSION))
        if round_id is None:
            round_id = max(rounds, default=None)
        raw = rounds.get(round_id) if round_id is not None else None
        state: dict[str, Any] | None = decode(raw) if raw is not None else None
        return state

    async def fork(self, source: SessionKey, turn_id: str, turns: Sequence[str], target: SessionKey) -> bool:
        """Make `target` what `source` was after that turn; see `Forkable.fork`."""
        sessions = self._use()
        states = sessions.find(source)
        sessions.drop(target)
        if states is None:
            return True  # it has nothing here, and had nothing
        if not states.marks and not states.lost:  # no turn has changed it
            sessions.keep(target, _States(rounds=dict(states.rounds)), states.size)
            return True
        place = standing([mark.turn for mark in states.marks], turn_id, turns)
        if place < 0:
            return not states.lost
        marks = states.marks[: place + 1]
        forked = _States(rounds=marks[-1].rounds, marks=marks, lost=states.lost)
        sessions.keep(target, forked, _size(forked))
        return True

    async def forget(self, key: SessionKey) -> None:
        """Keep nothing of the session any more."""
        self._use().drop(key)

    def _use(self) -> SessionMap[_States]:
        if self._sessions is None:
            raise not_started(self)
        return self._sessions

    def _rounds(self, key: SessionKey) -> dict[int, bytes]:
        """The rounds as the code that asks sees them. Not to be changed."""
        states = self._use().find(key)
        kept = states.rounds if states is not None else {}
        staged = self._staged(key)
        if not staged:
            return kept
        seen = dict(kept)
        _add(seen, staged, self._rounds_kept)
        return seen

    def _staged(self, key: SessionKey) -> dict[int, bytes] | None:
        work = current_work.get()
        if work is None:
            return None
        try:
            return work.staging(self, _Staged).rounds.get(key)
        except TurnOver:
            return None  # reading after the turn's end is fine, and finds what is committed

    def _keep(self, key: SessionKey, rounds: dict[int, bytes], turn_id: str | None = None) -> None:
        sessions = self._sessions
        if sessions is None:
            return  # stopped before the turn's end: everything is forgotten anyway
        states = sessions.find(key)
        if states is None:
            states = _States()
        elif turn_id is not None and not states.marks and not states.lost:
            states.marks = (_Mark(BEFORE, states.rounds),)
        if states.marks:
            states.rounds = dict(states.rounds)
        _add(states.rounds, rounds, self._rounds_kept)
        size = _size(states)
        while size > self._bounds.session_bytes and (states.marks or len(states.rounds) > 1):
            if states.marks:
                self._drop_marks(states, 1)
            else:
                del states.rounds[min(states.rounds)]
            size = _size(states)
        if turn_id is not None:
            states.marks = (*states.marks, _Mark(turn_id, states.rounds))
            self._drop_marks(states, len(states.marks) - self._turns_kept)
            size = _size(states)
        sessions.keep(key, states, size)

    def _drop_marks(self, states: _States, count: int) -> None:
        if count > 0:
            states.marks = states.marks[count:]
            states.lost = True


def encoded_state(state: dict[str, Any], most: int) -> bytes:
    """A state as JSON. Raises `HandlerError` for one that is no JSON, or has more than `most` bytes."""
    if not isinstance(state, dict):
        raise HandlerError(f"a state is a dict, not a {type(state).__name__}", field="state")
    raw = encode(state, "state")
    if len(raw) > most:
        raise HandlerError(
            f"the state has {len(raw)} bytes as JSON, more than a session may hold ({most}); "
            "keep files and pictures elsewhere, or raise session_bytes",
            field="state",
        )
    return raw


def next_round(kept: Collection[int], round_id: int | None, rounds_kept: int) -> int:
    """The number of the round that is saved. Raises `HandlerError` for one that would be dropped at once."""
    number = max(kept, default=0) + 1 if round_id is None else round_id
    if number not in kept and len(kept) >= rounds_kept and number < min(kept):
        raise HandlerError(
            f"round {number} is older than the {rounds_kept} rounds that are kept (from {min(kept)}); "
            "save it without a round_id, or keep more rounds: rounds_kept=… of the state service",
            field="round_id",
        )
    return number


def _size(states: _States) -> int:
    """The bytes of all rounds that are held; marks mostly hold the same ones."""
    held = {id(raw): len(raw) for mark in states.marks for raw in mark.rounds.values()}
    held.update((id(raw), len(raw)) for raw in states.rounds.values())
    return sum(held.values())


def _add(rounds: dict[int, bytes], new: dict[int, bytes], most: int) -> None:
    """Add rounds and drop the oldest over `most`."""
    rounds.update(new)
    while len(rounds) > most:
        del rounds[min(rounds)]
