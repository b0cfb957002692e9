"""The sessions that are active in this process: found by key, bounded, let go when idle."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from greenroom.actors.actor import SessionActor
from greenroom.actors.errors import Overloaded
from greenroom.actors.messages import SessionKey


class Roster:
    """Active session actors, busy and idle. Idle ones are in the order in which they became so."""

    __slots__ = ("_actors", "_bound", "_gone", "_idle", "_new", "passivated")

    def __init__(
        self,
        bound: int,
        new: Callable[[SessionKey], SessionActor],
        gone: Callable[[SessionKey], None] | None = None,
    ) -> None:
        self._bound = bound
        self._new = new
        self._gone = gone
        """Hears of each session that is let go."""
        self._actors: dict[SessionKey, SessionActor] = {}
        self._idle: OrderedDict[SessionActor, None] = OrderedDict()
        self.passivated = 0

    def __len__(self) -> int:
        return len(self._actors)

    @property
    def idle(self) -> int:
        """How many are idle."""
        return len(self._idle)

    def get(self, key: SessionKey) -> SessionActor:
        """The session's actor, activated if it was not. Raises `Overloaded` when all there may be are busy."""
        actor = self._actors.get(key)
        return actor if actor is not None else self._activate(key)

    def find(self, key: SessionKey) -> SessionActor | None:
        """The session's actor, if it is active."""
        return self._actors.get(key)

    def actors(self) -> tuple[SessionActor, ...]:
        """All that are active."""
        return tuple(self._actors.values())

    def working(self, actor: SessionActor) -> None:
        """The actor has taken a turn."""
        self._idle.pop(actor, None)
        self._actors[actor.key] = actor

    def resting(self, actor: SessionActor, now: float) -> None:
        """The actor is idle since `now` (seconds of the loop's clock)."""
        actor.idle_since = now
        self._idle[actor] = None

    def let_go(self, actor: SessionActor) -> None:
        """Let go of an actor that has just become idle."""
        del self._actors[actor.key]
        self.passivated += 1
        if self._gone is not None:
            self._gone(actor.key)

    def passivate_idle(self, before: float) -> None:
        """Let go of actors idle since before that time. Their state was saved when their last turn was committed."""
        while self._idle:
            actor = next(iter(self._idle))
            if actor.idle_since > before:
                return
            self._passivate(actor)

    def passivate_all(self) -> None:
        """Let go of all that are idle."""
        while self._idle:
            self._passivate(next(iter(self._idle)))

    def _activate(self, key: SessionKey) -> SessionActor:
        if len(self) >= self._bound:
            if not self._idle:
                raise Overloaded(
                    f"all {self._bound} sessions that may be active (Limits.active_sessions) are at work; try later"
                )
            self._passivate(next(iter(self._idle)))
        return self._new(key)

    def _passivate(self, actor: SessionActor) -> None:
        del self._idle[actor]
        self.let_go(actor)
