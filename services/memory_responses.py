"""Responses kept in this process's memory: the response store of an application that names none."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import astuple

from greenroom.actors.events import TERMINAL, ArgumentsDelta, TextDelta
from greenroom.actors.messages import Text, Turn
from greenroom.actors.setting_checks import Count, Wait, check_settings
from greenroom.services.response_store import ResponseRecord, at_once
from greenroom.services.service import not_started

RECORD_BYTES = 2_000
"""What a response takes besides its events and its input."""
EVENT_BYTES = 120
MESSAGE_BYTES = 250
VALUE_BYTES = 48


_Key: TypeAlias = tuple[str | None, str]
"""The principal and the turn's id."""


class _Kept(Struct, frozen=True):
    """A response, since when it is kept by the store's clock, and its size."""

    record: ResponseRecord
    since: float
    size: int


class InMemoryResponseStore:
    """A `ResponseStore` that lasts as long as the object does: stopping it loses nothing, the process's end all.

    `max_bytes` counts an estimate of what responses take here, which is more than their text. Time is looked at when
    the store is used: there is no task and no timer. Raises `ConfigurationError` for a bound that is none.
    """

    def __init__(
        self,
        *,
        max_responses: int = 10_000,
        max_bytes: int = 256 * 1024 * 1024,
        keep_seconds: float = 30 * 24 * 3600.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        kinds = {"max_responses": Count, "max_bytes": Count, "keep_seconds": Wait}
        check_settings("InMemoryResponseStore", locals(), kinds)
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._keep_seconds = keep_seconds
        self._monotonic = monotonic
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._size = 0
        self._echo: object = None
        """That of the response kept last: turns that asked for nothing special share one."""
        self._started = False

    def __repr__(self) -> str:
        return f"<InMemoryResponseStore: {len(self._kept)} responses, {self._size} bytes>"

    async def start(self) -> None:
        """Be ready for use."""
        self._started = True

    async def stop(self) -> None:
        """Refuse further use, until started again."""
        self._started = False

    @at_once
    async def put(self, record: ResponseRecord) -> None:
        """Keep a response; the oldest make room for it. One that alone is over the bounds is not kept."""
        now = self._use()
        turn = record.turn
        key = (turn.principal, turn.id)
        self._forget(key)
        size = estimated_size(record, self._max_bytes, shared=self._echo)
        if size > self._max_bytes:
            return
        self._kept[key] = _Kept(record, now, size)
        self._echo = turn.echo
        self._size += size
        while len(self._kept) > self._max_responses or self._size > self._max_bytes:
            self._forget(next(iter(self._kept)))

    async def get(self, principal: str | None, turn_id: str) -> ResponseRecord | None:
        """The response; none when it is not kept, or has been for too long."""
        self._use()
        kept = self._kept.get((principal, turn_id))
        return kept.record if kept is not None else None

    async def delete(self, principal: str | None, turn_id: str) -> bool:
        """Keep it no longer. Whether it was kept."""
        self._use()
        return self._forget((principal, turn_id))

    def _use(self) -> float:
        """Look at the time first, which it gives."""
        if not self._started:
            raise not_started(self)
        now = self._monotonic()
        while self._kept:
            key = next(iter(self._kept))
            if self._kept[key].since > now - self._keep_seconds:
                break
            self._forget(key)
        return now

    def _forget(self, key: _Key) -> bool:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._size -= kept.size
        return kept is not None


def estimated_size(record: ResponseRecord, enough: int, *, shared: object = None) -> int:
    """About how many bytes of memory a response takes; counting ends when it is over `enough`. `shared`: an echo that
    others have too, and that is not counted."""
    turn, events = record.turn, record.events
    size = RECORD_BYTES + _asked_size(turn, enough)
    if turn.echo is not shared:
        size += _size_of(turn.echo, enough)
    ending = events[-1] if events else None
    if record.text_size is not None and isinstance(ending, TERMINAL):
        # What items hold, their last event and the ending share.
        size += EVENT_BYTES * len(events) + record.text_size
        for item in ending.output:
            size += _said_size(item.parts, item.metadata, enough)
        return size
    for event in events:
        size += EVENT_BYTES
        size += len(event.text) if isinstance(event, TextDelta | ArgumentsDelta) else _size_of(event, enough)
        if size > enough:
            break
    return size


def _asked_size(turn: Turn, enough: int) -> int:
    request = turn.request
    size = 0
    for said in request.input:
        size += _said_size(said.content, said.metadata, enough)
    if request.extra:
        size += _size_of(request.extra, enough)
    if request.tools or request.stop:
        size += _size_of((request.tools, request.stop), enough)
    return size if turn.options is None else size + _size_of(turn.options, enough)


def _said_size(parts: Sequence[object], metadata: object, enough: int) -> int:
    """What a message, or an item, takes: mostly one text."""
    if metadata is None and len(parts) == 1 and type(text := parts[0]) is Text:
        return MESSAGE_BYTES + len(text.text)
    return MESSAGE_BYTES + _size_of((parts, metadata), enough)


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


def _parts(value: dict[object, object] | list[object] | tuple[object, ...] | Struct) -> Iterable[object]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return astuple(value) if isinstance(value, Struct) else value
