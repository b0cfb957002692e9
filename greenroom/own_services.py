"""The services of an application: those that its init hooks start, and those that it holds.

A fork, and a deletion, has to reach them all, also in a process where no turn has used them yet (law 3). Others of the
process are left alone: two applications may have sessions of the same name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from weakref import WeakSet

from greenroom.services.service import Forkable
from greenroom.services.started import noting_starts
from greenroom.services.store import SessionStore


@contextmanager
def noting_own(services: WeakSet[object], holders: Iterable[object]) -> Iterator[None]:
    """Entered around the init hooks. Adds at its end to `services` those that were started within it, and those that
    one of `holders` has as an attribute, as far as they are `Forkable`."""
    with noting_starts() as started:
        yield
    held = (attribute for holder in holders for attribute in list(vars(holder).values()))
    services.update(one for one in (*started, *held) if _follows_forks(type(one)))


def _follows_forks(kind: type) -> bool:
    """By its class, as a mock or a proxy seems to have every method. A store of sessions has methods of these names."""
    return issubclass(kind, Forkable) and not issubclass(kind, SessionStore)
