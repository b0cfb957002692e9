"""The turns that can be asked for by id: those that run, and for a bounded while those that ended."""

from __future__ import annotations

from collections import deque

from greenroom.actors.errors import TurnExists, TurnNotFound
from greenroom.actors.limits import Limits
from greenroom.actors.log import TurnLog
from greenroom.actors.turn import TurnKey, TurnRun


class Archive:
    """Turns by id. Of those that have ended only the logs are kept; they stand in line to be forgotten."""

    __slots__ = ("_ended", "_kept_size", "_limits", "_line", "_runs")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._runs: dict[TurnKey, TurnRun] = {}
        self._ended: dict[TurnKey, TurnLog] = {}
        self._line: deque[TurnKey] = deque()
        self._kept_size = 0

    @property
    def open(self) -> int:
        """Turns that have not ended."""
        return len(self._runs)

    @property
    def kept(self) -> int:
        """Turns that have ended and are kept."""
        return len(self._ended)

    def check_new(self, key: TurnKey) -> None:
        """Raises `TurnExists` if the id is taken."""
        if key in self._runs or key in self._ended:
            raise TurnExists(
                f"turn {key[1]!r} exists already; leave `id` out to get a new one, "
                f"or read the turn you have with GET /process/{key[1]}/events"
            )

    def add(self, run: TurnRun) -> None:
        """Keep a turn that has just been accepted."""
        self._runs[run.key] = run

    def run(self, key: TurnKey) -> TurnRun | None:
        """The turn, if it has not ended."""
        return self._runs.get(key)

    def log(self, key: TurnKey) -> TurnLog:
        """The turn's log. Raises `TurnNotFound`."""
        run = self._runs.get(key)
        log = run.log if run is not None else self._ended.get(key)
        if log is None:
            raise TurnNotFound(
                f"there is no turn {key[1]!r}: it never was, is somebody else's, or ended longer ago than "
                f"turns are kept ({self._limits.kept_seconds:g} s)"
            )
        return log

    def ended(self, run: TurnRun, now: float) -> None:
        """The turn has ended, at `now` (seconds of the loop's clock); older ones make room for it."""
        key, log, limits = run.key, run.log, self._limits
        del self._runs[key]
        self._ended[key] = log
        self._line.append(key)
        log.ended_at = now
        self._kept_size += log.size
        while len(self._line) > limits.kept_turns or self._kept_size > limits.kept_bytes:
            self._forget()

    def expire(self, now: float) -> None:
        """Forget what ended longer ago than it is kept. A log that somebody still reads is kept for him."""
        while self._line and self._ended[self._line[0]].ended_at + self._limits.kept_seconds <= now:
            self._forget()

    def runs(self) -> list[TurnRun]:
        """The turns that have not ended."""
        return list(self._runs.values())

    def _forget(self) -> None:
        log = self._ended.pop(self._line.popleft())
        self._kept_size -= log.size
        if not log.watched:
            log.expire()
