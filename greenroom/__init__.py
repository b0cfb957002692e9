"""Greenroom serves LLM agents: every conversation is a session actor.

The names below are the public API. They are loaded when first used, so `import greenroom` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from greenroom.actors.errors import (
        ConfigurationError,
        ContinuationNotFound,
        GreenroomError,
        HandlerError,
        InvalidRequest,
        MailboxFull,
        MissingDependency,
        NotServing,
        Overloaded,
        SandboxError,
        SessionBusy,
        StoreUnavailable,
        TurnNotFound,
        Unauthenticated,
    )
    from greenroom.actors.events import (
        ArgumentsDelta,
        ItemDone,
        ItemStarted,
        PartDone,
        TextDelta,
        ToolProgress,
        TurnCancelled,
        TurnCompleted,
        TurnFailed,
        UsageReported,
    )
    from greenroom.actors.frameworks.adapter import AgentDriver, FrameworkAdapter, Translator
    from greenroom.actors.frameworks.agentscope1_memory import (
        AgentScopeSessionHistoryMemory as AgentScopeSessionHistoryMemory,
    )
    from greenroom.actors.frameworks.agentscope2_history import (
        AgentScopeSessionHistoryMiddleware as AgentScopeSessionHistoryMiddleware,
    )
    from greenroom.actors.ids import Sources
    from greenroom.actors.limits import Limits
    from greenroom.actors.messages import (
        AgentRequest,
        Audio,
        Content,
        Data,
        Disconnect,
        File,
        FunctionTool,
        Image,
        Message,
        Refusal,
        SessionKey,
        Text,
        ToolCall,
        ToolOutput,
        TurnOptions,
        Usage,
        Video,
    )
    from greenroom.actors.session import Session
    from greenroom.app import AgentApp
    from greenroom.sandbox.base_sandbox import BaseSandbox
    from greenroom.sandbox.browser_sandbox import BrowserSandbox
    from greenroom.sandbox.settings import EgressRules, SandboxSettings
    from greenroom.services.agent_state import InMemoryStateService
    from greenroom.services.conversation_store import InMemoryConversations
    from greenroom.services.local_model.model import LocalModel, local_model_warning
    from greenroom.services.memory_responses import InMemoryResponseStore
    from greenroom.services.postgres.states_and_histories import (
        PostgresSessionHistoryService,
        PostgresStateService,
    )
    from greenroom.services.redis.states_and_histories import RedisSessionHistoryService, RedisStateService
    from greenroom.services.sandbox_service import SandboxService
    from greenroom.services.session_history import InMemorySessionHistoryService
    from greenroom.services.sessions.memory_store import InMemoryStore
    from greenroom.services.sqlite.states_and_histories import SqliteSessionHistoryService, SqliteStateService
    from greenroom.services.sqlite.store import SqliteStore
    from greenroom.transports.aiohttp_server import AiohttpServer
    from greenroom.transports.transport import Host, Transport
    from greenroom.transports.view_tickets import BrowserView

    __version__: str

_HOME = {
    "greenroom.actors.errors": (
        "ConfigurationError",
        "ContinuationNotFound",
        "GreenroomError",
        "HandlerError",
        "InvalidRequest",
        "MailboxFull",
        "MissingDependency",
        "NotServing",
        "Overloaded",
        "SandboxError",
        "SessionBusy",
        "StoreUnavailable",
        "TurnNotFound",
        "Unauthenticated",
    ),
    "greenroom.actors.events": (
        "ArgumentsDelta",
        "ItemDone",
        "ItemStarted",
        "PartDone",
        "TextDelta",
        "ToolProgress",
        "TurnCancelled",
        "TurnCompleted",
        "TurnFailed",
        "UsageReported",
    ),
    "greenroom.actors.frameworks.adapter": ("AgentDriver", "FrameworkAdapter", "Translator"),
    "greenroom.actors.frameworks.agentscope1_memory": ("AgentScopeSessionHistoryMemory",),
    "greenroom.actors.frameworks.agentscope2_history": ("AgentScopeSessionHistoryMiddleware",),
    "greenroom.actors.ids": ("Sources",),
    "greenroom.actors.limits": ("Limits",),
    "greenroom.actors.messages": (
        "AgentRequest",
        "Audio",
        "Content",
        "Data",
        "Disconnect",
        "File",
        "FunctionTool",
        "Image",
        "Message",
        "Refusal",
        "SessionKey",
        "Text",
        "ToolCall",
        "ToolOutput",
        "TurnOptions",
        "Usage",
        "Video",
    ),
    "greenroom.actors.session": ("Session",),
    "greenroom.app": ("AgentApp",),
    "greenroom.sandbox.base_sandbox": ("BaseSandbox",),
    "greenroom.sandbox.browser_sandbox": ("BrowserSandbox",),
    "greenroom.sandbox.settings": ("EgressRules", "SandboxSettings"),
    "greenroom.services.agent_state": ("InMemoryStateService",),
    "greenroom.services.local_model.model": ("LocalModel", "local_model_warning"),
    "greenroom.services.conversation_store": ("InMemoryConversations",),
    "greenroom.services.memory_responses": ("InMemoryResponseStore",),
    "greenroom.services.sessions.memory_store": ("InMemoryStore",),
    "greenroom.services.sandbox_service": ("SandboxService",),
    "greenroom.services.session_history": ("InMemorySessionHistoryService",),
    "greenroom.services.postgres.states_and_histories": (
        "PostgresSessionHistoryService",
        "PostgresStateService",
    ),
    "greenroom.services.redis.states_and_histories": ("RedisSessionHistoryService", "RedisStateService"),
    "greenroom.services.sqlite.states_and_histories": ("SqliteSessionHistoryService", "SqliteStateService"),
    "greenroom.services.sqlite.store": ("SqliteStore",),
    "greenroom.transports.aiohttp_server": ("AiohttpServer",),
    "greenroom.transports.transport": ("Host", "Transport"),
    "greenroom.transports.view_tickets": ("BrowserView",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
_LINE_OF = {"AgentScopeSessionHistoryMemory": 1, "AgentScopeSessionHistoryMiddleware": 2}
"""Names that only one line of AgentScope has: not in `__all__`, as no environment has both."""

__all__ = [
    "AgentApp",
    "AgentDriver",
    "AgentRequest",
    "AiohttpServer",
    "ArgumentsDelta",
    "Audio",
    "BaseSandbox",
    "BrowserSandbox",
    "BrowserView",
    "ConfigurationError",
    "Content",
    "ContinuationNotFound",
    "Data",
    "Disconnect",
    "EgressRules",
    "File",
    "FrameworkAdapter",
    "FunctionTool",
    "GreenroomError",
    "HandlerError",
    "Host",
    "Image",
    "InMemoryConversations",
    "InMemoryResponseStore",
    "InMemorySessionHistoryService",
    "InMemoryStateService",
    "InMemoryStore",
    "InvalidRequest",
    "ItemDone",
    "ItemStarted",
    "Limits",
    "LocalModel",
    "MailboxFull",
    "Message",
    "MissingDependency",
    "NotServing",
    "Overloaded",
    "PartDone",
    "PostgresSessionHistoryService",
    "PostgresStateService",
    "RedisSessionHistoryService",
    "RedisStateService",
    "Refusal",
    "SandboxError",
    "SandboxService",
    "SandboxSettings",
    "Session",
    "SessionBusy",
    "SessionKey",
    "Sources",
    "SqliteSessionHistoryService",
    "SqliteStateService",
    "SqliteStore",
    "StoreUnavailable",
    "Text",
    "TextDelta",
    "ToolCall",
    "ToolOutput",
    "ToolProgress",
    "Translator",
    "Transport",
    "TurnCancelled",
    "TurnCompleted",
    "TurnFailed",
    "TurnNotFound",
    "TurnOptions",
    "Unauthenticated",
    "Usage",
    "UsageReported",
    "Video",
    "__version__",
    "local_model_warning",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = importlib.import_module("importlib.metadata").version("greenroom")
    elif name in _LINE_OF:
        value = importlib.import_module("greenroom.actors.frameworks.resolve").of_line(
            _LINE_OF[name], _MODULE_OF[name], name
        )
    elif name in _MODULE_OF:
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    else:
        raise AttributeError(f"module 'greenroom' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_LINE_OF})
