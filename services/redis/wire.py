"""Calls of the scripts in `scripts` as their arguments, and answers taken apart. No I/O.

Ids are text of any kind, so they are encoded with what UTF-8 has no place for (`surrogatepass`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from greenroom.services.storage import (
    Cell,
    Change,
    Conflict,
    Fence,
    Folder,
    FolderKey,
    Head,
    Named,
    NameTaken,
    OwnerState,
    Span,
)

STATES: Final[tuple[OwnerState, ...]] = ("serving", "draining", "gone")
"""By their numbers in the scripts."""

LATE: Final = -1
"""The first number of a call's answer that came too late to be carried out."""
NEWER: Final = -2
"""The first number of a call's answer that was not carried out, as a newer version has written there."""

_HEADERS: Final = {0xD9: 2, 0xDA: 3, 0xDB: 5, 0xDC: 3, 0xDD: 5}
"""The lengths of what goes before a string or a list, by its first byte; 1 where they are short."""

_encode = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[int]).decode


class Call(NamedTuple):
    """What a script is called with. `numbers`: lists of whole numbers, and lists of such."""

    numbers: Sequence[object]
    strings: Sequence[bytes]

    def arguments(self, *before: object) -> list[bytes]:
        """All behind the prefix. `before`: numbers that go first."""
        return [_encode((*before, *self.numbers)), *self.strings]


class Answer:
    """What a script answered, read from start to end."""

    __slots__ = ("_at", "_from", "_numbers", "_reply")

    def __init__(self, reply: bytes) -> None:
        end = 4 + int.from_bytes(reply[:4], "big")
        self._numbers = (
            _decode(reply[4:end]) if end > 5 else []
        )  # Lua does not know an empty list from a mapping
        self._at = 0
        self._reply = reply
        self._from = end + _HEADERS.get(reply[end], 1) if end < len(reply) else end

    def __bool__(self) -> bool:
        """Whether there is a number left."""
        return self._at < len(self._numbers)

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self._reply)

    @property
    def outcome(self) -> int:
        """Of a call that writes: 0, it is done."""
        return self._numbers[0]

    @property
    def now(self) -> int:
        """Of a call that writes: the server's time, in us."""
        return self._numbers[1]

    def skip(self, count: int) -> Answer:
        self._at += count
        return self

    def number(self) -> int:
        self._at += 1
        return self._numbers[self._at - 1]

    def string(self, length: int) -> bytes:
        start = self._from + _HEADERS.get(self._reply[self._from], 1)
        self._from = start + length
        return self._reply[start : self._from]


def encode_text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def decode_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def encode_key(*key: str) -> bytes:
    """A folder's id, or what the ids of a user's folders of a kind begin with."""
    parts = [encode_text(part) for part in key]
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])


def decode_key(data: bytes) -> FolderKey:
    parts: list[str] = []
    start = 0
    while start < len(data):
        colon = data.index(b":", start)
        start, length = colon + 1, int(data[start:colon])
        parts.append(decode_text(data[start : start + length]))
        start += length
    return FolderKey(*parts)


# ------------------------------------------------------------------------------------------------------------ writing


def write_call(changes: Sequence[Change], idle_ms: int) -> Call:
    """The call that does all changes, or none."""
    strings: list[bytes] = []
    return Call((idle_ms, [_add_change(change, strings) for change in changes]), strings)


def _add_change(change: Change, strings: list[bytes]) -> tuple[int, ...]:
    """Its numbers; its strings go behind the others."""
    add = strings.append
    add(encode_key(*change.key))
    if change.head is not None:
        add(change.head)
    if change.owner is not None:
        add(encode_text(change.owner))
    for cell, value in change.put:
        add(_field(cell))
        add(value)
    drop = set(change.drop).difference([cell for cell, _ in change.put]) if change.drop else ()
    for cell in drop:
        add(_field(cell))
    for name, value in change.names:
        add(name)
        add(value)
    strings.extend(change.unname)
    epoch, revision = (-1, 0) if change.expected is None else change.expected
    return (
        *(epoch, revision, int(change.take), int(change.delete), int(change.ends)),
        -1 if change.open is None else int(change.open),
        *(int(change.head is not None), int(change.owner is not None)),
        *(len(change.put), len(drop), len(change.names), len(change.unname)),
    )


def _field(cell: Cell) -> bytes:
    section, number = cell
    return b"%d:%b" % (number, encode_text(section))


def written(answer: Answer, changes: Sequence[Change]) -> tuple[Fence, ...]:
    """The new fences. Raises `Conflict`, `NameTaken`."""
    answer.skip(2)
    if answer.outcome == 0:
        return tuple([_fence(answer) for _ in changes])
    if answer.outcome == 1:
        key = FolderKey(*changes[answer.number() - 1].key)
        raise Conflict(key, _head(answer, key) if answer else None)
    name, key = answer.string(answer.number()), decode_key(answer.string(answer.number()))
    raise NameTaken(name, Named(key, answer.string(answer.number())))


# ------------------------------------------------------------------------------------------------------------ reading


def read_call(key: FolderKey, spans: Sequence[Span]) -> Call:
    """The call that reads a folder's head and those cells."""
    strings = [encode_key(*key), *(encode_text(span.section) for span in spans)]
    return Call([(span.first, span.last) for span in spans], strings)


def folder_of(answer: Answer, key: FolderKey, spans: Sequence[Span]) -> Folder | None:
    """What was read; none: it is not there."""
    if not answer:
        return None
    head = _head(answer, FolderKey(*key))
    return Folder(head, tuple([_cells(answer) for _ in spans]))


def _cells(answer: Answer) -> tuple[tuple[int, bytes], ...]:
    count = answer.number()
    return tuple(sorted([(answer.number(), answer.string(answer.number())) for _ in range(count)]))


def _head(answer: Answer, key: FolderKey) -> Head:
    fence = _fence(answer)
    body, owner = answer.number(), answer.number()
    state, place = STATES[answer.number()], answer.number()
    return Head(key, fence, answer.string(body), decode_text(answer.string(owner)), state, place > 0)


def _fence(answer: Answer) -> Fence:
    return Fence(answer.number(), answer.number())


def named_of(answer: Answer) -> Named | None:
    """Where a name points; none: nowhere."""
    if not answer:
        return None
    return Named(decode_key(answer.string(answer.number())), answer.string(answer.number()))


def heads_of(answer: Answer) -> Iterator[Head]:
    """The heads of several folders, each behind its key."""
    while answer:
        yield _head(answer, decode_key(answer.string(answer.number())))


def strings_of(answer: Answer) -> list[bytes]:
    """All that is left, as strings."""
    found: list[bytes] = []
    while answer:
        found.append(answer.string(answer.number()))
    return found
