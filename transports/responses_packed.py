"""What clients carry without looking into it: a context packed into one item (a compaction), and sealed reasoning."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

from greenroom.actors.errors import InvalidRequest
from greenroom.transports.json_checks import json_object

PACKED = "compaction"
UNPACKED_BYTES = 64 * 1024 * 1024
"""The most that a request's compactions are unpacked to, all together: a few bytes may have been packed from many."""


def seal(items: Sequence[dict[str, Any]]) -> str:
    """The `encrypted_content` of a compaction item that stands for these items. Sent back, it is read as them.

    A compaction among them is unpacked: none lies within another.
    """
    flat: list[dict[str, Any]] = []
    for item in items:
        flat += unseal(item["encrypted_content"], PACKED) if item["type"] == PACKED else [item]
    return base64.b64encode(zlib.compress(msgspec.json.encode({"items": flat}))).decode()


def seal_summary(summary: bytes) -> bytes:
    """The `encrypted_content` of reasoning, as JSON, from the JSON of its summary. `unpack` gives that again."""
    return b'"%b"' % base64.b64encode(zlib.compress(b'{"items":%b}' % summary))


def unseal(sealed: str, at: str) -> list[Any]:
    """The items. Raises `InvalidRequest` for what `seal` did not make."""
    return unpack(sealed, at, UNPACKED_BYTES)[0]


def unpack(sealed: str, at: str, most: int) -> tuple[list[Any], int]:
    """The items, and how many bytes they were. Raises `InvalidRequest`, also when they are more than `most`."""
    body = b""
    try:
        body = zlib.decompressobj().decompress(base64.b64decode(sealed, validate=True), most + 1)
        items = json_object(body, "items").get("items") if len(body) <= most else None
    except (binascii.Error, zlib.error, ValueError, InvalidRequest):
        items = None
    if type(items) is not list:
        raise InvalidRequest(
            f"{at} was not made by this server, was not left as it was, or is too large; "
            "send the items that it stands for",
            field=at,
        )
    return items, len(body)
