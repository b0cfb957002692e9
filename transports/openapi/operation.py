"""What the document says of one route, before it is written in the words of OpenAPI."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from msgspec import Struct

from greenroom.transports.openapi.schemas import Schema, ref

Form: TypeAlias = Literal["ours", "openai"]
"""How errors are said."""

WHY = {
    400: "The request cannot be carried out as it is; the error names what is wrong",
    401: "The application asks who calls, and the credentials are missing or wrong",
    403: "The caller is known, and this is not his",
    404: "There is nothing of this name, or it is no longer kept, or it is somebody else's",
    405: "The path does not take this method",
    409: "It would get in the way of something else",
    410: "Events up to the number named may have been lost with a process: read all of them again, without it",
    413: "The body is larger than this server takes",
    415: "The body is not declared as JSON",
    422: "The answer is not of the form that was asked for",
    424: "The turn failed, was cancelled, or goes on in another process: at `Location`, and not to be begun again",
    429: "A bound is reached",
    500: "The server failed; its log has the details under an id",
    503: "The server takes nothing now, or what it needs for this (a store, a session) is not to be had",
    504: "A sandbox did not answer in time",
}
WAITING = (429, 503)
"""The statuses of refusals that say when to try again."""
ALWAYS = (429, 500)
"""Any request may come over the bound of its client's connections, or meet a defect."""
OF_A_BODY = (400, 413, 415)


class Answer(Struct, frozen=True, kw_only=True):
    """What comes when all goes well: JSON, server-sent events (`events`: of each event's data, but for `[DONE]`), a
    page, or none of these."""

    what: str
    json: Schema | None = None
    events: Schema | None = None
    types: tuple[str, ...] = ()


class Operation(Struct, frozen=True, kw_only=True):
    """One route. `refusals`: the statuses of errors besides those that any route has."""

    id: str
    summary: str
    tag: str
    answers: dict[int, Answer]
    refusals: tuple[int, ...] = ()
    form: Form = "ours"
    query: dict[str, Schema] = {}
    needed: tuple[str, ...] = ()
    headers: dict[str, Schema] = {}
    path: dict[str, Schema] = {}
    body: Schema | None = None
    body_needed: bool = True
    more: dict[str, Any] = {}


def error_name(form: Form, status: int) -> str:
    """The component of an answer that refuses."""
    return f"{'Error' if form == 'ours' else 'ApiError'}{status}"


def refusing(form: Form, status: int) -> dict[str, Any]:
    """An answer that refuses."""
    answer: dict[str, Any] = {
        "description": WHY[status],
        "content": {"application/json": {"schema": ref("Error" if form == "ours" else "ApiError")}},
    }
    if status in WAITING:
        answer["headers"] = {
            "Retry-After": {
                "description": "Seconds after which to try again",
                "required": True,
                "schema": {"type": "integer", "minimum": 0},
            }
        }
    return answer
