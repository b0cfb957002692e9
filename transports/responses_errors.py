"""Errors as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}` for whatever is not a 2xx.

Those clients send a request again on 408, 409, 429 and 5xx. A turn may have run by the time something breaks, so a 5xx
says `x-should-retry: false`, unless nothing was kept of the request, or it may be sent again whatever became of it; a
409 becomes a 400. A 429 is sent before anything has run, with `Retry-After`.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

import msgspec
from aiohttp import web
from msgspec import Struct

from greenroom.actors.errors import (
    BodyTooLarge,
    GreenroomError,
    KeyReused,
    MailboxFull,
    NotServing,
    Overloaded,
    SessionBusy,
    TurnExists,
    TurnMoved,
    TurnNotFound,
    Unauthenticated,
)
from greenroom.transports.door import TooManyConnections
from greenroom.transports.http_errors import ErrorForm, is_repeatable, say_when
from greenroom.transports.openai_fields import BASE_PATH, INVALID, RATE, SERVER


class ResponseNotFound(GreenroomError):
    """No such response: it never was, is deleted or no longer kept, was not to be stored, or is somebody else's."""

    code = "response_not_found"
    status = 404


class ModelNotFound(GreenroomError):
    """The application is the one model there is."""

    code = "model_not_found"
    status = 404


class ConversationNotFound(GreenroomError):
    """Nothing was ever said in such a conversation, and none was created under this id."""

    code = "conversation_not_found"
    status = 404


class ItemNotFound(GreenroomError):
    """The conversation has no such item."""

    code = "item_not_found"
    status = 404


class RouteNotFound(GreenroomError):
    """There is nothing at this path."""

    code = "not_found"
    status = 404


class MethodNotAllowed(GreenroomError):
    """There is something at this path, and it does not take this method. `allowed`: what it takes."""

    code = "method_not_allowed"
    status = 405

    def __init__(self, message: str, allowed: Iterable[str]) -> None:
        super().__init__(message)
        self.allowed = tuple(sorted(allowed))


class Problem(Struct, frozen=True, gc=False):
    """An error on its way to the client. `status`: of HTTP; `retry_after`: seconds, where waiting helps."""

    status: int
    message: str
    type: str = INVALID
    param: str | None = None
    code: str | None = None
    retry_after: float | None = None

    def fields(self) -> dict[str, str | None]:
        """The error object."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}


# Where the words of this API differ from ours: the status, and the type and code.
_WORDS: tuple[tuple[type[GreenroomError], int, str, str], ...] = (
    (Unauthenticated, 401, INVALID, "invalid_api_key"),
    (TurnNotFound, 404, INVALID, "response_not_found"),
    (SessionBusy, 400, INVALID, "conversation_locked"),
    (TurnExists, 400, INVALID, "response_exists"),
    (KeyReused, 400, INVALID, "idempotency_key_reused"),
    (BodyTooLarge, 413, INVALID, "body_too_large"),
    (MailboxFull, 429, RATE, RATE),
    (Overloaded, 429, RATE, RATE),
    (TooManyConnections, 429, RATE, RATE),
    (NotServing, 503, SERVER, "not_serving"),
)


def problem_of(error: GreenroomError) -> Problem:
    """One of our own errors in the words of this API."""
    for kind, status, type_, code in _WORDS:
        if isinstance(error, kind):
            return Problem(status, error.message, type_, error.field, code, error.retry_after)
    if isinstance(error, TurnMoved) or error.status == 424:  # the turn may run, and is not to be sent again
        return Problem(error.status, error.message, SERVER, None, error.code, error.retry_after)
    if error.status >= 500:
        return Problem(error.status, error.message, SERVER, error.field, SERVER, error.retry_after)
    return Problem(error.status, error.message, INVALID, error.field, error.code, error.retry_after)


def problem_response(problem: Problem, *, again: bool = False) -> web.Response:
    """It as a response, with the headers that tell clients whether to try again. `again`: of a 5xx, that they may."""
    response = web.Response(
        status=problem.status,
        body=msgspec.json.encode({"error": problem.fields()}),
        content_type="application/json",
    )
    say_when(response, problem.retry_after)
    if problem.status >= 500 and not again:
        response.headers["x-should-retry"] = "false"
    if problem.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def refusal(error: GreenroomError, request: web.BaseRequest) -> web.Response:
    """One of our own errors as a response."""
    problem = problem_of(error)
    again = error.nothing_kept or (problem.status == 503 and is_repeatable(request))
    response = problem_response(problem, again=again)
    if isinstance(error, MethodNotAllowed):
        response.headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, TurnMoved):
        response.headers["Location"] = _url(error, request.path)
    return response


def _url(error: TurnMoved, path: str) -> str:
    """Where to ask for a turn that was asked for at `path`: a response that can be retrieved by this API, any other and
    a chat completion by `/process`."""
    mount = path.partition(BASE_PATH)[0]
    at = path if error.stored else f"{mount}/process"
    return f"{at}/{quote(error.turn_id, safe='')}"


def failure(error_id: str) -> Problem:
    """For what nobody expected. The log has it under this id."""
    return Problem(500, f"the server failed; its log has the details under {error_id}", SERVER, code=SERVER)


def _other(status: int, code: str, message: str) -> web.Response:
    if status >= 500:
        return problem_response(Problem(status, message, SERVER, code=SERVER))
    return problem_response(Problem(status, message, INVALID, code=code))


FORM = ErrorForm(refusal, _other, lambda error_id: problem_response(failure(error_id)))
