"""Services that are started: which keep what they have in a storage, and which somebody starts.

A process knows of a service that a session uses when one of the session's turns has run in it. Who forks or forgets a
session of a time before, or of another process, finds here which services may have something of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final
from weakref import WeakKeyDictionary

from greenroom.services.known_services import KnownServices

_started: Final[WeakKeyDictionary[object, KnownServices]] = WeakKeyDictionary()
_noted: Final[ContextVar[KnownServices | None]] = ContextVar("greenroom_noted_starts", default=None)


def add_started(storage: object, service: object) -> None:
    """The service is started."""
    _started.setdefault(storage, KnownServices()).add(service)


def drop_started(storage: object, service: object) -> None:
    """The service is stopped. One that is not known is fine."""
    if storage in _started:
        _started[storage].discard(service)


def started_on(storage: object) -> list[object]:
    """Those that are started."""
    return list(_started.get(storage, ()))


@contextmanager
def noting_starts() -> Iterator[KnownServices]:
    """Gives the services that somebody starts within it, in tasks and threads that are begun in it too, and does not
    stop again; also those that were started already. Of an inner one, the outer one does not know."""
    services: KnownServices = KnownServices()
    token = _noted.set(services)
    try:
        yield services
    finally:
        _noted.reset(token)


def note_start(service: object) -> None:
    """Somebody starts the service, which may be started already."""
    services = _noted.get()
    if services is not None:
        services.add(service)


def note_stop(service: object) -> None:
    """Somebody stops the service."""
    services = _noted.get()
    if services is not None:
        services.discard(service)
