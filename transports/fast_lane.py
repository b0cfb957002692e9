"""The way of the requests that count past aiohttp's router.

For each request aiohttp looks through the routes, makes a match with all its parts, and looks for middlewares and
signal handlers: some 5 us, a twentieth of a short turn. The paths that turns are asked for at are few and fixed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import hdrs, web

DIRECT: Final = web.RequestKey("greenroom_direct", bool)
"""Set on requests that came this way: no application's signals wait for their responses."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FastLane:
    """Calls the handlers of `paths` itself, those for POST; all other requests go the `usual` way."""

    def __init__(self, app: web.Application, paths: frozenset[str], usual: Callable[[Any], Any]) -> None:
        self._usual = usual
        self._handlers: dict[str, Handler] = {
            route.resource.canonical: route.handler
            for route in app.router.routes()
            if route.resource is not None
            and route.method == hdrs.METH_POST
            and route.resource.canonical in paths
        }

    def __call__(self, request: Any) -> Awaitable[web.StreamResponse]:
        """The response, from whichever way."""
        handler = self._handlers.get(request.raw_path)
        if handler is None or request.method != hdrs.METH_POST or hdrs.EXPECT in request.headers:
            usual: Awaitable[web.StreamResponse] = self._usual(request)
            return usual
        request[DIRECT] = True
        return handler(request)
