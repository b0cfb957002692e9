"""Requests that name themselves, so that they can be sent again: the `Idempotency-Key` header, or `id` of `/process`.

Rule 1: no I/O. What is known of names is the actors' business (`Turn.idempotency_key`, `Turn.fingerprint`).
Rule 2: two requests are the same when their bodies are, byte for byte, and go to the same protocol. What clients send
again is what they sent; reading two bodies that are written differently as one would only hide a client's mistake.

The header is IETF's draft (draft-ietf-httpapi-idempotency-key-header): a string in quotes. Most clients leave the
quotes out, which is the same key here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

from greenroom.actors.errors import InvalidRequest

HEADER: Final = "Idempotency-Key"
KEY_CHARS: Final = 255
FINGERPRINT_BYTES: Final = 16

_BARE = re.compile(r"[!#-\[\]-~](?:[ !#-\[\]-~]*[!#-\[\]-~])?", re.ASCII)
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"', re.ASCII)
_ESCAPED = re.compile(r"\\(.)")


def asked_key(headers: Mapping[str, str]) -> str | None:
    """The request's idempotency key. Raises `InvalidRequest` for what is none."""
    value = headers.get(HEADER)
    return None if value is None else _key(value)


def _key(value: str) -> str:
    quoted = _QUOTED.fullmatch(value)
    key = _ESCAPED.sub(r"\1", quoted[1]) if quoted else value
    if not key or not (quoted or _BARE.fullmatch(value)):
        raise InvalidRequest(
            f"{HEADER} is {ascii(value)[:60]}; it is a string of printable ASCII, in quotes or without, such as a UUID",
            field=HEADER,
        )
    if len(key) > KEY_CHARS:
        raise InvalidRequest(f"{HEADER} has {len(key)} characters; it may have {KEY_CHARS}", field=HEADER)
    return key


def fingerprint(body: bytes, protocol: bytes) -> bytes:
    """What tells one request from another. `protocol`: a word of at most 16 bytes."""
    return blake2b(body, digest_size=FINGERPRINT_BYTES, person=protocol).digest()
