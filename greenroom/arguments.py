"""What `AgentApp` is given: what each argument takes, and what becomes of those that name a place."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_type_hints

from msgspec import structs

from greenroom.actors.errors import ConfigurationError
from greenroom.actors.ids import Sources
from greenroom.actors.limits import Limits
from greenroom.actors.messages import Overlap
from greenroom.actors.setting_checks import Seconds, Wait, check_setting
from greenroom.runtime import Authenticate, Settings
from greenroom.services.conversation_store import ConversationStore
from greenroom.services.durable import is_durable
from greenroom.services.response_store import ResponseStore
from greenroom.services.store import SessionStore
from greenroom.services.store_urls import shown_url, store_at
from greenroom.transports.transport import Transport
from greenroom.transports.view_tickets import BrowserView

if TYPE_CHECKING:
    from greenroom.sandbox.settings import SandboxSettings
    from greenroom.services.sandbox_service import SandboxService


F = TypeVar("F", bound=Callable[..., Any])


class _Arguments:
    """What they take. `sandboxes` is for `sandboxes_of`, as what it takes is imported when it is used."""

    app_name: str | None
    app_description: str | None
    overlap: Overlap
    transports: Sequence[Transport]
    state: str | SessionStore | None
    responses: ResponseStore | None
    conversations: ConversationStore | None
    browser_view: BrowserView | None
    webhook_secret: str | None
    webhook_private: Sequence[str]
    limits: Limits | None
    authenticate: Authenticate | None
    debug: bool
    drain_seconds: Wait
    watchdog_seconds: Seconds | None
    sources: Sources | None


ARGUMENTS: Final[Mapping[str, Any]] = get_type_hints(_Arguments, include_extras=True)
"""The kinds of `AgentApp`'s arguments, for `check_settings`."""


def registering(add: Callable[[F], None], function: F | None) -> Any:
    """What a decorator gives that has no arguments: `@app.init` gives the function, `@app.init()` what takes it."""

    def register(function: F) -> F:
        if not callable(function):
            raise ConfigurationError(f"a hook is a function, and this is {reprlib.repr(function)}")
        add(function)
        return function

    return register if function is None else register(function)


def store_of(state: str | SessionStore | None) -> SessionStore:
    """The store that `AgentApp(state=…)` names. Raises `ConfigurationError` for a URL that names none."""
    return store_at("memory" if state is None else state) if isinstance(state, str | None) else state


def shown_place(state: str | SessionStore | None) -> str:
    """The same for people, without a password."""
    if state is None:
        return "memory"
    return shown_url(state) if isinstance(state, str) else repr(state)


def sandboxes_of(given: str | SandboxSettings | SandboxService | None) -> SandboxService | None:
    """The service that `AgentApp(sandboxes=…)` names; what it is made with besides comes from the environment.

    Raises `ConfigurationError` for what names none.
    """
    if given is None:
        return None
    from greenroom.sandbox.settings import SandboxSettings
    from greenroom.services.sandbox_service import SandboxService

    check_setting("AgentApp", "sandboxes", given, str | SandboxSettings | SandboxService | None)
    if isinstance(given, SandboxService):
        return given
    if isinstance(given, str):
        given = structs.replace(SandboxSettings.from_environ(), backend=given)
    return SandboxService(settings=given)


def kept_with(
    store: SessionStore,
    settings: Settings,
    responses: ResponseStore | None,
    conversations: ConversationStore | None,
) -> Settings:
    """The settings, with what protocols keep beside sessions in the same place where nobody said another."""
    if not is_durable(store):
        return settings
    from greenroom.services.durable_conversations import DurableConversations
    from greenroom.services.durable_responses import DurableResponses

    if settings.sandboxes is not None:
        settings.sandboxes.keep_leases_in(store.storage)
    return structs.replace(
        settings,
        responses=responses or DurableResponses(store),
        conversations=conversations or DurableConversations(store.storage),
    )
