"""Settings that are wrong are refused where they are given, by their names and with what they take."""

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest

from greenroom import (
    AgentApp,
    AiohttpServer,
    BrowserView,
    Disconnect,
    EgressRules,
    InMemoryConversations,
    InMemoryResponseStore,
    InMemorySessionHistoryService,
    InMemoryStateService,
    InMemoryStore,
    Limits,
    SandboxSettings,
    SqliteSessionHistoryService,
    SqliteStateService,
    SqliteStore,
    compat_app,
)
from greenroom.actors.errors import ConfigurationError
from greenroom.actors.messages import SessionKey
from greenroom.sandbox.backend import BoxLimits
from greenroom.services.durable_leases import DurableLeases
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.store import SessionRecord, TurnCommit
from greenroom.services.store_urls import storage_at
from greenroom.transports.inprocess import InProcess

WRONG: list[tuple[Callable[..., object], str, Any, str]] = [
    (AgentApp, "app_name", 5, "`str | None`"),
    (AgentApp, "overlap", "sometimes", "'queue', 'reject', 'interrupt'"),
    (AgentApp, "transports", ["http"], "`Transport`"),
    (AgentApp, "transports", "http", "`Transport`"),
    (AgentApp, "transports", "", "`Transport`"),
    (AgentApp, "transports", [InProcess], "`Transport`"),
    (AgentApp, "transports", (one for one in [InProcess()]), "a list of `Transport`, got `generator`"),
    (AgentApp, "state", 5, "`SessionStore`"),
    (AgentApp, "state", InMemoryStore, "`SessionStore`"),
    (AgentApp, "responses", "memory", "`ResponseStore`"),
    (AgentApp, "conversations", InMemoryResponseStore(), "`ConversationStore`"),
    (AgentApp, "sandboxes", 5, "`SandboxService`"),
    (AgentApp, "browser_view", "secret", "`BrowserView`"),
    (AgentApp, "webhook_secret", b"whsec", "`str | None`"),
    (AgentApp, "webhook_private", "10.0.0.0/8", "write ['10.0.0.0/8']"),
    (AgentApp, "limits", {"turns": 5}, "`Limits`"),
    (AgentApp, "authenticate", 5, "a function"),
    (AgentApp, "debug", "yes", "`bool`"),
    (AgentApp, "drain_seconds", "5", "`float`"),
    (AgentApp, "drain_seconds", -1, ">= 0"),
    (AgentApp, "drain_seconds", math.nan, ">= 0"),
    (AgentApp, "drain_seconds", Decimal(3), "`float`, got `Decimal`"),
    (AgentApp, "watchdog_seconds", 0, "> 0.0, or None"),
    (AgentApp, "sources", 5, "`Sources`"),
    (Limits, "turns", "5", "`int`"),
    (Limits, "turns", True, "`int`"),
    (Limits, "turns", 0, ">= 1"),
    (Limits, "waiting_turns", -1, ">= 0"),
    (Limits, "turn_seconds", "5", "`float | None`"),
    (Limits, "turn_seconds", 0, "> 0"),
    (Limits, "turn_seconds", -1, "> 0"),
    (Limits, "turn_seconds", Decimal(3), "`float | None`, got `Decimal`"),
    (SandboxSettings, "boxes", 0, ">= 1"),
    (SandboxSettings, "link", "wire", "'socket', 'port'"),
    (SandboxSettings, "egress", {"allow": []}, "`EgressRules`"),
    (SandboxSettings, "token", 5, "`str | None`"),
    (EgressRules, "allow", "example.com", "a list"),
    (BoxLimits, "cpus", 0, "> 0"),
    (BrowserView, "seconds", 0, "> 0"),
    (AiohttpServer, "host", None, "`str`"),
    (AiohttpServer, "port", "http", "`int`"),
    (AiohttpServer, "port", 65536, "<= 65535"),
    (AiohttpServer, "keepalive_seconds", 0, "> 0"),
    (AiohttpServer, "port", "65536", "<= 65535"),
    (AiohttpServer, "cors_origins", "*", "write ['*']"),
    (AiohttpServer, "cors_origins", (origin for origin in ["*"]), "a list, got `generator`"),
    (AiohttpServer, "trusted_proxies", "10.0.0.1", "write ['10.0.0.1']"),
    (AiohttpServer, "trusted_proxies", None, "a list, got `None`"),
    (AiohttpServer, "client_connections", 0, ">= 1"),
    (AiohttpServer, "tool_display", "everything", "'mcp_call', 'function_call', 'hidden'"),
    (AiohttpServer, "responses_disconnect", "cancel", "`Disconnect`"),
    (AiohttpServer, "responses_disconnect", Disconnect("stop"), "'continue', 'cancel', 'grace'"),  # type: ignore[arg-type]
    (AiohttpServer, "tutorial_key", "no", "`bool`"),
    (AiohttpServer, "compatible_body_bytes", 0, ">= 1"),
    (InMemoryStore, "states_kept", -1, ">= 1"),
    (InMemoryStore, "turns_kept", "5", "`int`"),
    (InMemoryStore, "max_bytes", 0, ">= 1"),
    (InMemoryStateService, "idle_seconds", 0, "> 0"),
    (InMemoryStateService, "rounds_kept", "5", "`int`"),
    (InMemorySessionHistoryService, "messages_kept", -1, ">= 1"),
    (InMemoryResponseStore, "max_responses", "5", "`int`"),
    (InMemoryResponseStore, "keep_seconds", -5, ">= 0"),
    (InMemoryConversations, "max_conversations", -5, ">= 1"),
    (SqliteStore, "turns_kept", "5", "`int`"),
    (SqliteStore, "turns_kept", 5.5, "`int`"),
    (SqliteStore, "states_kept", 0, ">= 1"),
    (SqliteStore, "lease_seconds", "5", "`float`"),
    (SqliteStore, "idle_seconds", "5", "`float`"),
    (SqliteStore, "idle_seconds", math.nan, "> 0"),
    (SqliteStore, "busy_seconds", -1, ">= 0"),
    (MemoryStorage, "idle_seconds", "5", "`float`"),
    (MemoryStorage, "idle_seconds", 0, "> 0"),
    (DurableLeases, "lease_seconds", "5", "`float`"),
    (DurableLeases, "lease_seconds", -1, "> 0"),
    (SqliteStateService, "rounds_kept", "5", "`int`"),
    (SqliteSessionHistoryService, "messages_kept", 0, ">= 1"),
]

NEEDED: Mapping[Callable[..., object], dict[str, Any]] = {
    BrowserView: {"secret": "0123456789abcdef"},
    DurableLeases: {"storage": MemoryStorage()},
    SqliteStore: {"path": "settings.db"},
    SqliteStateService: {"path": "settings.db"},
    SqliteSessionHistoryService: {"path": "settings.db"},
}


@pytest.mark.parametrize(("made", "name", "value", "takes"), WRONG)
def test_a_wrong_setting_is_refused_by_its_name(
    made: Callable[..., object], name: str, value: Any, takes: str
) -> None:
    more = NEEDED.get(made, {})
    with pytest.raises(ConfigurationError) as caught:
        made(**{name: value}, **more)
    assert name in caught.value.message
    assert takes in caught.value.message


def test_text_that_may_be_a_secret_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        AgentApp(webhook_secret=b"whsec_c2VjcmV0")  # type: ignore[arg-type]
    assert "c2VjcmV0" not in caught.value.message


@pytest.mark.parametrize("decorator", [AgentApp.query, AgentApp.agent])
def test_idempotent_is_a_yes_or_a_no(decorator: Callable[..., Callable[..., Any]]) -> None:
    with pytest.raises(ConfigurationError, match=r"idempotent.*`bool`"):
        decorator(AgentApp(), "text", idempotent="no")(lambda msgs: "hello")


def test_what_is_configured_later_is_looked_at_too() -> None:
    with pytest.raises(ConfigurationError, match="drain_seconds"):
        AgentApp().configure(drain_seconds=-1)


class OwnStore:
    """A store of somebody else's, which has what a `SessionStore` has and is no child of it."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def load(self, key: SessionKey) -> SessionRecord | None: ...
    async def commit(self, key: SessionKey, turn: TurnCommit) -> None: ...
    async def forget(self, key: SessionKey) -> None: ...
    async def fork(self, source: SessionKey, turn_id: str, target: SessionKey) -> bool:
        return False


def anybody(headers: Mapping[str, str]) -> str:
    return "ann"


def test_what_fits_is_taken() -> None:
    AgentApp(
        transports=(InProcess(),),
        state=OwnStore(),
        responses=InMemoryResponseStore(),
        conversations=InMemoryConversations(),
        sandboxes=SandboxSettings(egress=EgressRules(allow=("example.com",)), limits=BoxLimits(cpus=1)),
        limits=Limits(turn_seconds=math.inf, waiting_turns=0, idle_seconds=5),
        authenticate=anybody,
        drain_seconds=0,
        watchdog_seconds=None,
    )


class Number(float):
    """As numpy's are."""


def test_a_child_of_float_is_a_number() -> None:
    assert Limits(turn_seconds=Number(3)).turn_seconds == 3
    AgentApp(drain_seconds=Number(3), watchdog_seconds=Number(0.5))
    with pytest.raises(ConfigurationError, match=">= 0"):
        AgentApp(drain_seconds=Number(-1))


def test_a_port_may_be_text_as_the_environment_has_it() -> None:
    assert AiohttpServer(port="8091").port == 8091


@pytest.mark.parametrize("kind", [AgentApp, compat_app.AgentApp])
def test_an_application_without_a_name_is_called_as_usual(kind: type[AgentApp]) -> None:
    assert kind(None).app_name == kind().app_name == "Agent"
    assert kind(app_description=None).app_description == ""


def test_any_collection_is_a_list() -> None:
    origins = {"http://a": "a page of ours"}
    AiohttpServer(cors_origins=origins.keys(), trusted_proxies={"127.0.0.1"})  # type: ignore[arg-type]
    AgentApp(transports={"http": InProcess()}.values())  # type: ignore[arg-type]


def test_a_url_is_text() -> None:
    with pytest.raises(ConfigurationError, match=r"url=5.*`str`"):
        storage_at(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("methods", [None, 5, ()])
def test_methods_that_are_no_list_of_methods_are_refused(methods: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"@app\.endpoint.*methods="):
        AgentApp().endpoint("/mine", methods=methods)


@pytest.mark.parametrize(
    ("made", "name", "value"),
    [
        (AgentApp.aiohttp_application, "keepalive_seconds", 0),
        (AgentApp.aiohttp_application, "cors_origins", "*"),
        (AgentApp.aiohttp_routes, "read_seconds", -1),
    ],
)
def test_settings_of_routes_in_another_application_are_looked_at_too(
    made: Callable[..., object], name: str, value: Any
) -> None:
    app = AgentApp()
    app.query("text")(lambda msgs: "hello")
    with pytest.raises(ConfigurationError, match=name):
        made(app, **{name: value})
