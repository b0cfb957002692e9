"""The turns that can be asked for by id: those that run, and for a bounded while those that ended."""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from greenroom.actors.errors import TurnExists, TurnNotFound
from greenroom.actors.limits import Limits
from greenroom.actors.turn import TurnRun

TurnKey: TypeAlias = tuple[str | None, str]
"""A turn's principal and id. Ids may be the client's own choice, so they are looked up only among the turns of the same
principal."""


class Archive:
    """Turns by id. Those that have ended stand in line to be forgotten."""

    __slots__ = ("_ended", "_kept_size", "_limits", "_turns")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._turns: dict[TurnKey, TurnRun] = {}
        self._ended: deque[TurnRun] = deque()
        self._kept_size = 0

    def __len__(self) -> int:
        return len(self._turns)

    @property
    def open(self) -> int:
        """Turns that have not ended."""
        return len(self._turns) - len(self._ended)

    def check_new(self, key: TurnKey) -> None:
        """Raises `TurnExists` if the id is taken."""
        if key in self._turns:
            raise TurnExists(
                f"turn {key[1]!r} exists already; leave `id` out to get a new one, "
                f"or read the turn you have with GET /process/{key[1]}/events"
            )

    def add(self, key: TurnKey, run: TurnRun) -> None:
        """Keep a turn that has just been accepted."""
        self._turns[key] = run

    def get(self, key: TurnKey) -> TurnRun:
        """The turn. Raises `TurnNotFound`."""
        run = self._turns.get(key)
        if run is None:
            raise TurnNotFound(
                f"there is no turn {key[1]!r}: it never was, is somebody else's, or ended longer ago than "
                f"turns are kept ({self._limits.kept_seconds:g} s)"
            )
        return run

    def ended(self, run: TurnRun, now: float) -> None:
        """The turn has ended, at `now` (seconds of the loop's clock); older ones make room for it."""
        run.ended_at = now
        ended = self._ended
        ended.append(run)
        self._kept_size += run.log.size
        while len(ended) > self._limits.kept_turns or self._kept_size > self._limits.kept_bytes:
            self._forget()

    def expire(self, now: float) -> None:
        """Forget what ended longer ago than it is kept. A log that somebody still reads is kept for him."""
        while self._ended and self._ended[0].ended_at + self._limits.kept_seconds <= now:
            self._forget()

    def runs(self) -> list[TurnRun]:
        """The turns that have not ended."""
        return [run for run in self._turns.values() if not run.over]

    def _forget(self) -> None:
        log = self._ended.popleft().log
        del self._turns[log.turn.principal, log.id]
        self._kept_size -= log.size
        if not log.watched:
            log.expire()
