"""The turns that can be asked for by id: those that run, and for a bounded while those that ended."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from greenroom.actors.errors import Overloaded, TurnNotFound
from greenroom.actors.limits import Limits
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import SessionKey, Turn
from greenroom.actors.repeats import key_reused, turn_exists
from greenroom.actors.turn import TurnKey, TurnRun
from greenroom.actors.weights import weight_of


class Archive:
    """Turns by id. Of those that have ended only the logs are kept; they stand in line to be forgotten, as they ended.

    A turn's idempotency key is known for as long as the turn is.
    """

    __slots__ = ("_bytes", "_coming", "_ended", "_kept_size", "_keys", "_limits", "_runs", "coming", "hooked")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._runs: dict[TurnKey, TurnRun] = {}
        self._ended: OrderedDict[TurnKey, TurnLog] = OrderedDict()
        self._keys: dict[TurnKey, TurnKey] = {}
        """Turns by their principal and idempotency key: of most there is none."""
        self._kept_size = 0
        self.hooked = 0
        """Turns with a webhook that have not ended."""
        self._bytes = 0
        """What the requests weigh of turns that have not ended, or are on their way in."""
        self._coming: dict[SessionKey, tuple[int, int]] = {}
        """Turns on their way in, and what they weigh, by session."""
        self.coming = 0

    @property
    def open(self) -> int:
        """Turns that have not ended."""
        return len(self._runs)

    def check_room(self, turn: Turn) -> None:
        """Raises `Overloaded` when no more turns may be at work, or not with what this one says."""
        limits = self._limits
        if len(self._runs) + self.coming >= limits.turns:
            raise Overloaded(
                f"{len(self._runs)} turns are at work already, as many as may be (Limits.turns); try again later"
            )
        if self._bytes and self._bytes + weight_of(turn) > limits.input_bytes:
            raise Overloaded(
                f"requests of {self._bytes:,} bytes are at work already, and with this one of {weight_of(turn):,} it "
                f"would be more than {limits.input_bytes:,} (Limits.input_bytes); try again later"
            )

    def takes_in(self, turn: Turn) -> Callable[..., None]:
        """Count a turn that is on its way in, until what this gives is called, with whatever."""
        weight = weight_of(turn)
        self._come(turn.key, 1, weight)
        return lambda *_: self._come(turn.key, -1, -weight)

    def coming_of(self, key: SessionKey) -> int:
        """What the session's turns weigh that are on their way in."""
        return self._coming.get(key, (0, 0))[1]

    def _come(self, key: SessionKey, turns: int, weight: int) -> None:
        self.coming += turns
        self._bytes += weight
        count, size = self._coming.get(key, (0, 0))
        if count + turns:
            self._coming[key] = count + turns, size + weight
        else:
            del self._coming[key]

    @property
    def kept(self) -> int:
        """Turns that have ended and are kept."""
        return len(self._ended)

    def known(self, turn: Turn) -> TurnLog | None:
        """The log of the turn that this one is a repeat of; none: it is new.

        Raises `TurnExists` if its id is another turn's, and `KeyReused` if its idempotency key is.
        """
        principal, name = turn.principal, turn.idempotency_key
        if name is not None and (key := self._keys.get((principal, name))) is not None:
            log = self.log(key)
            if log.turn.fingerprint != turn.fingerprint:
                raise key_reused(turn, log.turn)
            return log
        key = (principal, turn.id)
        if key not in self._runs and key not in self._ended:
            return None
        log = self.log(key)
        if not turn.fingerprint or log.turn.fingerprint != turn.fingerprint:
            raise turn_exists(turn)
        return log

    def add(self, run: TurnRun) -> None:
        """Keep a turn that has just been accepted."""
        self._runs[run.key] = run
        self._bytes += run.log.weight
        turn = run.log.turn
        self.hooked += turn.webhook is not None
        if turn.idempotency_key is not None:
            self._keys[turn.principal, turn.idempotency_key] = run.key

    def has(self, key: TurnKey) -> bool:
        """Whether the turn is here."""
        return key in self._runs or key in self._ended

    def drop(self, run: TurnRun) -> None:
        """The turn is not here any more, though it has not ended."""
        if self._runs.get(run.key) is not run:  # it came back, as another run
            return
        turn = run.log.turn
        del self._runs[run.key]
        self._bytes -= run.log.weight
        self.hooked -= turn.webhook is not None
        if turn.idempotency_key is not None:
            self._keys.pop((turn.principal, turn.idempotency_key), None)

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
        if self._runs.get(key) is not run:  # it came back, as another run
            return
        del self._runs[key]
        self.hooked -= log.turn.webhook is not None
        self._ended[key] = log
        log.ended_at = now
        self._bytes -= log.weight
        self._kept_size += log.size + log.weight
        while len(self._ended) > limits.kept_turns or self._kept_size > limits.kept_bytes:
            self.forget(next(iter(self._ended)))

    def expire(self, now: float) -> None:
        """Forget what ended longer ago than it is kept. A log that somebody still reads is kept for him."""
        oldest = now - self._limits.kept_seconds
        while self._ended and self._ended[key := next(iter(self._ended))].ended_at <= oldest:
            self.forget(key)

    def forget(self, key: TurnKey) -> None:
        """Keep a turn no longer that has ended; one that is not here is forgotten already."""
        log = self._ended.pop(key, None)
        if log is None:
            return
        self._kept_size -= log.size + log.weight
        turn = log.turn
        if turn.idempotency_key is not None:
            self._keys.pop((turn.principal, turn.idempotency_key), None)
        if not log.watched:
            log.expire()

    def runs(self) -> list[TurnRun]:
        """The turns that have not ended."""
        return list(self._runs.values())
