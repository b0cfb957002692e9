"""Cross-origin requests (CORS, of the Fetch standard): which pages of other sites may call. None, unless said."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

PREFLIGHT_SECONDS = 600
EXPOSED = "Location, Retry-After, x-should-retry"


class Cors:
    """Answers preflights and marks responses for the origins that are allowed; `*` is any, without credentials."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origins)
        self._any = "*" in self._origins

    def middleware(self) -> Any:
        """An aiohttp middleware that answers preflights."""

        @web.middleware
        async def middleware(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
            if asks and self._allowed(request):
                return self._preflight(request)
            return await handler(request)

        return middleware

    async def mark(self, request: web.Request, response: web.StreamResponse) -> None:
        """A signal for `on_response_prepare`: streams get the headers too."""
        if self._allowed(request):
            response.headers["Access-Control-Allow-Origin"] = "*" if self._any else request.headers["Origin"]
            response.headers["Access-Control-Expose-Headers"] = EXPOSED
        if not self._any:
            response.headers["Vary"] = "Origin"

    def _allowed(self, request: web.BaseRequest) -> bool:
        origin = request.headers.get("Origin")
        return origin is not None and (self._any or origin in self._origins)

    def _preflight(self, request: web.Request) -> web.StreamResponse:
        """The answer to a preflight; `mark` adds who may."""
        asked = request.headers.get("Access-Control-Request-Headers", "")
        return web.Response(
            status=204,
            headers={
                "Access-Control-Allow-Methods": request.headers["Access-Control-Request-Method"],
                "Access-Control-Allow-Headers": asked,
                "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
            },
        )
