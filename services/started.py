"""Services that are started, by the storage in which they keep what they have.

A process knows of a service that a session uses when one of the session's turns has run in it. Who forks or forgets a
session of a time before, or of another process, finds here which services may have something of it.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary, WeakSet

_started: Final[WeakKeyDictionary[object, WeakSet[object]]] = WeakKeyDictionary()


def add_started(storage: object, service: object) -> None:
    """The service is started."""
    _started.setdefault(storage, WeakSet()).add(service)


def drop_started(storage: object, service: object) -> None:
    """The service is stopped. One that is not known is fine."""
    if storage in _started:
        _started[storage].discard(service)


def started_on(storage: object) -> list[object]:
    """Those that are started."""
    return list(_started.get(storage, ()))
