"""The turn log: the ordered events of one turn, readable from any position while it runs and for a while after.

Its writer never waits for a reader. A reader either iterates (`read`) or asks to be called when there is more
(`watch`), which costs no task switch an event: all that a burst appends is announced once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from types import MappingProxyType

from msgspec import Struct, field

from greenroom.actors.errors import SessionLost, TurnNotFound
from greenroom.actors.events import TERMINAL, Event, Terminal
from greenroom.actors.messages import Turn

logger = logging.getLogger("greenroom.actors")


NO_VIEWS: Mapping[object, object] = MappingProxyType({})
"""Most turns are read by one reader, from their beginning."""


def _over(event: Event) -> None:
    raise AssertionError(f"the turn has ended, and then comes {event!r}")


class TurnLog(Struct, eq=False, weakref=True):
    """Events of `turn`, numbered from 0. `size`: of its text, when it has ended; `ended_at`: when that was, by the
    loop's clock. `weight`: what its request weighs (`weights`), where it is at work. `views`: forms of it that its
    readers share, by protocol. `behind`: it is filled from a store, some time after the turn, in another process, said
    it. `taken_at`: how many events it had when it was first taken over from a process that died having begun the turn,
    and that may have told others after these; none: it never was. `lost`: why it does not go on here; the store has
    its other half, or will.

    A struct, as every turn makes several such objects and a class of Python's own takes twice as long to fill one.
    """

    turn: Turn
    terminal: Terminal | None = None
    expired: bool = False
    behind: bool = False
    taken_at: int | None = None
    lost: SessionLost | None = None
    size: int = 0
    weight: int = 0
    ended_at: float = 0.0
    views: Mapping[object, object] = NO_VIEWS
    _events: list[Event] = field(default_factory=list)
    _watchers: tuple[Callable[[], None], ...] = ()
    _notifying: bool = False
    emit: Callable[[Event], None] = _over
    """Adds an event that is no ending, in whatever way does for now: nobody needs be told while nobody follows. Look it
    up for each event."""

    def __post_init__(self) -> None:
        self.emit = self._events.append

    def __repr__(self) -> str:
        ending = type(self.terminal).__name__ if self.terminal else "open"
        return (
            f"<TurnLog {self.turn.id} {len(self._events)} events, {len(self._watchers)} watchers, {ending}>"
        )

    def __len__(self) -> int:
        return len(self._events)

    @property
    def id(self) -> str:
        """The turn's id."""
        return self.turn.id

    @property
    def watched(self) -> bool:
        """Whether anybody follows."""
        return bool(self._watchers)

    def append(self, event: Event) -> None:
        """Add an event and let the watchers know, once for all that are added in this step of the loop."""
        self._events.append(event)
        if type(event) in TERMINAL:  # much quicker than isinstance, which counts for a token
            assert self.terminal is None, f"{self!r} has ended"
            self.terminal = event  # type: ignore[assignment]
            self.emit = _over
        if self._watchers and not self._notifying:
            self._notifying = True
            asyncio.get_running_loop().call_soon(self._notify)

    def taken(self, at: int) -> None:
        """It is known by now that the turn was taken over (`taken_at`): who waits to know it is told."""
        if at != self.taken_at:
            self.taken_at = at
            self._announce()

    def _announce(self) -> None:
        if self._watchers and not self._notifying:
            self._notifying = True
            asyncio.get_running_loop().call_soon(self._notify)

    def _notify(self) -> None:
        self._notifying = False
        for watcher in self._watchers:
            try:
                watcher()
            except Exception:
                logger.exception("a reader of turn %s failed, and is not told of events any more", self.id)
                self.unwatch(watcher)

    def events(self, position: int = 0) -> list[Event]:
        """What there is from `position` on, now. Raises `TurnNotFound` when the log is no longer kept, `SessionLost`
        when it does not go on here."""
        if self.lost is not None:
            raise self.lost.again()
        if self.expired:
            raise TurnNotFound(
                f"the events of turn {self.id} are no longer kept; ask for its session's history instead"
            )
        return self._events[position:] if position else self._events

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher`, from the loop, after each burst of new events."""
        self._watchers = (*self._watchers, watcher)
        if self.terminal is None:
            self.emit = self.append

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Stop calling it."""
        self._watchers = tuple(other for other in self._watchers if other != watcher)
        if not self._watchers and self.terminal is None:
            self.emit = self._events.append

    async def read(self, position: int = 0) -> AsyncGenerator[Event, None]:
        """All events from `position` on, as they come, to the turn's ending. Raises as `events`."""
        more = asyncio.Event()
        self.watch(more.set)
        try:
            while True:
                more.clear()
                for event in self.events(position)[:]:
                    position += 1
                    yield event
                if self.terminal is not None and position >= len(self._events):
                    return
                if position >= len(self._events):
                    await more.wait()
        finally:
            self.unwatch(more.set)

    async def ended(self) -> Terminal:
        """Wait for the turn's ending. Raises `SessionLost` when it does not end here."""
        if self.terminal is None:
            async with aclosing(self.read(len(self._events))) as events:
                async for _ in events:
                    pass
        assert self.terminal is not None
        return self.terminal

    def break_off(self, lost: SessionLost) -> None:
        """It goes on in another process, which nobody here can follow: its readers are told."""
        assert self.terminal is None, f"{self!r} has ended"
        self.lost = lost
        self.emit = _over
        self._events = []
        self.views = NO_VIEWS
        self._announce()

    def expire(self) -> None:
        """Let the events go."""
        self.expired = True
        self._events = []
        self.views = NO_VIEWS
