"""The aiohttp transport: HTTP for an application, on a socket of its own or inside another aiohttp application."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Final, TypeAlias

from aiohttp import web
from msgspec import Meta, structs

from greenroom.actors.errors import ConfigurationError
from greenroom.actors.setting_checks import Seconds, Share, check_settings
from greenroom.transports.about_routes import about_routes
from greenroom.transports.browser_view import BrowserViewRoutes
from greenroom.transports.compatible_mode import CompatibleMode
from greenroom.transports.connection import Gate
from greenroom.transports.cors import Cors
from greenroom.transports.door import CLIENT_CONNECTIONS, TRUSTED_PROXIES, Door
from greenroom.transports.endpoint_paths import check_beside
from greenroom.transports.endpoints import EndpointCaller, respond
from greenroom.transports.fast_lane import FastLane
from greenroom.transports.http_errors import ANY_PATH, Rest, guarded
from greenroom.transports.lean_connection import connections
from greenroom.transports.openai_fields import BASE_PATH
from greenroom.transports.process_routes import ProcessRoutes
from greenroom.transports.process_tasks import TaskRoutes
from greenroom.transports.transport import Endpoint, Host

TURN_PATHS = frozenset({"/process", *(f"{BASE_PATH}{path}" for path in ("/responses", "/chat/completions"))})
"""Where turns are asked for, with POST."""
Port: TypeAlias = Annotated[int, Meta(ge=0, le=65535)]
"""0 takes a free one."""
BODY_BYTES = 32 * 1024 * 1024
READ_SECONDS = 30.0
KEEPALIVE_SECONDS = 15.0
IDLE_SECONDS = 75.0
"""How long a connection may be open without a request, as nginx has it; also bounds how slowly headers may come."""

ARGUMENTS: Final[Mapping[str, Any]] = {
    "host": str,
    "port": Port,
    "body_bytes": Share,
    "read_seconds": Seconds,
    "keepalive_seconds": Seconds,
    "idle_seconds": Seconds,
    "client_connections": Share,
    "trusted_proxies": Sequence[str],
    "cors_origins": Sequence[str],
}
"""What the server's settings take."""
OF_ROUTES: Final = ("read_seconds", "keepalive_seconds")
OF_APPLICATIONS: Final = ("body_bytes", *OF_ROUTES, "cors_origins")


class AiohttpServer:
    """Serves an application over HTTP.

    Parameters:
        host, port: where to listen; port 0 takes a free one, see `port` after the start. It may be text, as the
            environment has it.
        body_bytes: the largest request body.
        read_seconds: how long a request's body may take to arrive.
        keepalive_seconds: after so much silence a stream gets a comment, so that proxies keep it.
        idle_seconds: how long a connection may be open without a request.
        client_connections: how many connections a client may have open; more are refused.
        trusted_proxies: addresses and networks of proxies, which say in `X-Forwarded-For` for whom they ask; their
            requests under way are counted, not their connections.
        cors_origins: the origins whose pages may call; none: no page may. `["*"]`: any.
        compatible: what is said of OpenAI's protocols: the fields of `CompatibleMode`.

    Raises `ConfigurationError` for settings that cannot be, and at its start when it cannot listen there.
    """

    name = "aiohttp"

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int | str = 8090,
        *,
        body_bytes: int = BODY_BYTES,
        read_seconds: float = READ_SECONDS,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
        client_connections: int = CLIENT_CONNECTIONS,
        trusted_proxies: Sequence[str] = TRUSTED_PROXIES,
        cors_origins: Sequence[str] = (),
        **compatible: Any,
    ) -> None:
        if isinstance(port, str) and port.isdecimal():
            port = int(port)
        check_settings("AiohttpServer", locals(), ARGUMENTS)
        self.host = host
        self.port = int(port)
        self._idle_seconds = idle_seconds
        self._door = Door(client_connections, trusted_proxies)
        self._options: dict[str, Any] = {
            "body_bytes": body_bytes,
            "read_seconds": read_seconds,
            "keepalive_seconds": keepalive_seconds,
            "cors_origins": cors_origins,
            **structs.asdict(CompatibleMode(**compatible)),
        }
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None

    def __repr__(self) -> str:
        return f"<AiohttpServer {self.host}:{self.port}{'' if self._runner else ', stopped'}>"

    async def start(self, host: Host) -> None:
        self._runner = web.AppRunner(
            make_application(host, **self._options),
            handle_signals=False,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=self._idle_seconds,
            shutdown_timeout=0,
        )
        await self._runner.setup()
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self._connections(self._runner),
                self.host,
                self.port,
                reuse_address=True,
                backlog=1024,
            )
        except OSError as error:
            await self._runner.cleanup()
            self._runner = None
            raise ConfigurationError(
                f"cannot listen on {self.host}:{self.port}: {_why_not_bound(error)}"
            ) from error
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self, deadline: float) -> None:
        """Stop listening, give open streams `deadline` seconds to deliver what is left, and close."""
        runner, self._runner = self._runner, None
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        if runner is not None:
            if runner.server is not None:
                runner.server.pre_shutdown()
                # It waits so long for a handler to end, and again for the connection to be done with it.
                await runner.server.shutdown(deadline / 2)
            await runner.cleanup()

    def _connections(self, runner: web.AppRunner) -> Callable[[], asyncio.Protocol]:
        """What makes connections."""
        server = runner.server
        assert server is not None
        lane = None
        if not self._options["cors_origins"]:  # which wants a say in responses' headers
            lane = FastLane(runner.app, TURN_PATHS, server.request_handler)
        server.request_handler = Gate(lane or server.request_handler)
        return connections(
            server,
            self._door,
            lane,
            body_bytes=self._options["body_bytes"],
            keepalive_timeout=self._idle_seconds,
            access_log=None,
        )


def _why_not_bound(error: OSError) -> str:
    """Why a server cannot listen where it is to, and what to do about it."""
    words = error.strerror or str(error)
    if isinstance(error, socket.gaierror):
        return f"no such host ({words}); 127.0.0.1 is this machine for itself, 0.0.0.0 for everybody"
    if error.errno == errno.EADDRINUSE:
        return (
            "another server listens there; stop it, or choose another port: --port, app.run(port=…), "
            "make serve PORT=…"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; 127.0.0.1 is this machine for itself, 0.0.0.0 for everybody"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"this user may not ({words}); ports from 1024 on are for everybody"
    return words


def make_application(
    host: Host,
    *,
    body_bytes: int = BODY_BYTES,
    read_seconds: float = READ_SECONDS,
    keepalive_seconds: float = KEEPALIVE_SECONDS,
    cors_origins: Sequence[str] = (),
    **compatible: Any,
) -> web.Application:
    """The routes of an application at work. `compatible`: the fields of `CompatibleMode`.

    Raises `ConfigurationError` for settings that cannot be.
    """
    check_settings("the aiohttp application", locals(), {name: ARGUMENTS[name] for name in OF_APPLICATIONS})
    cors = Cors(cors_origins) if cors_origins else None
    # Errors are caught a route, and not by a middleware: having one at all costs each request some 5 us.
    app = web.Application(middlewares=[cors.middleware()] if cors else [], client_max_size=body_bytes)
    if cors is not None:
        app.on_response_prepare.append(cors.mark)
    instead = {one.path for one in host.endpoints if one.instead}
    about = [route for route in about_routes(host, app) if route.path not in instead]
    routes = [*_routes(host, read_seconds, keepalive_seconds), *about]
    compatible_routes = CompatibleMode(**compatible).routes(
        host, read_seconds=read_seconds, keepalive_seconds=keepalive_seconds, origins=cors_origins
    )
    app.add_routes(_with_endpoints(host, [*guarded(routes, host.sources), *compatible_routes]))
    app.add_routes(guarded([web.route("*", ANY_PATH, Rest(app).answer)], host.sources))
    return app


def turn_routes(
    host: Host,
    *,
    read_seconds: float = READ_SECONDS,
    keepalive_seconds: float = KEEPALIVE_SECONDS,
    **compatible: Any,
) -> list[web.RouteDef]:
    """`/process`, what belongs to it, the user's endpoints, and OpenAI's protocols, for an application that has routes
    of its own.

    Their errors are JSON. The largest body is what that application takes (its `client_max_size`), but for OpenAI's
    protocols, which have a bound of their own. `compatible`: the fields of `CompatibleMode`.
    Raises `ConfigurationError` for settings that cannot be.
    """
    check_settings("the aiohttp routes", locals(), {name: ARGUMENTS[name] for name in OF_ROUTES})
    routes = _routes(host, read_seconds, keepalive_seconds)
    compatible_routes = CompatibleMode(**compatible).routes(
        host, read_seconds=read_seconds, keepalive_seconds=keepalive_seconds
    )
    return _with_endpoints(host, guarded(routes, host.sources) + compatible_routes)


def _routes(host: Host, read_seconds: float, keepalive_seconds: float) -> list[web.RouteDef]:
    process = ProcessRoutes(host, read_seconds=read_seconds, keepalive_seconds=keepalive_seconds)
    tasks = TaskRoutes(host, read_seconds=read_seconds)
    routes = [*process.routes(), *tasks.routes()]
    for endpoint in host.endpoints:
        if endpoint.function is None:
            routes += [web.post(endpoint.path, process.process), *tasks.routes(endpoint.path)]
    if host.looking is not None:
        routes += BrowserViewRoutes(host, host.looking).routes()
    return routes


def embedded_application(
    host: Host, start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]], **options: Any
) -> web.Application:
    """The routes as an application that starts and stops ours with the outer one it is mounted in."""
    app = make_application(host, **options)

    async def life(_: web.Application) -> AsyncIterator[None]:
        await start()
        yield
        await stop()

    async def drain(_: web.Application) -> None:
        await stop()

    app.cleanup_ctx.append(life)
    app.on_shutdown.append(drain)  # comes before aiohttp waits for open streams, which end with their turns
    return app


def _with_endpoints(host: Host, routes: list[web.RouteDef]) -> list[web.RouteDef]:
    """Our routes, and after them the user's, which take what is left: one that takes any path takes none of ours.

    Raises `ConfigurationError` for an endpoint that would never be asked.
    """
    check_beside(host.endpoints, [(route.method, route.path) for route in routes])
    own = [
        route for one in host.endpoints if one.function is not None for route in _endpoint_routes(host, one)
    ]
    return routes + guarded(own, host.sources)


def _endpoint_routes(host: Host, endpoint: Endpoint) -> list[web.RouteDef]:
    caller = EndpointCaller(endpoint)

    async def answer(request: web.Request) -> web.StreamResponse:
        return await respond(caller, request, host)

    asked = dict.fromkeys(endpoint.methods)
    if "GET" in asked:
        asked.pop("HEAD", None)  # a route of GET answers it
    return [web.route(method, endpoint.path, answer) for method in asked]
