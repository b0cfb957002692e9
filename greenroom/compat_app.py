"""`AgentApp` and `Runner` as applications for AgentScope Runtime know them.

What such an application says of itself is done, if Greenroom has it; else it is refused with what to do instead; or, if
the answers are the same without it, it is left out and logged.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from types import MethodType, SimpleNamespace
from typing import Any, ClassVar, Final, NoReturn, TypeVar

from msgspec import structs

from greenroom import app
from greenroom.actors.errors import ConfigurationError
from greenroom.actors.frameworks.adapter import FrameworkAdapter
from greenroom.actors.handler import QueryHandler
from greenroom.actors.messages import AgentRequest, Turn
from greenroom.actors.offload import call
from greenroom.actors.session import Session
from greenroom.compat import ADVICE, AREAS
from greenroom.compat_schemas import as_known_there
from greenroom.load import loading
from greenroom.transports.endpoint_paths import methods_of
from greenroom.transports.process_tasks import QUEUE
from greenroom.transports.transport import Endpoint

logger = logging.getLogger("greenroom.compat")

F = TypeVar("F", bound=Callable[..., Any])

PROCESS: Final = "/process"
PORT: Final = 8080
"""Where AgentScope Runtime listens when neither `run` nor the environment's PORT says where."""
WEB_UI_ORIGINS: Final = ("http://localhost:5173", "http://127.0.0.1:5173")
"""Where `npx @agentscope-ai/chat agentscope-runtime-webui` serves its pages, which call from the browser."""

OUR_OPTIONS: Final = (
    *("overlap", "transports", "state", "limits", "authenticate", "debug", "drain_seconds"),
    *("watchdog_seconds", "sources", "responses", "conversations", "sandboxes", "browser_view"),
    *("webhook_secret", "webhook_private"),
)
"""Settings of Greenroom's own that such an application may add."""
SERVER_OPTIONS: Final = (
    "body_bytes",
    "read_seconds",
    "keepalive_seconds",
    "idle_seconds",
    "cors_origins",
    "compatible_body_bytes",
    "tool_display",
    "chat_tool_display",
    "tutorial_key",
    "responses_disconnect",
)

READY: Final = "/ready"
"""What the server tells of itself and did not there: an application's own goes before."""
ABOUT_ITSELF: Final = ("/", "/health", READY, "/openapi.json")
"""What the server tells of itself."""
ASKING: Final = frozenset({"GET", "HEAD"})
OTHER_FRAMEWORKS: Final = ("agno", "autogen", "crewai", "langgraph", "ms_agent_framework", "opencode")
FED_BY_NAME: Final = frozenset({"msgs", "request", "session"})
POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)

_ROUTES = "write the route as a function of yours: @app.endpoint(path, methods=[…])"
_STREAM = 'whether an answer is streamed is the client\'s choice: {"stream": false} in the request'
_PROTOCOL = AREAS["engine.deployers.adapter"] + "; leave it out, and clients use /process"

REFUSED: Final[Mapping[str, str]] = {
    "a2a_config": _PROTOCOL,
    "agent": "it is of AgentScope Runtime 0.x; answer with a function: @app.query(framework=…)",
    "agui_config": _PROTOCOL,
    "dependencies": "check requests with AgentApp(authenticate=…)",
    "exception_handlers": "raise the errors of greenroom.actors.errors, which carry an HTTP status",
    "interrupt_backend": 'AgentApp(overlap="interrupt") and POST /process/{id}/cancel interrupt turns',
    "interrupt_redis_url": 'AgentApp(overlap="interrupt") and POST /process/{id}/cancel interrupt turns',
    "lifespan": "write @app.init and @app.shutdown, whose `self` carries what handlers need",
    "middleware": "put a proxy in front, or mount app.aiohttp_application() in one of yours that has middlewares",
    "protocol_adapters": _PROTOCOL,
    "routes": _ROUTES,
}
"""Arguments that would change what is served, and that Greenroom has not: what to do instead."""
AS_GOOD_AS_ABSENT: Final[Mapping[str, Any]] = {
    "enable_stream_task": True,  # POST /process/task is always there
    "request_model": AgentRequest,
    "response_type": "sse",
    "stream_task_queue": QUEUE,
}
"""Arguments without meaning here, and the value that is not even worth a warning."""


class Runner:
    """What hooks and handlers get as `self` (or whatever they call it): it carries the services they share.

    One of yours, with `query_handler` and the two hooks as methods, goes into `AgentApp(runner=…)`.
    """

    framework_type: str | None = None

    async def init_handler(self) -> None:
        """Runs before the first turn."""

    async def shutdown_handler(self) -> None:
        """Runs after the last turn."""

    async def start(self) -> NoReturn:
        _without("Runner.start()", ADVICE["Runner"])

    async def __aenter__(self) -> NoReturn:
        _without("`async with Runner()`", ADVICE["Runner"])

    async def __aexit__(self, *_: object) -> None:
        """Never: it cannot be entered."""

    def stream_query(self, *_: Any, **__: Any) -> NoReturn:
        """There is none."""
        _without("Runner.stream_query()", ADVICE["Runner"])

    async def deploy(self, *_: Any, **__: Any) -> NoReturn:
        """There is none."""
        _without("Runner.deploy()", ADVICE["DeployManager"])


class RequestAsThere(QueryHandler):
    """Answers with a function that gets the request as AgentScope Runtime has it."""

    async def answer(self, session: Session, turn: Turn) -> AsyncIterator[object]:
        return await super().answer(session, structs.replace(turn, request=as_known_there(turn.request)))


class AgentApp(app.AgentApp):
    """An application with the arguments and methods that AgentScope Runtime 1.0's has.

    `self` of its hooks, handlers and endpoints is a `Runner` and not the application, as there: services may have any
    name without hiding a method.

    Parameters:
        endpoint_path: another path for `POST /process`, which stays.
        before_start, after_finish: run with this application as their argument, and with what `run` was given besides
            what it knows; the one after the init hook, the other before the shutdown hook.
        runner: what `self` is, and the hooks and the handler that no decorator gives.
        custom_endpoints: more of `@app.endpoint`: `{"path": …, "handler": …, "methods": […]}`.
        others: `OUR_OPTIONS`; those in `REFUSED` raise `ConfigurationError`; any other is left out and logged.
    """

    _instead: ClassVar[tuple[str, ...]] = (READY,)

    def __init__(
        self,
        app_name: str | None = "Agent",
        app_description: str | None = "",
        *,
        endpoint_path: str = PROCESS,
        stream: bool = True,
        before_start: Callable[..., Any] | None = None,
        after_finish: Callable[..., Any] | None = None,
        runner: Runner | None = None,
        custom_endpoints: Iterable[Mapping[str, Any]] | None = None,
        **others: Any,
    ) -> None:
        ours = {name: others.pop(name) for name in OUR_OPTIONS if name in others}
        if not stream:
            _without("AgentApp(stream=False)", _STREAM)
        _refuse_or_warn(others)
        if runner is not None and not isinstance(runner, Runner):
            _without("runners but those of agentscope_runtime.engine.runner.Runner", ADVICE["Runner"])
        super().__init__(app_name, app_description, **ours)
        self.endpoint_path = endpoint_path
        self.before_start = before_start
        self.after_finish = after_finish
        self.state = SimpleNamespace()
        self._runner = runner or Runner()
        self._init_handler: Callable[..., Any] = self._runner.init_handler
        self._shutdown_handler: Callable[..., Any] = self._runner.shutdown_handler
        self._callbacks_get: dict[str, Any] = {}
        self._hooks.owner = self._runner
        self._hooks.holders = [self, self.state]
        self._hooks.init += [self._initialise, self._call_before_start]
        self._hooks.shutdown += [self._call_after_finish, self._finalise]
        self._take_routes(custom_endpoints or ())
        handler = getattr(self._runner, "query_handler", None)
        if handler is not None:
            self.query(self._runner.framework_type or "agentscope")(handler)

    # -- what the author writes ------------------------------------------------------------------------------------

    def _add_init(self, function: Callable[..., Any]) -> None:
        """As there, the last one counts."""
        if self._init_handler != self._runner.init_handler:
            logger.warning("a second @app.init takes the place of the first, as in AgentScope Runtime")
        self._init_handler = self._bound(function)

    def _add_shutdown(self, function: Callable[..., Any]) -> None:
        """As there, the last one counts."""
        if self._shutdown_handler != self._runner.shutdown_handler:
            logger.warning("a second @app.shutdown takes the place of the first, as in AgentScope Runtime")
        self._shutdown_handler = self._bound(function)

    def query(
        self,
        framework: str | FrameworkAdapter | None = "agentscope",
        *,
        honours: Collection[str] = (),
        idempotent: bool = False,
    ) -> Callable[[F], F]:
        """Answer turns with this function, which gets the runner, and by name `msgs` and `request`.

        Raises `ConfigurationError` for frameworks that Greenroom has no adapter for.
        """
        if framework is None or framework in OTHER_FRAMEWORKS:
            raise ConfigurationError(
                f"@app.query(framework={framework!r}): Greenroom serves AgentScope; {AREAS['adapters.langgraph']}"
            )
        return self._handled_by(
            lambda function, adapter: RequestAsThere(
                self._bound(function), adapter, self._runner, honours, idempotent
            ),
            framework,
        )

    def endpoint(self, path: str, methods: str | Sequence[str] | None = None) -> Callable[[F], F]:
        """Serve this function at a path of its own; by POST, if nothing else is said.

        What the server told of itself there too goes before: such an endpoint is never asked, which is logged.
        """
        wanted = methods_of(path, methods or ("POST",))
        own = path in self._instead and "GET" in wanted
        if path in ABOUT_ITSELF and not own and not ASKING.isdisjoint(wanted):
            logger.warning("@app.endpoint: GET %s is left out, as the server answers it itself", path)
            wanted = tuple(method for method in wanted if method not in ASKING)
        return super().endpoint(path, wanted) if wanted else lambda function: function

    def task(self, path: str, queue: str = "default") -> NoReturn:
        """There is none: raises `ConfigurationError`."""
        _without(
            "@app.task", "a turn runs on when its client leaves; long work of yours goes to a queue of yours"
        )

    async def deploy(self, *_: Any, **__: Any) -> NoReturn:
        """There is none: raises `ConfigurationError`."""
        _without("app.deploy()", ADVICE["DeployManager"])

    def get_fastapi_app(self, **_: Any) -> NoReturn:
        """There is none: raises `ConfigurationError`."""
        _without(
            "app.get_fastapi_app()",
            "`async with app: app.process(…)` runs it under FastAPI, app.aiohttp_application() mounts it in aiohttp",
        )

    # -- running it ------------------------------------------------------------------------------------------------

    def run(
        self, host: str | None = None, port: int | str | None = None, web_ui: bool = False, **others: Any
    ) -> None:
        """Serve until a signal; at the environment's HOST and PORT, else at 127.0.0.1:8080.

        `others`: more for `AiohttpServer`; what it does not know is given to `before_start` and `after_finish`.
        Does nothing while `greenroom serve` loads the file, which serves it then. Raises `ConfigurationError` where
        PORT is no number.
        """
        if loading.get():
            logger.warning("app.run(…) of the file is left out; --host and --port of the command line count")
            return
        host = host or os.environ.get("HOST") or "127.0.0.1"
        port = _port_of_environment() if port is None else port
        server = {name: others.pop(name) for name in SERVER_OPTIONS if name in others}
        self._callbacks_get = others
        if web_ui:
            server.setdefault("cors_origins", WEB_UI_ORIGINS)
            logger.warning(
                "web_ui: Greenroom has no web page of its own; start the chat yourself, it may call from %s: "
                "npx @agentscope-ai/chat agentscope-runtime-webui --url http://localhost:%s%s",
                " and ".join(server["cors_origins"]),
                port,
                self.endpoint_path,
            )
        super().run(host, port, **server)

    async def _initialise(self) -> None:
        await call(self._init_handler)

    async def _finalise(self) -> None:
        await call(self._shutdown_handler)

    async def _call_before_start(self) -> None:
        if self.before_start is not None:
            await call(self.before_start, self, **self._callbacks_get)

    async def _call_after_finish(self) -> None:
        if self.after_finish is not None:
            await call(self.after_finish, self, **self._callbacks_get)

    def _bound(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with the runner as its first argument, whatever the parameter's name: `self`, `runner`, …

        There the first argument always is the runner; here a function may also do without.
        """
        if getattr(function, "__self__", None) is self._runner:
            return function
        first = next(iter(inspect.signature(function).parameters.values()), None)
        if first is None or first.kind not in POSITIONAL or first.name in FED_BY_NAME:
            return function
        return MethodType(function, self._runner)

    def _take_routes(self, endpoints: Iterable[Mapping[str, Any]]) -> None:
        if self.endpoint_path != PROCESS:
            if not self.endpoint_path.startswith("/"):
                raise ConfigurationError(f"endpoint_path={self.endpoint_path!r} does not begin with a slash")
            self._endpoints.append(Endpoint(self.endpoint_path, ("POST",), None))
        for endpoint in endpoints:
            if endpoint.get("task_type"):
                self.task(endpoint["path"])
            self.endpoint(endpoint["path"], endpoint.get("methods"))(endpoint["handler"])


def _port_of_environment() -> int:
    given = os.environ.get("PORT", "").strip()
    if given and not given.isdecimal():
        raise ConfigurationError(f"the environment's PORT={given!r} is no number; it is one from 0 to 65535")
    return int(given) if given else PORT


def _refuse_or_warn(arguments: Mapping[str, Any]) -> None:
    """Raise `ConfigurationError` for what cannot be left out; log what is."""
    for name, instead in REFUSED.items():
        if arguments.get(name):
            _without(f"AgentApp({name}=…)", instead)
    left_out = [
        name
        for name, value in arguments.items()
        if value not in (None, False) and value != AS_GOOD_AS_ABSENT.get(name)
    ]
    if left_out:
        logger.warning("AgentApp(…): left out, as Greenroom has no use for it: %s", ", ".join(left_out))


def _without(what: str, instead: str) -> NoReturn:
    raise ConfigurationError(f"Greenroom stands in for AgentScope Runtime and has no {what}: {instead}")
