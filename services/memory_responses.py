"""Responses kept in this process's memory: the response store of an application that names none."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

from greenroom.actors.events import ArgumentsDelta, Event, TextDelta
from greenroom.services.response_store import ResponseRecord
from greenroom.services.service import not_started

RECORD_BYTES = 2_000
"""What a response takes besides its events and its input."""
EVENT_BYTES = 120
VALUE_BYTES = 48


class _Key(NamedTuple):
    principal: str | None
    turn_id: str


class _Kept(Struct, frozen=True):
    """A response, since when it is kept by the store's clock, and its size."""

    record: ResponseRecord
    since: float
    size: int


class InMemoryResponseStore:
    """A `ResponseStore` that lasts as long as the object does: stopping it loses nothing, the process's end all.

    `max_bytes` counts an estimate of what responses take here, which is more than their text. Time is looked at when
    the store is used: there is no task and no timer.
    """

    def __init__(
        self,
        *,
        max_responses: int = 10_000,
        max_bytes: int = 256 * 1024 * 1024,
        keep_seconds: float = 30 * 24 * 3600.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._keep_seconds = keep_seconds
        self._monotonic = monotonic
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._size = 0
        self._started = False

    def __repr__(self) -> str:
        return f"<InMemoryResponseStore: {len(self._kept)} responses, {self._size} bytes>"

    async def start(self) -> None:
        """Be ready for use."""
        self._started = True

    async def stop(self) -> None:
        """Refuse further use, until started again."""
        self._started = False

    async def put(self, record: ResponseRecord) -> None:
        """Keep a response; the oldest make room for it. One that alone is over the bounds is not kept."""
        self._use()
        key = _Key(record.turn.principal, record.turn.id)
        self._forget(key)
        size = estimated_size(record, self._max_bytes)
        if size > self._max_bytes:
            return
        self._kept[key] = _Kept(record, self._monotonic(), size)
        self._size += size
        while len(self._kept) > self._max_responses or self._size > self._max_bytes:
            self._forget(next(iter(self._kept)))

    async def get(self, principal: str | None, turn_id: str) -> ResponseRecord | None:
        """The response; none when it is not kept, or has been for too long."""
        self._use()
        kept = self._kept.get(_Key(principal, turn_id))
        return kept.record if kept is not None else None

    async def delete(self, principal: str | None, turn_id: str) -> bool:
        """Keep it no longer. Whether it was kept."""
        self._use()
        return self._forget(_Key(principal, turn_id))

    def _use(self) -> None:
        """Look at the time first."""
        if not self._started:
            raise not_started(self)
        before = self._monotonic() - self._keep_seconds
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            if kept.since > before:
                return
            self._forget(key)

    def _forget(self, key: _Key) -> bool:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._size -= kept.size
        return kept is not None


def estimated_size(record: ResponseRecord, enough: int) -> int:
    """About how many bytes of memory a response takes; counting ends when it is over `enough`."""
    turn = record.turn
    size = RECORD_BYTES + _size_of((turn.request, turn.options, turn.echo), enough)
    for event in record.events:
        size += _event_size(event, enough)
        if size > enough:
            break
    return size


def _event_size(event: Event, enough: int) -> int:
    if isinstance(event, TextDelta | ArgumentsDelta):
        return EVENT_BYTES + len(event.text)
    return EVENT_BYTES + _size_of(event, enough)


def _size_of(value: object, enough: int) -> int:
    """The text in a value, and something for each value it is made of."""
    size = 0
    seen: set[int] = set()
    values: list[object] = [value]
    while values and size <= enough:
        one = values.pop()
        size += VALUE_BYTES
        if isinstance(one, str | bytes):
            size += len(one)
        elif isinstance(one, dict | list | tuple | Struct) and id(one) not in seen:
            seen.add(id(one))
            values += _parts(one)
    return size


def _parts(value: dict[object, object] | list[object] | tuple[object, ...] | Struct) -> list[object]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, Struct):
        return [getattr(value, name) for name in value.__struct_fields__]
    return list(value)
