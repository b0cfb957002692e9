"""Compaction items: what a context says, packed into one item that clients carry without looking into it."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

from greenroom.actors.errors import InvalidRequest

PACKED = "compaction"
UNPACKED_BYTES = 64 * 1024 * 1024
"""The most that is unpacked, however small it was packed."""


def seal(items: Sequence[dict[str, Any]]) -> str:
    """The `encrypted_content` of a compaction item that stands for these items. Sent back, it is read as them.

    A compaction among them is unpacked: none lies within another.
    """
    flat: list[dict[str, Any]] = []
    for item in items:
        flat += unseal(item["encrypted_content"], PACKED) if item["type"] == PACKED else [item]
    return base64.b64encode(zlib.compress(msgspec.json.encode(flat))).decode()


def unseal(sealed: str, at: str) -> list[Any]:
    """The items. Raises `InvalidRequest` for what `seal` did not make."""
    try:
        unpacker = zlib.decompressobj()
        body = unpacker.decompress(base64.b64decode(sealed, validate=True), UNPACKED_BYTES)
        whole = unpacker.eof and not unpacker.unconsumed_tail
        items = msgspec.json.decode(body, type=list[Any]) if whole else None
    except (binascii.Error, zlib.error, msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        items = None
    if items is None:
        raise InvalidRequest(
            f"{at} was not made by this server, or not left as it was; send the items that it stands for",
            field=at,
        )
    return items
