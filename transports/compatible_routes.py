"""The routes under `/compatible-mode/v1`, where OpenAI's clients look: put together, and with errors as they read them.

Whatever application the routes are added to, what is asked under this path is answered in this API's form: a last
route takes what the others do not.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterable, Sequence

from aiohttp import web

from greenroom.actors.errors import NotServing
from greenroom.transports.http_errors import ANY_PATH, Handler, any_expectation, guard
from greenroom.transports.openai_fields import BASE_PATH
from greenroom.transports.responses_errors import FORM, MethodNotAllowed, RouteNotFound
from greenroom.transports.transport import Host

_PLACEHOLDER = re.compile(r"\{[a-z_]+(?::([^{}]+))?\}")


def compatible_routes(routes: Iterable[web.RouteDef], host: Host) -> list[web.RouteDef]:
    """These routes, whose paths are given from the base path on, and the one for all the rest."""
    known = list(routes)
    rest = _Rest(known)
    ends = [*known, web.route("*", ANY_PATH, rest.answer), web.route("*", "", rest.answer)]
    return [
        web.route(
            route.method,
            BASE_PATH + route.path,
            guard(_serving(route.handler, host), host.sources, FORM),
            **{**route.kwargs, "expect_handler": any_expectation},
        )
        for route in ends
    ]


def _serving(handler: Handler, host: Host) -> Handler:
    """The handler, while what it uses is there. Draining, what has been said can still be asked for."""

    def serve(request: web.Request) -> Awaitable[web.StreamResponse]:
        if host.state in ("starting", "stopped"):
            raise NotServing(f"the application is {host.state}; try again in a moment")
        return handler(request)

    return serve


class _Rest:
    """Answers what no route takes."""

    def __init__(self, routes: Sequence[web.RouteDef]) -> None:
        self._known = [(_pattern(route.path), route.method) for route in routes]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Never without an error."""
        path = request.match_info.get("rest", "")
        allowed = {method for pattern, method in self._known if pattern.fullmatch(f"/{path}")}
        if allowed:
            raise MethodNotAllowed(f"{request.path} does not take {request.method}", allowed)
        raise RouteNotFound(
            f"there is nothing at {request.method} {request.path}; GET / names the routes, and a client's base_url "
            f"ends in {BASE_PATH}"
        )


def _pattern(path: str) -> re.Pattern[str]:
    """What paths a route takes: between the placeholders, what it says; in their place, what they say."""
    pieces = _PLACEHOLDER.split(path)
    return re.compile(
        "".join(
            re.escape(piece or "") if at % 2 == 0 else piece or "[^{}/]+" for at, piece in enumerate(pieces)
        )
    )
