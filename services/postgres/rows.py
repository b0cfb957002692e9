"""Changes as the arguments of `write_1`, and what its functions answer as values of `greenroom.services.storage`."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final

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
    Span,
)

WRITE_ARGUMENTS: Final = 27


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogatepass")


def folder_id(kind: bytes, user_id: bytes, session_id: bytes) -> bytes:
    """What a folder is found by; other keys have others, however they are cut."""
    return sha256(b"%d %d " % (len(kind), len(user_id)) + kind + user_id + session_id).digest()


def name_id(name: bytes) -> bytes:
    return sha256(name).digest()


def write_arguments(
    changes: Sequence[Change], write_id: bytes, idle_seconds: float, seed: int
) -> tuple[object, ...]:
    """The arguments of `write_1`. `seed`: makes the locks of one schema others than those of another."""
    keys = [
        (encode(kind), encode(user_id), encode(session_id))
        for kind, user_id, session_id in (change.key for change in changes)
    ]
    ids = [folder_id(*key) for key in keys]
    expected = [change.expected or (None, None) for change in changes]
    names = _columns(
        [(at, name_id(name), value) for at, one in enumerate(changes, 1) for name, value in one.names], 3
    )
    return (
        write_id,
        idle_seconds,
        _locks(ids if names[1] is None else [*ids, *names[1]], seed),
        ids,
        [change.key.kind for change in changes],
        [user_id for _, user_id, _ in keys],
        [session_id for _, _, session_id in keys],
        [epoch for epoch, _ in expected],
        [revision for _, revision in expected],
        [change.take for change in changes],
        [change.delete for change in changes],
        [change.ends for change in changes],
        [change.head for change in changes],
        [None if change.owner is None else encode(change.owner) for change in changes],
        [change.open for change in changes],
        *_columns([(at, *cell) for at, one in enumerate(changes, 1) for cell in one.drop], 3),
        *_columns(
            [(at, *cell, value) for at, one in enumerate(changes, 1) for cell, value in _last(one.put)], 4
        ),
        *_columns([(at, name_id(name)) for at, one in enumerate(changes, 1) for name in one.unname], 2),
        *names,
    )


def _last(put: Sequence[tuple[Cell, bytes]]) -> Sequence[tuple[Cell, bytes]]:
    """Of values for one cell the last one: the server takes one."""
    return put if len(put) < 2 else tuple(dict(put).items())


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> Sequence[Any]:
    """The rows' columns; none at all for no rows, which the server passes over."""
    return list(zip(*rows, strict=True)) if rows else [None] * width


def _locks(ids: Sequence[bytes], seed: int) -> list[int]:
    """A number for each, in the order in which all writers take them."""
    return sorted({int.from_bytes(one[:8], "big", signed=True) ^ seed for one in ids})


def fences_of(row: Any) -> tuple[Fence, ...]:
    return tuple(map(Fence, row["epochs"], row["revisions"]))


def conflict_of(changes: Sequence[Change], row: Any) -> Conflict:
    place = row["place"] - 1
    key = FolderKey(*changes[place].key)
    if row["body"] is None:
        return Conflict(key, None)
    fence = Fence(row["epochs"][place], row["revisions"][place])
    return Conflict(
        key, Head(key, fence, row["body"], decode(row["owner"]), row["owner_state"], row["is_open"])
    )


def name_taken_of(changes: Sequence[Change], row: Any) -> NameTaken:
    wanted = [(name, Named(FolderKey(*one.key), value)) for one in changes for name, value in one.names]
    name, _ = wanted[row["place"] - 1]
    if row["verdict"] == "doubled":
        return NameTaken(name, wanted[int(row["kind"]) - 1][1])
    return NameTaken(name, named_of(row))


def named_of(row: Any) -> Named:
    return Named(FolderKey(row["kind"], decode(row["user_id"]), decode(row["session_id"])), row["value"])


def read_arguments(key: FolderKey, spans: Sequence[Span], idle_seconds: float) -> tuple[object, ...]:
    return (idle_seconds, folder_id(*map(encode, key)), *_columns(spans, 3))


def folder_of(key: FolderKey, row: Any, spans: int) -> Folder:
    epoch, revision, body, owner, owner_state, is_open, span_of, numbers, values = row
    head = Head(FolderKey(*key), Fence(epoch, revision), body, decode(owner), owner_state, is_open)
    if spans == 1:
        return Folder(head, (tuple(zip(numbers or (), values or (), strict=True)),))
    found: list[list[tuple[int, bytes]]] = [[] for _ in range(spans)]
    for span, number, value in zip(span_of or (), numbers or (), values or (), strict=True):
        found[span - 1].append((number, value))
    return Folder(head, tuple(map(tuple, found)))


def orphans_of(kind: str, row: Any) -> tuple[Head, ...]:
    user_ids, session_ids, *columns = (column or () for column in row)
    return tuple(
        Head(
            FolderKey(kind, decode(user_id), decode(session_id)),
            Fence(epoch, revision),
            body,
            decode(owner),
            "gone",
            True,
        )
        for user_id, session_id, epoch, revision, body, owner in zip(
            user_ids, session_ids, *columns, strict=True
        )
    )
