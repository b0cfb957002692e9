"""Services that are known, each by what it is: one that is not hashable, or equal to another, is as good as any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from weakref import WeakValueDictionary


class KnownServices:
    """A set of services. It keeps none of them from going, but those of classes that cannot be referenced weakly."""

    __slots__ = ("_held", "_others")

    def __init__(self) -> None:
        self._others: WeakValueDictionary[int, object] = WeakValueDictionary()
        self._held: dict[int, object] = {}

    def __repr__(self) -> str:
        return f"<KnownServices: {len(self._others) + len(self._held)}>"

    def __iter__(self) -> Iterator[object]:
        """Those that are there now; adding some meanwhile is fine."""
        return iter([*self._others.values(), *self._held.values()])

    def add(self, service: object) -> None:
        """Know this one. Doing it twice is fine."""
        try:
            self._others[id(service)] = service
        except TypeError:  # its class has slots, and none for references
            self._held[id(service)] = service

    def update(self, services: Iterable[object]) -> None:
        """Know these."""
        for service in services:
            self.add(service)

    def discard(self, service: object) -> None:
        """Know it no longer. One that is not known is fine."""
        self._others.pop(id(service), None)
        self._held.pop(id(service), None)
