"""Turns that run while nothing is to be kept of them any more but what their session's history has: responses that were
deleted before they ended. The mark that says so in the storage.

It is a folder of kind `unwanted` that says which turn it is, is open, and has the process as its owner that was asked.
That one removes the turn when it has ended (`DurableStore.remove`), and with it goes the mark. When the process is gone
without having done so, any other finds the mark, and does it.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct, msgpack

from greenroom.actors.messages import Turn
from greenroom.services.sessions.turn_names import id_name
from greenroom.services.storage import Change, FolderKey, Storage

KIND: Final = "unwanted"


class Unwanted(Struct, frozen=True, array_like=True):
    """Which turn."""

    turn_id: str
    principal: str | None


_encoder = msgpack.Encoder()
_decoder = msgpack.Decoder(Unwanted)


async def mark_unwanted(storage: Storage, turn: Turn, owner: str) -> None:
    """Say that the turn is to be removed when it has ended. `owner`: who does it. Raises `StoreUnavailable`."""
    head = _encoder.encode(Unwanted(turn.id, turn.principal))
    await storage.write([Change(key=_folder(turn.id, turn.principal), head=head, owner=owner, open=True)])


def removed(turn_id: str, principal: str | None) -> Change:
    """What takes the turn's mark away, if it has one."""
    return Change(key=_folder(turn_id, principal), delete=True)


async def unwanted(storage: Storage, limit: int) -> list[tuple[Unwanted, Change]]:
    """Up to `limit` turns whose processes are gone that were to remove them, each with what takes its mark away.
    Raises `StoreUnavailable`."""
    heads = await storage.orphans(KIND, limit)
    return [
        (_decoder.decode(head.body), Change(key=head.key, expected=head.fence, delete=True)) for head in heads
    ]


def _folder(turn_id: str, principal: str | None) -> FolderKey:
    return FolderKey(KIND, "", id_name(turn_id, principal).hex())
