"""The way of the requests that count past aiohttp's router.

For each request aiohttp looks through the routes, makes a match with all its parts, and looks for middlewares and
signal handlers: some 5 us, a twentieth of a short turn. The paths that turns are asked for at are few and fixed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import hdrs, web
from multidict import CIMultiDictProxy

from greenroom.transports.turn_request import DIRECT, TurnHandler


class FastLane:
    """Calls the handlers of `paths` itself, those for POST; all other requests go the `usual` way."""

    def __init__(self, app: web.Application, paths: frozenset[str], usual: Callable[[Any], Any]) -> None:
        self._usual = usual
        self._handlers: dict[str, Any] = {
            route.resource.canonical: route.handler
            for route in app.router.routes()
            if route.resource is not None
            and route.method == hdrs.METH_POST
            and route.resource.canonical in paths
        }

    def handler(self, method: str, raw_path: str, headers: CIMultiDictProxy[str]) -> TurnHandler | None:
        """What answers such a request; nothing, when it is to go the usual way."""
        if method != hdrs.METH_POST or hdrs.EXPECT in headers:
            return None
        return self._handlers.get(raw_path)

    def __call__(self, request: Any) -> Awaitable[web.StreamResponse]:
        """The response, from whichever way."""
        handler = self.handler(request.method, request.raw_path, request.headers)
        if handler is None:
            usual: Awaitable[web.StreamResponse] = self._usual(request)
            return usual
        request[DIRECT] = True
        return handler(request)
