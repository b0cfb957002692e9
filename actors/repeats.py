"""What is said of a request that looks like one there was, and is not: here, and of turns in other processes."""

from __future__ import annotations

from greenroom.actors.errors import KeyReused, TurnExists
from greenroom.actors.messages import Turn


def turn_exists(turn: Turn) -> TurnExists:
    """Its id is another turn's."""
    return TurnExists(
        f"turn {turn.id!r} exists already and was asked for with another request; leave `id` out to get a new "
        f"one, or read the turn you have with GET /process/{turn.id}/events"
    )


def key_reused(turn: Turn, first: Turn) -> KeyReused:
    """Its idempotency key is that of `first`."""
    return KeyReused(
        f"the idempotency key {turn.idempotency_key!r} was sent with another request before, which began turn "
        f"{first.id!r}; a repeat has the same body, and a new request a new key"
    )
