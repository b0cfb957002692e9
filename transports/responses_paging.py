"""Lists of items, a page at a time: `limit`, `order` and `after` as the Responses API has them.

Rule: no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from greenroom.actors.errors import InvalidRequest
from greenroom.transports.json_checks import identifier, unknown

LIMIT = 20
MOST = 100


class Page(Struct, frozen=True):
    """Which part of a list is asked for. `after`: the id of the item before its first."""

    limit: int = LIMIT
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None


def asked_page(query: Mapping[str, str]) -> Page:
    """What a query asks for. Raises `InvalidRequest` that names the parameter."""
    order = query.get("order") or "desc"
    if order not in ("asc", "desc"):
        unknown("order", order, ("asc", "desc"))
    after = query.get("after") or None
    return Page(
        whole_number(query, "limit", LIMIT, 1, MOST),
        "asc" if order == "asc" else "desc",
        None if after is None else identifier(after, "after"),
    )


def whole_number(query: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    """A whole number out of a query. Raises `InvalidRequest`."""
    value = query.get(name)
    if value is None or value == "":
        return default
    if not (value.isascii() and value.isdigit() and len(value) <= 18 and low <= int(value) <= high):
        raise InvalidRequest(f"{name} must be a whole number from {low} to {high}", field=name)
    return int(value)


def flag(query: Mapping[str, str], name: str) -> bool:
    """A yes or no out of a query. Raises `InvalidRequest`."""
    value = query.get(name, "").lower()
    if value not in ("", "true", "false", "1", "0"):
        raise InvalidRequest(f"{name} must be true or false", field=name)
    return value in ("true", "1")


def page_of(items: Sequence[Mapping[str, Any]], page: Page) -> bytes:
    """That page of the items, which are given oldest first and have an `id` each, as JSON.

    Raises `InvalidRequest` when there is no item `after` which it could begin.
    """
    ordered = list(items) if page.order == "asc" else list(reversed(items))
    start = 0
    if page.after is not None:
        start = 1 + next((at for at, item in enumerate(ordered) if item["id"] == page.after), -1)
        if not start:
            raise InvalidRequest(
                f"after is {page.after!r}, and the list has no such item; leave it out to begin at the first",
                field="after",
            )
    data = ordered[start : start + page.limit]
    return msgspec.json.encode(
        {
            "object": "list",
            "data": data,
            # The SDK's types have text here; an empty one ends its paging as null would.
            "first_id": data[0]["id"] if data else "",
            "last_id": data[-1]["id"] if data else "",
            "has_more": start + page.limit < len(ordered),
        }
    )
