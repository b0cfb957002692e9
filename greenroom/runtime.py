"""An application at work: the order in which its parts start and stop, and what transports see of it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
from msgspec import Struct

from greenroom.actors.errors import ConfigurationError, NotServing, Unauthenticated
from greenroom.actors.handler import Handler, takes_self
from greenroom.actors.ids import Sources
from greenroom.actors.limits import Limits
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Message, Overlap, SessionKey, Turn
from greenroom.actors.offload import call
from greenroom.actors.system import ActorSystem
from greenroom.actors.watchdog import Watchdog
from greenroom.own_services import noting_own, warn_of_forgetful
from greenroom.services.conversation_store import ConversationStore
from greenroom.services.response_store import ResponseStore
from greenroom.services.store import SessionRecord, SessionStore
from greenroom.services.webhooks.delivery import Webhooks, WebhookSettings
from greenroom.services.webhooks.outbox import outbox_of
from greenroom.transports.looking import Looking
from greenroom.transports.transport import Endpoint, HostState, Transport
from greenroom.transports.view_tickets import BrowserView, ViewTickets

if TYPE_CHECKING:
    from greenroom.services.sandbox_service import SandboxService

logger = logging.getLogger("greenroom")

Authenticate: TypeAlias = Callable[[Mapping[str, str]], Any]
"""Gets the request's headers (names in any case) and returns who it is, as a user id; `None` turns the caller away."""


class _Anybody:
    """Who calls where nobody asks: an answer that is there already, and costs no coroutine."""

    def __await__(self) -> Any:
        return iter(())


_ANYBODY = _Anybody()
STREAMS_END_SECONDS = 5.0
"""How long a stream may take to deliver its ending to a slow reader after all turns have ended."""


class Settings(Struct, frozen=True, kw_only=True):
    """What an application is made with. Times are in seconds; `watchdog_seconds` none: no watchdog."""

    limits: Limits
    sources: Sources
    overlap: Overlap
    authenticate: Authenticate | None
    debug: bool
    drain_seconds: float
    watchdog_seconds: float | None
    responses: ResponseStore
    conversations: ConversationStore
    sandboxes: SandboxService | None = None
    browser_view: BrowserView | None = None
    webhooks: WebhookSettings = WebhookSettings()


class Hooks(Struct):
    """The user's functions around the application's life. `holders`: what may hold its services besides `owner`."""

    owner: object
    init: list[Callable[..., Any]]
    shutdown: list[Callable[..., Any]]
    holders: list[object] = []

    async def run(self, hook: Callable[..., Any]) -> None:
        """Run one, with the application as `self` where the function has one."""
        await call(hook, *((self.owner,) if takes_self(hook) else ()))


class Runtime:
    """One life of an application, from start to stop. It is the transports' `Host`."""

    def __init__(
        self,
        name: str,
        description: str,
        settings: Settings,
        hooks: Hooks,
        handler: Handler,
        store: SessionStore,
        endpoints: Sequence[Endpoint],
    ) -> None:
        self.name = name
        self.description = description
        self.endpoints = endpoints
        self.sources = settings.sources
        self.debug = settings.debug
        self.honours = handler.honours
        self._adapter = handler.adapter
        self.responses = settings.responses
        self.conversations = settings.conversations
        self.looking = _looking(settings)
        self.webhooks = Webhooks(
            settings.webhooks,
            outbox_of(store),
            now=settings.sources.now,
            chance=settings.sources.chance,
        )
        self.state: HostState = "starting"
        self.system = ActorSystem(
            handler,
            store,
            limits=settings.limits,
            sources=settings.sources,
            overlap=settings.overlap,
            debug=settings.debug,
            responses=settings.responses,
            sandboxes=settings.sandboxes,
            announcer=self.webhooks,
        )
        self._settings = settings
        self._hooks = hooks
        self._exits = AsyncExitStack()
        self._initialised = False

    def __repr__(self) -> str:
        return f"<Runtime of {self.name!r}, {self.state}>"

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self, transports: Sequence[Transport]) -> None:
        """Start everything, or nothing: when a part fails, those before it are stopped and the failure is raised."""
        try:
            await self._start_in_order(transports)
        except BaseException:
            self.state = "stopped"
            with anyio.CancelScope(shield=True):
                await self._give_up()
            raise
        self.state = "ready"

    async def _give_up(self) -> None:
        """Stop what a failed start had begun. What fails at that is logged, so as not to hide the first failure."""
        try:
            await self._exits.aclose()
        except Exception:
            logger.exception("the application did not start, and what stops it again failed too")

    async def _start_in_order(self, transports: Sequence[Transport]) -> None:
        """What is pushed last is stopped first: streams, then sessions and their stores, then their sandboxes, then the
        user's services."""
        if self._settings.watchdog_seconds is not None:
            watchdog = Watchdog(self._settings.watchdog_seconds)
            watchdog.start()
            self._exits.callback(watchdog.stop)
        self._exits.push_async_callback(self._shut_down)
        sandboxes = self._settings.sandboxes
        if sandboxes is not None:
            self._exits.push_async_callback(sandboxes.stop)
            await sandboxes.start()
            self.system.services.add(sandboxes)
        await self.responses.start()
        self._exits.push_async_callback(self.responses.stop)
        await self.conversations.start()
        self._exits.push_async_callback(self.conversations.stop)
        self._exits.push_async_callback(self.system.stop)
        for transport in transports:
            await transport.start(self)
            self._exits.push_async_callback(transport.stop, STREAMS_END_SECONDS)
        self._initialised = True
        with noting_own(self.system.services, [self._hooks.owner, *self._hooks.holders]):
            for hook in self._hooks.init:
                await self._hooks.run(hook)
        warn_of_forgetful(self.system.services, self.system.store)
        await self.system.start()
        self.webhooks.start()
        self._exits.push_async_callback(self.webhooks.stop)

    async def stop(self) -> None:
        """Drain, then stop: admission, turns, streams, stores, hooks, in this order. Raises what a hook raised."""
        if self.state != "ready":
            return
        self.state = "draining"
        try:
            with anyio.CancelScope(shield=True):
                await self.system.drain(self._settings.drain_seconds)
                await self._exits.aclose()
        finally:
            self.state = "stopped"

    async def _shut_down(self) -> None:
        """Run the shutdown hooks, each once, also after a failed init: they tidy up what it had begun."""
        if not self._initialised:
            return
        async with AsyncExitStack() as hooks:
            for hook in reversed(self._hooks.shutdown):
                hooks.push_async_callback(self._hooks.run, hook)

    # -- Host ------------------------------------------------------------------------------------------------------

    def authenticate(self, headers: Mapping[str, str]) -> Awaitable[str | None]:
        check = self._settings.authenticate
        return _ANYBODY if check is None else self._authenticate(check, headers)

    async def _authenticate(self, check: Authenticate, headers: Mapping[str, str]) -> str | None:
        principal = check(headers)
        if inspect.isawaitable(principal):
            principal = await principal
        if principal is None:
            raise Unauthenticated(
                "this application asks who you are, and the request's credentials are missing or wrong"
            )
        if not isinstance(principal, str) or not principal:
            raise ConfigurationError(
                f"authenticate() returned a value of type {type(principal).__name__}; it returns the user's id, "
                "text that is not empty, or None"
            )
        return principal

    def submit(self, turn: Turn) -> Coroutine[Any, Any, TurnLog]:
        if self.state not in {"ready", "draining"}:  # draining, it still knows what it has begun
            raise NotServing(f"the application is {self.state} and takes no turns now; try again in a moment")
        if turn.webhook is not None:
            return self._submit_hooked(turn, turn.webhook)
        return self.system.submit(turn)

    async def _submit_hooked(self, turn: Turn, webhook: str) -> TurnLog:
        with self.webhooks.promised(webhook, self.system.hooked_turns):
            return await self.system.submit(turn)

    def check_input(self, messages: Sequence[Message]) -> None:
        self._adapter.messages(messages)

    def find(self, turn_id: str, principal: str | None) -> TurnLog:
        return self.system.find(turn_id, principal)

    async def locate(self, turn_id: str, principal: str | None) -> TurnLog:
        self._check_serving("turns cannot be looked for")
        return await self.system.locate(turn_id, principal)

    async def cancel(
        self, turn_id: str, principal: str | None, reason: str = "cancelled on request"
    ) -> TurnLog:
        self._check_serving("turns cannot be cancelled")
        return await self.system.cancel(turn_id, principal, reason)

    async def forget_turn(self, turn_id: str, principal: str | None) -> None:
        self._check_serving("turns cannot be deleted")
        await self.system.forget_turn(turn_id, principal)

    def client_left(self, log: TurnLog) -> None:
        self.system.client_left(log)

    async def session(self, key: SessionKey) -> SessionRecord | None:
        self._check_serving()
        return await self.system.store.load(key)

    async def forget(self, key: SessionKey) -> None:
        self._check_serving()
        await self.system.forget(key)

    def _check_serving(self, what: str = "its sessions cannot be read") -> None:
        if self.state not in {"ready", "draining"}:
            raise NotServing(f"the application is {self.state}, so {what}; try again in a moment")


def _looking(settings: Settings) -> Looking | None:
    if settings.browser_view is None:
        return None
    if settings.sandboxes is None:
        raise ConfigurationError(
            'browser_view: this application has no sandboxes to look into; give it some with AgentApp(sandboxes="auto")'
        )
    return Looking(settings.sandboxes, ViewTickets(settings.browser_view, settings.sources.now))
