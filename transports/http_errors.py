"""Errors over HTTP: JSON for all of them, aiohttp's own included, and never an exception's text by accident."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec
from aiohttp import hdrs, web

from greenroom.actors.errors import ConfigurationError, GreenroomError, MissingDependency, TurnMoved
from greenroom.actors.ids import Sources
from greenroom.transports.endpoint_paths import pattern_of
from greenroom.transports.idempotency import HEADER
from greenroom.transports.openai_fields import BASE_PATH

logger = logging.getLogger("greenroom.http")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

RETRY_SECONDS = 5.0
"""When to try again, where nobody knows better."""
REPEATABLE: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_DELETE})
"""Methods that do the same when they are asked for twice."""
ANY_PATH = "/{rest:(?s:.*)}"
"""What a route takes that takes whatever is left: also what has line ends in it, which a dot alone does not take."""
OWN_FAULTS: Final = (ConfigurationError, MissingDependency)
"""Errors of ours that are for who runs the server: no caller can do anything about them, so the log has the words."""
ADVICE = {
    404: "there is nothing at {method} {path}; GET / names the routes",
    405: "{path} does not take {method}",
    413: "the request's body is larger than this server takes",
}
ASKED_BY_SDKS: Final = re.compile(r"/(?:responses|chat/completions|conversations|models)(?:/|\Z)")
"""What is in paths that OpenAI's clients ask for."""


class ErrorForm(NamedTuple):
    """How a protocol says what went wrong.

    `refusal`: for one of our own errors, which a request met. `other`: for a status of aiohttp's, with a code and a
    message. `failure`: for what nobody expected, with the id under which the log has it.
    """

    refusal: Callable[[GreenroomError, web.BaseRequest], web.Response]
    other: Callable[[int, str, str], web.Response]
    failure: Callable[[str], web.Response]


def error_response(status: int, code: str, message: str, **more: Any) -> web.Response:
    """An error as JSON: `{"error": {"code", "message", ...}}`."""
    error = {"code": code, "message": message} | {
        name: value for name, value in more.items() if value is not None
    }
    return web.Response(
        status=status, body=msgspec.json.encode({"error": error}), content_type="application/json"
    )


def refusal(error: GreenroomError, request: web.BaseRequest, route: str = "/process") -> web.Response:
    """One of our own errors, with `Retry-After` where waiting helps; with `Location` of a turn that is to be had.

    `route`: the path of the route that was asked, before which the request's path has that of the mount.
    """
    moved = error.turn_id if isinstance(error, TurnMoved) else None
    response = error_response(error.status, error.code, error.message, field=error.field, turn_id=moved)
    say_when(response, error.retry_after)
    if moved is not None:
        mounted = re.fullmatch(f"(.*?){pattern_of(route)}", request.path)
        mount = mounted[1] if mounted else ""
        response.headers["Location"] = f"{quote(mount)}/process/{quote(moved, safe='')}"
    return response


def is_repeatable(request: web.BaseRequest) -> bool:
    """Whether the request may be sent again whatever became of it: by its method, or because it names itself."""
    return request.method in REPEATABLE or HEADER in request.headers


def say_when(response: web.Response, retry_after: float | None) -> None:
    """Say when to try again: when it is known, and of what refuses for a time always. `retry_after`: seconds."""
    if retry_after is None and response.status in (429, 503) and "Retry-After" not in response.headers:
        retry_after = RETRY_SECONDS
    if retry_after is not None:
        response.headers["Retry-After"] = str(math.ceil(retry_after))


def guarded(routes: Iterable[web.RouteDef], sources: Sources) -> list[web.RouteDef]:
    """The routes, from which no error leaves the server in another form."""
    return [
        web.route(
            route.method,
            route.path,
            guard(route.handler, sources, OURS._replace(refusal=partial(refusal, route=route.path))),
            **{"expect_handler": any_expectation, **route.kwargs},
        )
        for route in routes
    ]


def guard(handler: Handler, sources: Sources, form: ErrorForm) -> Handler:
    """The handler, with its errors in this form whatever application its route is part of."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except OWN_FAULTS as error:
            return failed(error, request)
        except GreenroomError as error:
            if request.writer.output_size:  # its turn went to another process under way: the stream is cut
                raise ConnectionError(error.message) from error
            return form.refusal(error, request)
        except web.HTTPException as error:
            return from_aiohttp(request, error, form)
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - it is logged and told
            return failed(error, request)

    def failed(error: Exception, request: web.Request) -> web.Response:
        error_id = unforeseen(error, sources, f"{request.method} {request.path}")
        if request.writer.output_size:  # a stream that has begun cannot become another response
            raise ConnectionError(f"the server failed; its log has the details under {error_id}") from error
        return form.failure(error_id)

    return answer


def unforeseen(error: Exception, sources: Sources, doing: str) -> str:
    """Log an exception nobody expected. Gives the id it is logged under: what went wrong stays inside."""
    error_id = f"err_{sources.uuid()}"
    logger.error("%s failed [%s]", doing, error_id, exc_info=error)
    return error_id


class Rest:
    """Answers what no route of the application takes."""

    def __init__(self, app: web.Application) -> None:
        self._app = app

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Never without an error."""
        allowed: set[str] = set()
        for resource in self._app.router.resources():
            if resource is not request.match_info.route.resource:
                allowed |= (await resource.resolve(request))[1]
        allowed.discard(hdrs.METH_ANY)
        if allowed:
            raise web.HTTPMethodNotAllowed(request.method, allowed)
        raise web.HTTPNotFound


def from_aiohttp(request: web.BaseRequest, error: web.HTTPException, form: ErrorForm) -> web.StreamResponse:
    if error.status < 400:
        raise error
    advice = ADVICE.get(error.status, error.reason or "the request was refused")
    message = advice.format(method=request.method, path=request.path)
    if error.status == 404 and ASKED_BY_SDKS.search(request.path):
        message += f"; the base_url of OpenAI's clients ends in {BASE_PATH}"
    response = form.other(error.status, _code(error), message)
    for name in ("Allow", "Retry-After"):
        if name in error.headers:
            response.headers[name] = error.headers[name]
    say_when(response, None)
    return response


def in_own_words(error: web.HTTPException) -> web.StreamResponse:
    """What a function of the user's raised, with what he said and the headers he set; where he said nothing, as HTTP
    names it. A body that he says is no plain text goes out as it is. Raises it again if it is no error."""
    if error.status < 400:
        raise error
    headers = error.headers.copy()
    headers.pop("Content-Length", None)
    if error.content_type == "text/plain":
        headers.pop("Content-Type", None)
        said = error.text if error.text != f"{error.status}: {error.reason}" else error.reason
        response = error_response(error.status, _named(error.status), said or "the request was refused")
        response.headers.extend(headers)
    else:
        response = web.Response(status=error.status, reason=error.reason, body=error.body, headers=headers)
    response.cookies.update(error.cookies)
    say_when(response, None)
    return response


def _named(status: int) -> str:
    """The code of an error that is HTTP's, whatever reason somebody gave it."""
    try:
        return HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")
    except ValueError:
        return "error"


def _code(error: web.HTTPException) -> str:
    return (error.reason or "error").lower().replace(" ", "_")


def _failure(error_id: str) -> web.Response:
    return error_response(500, "internal_error", "the server failed; its log has the details", id=error_id)


OURS = ErrorForm(refusal, error_response, _failure)


async def any_expectation(request: web.Request) -> Any:
    """What to do about an `Expect` header: go on. aiohttp refuses unknown ones, outside all routes, in plain text."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
