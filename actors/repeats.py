"""Requests that come again: which may, and what is said of one that looks like one there was, and is not; here, and of
turns in other processes."""

from __future__ import annotations

from typing import Final

from greenroom.actors.errors import GreenroomError, KeyReused, StoreUnavailable, TurnExists, TurnMoved
from greenroom.actors.messages import Turn

UNNAMED: Final = b"-"
"""The fingerprint of a turn whose id its client does not know: no hash of a request. Who took the request in may know
that it came again, and asks once more for the turn by its id."""


def is_named(turn: Turn) -> bool:
    """Whether its request names itself, so that it joins the turn when it is sent again."""
    return turn.fingerprint not in (b"", UNNAMED)


def moved(turn: Turn) -> TurnMoved:
    """The turn is accepted, and another process's."""
    return TurnMoved(turn.id, named=is_named(turn), stored=turn.stored)


def may_run(turn: Turn, error: GreenroomError) -> StoreUnavailable:
    """It is not known whether the turn has joined another process's line. `error`: what came of asking last."""
    return _unsure(
        turn,
        f"the store failed just as turn {turn.id} was written down for another process, which may run it all the same: "
        f"GET /process/{turn.id} says so when the store is back",
        error.retry_after,
    )


def cut_short(turn: Turn) -> StoreUnavailable:
    """This process stopped while it took the turn in, and does not know whether it is written down."""
    return _unsure(
        turn,
        f"this process stopped just as turn {turn.id} was written down, and another one may run it: GET "
        f"/process/{turn.id} says so there",
        1.0,
    )


def _unsure(turn: Turn, what: str, retry_after: float | None) -> StoreUnavailable:
    """A request that does not name itself gets a status on which no client sends it again, as with `TurnMoved`."""
    named = is_named(turn)
    again = (
        "sent again with the same id or key, the request joins it"
        if named
        else "look before you send the request again, which would begin one more"
    )
    unsure = StoreUnavailable(f"{what}; {again}", retry_after=retry_after, maybe_done=True)
    if not named:
        unsure.status, unsure.retry_after = 424, None
    return unsure


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
