"""`AgentApp`: the application, as its author writes it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from types import MethodType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from msgspec import structs

from greenroom.actors.errors import ConfigurationError
from greenroom.actors.events import Event
from greenroom.actors.frameworks.adapter import FrameworkAdapter
from greenroom.actors.frameworks.resolve import resolve_framework
from greenroom.actors.handler import AgentHandler, Handler, QueryHandler, takes_self
from greenroom.actors.ids import Sources
from greenroom.actors.limits import Limits
from greenroom.actors.messages import AgentRequest, Disconnect, Overlap, SessionKey
from greenroom.actors.setting_checks import check_setting, check_settings
from greenroom.actors.system import Statistics
from greenroom.arguments import ARGUMENTS, kept_with, registering, sandboxes_of, shown_place, store_of
from greenroom.runtime import Authenticate, Hooks, Runtime, Settings
from greenroom.services.conversation_store import ConversationStore, InMemoryConversations
from greenroom.services.memory_responses import InMemoryResponseStore
from greenroom.services.response_store import ResponseStore
from greenroom.services.store import SessionStore
from greenroom.services.webhooks.delivery import WebhookSettings
from greenroom.transports.endpoint_paths import check_among, check_path, methods_of
from greenroom.transports.inprocess import InProcess, TurnStream, follow_turn
from greenroom.transports.json_checks import owner
from greenroom.transports.transport import Endpoint, Transport
from greenroom.transports.view_tickets import BrowserView

if TYPE_CHECKING:
    from aiohttp import web

    from greenroom.sandbox.settings import SandboxSettings
    from greenroom.services.sandbox_service import SandboxService

F = TypeVar("F", bound=Callable[..., Any])


class AgentApp:
    """An application: one handler, its services' hooks, its own routes.

    Use it as a server (`app.run()`), or inside your own program: `async with app:` starts it in the running loop, with
    no signal handlers and nothing global, and `app.process(...)` talks to it. Several applications may share a loop.

    Parameters:
        app_name, app_description: what `GET /` tells.
        overlap: what a turn does that finds its session at work: `queue`, `reject`, `interrupt`; a request may choose.
        transports: carriers besides the in-process one; `run` adds an aiohttp server if there is none.
        state: where sessions are kept: nothing or `"memory"`; a SQLite file, where they outlive the process:
            `"sqlite:///friday.db"` in the working folder, `"sqlite:////var/lib/friday.db"` anywhere, with options as a
            query (`?turns_kept=500&states_kept=100`); or a `SessionStore`.
        responses: where what the Responses API stores is kept; nothing: with the sessions, where those outlive the
            process, else in memory (`InMemoryResponseStore()`).
        conversations: where what it says of conversations is kept; nothing: as with responses
            (`InMemoryConversations()`).
        sandboxes: what `session.browser` comes from: `"auto"`, `"docker"`, `"local"`, the URL of a box elsewhere,
            `SandboxSettings`, or a `SandboxService`. It is started and stopped with the application; nothing: sessions
            have no browser.
        browser_view: lets people look into sessions' browsers, with the links of `browser_link`; nothing: nobody may.
        webhook_secret: what webhooks are signed with (`whsec_…`); nothing: the environment's GREENROOM_WEBHOOK_SECRET.
        webhook_private: addresses and networks that webhooks may go to besides the internet's (`["10.0.0.0/8"]`).
        limits: the bounds of the process.
        authenticate: gets the request's headers, returns the caller's user id, or `None` to turn him away. Without it
            callers are anonymous and name their `user_id` themselves.
        debug: puts the text of exceptions on the wire.
        drain_seconds: how long turns may run on when the application stops.
        watchdog_seconds: how long the loop may be blocked before it is logged by whom; `None` turns the watchdog off.
        sources: time, ids and chance, for tests.

    Raises `ConfigurationError`, which names the setting and what it takes.
    """

    _instead: ClassVar[tuple[str, ...]] = ()
    """See `Endpoint.instead`."""

    def __init__(
        self,
        app_name: str | None = "Agent",
        app_description: str | None = "",
        *,
        overlap: Overlap = "queue",
        transports: Sequence[Transport] = (),
        state: str | SessionStore | None = None,
        responses: ResponseStore | None = None,
        conversations: ConversationStore | None = None,
        sandboxes: str | SandboxSettings | SandboxService | None = None,
        browser_view: BrowserView | None = None,
        webhook_secret: str | None = None,
        webhook_private: Sequence[str] = (),
        limits: Limits | None = None,
        authenticate: Authenticate | None = None,
        debug: bool = False,
        drain_seconds: float = 30.0,
        watchdog_seconds: float | None = 0.25,
        sources: Sources | None = None,
    ) -> None:
        check_settings("AgentApp", locals(), ARGUMENTS)
        self.app_name = "Agent" if app_name is None else app_name
        self.app_description = app_description or ""
        self._settings = Settings(
            limits=limits or Limits(),
            sources=sources or Sources(),
            overlap=overlap,
            authenticate=authenticate,
            debug=debug,
            drain_seconds=drain_seconds,
            watchdog_seconds=watchdog_seconds,
            responses=responses or InMemoryResponseStore(),
            conversations=conversations or InMemoryConversations(),
            sandboxes=sandboxes_of(sandboxes),
            browser_view=browser_view,
            webhooks=WebhookSettings.of(webhook_secret, webhook_private),
        )
        self._responses = responses
        self._conversations = conversations
        self._transports = list(transports)
        self._state = state
        self._handler: Handler | None = None
        self._hooks = Hooks(owner=self, init=[], shutdown=[])
        self._endpoints: list[Endpoint] = []
        self._in_process = InProcess()
        self._prepared: Runtime | None = None
        self._runtime: Runtime | None = None

    def __repr__(self) -> str:
        return f"<AgentApp {self.app_name!r}, {self._runtime.state if self._runtime else 'not running'}>"

    # -- what the author writes ------------------------------------------------------------------------------------

    @overload
    def init(self, function: F) -> F: ...
    @overload
    def init(self) -> Callable[[F], F]: ...
    def init(self, function: Any = None) -> Any:
        """Run this when the application starts, before the first turn. If it fails the application does not start."""
        return registering(self._add_init, function)

    @overload
    def shutdown(self, function: F) -> F: ...
    @overload
    def shutdown(self) -> Callable[[F], F]: ...
    def shutdown(self, function: Any = None) -> Any:
        """Run this when the application stops, after the last turn, and also when an init hook failed."""
        return registering(self._add_shutdown, function)

    def query(
        self,
        framework: str | FrameworkAdapter = "text",
        *,
        honours: Collection[str] = (),
        idempotent: bool = False,
    ) -> Callable[[F], F]:
        """Answer turns with this function: `async def answer(self, msgs, request): yield ...`.

        What it may yield, and what `msgs` are, is the framework's: `"agentscope"` (the line that is installed),
        `"agentscope1"`, `"agentscope2"`, `"text"`, `"events"`, or a `FrameworkAdapter`. It may be synchronous (it then
        runs in a worker thread), and may return instead of yielding.

        `honours`: what a request may ask of one turn (`TurnOptions`: `"tools"`, `"max_output_tokens"`, …) that this
        function does itself, reading it from `request` or `session.options`; what nobody does is refused.

        `idempotent`: running a turn twice does no harm. Where the store is one that outlives the process, a turn that a
        process died over is then begun once more; else it ends as failed (`turn_interrupted`), as its tools may have
        acted.

        Raises `ConfigurationError` for a second handler, a wrong signature or an unknown framework, and
        `MissingDependency` when the framework is not installed.
        """
        return self._handled_by(
            lambda function, adapter: QueryHandler(function, adapter, self._hooks.owner, honours, idempotent),
            framework,
        )

    def agent(
        self,
        framework: str | FrameworkAdapter = "agentscope",
        *,
        honours: Collection[str] = (),
        idempotent: bool = False,
    ) -> Callable[[F], F]:
        """Answer turns with an agent: this function makes one for a session, `def make_agent(session): ...`.

        The session's actor restores the agent's state, runs it, saves it after each turn, and keeps it warm between
        turns while the session is active. `honours`, `idempotent`, and what it raises, are as of `query`.
        """
        return self._handled_by(
            lambda function, adapter: AgentHandler(function, adapter, self._hooks.owner, honours, idempotent),
            framework,
        )

    def endpoint(self, path: str, methods: str | Sequence[str] = ("POST",)) -> Callable[[F], F]:
        """Serve this function at a path of its own; `self`, if its first parameter is so called, is the application.

        A generator is sent as an SSE stream. Raises `ConfigurationError` for what is no path or no method, and for what
        another endpoint has already. What Greenroom answers itself is refused at the start.
        """
        check_path(path)
        wanted = methods_of(path, methods)

        def register(function: F) -> F:
            answer = MethodType(function, self._hooks.owner) if takes_self(function) else function
            endpoint = Endpoint(path, wanted, answer, path in self._instead and "GET" in wanted)
            check_among(endpoint, self._endpoints)
            self._endpoints.append(endpoint)
            return function

        return register

    def _add_init(self, function: Callable[..., Any]) -> None:
        self._hooks.init.append(function)

    def _add_shutdown(self, function: Callable[..., Any]) -> None:
        self._hooks.shutdown.append(function)

    def _handled_by(
        self, make: Callable[[F, FrameworkAdapter], Handler], framework: str | FrameworkAdapter
    ) -> Callable[[F], F]:
        if callable(framework) and not hasattr(framework, "translator"):
            raise ConfigurationError("write the decorator with its parentheses: @app.query() or @app.agent()")

        def register(function: F) -> F:
            if self._handler is not None:
                raise ConfigurationError(f"{self.app_name!r} has a handler already; an application has one")
            self._handler = make(function, resolve_framework(framework))
            return function

        return register

    # -- running it ------------------------------------------------------------------------------------------------

    @property
    def keeps_sessions(self) -> bool:
        """Whether its author said where sessions are kept."""
        return self._state is not None

    @property
    def kept_in(self) -> str:
        """Where sessions are kept, for people: a URL without its password."""
        return shown_place(self._state)

    def configure(
        self, *, debug: bool | None = None, drain_seconds: float | None = None, state: str | None = None
    ) -> None:
        """Change what the application was made with; `None` leaves a setting as it is.

        Raises `ConfigurationError` when it is running, or mounted somewhere: it is too late then.
        """
        given = {"debug": debug, "drain_seconds": drain_seconds}
        changes = {name: value for name, value in given.items() if value is not None}
        for name, value in changes.items():
            check_setting("AgentApp", name, value, ARGUMENTS[name])
        if (changes or state is not None) and (self._runtime is not None or self._prepared is not None):
            raise ConfigurationError(f"{self.app_name!r} is running already; configure it before it starts")
        self._settings = structs.replace(self._settings, **changes)
        if state is not None:
            self._state = state

    async def start(self, *more: Transport) -> None:
        """Start in the running event loop. `async with app:` does it, and stops it at the end.

        Raises `ConfigurationError` when it has no handler or runs already, and what an init hook raised.
        """
        if self._runtime is not None:
            raise ConfigurationError(f"{self.app_name!r} is running already")
        runtime, self._prepared = self._prepared or self._prepare(), None
        self._runtime = runtime
        try:
            await runtime.start([self._in_process, *self._transports, *more])
        except BaseException:
            self._runtime = None
            raise

    async def stop(self) -> None:
        """Drain and stop. Stopping what does not run does nothing."""
        runtime = self._runtime
        if runtime is not None:
            try:
                await runtime.stop()
            finally:
                self._runtime = None

    async def __aenter__(self) -> AgentApp:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def run(self, host: str = "127.0.0.1", port: int | str = 8090, **server: Any) -> None:
        """Serve over HTTP until SIGTERM or SIGINT, then drain and return. `server`: more for `AiohttpServer`."""
        from greenroom.serve import run_application

        run_application(self, host, port, **server)

    def process(
        self,
        request: str | AgentRequest | dict[str, Any],
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        overlap: Overlap | None = None,
        disconnect: Disconnect | str | None = None,
    ) -> TurnStream:
        """Send a turn from within the process: `async for event in app.process("Hello", session_id="s1"): ...`.

        `request` is the user's text, an `AgentRequest`, or a dictionary as `/process` takes. Its events are those of
        `greenroom.actors.events`; `result()` gives the ending alone. Raises `InvalidRequest`, which names the argument.
        """
        return self._in_process.process(
            request, session_id=session_id, user_id=user_id, overlap=overlap, disconnect=disconnect
        )

    def follow(self, turn_id: str, *, principal: str | None = None) -> AsyncIterator[Event]:
        """The events of a turn that runs or is kept, from the first on. Raises `TurnNotFound` when it is iterated.

        `principal`: the user whom `authenticate` named for the request, if it had one: turns are found among his own,
        and without it among those of `process` and of anonymous callers.
        """
        return follow_turn(self._in_process.host, turn_id, principal)

    async def cancel(self, turn_id: str, *, principal: str | None = None) -> None:
        """Stop that turn and no other; it may have ended already. `principal` as of `follow`. Raises `TurnNotFound`."""
        await self._in_process.host.cancel(turn_id, principal)

    def browser_link(self, session_id: str, user_id: str | None = None, *, control: bool = False) -> str:
        """A path, `/sessions/…/browser?ticket=…`, where this session's browser is shown live, for as long as
        `browser_view` says. `control`: whoever has it may take the browser over and hand it back.

        Raises `ConfigurationError` when the application is not running, or has no `browser_view`.
        """
        if self._runtime is None or self._runtime.looking is None:
            raise ConfigurationError(
                f"{self.app_name!r} lets nobody look into its browsers just now; it needs to be running, and "
                "AgentApp(browser_view=BrowserView(secret=...))"
            )
        key = SessionKey(owner(user_id, None, session_id), session_id)
        return self._runtime.looking.tickets.link(key, control=control)

    def aiohttp_application(self, **options: Any) -> web.Application:
        """The routes as an aiohttp application, to be mounted in yours: `outer.add_subapp("/agent", ...)`.

        It starts and stops this application with the outer one, unless it is running already. `options` are those of
        `AiohttpServer` that are not about its socket: `body_bytes`, `read_seconds`, `keepalive_seconds`,
        `cors_origins`, and the fields of `CompatibleMode`.
        """
        from greenroom.transports.aiohttp_server import embedded_application, make_application

        if self._runtime is not None:  # started by somebody else, who stops it too
            return make_application(self._runtime, **options)
        self._prepared = self._prepare()
        return embedded_application(self._prepared, self.start, self.stop, **options)

    def aiohttp_routes(self, **options: Any) -> list[web.RouteDef]:
        """`/process`, OpenAI's protocols and the endpoints, to be added to your aiohttp application.

        You start and stop this application yourself (`async with app:`). `options`: `read_seconds`,
        `keepalive_seconds`, and the fields of `CompatibleMode`. The largest body is what your application takes, but
        for OpenAI's protocols, which have a bound of their own.
        """
        from greenroom.transports.aiohttp_server import turn_routes

        if self._runtime is None and self._prepared is None:
            self._prepared = self._prepare()
        host = self._runtime or self._prepared
        assert host is not None
        return turn_routes(host, **options)

    def statistics(self) -> Statistics:
        """How many sessions and turns there are. Raises `ConfigurationError` when the application is not running."""
        if self._runtime is None:
            raise ConfigurationError(f"{self.app_name!r} is not running, so it has no statistics")
        return self._runtime.system.statistics()

    def has_server(self) -> bool:
        """Whether one of the transports is an HTTP server already."""
        return any(transport.name == "aiohttp" for transport in self._transports)

    def _prepare(self) -> Runtime:
        if self._handler is None:
            raise ConfigurationError(
                f"{self.app_name!r} has nothing to answer with; give it a handler with @app.query() or @app.agent()"
            )
        store = store_of(self._state)
        return Runtime(
            self.app_name,
            self.app_description,
            kept_with(store, self._settings, self._responses, self._conversations),
            self._hooks,
            self._handler,
            store,
            self._endpoints,
        )
