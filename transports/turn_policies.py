"""What a request says about other turns of its session (`overlap`), about its client's going (`disconnect`), and about
who is told of its end (`webhook`)."""

from __future__ import annotations

import re
from typing import Any, get_args

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.messages import Disconnect, Overlap
from greenroom.transports.json_checks import short_string, string, unknown

GRACE_SECONDS = 3600.0
"""The longest grace: for longer waits `continue` is the right policy."""
WEBHOOK_CHARS = 2048
"""The longest URL."""

_OVERLAPS: dict[str, Overlap] = {overlap: overlap for overlap in get_args(Overlap)}
_POLICIES = {
    "continue": Disconnect("continue"),
    "cancel": Disconnect("cancel"),
    "grace": Disconnect("grace"),
}
_GRACE = re.compile(r"grace=(\d{1,9}(?:\.\d{1,9})?)s?", re.ASCII)


def asked_overlap(value: Any) -> Overlap | None:
    """The request's `overlap`. Raises `InvalidRequest`."""
    if value is None:
        return None
    if (overlap := _OVERLAPS.get(string(value, "overlap"))) is None:
        unknown("overlap", value, _OVERLAPS)
    return overlap


def asked_disconnect(value: Any) -> Disconnect | None:
    """The request's `disconnect`. Raises `InvalidRequest`."""
    if value is None:
        return None
    if (policy := _POLICIES.get(string(value, "disconnect"))) is not None:
        return policy
    if not (grace := _GRACE.fullmatch(value)):
        unknown("disconnect", value, (*_POLICIES, "grace=30s"))
    seconds = float(grace[1])
    if not 0 < seconds <= GRACE_SECONDS:
        raise InvalidRequest(
            f"disconnect asks for {seconds:g} seconds of grace; more than 0 and at most {GRACE_SECONDS:g} can be given",
            field="disconnect",
        )
    return Disconnect("grace", seconds)


def asked_webhook(value: Any) -> str | None:
    """The request's `webhook`. Whether it is one that may be told, the application says. Raises `InvalidRequest`."""
    return None if value is None else short_string(value, "webhook", WEBHOOK_CHARS)
