"""Sessions held in memory, within bounds: a count, a number of bytes, and a time of idleness (law 6).

Over a bound the session used longest ago goes. Time is looked at when the map is used: there is no task and no timer.
An idle session costs two objects more than what is kept of it, and none that the garbage collector walks through.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from msgspec import Struct

from greenroom.actors.messages import SessionKey
from greenroom.actors.setting_checks import Seconds, Share, check_fields

GRAINS = 64
"""Time goes in this many steps an idle period, so that sessions share their time stamps and most uses sweep nothing."""
SWEPT_AT_ONCE = 512
"""Sessions forgotten by one use, at most: a crowd that went idle together must not block the loop."""


class Bounds(Struct, frozen=True, kw_only=True):
    """How much is held in memory. Sizes are those of the encoded messages and states."""

    max_sessions: Share = 100_000
    """Sessions held; over it the one used longest ago is forgotten."""
    max_bytes: Share = 1024 * 1024 * 1024
    """Bytes of all sessions; over it the one used longest ago is forgotten."""
    session_bytes: Share = 16 * 1024 * 1024
    """Bytes of one session; over it the oldest of what it has is forgotten."""
    idle_seconds: Seconds = 6 * 3600.0
    """A session not used for so long is forgotten."""

    def __post_init__(self) -> None:
        check_fields(self, "the bounds of what is held in memory")


DEFAULT_BOUNDS = Bounds()


class Resident(Struct, gc=False):
    """A session in memory. Subclasses add what is kept of it. `used`: by the map's clock."""

    size: int = 0
    used: float = 0.0


R = TypeVar("R", bound=Resident)


class SessionMap(Generic[R]):
    """Residents by session key. `forgotten` hears of each session that leaves, for whatever reason."""

    __slots__ = (
        "_behind",
        "_bounds",
        "_flat",
        "_forgotten",
        "_grain",
        "_key",
        "_monotonic",
        "_now",
        "_residents",
        "size",
    )

    def __init__(
        self,
        bounds: Bounds,
        monotonic: Callable[[], float] = time.monotonic,
        forgotten: Callable[[SessionKey], None] | None = None,
    ) -> None:
        self._bounds = bounds
        self._grain = bounds.idle_seconds / GRAINS
        self._monotonic = monotonic
        self._forgotten = forgotten
        self._residents: OrderedDict[bytes, R] = OrderedDict()
        self._key: SessionKey | None = None
        self._flat = b""
        """The key that was looked for last, and its flat form: what is kept next is mostly that session."""
        self._now = monotonic()
        self._behind = False
        self.size = 0

    def __repr__(self) -> str:
        return f"<SessionMap: {len(self)} sessions, {self.size} bytes>"

    def __len__(self) -> int:
        return len(self._residents)

    def find(self, key: SessionKey) -> R | None:
        """The session, which counts as a use of it; none when it is not held."""
        now = self._monotonic()
        if self._behind or now - self._now >= self._grain:
            self._sweep(now)
        self._key = key
        flat = self._flat = flatten(key)
        resident = self._residents.get(flat)
        if resident is None:
            return None
        if self._is_idle(resident):
            self._forget(flat)
            return None
        resident.used = self._now
        self._residents.move_to_end(flat)
        return resident

    def keep(self, key: SessionKey, resident: R, size: int) -> None:
        """Hold a session, new or changed, whose content is now `size` bytes. Others may have to go for it.

        Who keeps has looked before, with `find`: what time it is need not be asked again.
        """
        flat = self._flat if key is self._key else flatten(key)
        residents, bounds = self._residents, self._bounds
        before = residents.get(flat)
        residents[flat] = resident
        if before is not None:
            self.size -= before.size
            residents.move_to_end(flat)
        self.size += size
        resident.size = size
        resident.used = self._now
        while self.size > bounds.max_bytes or len(residents) > bounds.max_sessions:
            if len(residents) == 1:
                break
            self._forget(next(iter(residents)))

    def drop(self, key: SessionKey) -> None:
        """Hold the session no longer. One that is not held is fine."""
        flat = flatten(key)
        if flat in self._residents:
            self._forget(flat)

    def _is_idle(self, resident: R) -> bool:
        # A time stamp may be one grain older than the use it stands for.
        return self._now - resident.used >= self._bounds.idle_seconds + self._grain

    def _forget(self, flat: bytes) -> None:
        self.size -= self._residents.pop(flat).size
        if self._forgotten is not None:
            self._forgotten(unflatten(flat))

    def _sweep(self, now: float) -> None:
        self._now = now
        for _ in range(SWEPT_AT_ONCE):
            oldest = next(iter(self._residents), None)
            if oldest is None or not self._is_idle(self._residents[oldest]):
                self._behind = False
                return
            self._forget(oldest)
        self._behind = True


def flatten(key: SessionKey) -> bytes:
    """A key as one object, which takes a third of the tuple's memory. The length in front keeps keys apart."""
    user_id, session_id = key
    return f"{len(user_id)}:{user_id}{session_id}".encode("utf-8", "surrogatepass")


def unflatten(flat: bytes) -> SessionKey:
    """The key that was flattened."""
    length, _, ids = flat.decode("utf-8", "surrogatepass").partition(":")
    return SessionKey(ids[: int(length)], ids[int(length) :])
