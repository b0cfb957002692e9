"""The names by which a turn is found in a storage, whoever looks for it and wherever its session is.

One is made of its id, another of its idempotency key if it has one; the principal is part of both, so that nobody finds
another's turn. Names are digests: of the same short length whatever a client sends, and no two texts have the same.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.messages import Turn

_BYTES: Final = 20
_VALUE_BYTES: Final = 8


def names_of(turn: Turn) -> tuple[bytes, ...]:
    """All names of a turn, that of its id first."""
    name = id_name(turn.id, turn.principal)
    return (name,) if turn.idempotency_key is None else (name, key_name(turn))


def check_names(turn: Turn) -> None:
    """Raises `InvalidRequest` for a name that cannot be kept."""
    for field, text in (("id", turn.id), ("principal", turn.principal)):
        try:
            (text or "").encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"{field} has half a surrogate pair in it, which is no text", field=field
            ) from error


def id_name(turn_id: str, principal: str | None) -> bytes:
    """The name that is made of a turn's id."""
    return _digest(b"turn", principal, turn_id)


def key_name(turn: Turn) -> bytes:
    """The name that is made of a turn's idempotency key, which it has."""
    assert turn.idempotency_key is not None
    return _digest(b"key", turn.principal, turn.idempotency_key)


def left_name(turn: Turn) -> bytes:
    """The name by which the answer of a turn is found of which nothing else is kept: of its idempotency key, if it has
    one."""
    return id_name(turn.id, turn.principal) if turn.idempotency_key is None else key_name(turn)


def value_of(number: int) -> bytes:
    """What goes with a name: the turn's number in its session."""
    return number.to_bytes(_VALUE_BYTES)


def number_in(value: bytes) -> int:
    """The number that goes with a name."""
    return int.from_bytes(value)


def _digest(kind: bytes, principal: str | None, text: str) -> bytes:
    """The length of the principal keeps it apart from the text."""
    flat = f"-{text}" if principal is None else f"{len(principal)}:{principal}{text}"
    return blake2b(flat.encode("utf-8", "surrogatepass"), digest_size=_BYTES, person=kind).digest()
