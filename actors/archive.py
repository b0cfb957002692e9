"""The turns that can be asked for by id: those that run, and for a bounded while those that ended."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from greenroom.actors.errors import TurnExists, TurnNotFound
from greenroom.actors.limits import Limits
from greenroom.actors.turn import TurnRun


class TurnKey(NamedTuple):
    """Ids may be the client's own choice, so they are looked up only among the turns of the same principal."""

    principal: str | None
    turn_id: str


class Archive:
    """Turns by id."""

    __slots__ = ("_ended", "_kept_size", "_limits", "_turns")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._turns: dict[TurnKey, TurnRun] = {}
        self._ended: OrderedDict[TurnKey, float] = OrderedDict()
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
                f"turn {key.turn_id!r} exists already; leave `id` out to get a new one, "
                f"or read the turn you have with GET /process/{key.turn_id}/events"
            )

    def add(self, key: TurnKey, run: TurnRun) -> None:
        """Keep a turn that has just been accepted."""
        self._turns[key] = run

    def get(self, key: TurnKey) -> TurnRun:
        """The turn. Raises `TurnNotFound`."""
        run = self._turns.get(key)
        if run is None:
            raise TurnNotFound(
                f"there is no turn {key.turn_id!r}: it never was, is somebody else's, or ended longer ago than "
                f"turns are kept ({self._limits.kept_seconds:g} s)"
            )
        return run

    def ended(self, key: TurnKey, now: float) -> None:
        """The turn has ended, at `now` (seconds of the loop's clock); older ones make room for it."""
        run = self._turns.get(key)
        if run is None or key in self._ended:
            return
        self._ended[key] = now
        self._kept_size += run.size
        while len(self._ended) > self._limits.kept_turns or self._kept_size > self._limits.kept_bytes:
            self._forget(next(iter(self._ended)))

    def expire(self, now: float) -> None:
        """Forget what ended longer ago than it is kept. A log that somebody still reads is kept for him."""
        while self._ended:
            key, ended_at = next(iter(self._ended.items()))
            if ended_at + self._limits.kept_seconds > now:
                return
            self._forget(key)

    def runs(self) -> list[TurnRun]:
        """The turns that have not ended."""
        return [run for key, run in self._turns.items() if key not in self._ended]

    def _forget(self, key: TurnKey) -> None:
        del self._ended[key]
        run = self._turns.pop(key)
        self._kept_size -= run.size
        if not run.log.watched:
            run.log.expire()
