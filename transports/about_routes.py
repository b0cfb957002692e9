"""What the server tells of itself: `/`, `/health`, `/ready`, `/openapi.json`."""

from __future__ import annotations

import msgspec
from aiohttp import web
from anyio import to_thread

from greenroom.transports.http_errors import error_response
from greenroom.transports.transport import Host

OPENAPI = "/openapi.json"


def about_routes(host: Host, app: web.Application) -> list[web.RouteDef]:
    """The routes, for an aiohttp application. `GET /` names every route of `app`."""

    async def index(_: web.Request) -> web.StreamResponse:
        return _json(
            {"name": host.name, "description": host.description, "state": host.state, "routes": _routes(app)}
        )

    async def health(_: web.Request) -> web.StreamResponse:
        return _json({"status": "healthy", "state": host.state})

    async def ready(_: web.Request) -> web.StreamResponse:
        if host.state == "ready":
            return _json({"status": "ready"})
        response = error_response(503, "not_serving", f"the application is {host.state} and takes no turns")
        response.headers["Retry-After"] = "2"
        return response

    document: list[bytes] = []

    async def openapi(request: web.Request) -> web.StreamResponse:
        if not document:  # made when first asked for: most servers are never asked
            prefix = request.path.removesuffix(OPENAPI)
            routes = [(route["method"], route["path"]) for route in _routes(app)]
            document.append(await to_thread.run_sync(_document, host, routes, prefix))
        return web.Response(body=document[0], content_type="application/json")

    return [
        web.get("/", index),
        web.get("/health", health),
        web.get("/ready", ready),
        web.get(OPENAPI, openapi),
    ]


def _document(host: Host, routes: list[tuple[str, str]], prefix: str) -> bytes:
    from greenroom.transports.openapi.document import document

    return msgspec.json.encode(document(host, routes, prefix))


def _routes(app: web.Application) -> list[dict[str, str]]:
    named = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "*"  # which only answers what nothing else takes
    }
    return [
        {"method": method, "path": path}
        for method, path in sorted(named, key=lambda pair: (pair[1], pair[0]))
    ]


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
