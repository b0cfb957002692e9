"""`/models`: the application is the one model there is."""

from __future__ import annotations

import msgspec
from aiohttp import web

from greenroom.transports.responses_errors import ModelNotFound
from greenroom.transports.transport import Host


class ModelsRoutes:
    """The model's id is the application's name. A turn may name another, as clients have their own defaults."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._created = int(host.sources.now())

    def routes(self) -> list[web.RouteDef]:
        """The routes, from the base path on."""
        return [
            web.get("/models", self.list, allow_head=False),
            web.get("/models/{model:(?s:.+)}", self.show, allow_head=False),
        ]

    async def list(self, request: web.Request) -> web.StreamResponse:
        """The one model."""
        await self._host.authenticate(request.headers)
        return _json({"object": "list", "data": [self._model()]})

    async def show(self, request: web.Request) -> web.StreamResponse:
        """It, by its name."""
        await self._host.authenticate(request.headers)
        asked = request.match_info["model"]
        if asked != self._host.name:
            raise ModelNotFound(
                f"there is no model {asked!r} here; the one there is, is {self._host.name!r}", field="model"
            )
        return _json(self._model())

    def _model(self) -> dict[str, str | int]:
        return {
            "id": self._host.name,
            "object": "model",
            "created": self._created,
            "owned_by": "greenroom",
        }


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
