"""What a request says about other turns of its session (`overlap`) and about its client's going (`disconnect`)."""

from __future__ import annotations

import re
from typing import Any, get_args

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.messages import Disconnect, Overlap
from greenroom.transports.json_checks import string, unknown

GRACE_SECONDS = 3600.0
"""The longest grace: for longer waits `continue` is the right policy."""

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
