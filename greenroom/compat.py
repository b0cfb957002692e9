"""Applications written for AgentScope Runtime run unchanged: its modules, by their names, resolve to Greenroom.

`install` (which `greenroom serve` calls) puts a finder at the very end of Python's import machinery, so that an
AgentScope Runtime that is really installed wins. Names resolve when they are used. One that Greenroom does not have
raises an `ImportError` that says what to use in its place.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

PREDECESSOR: Final = "agentscope_runtime"
VERSION: Final = "1.0.5+greenroom"
"""What `agentscope_runtime.__version__` says: the version whose names these are."""


def _from(module: str, *names: str) -> dict[str, str]:
    return {name: f"{module}:{name}" for name in names}


_APP = _from("greenroom.compat_app", "AgentApp")
_RUNNER = _from("greenroom.compat_app", "Runner")
_STATE = _from("greenroom.services.agent_state", "InMemoryStateService", "StateService")
_HISTORY = _from(
    "greenroom.services.session_history", "InMemorySessionHistoryService", "SessionHistoryService"
)
_REDIS_STATE = _from("greenroom.services.redis.states_and_histories", "RedisStateService")
_REDIS_HISTORY = _from("greenroom.services.redis.states_and_histories", "RedisSessionHistoryService")
_SANDBOX_SERVICE = _from("greenroom.services.sandbox_service", "SandboxService")
_SCHEMAS = _from("greenroom", "AgentRequest") | _from(
    "greenroom.compat_schemas",
    "AgentResponse",
    "AudioContent",
    "ContentType",
    "DataContent",
    "Event",
    "FileContent",
    "ImageContent",
    "Message",
    "MessageType",
    "RefusalContent",
    "Role",
    "RunStatus",
    "TextContent",
    "VideoContent",
)
_SANDBOXES = _from(
    "greenroom.sandbox",
    "BaseSandbox",
    "BaseSandboxAsync",
    "BrowserSandbox",
    "BrowserSandboxAsync",
    "FilesystemSandbox",
    "FilesystemSandboxAsync",
    "GuiSandbox",
    "GuiSandboxAsync",
    "MobileSandbox",
    "MobileSandboxAsync",
)

PROVIDED: Final[Mapping[str, Mapping[str, str]]] = {
    "": {},
    "adapters": {},
    "adapters.agentscope": {},
    "adapters.agentscope.memory": _from("greenroom", "AgentScopeSessionHistoryMemory"),
    "engine": _APP | _RUNNER,
    "engine.app": _APP,
    "engine.app.agent_app": _APP,
    "engine.deployers": {},
    "engine.runner": _RUNNER,
    "engine.schemas": {},
    "engine.schemas.agent_schemas": _SCHEMAS,
    "engine.schemas.session": _from("greenroom.services.session_history", "Session"),
    "engine.services": {},
    "engine.services.agent_state": _STATE | _REDIS_STATE,
    "engine.services.agent_state.redis_state_service": _REDIS_STATE,
    "engine.services.agent_state.state_service": _STATE,
    "engine.services.sandbox": _SANDBOX_SERVICE,
    "engine.services.sandbox.sandbox_service": _SANDBOX_SERVICE,
    "engine.services.session_history": _HISTORY | _REDIS_HISTORY,
    "engine.services.session_history.redis_session_history_service": _REDIS_HISTORY,
    "engine.services.session_history.session_history_service": _HISTORY,
    "sandbox": _SANDBOXES,
}
"""Module (without `agentscope_runtime.`) -> name -> where it is: `module:attribute`."""

_DEPLOY = (
    "Greenroom deploys nothing; run the application with `greenroom serve app.py`, or in a container of yours"
)
_DURABLE = (
    "services that outlive the process are RedisStateService and RedisSessionHistoryService, and those of greenroom in "
    "a SQLite file or a PostgreSQL database: SqliteStateService(path), PostgresStateService(url), …"
)
_OUTPUT = "handlers yield text, AgentScope's (msg, last) pairs, or the events of greenroom.actors.events"
_MEMORY = "Greenroom has no memory services; give the agent AgentScope's own long-term memory"
_TEXT = 'use `@app.query(framework="text")` and yield the text'
_CALL = "greenroom.actors.messages.ToolCall(call_id, name, arguments, server_label) is a call of a tool"
_CALL_OUTPUT = (
    "greenroom.actors.messages.ToolOutput(call_id, name, output, server_label) is what a tool gave back"
)
_SANDBOX = (
    "boxes are made as greenroom.sandbox.SandboxSettings says: BrowserSandbox(settings=…), SandboxService(settings=…), "
    "or the environment's GREENROOM_SANDBOX…"
)
_PROTOCOLS = "other protocols than /process come in a later version"

ADVICE: Final[Mapping[str, str]] = {
    "AgentRunDeployManager": _DEPLOY,
    "BaseResponse": _OUTPUT,
    "Content": "use the kind you mean: TextContent, DataContent, ImageContent, AudioContent, VideoContent, …",
    "DeployManager": _DEPLOY,
    "Error": "raise an exception in the handler; the turn then ends as failed, with an error id",
    "FCDeployManager": _DEPLOY,
    "FunctionCall": _CALL,
    "FunctionCallOutput": _CALL_OUTPUT,
    "KnativeDeployManager": _DEPLOY,
    "KubernetesDeployManager": _DEPLOY,
    "LocalDeployManager": "in its place: `agent_app.run(host=…, port=…)`, or `greenroom serve app.py`",
    "McpCall": _CALL,
    "McpCallOutput": _CALL_OUTPUT,
    "ModelstudioDeployManager": _DEPLOY,
    "PAIDeployManager": _DEPLOY,
    "Runner": "AgentApp runs by itself: `app.run()`, or `async with app: async for event in app.process(…)`",
    "SandboxServiceFactory": "make the service: SandboxService()",
    "SequenceNumberGenerator": "events are numbered by Greenroom",
    "SessionHistoryServiceFactory": "make the service you mean: InMemorySessionHistoryService()",
    "StateServiceFactory": "make the service you mean: InMemoryStateService()",
    "TablestoreSessionHistoryService": _DURABLE,
    "ToolCall": _CALL,
    "ToolCallOutput": _CALL_OUTPUT,
}
"""Names of AgentScope Runtime that Greenroom does not have, wherever they are imported from: what to do instead."""

AREAS: Final[Mapping[str, str]] = {
    "adapters.agentscope.long_term_memory": _MEMORY,
    "adapters.agentscope.message": "the handler gets `msgs` as AgentScope's messages, and yields such messages",
    "adapters.agentscope.stream": "the handler yields AgentScope's own messages",
    "adapters.agentscope.tool": "use `toolkit.register_tool_function(box.browser_navigate)`; it needs no adapter",
    "adapters.autogen": _TEXT,
    "adapters.agno": _TEXT,
    "adapters.langgraph": _TEXT,
    "adapters.ms_agent_framework": _TEXT,
    "engine.deployers": _DEPLOY,
    "engine.deployers.adapter": _PROTOCOLS,
    "engine.helpers": "`async with app: async for event in app.process(…)` runs an application in-process",
    "engine.runner": ADVICE["Runner"],
    "engine.schemas": "the messages are in greenroom.actors.messages",
    "engine.schemas.exception": "raise those of greenroom.actors.errors, which carry an HTTP status, or your own",
    "engine.services": "a service is any object with `start`, `stop` and `health`; no base class is needed",
    "engine.services.agent_state": _DURABLE,
    "engine.services.memory": _MEMORY,
    "engine.services.sandbox": _SANDBOX,
    "engine.services.session_history": _DURABLE,
    "engine.tracing": "Greenroom has no tracing yet; AgentScope's own (agentscope.tracing) traces the agent",
    "sandbox": _SANDBOX,
    "tools": "Greenroom has no ready-made tools; call the service's own client in a function of yours",
}
"""Parts of AgentScope Runtime -> what to do instead; the longest that fits a module counts."""

_FALLBACK = "it has nothing in its place; please say what you need it for in an issue"


def advice(module: str, name: str = "") -> str:
    """What to do instead of `name` of `module` (its full name), or of the module."""
    if name in ADVICE:
        return ADVICE[name]
    path = _inside(module)
    while path and path not in AREAS:
        path = path.rpartition(".")[0]
    return AREAS.get(path, _FALLBACK)


def _missing(what: str, instead: str) -> str:
    return f"Greenroom stands in for AgentScope Runtime and has no {what}: {instead}"


def _inside(module: str) -> str:
    return module.removeprefix(PREDECESSOR).removeprefix(".")


class StandIn(ModuleType):
    """A module of AgentScope Runtime's name whose names are looked up in Greenroom when they are used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        path = _inside(self.__name__)
        target = PROVIDED[path].get(name)
        if target is not None:
            where, _, attribute = target.partition(":")
            value = getattr(import_module(where), attribute)
        elif (f"{path}.{name}" if path else name) in PROVIDED:
            return import_module(f"{self.__name__}.{name}")
        else:
            # Not an AttributeError: `from module import name` would put words of its own in the place of these.
            raise ImportError(
                _missing(f"{self.__name__}.{name}", advice(self.__name__, name)), name=self.__name__
            )
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *PROVIDED[_inside(self.__name__)]})


class _Loader:
    """Makes stand-ins."""

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType:
        return StandIn(spec.name, f"Greenroom's stand-in for {spec.name}.")

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        path = _inside(module.__name__)
        module.__dict__["__all__"] = sorted(PROVIDED[path])
        if not path:
            module.__dict__["__version__"] = VERSION


class _Finder:
    """Finds modules of AgentScope Runtime that nothing before it found."""

    def __init__(self) -> None:
        self._loader = _Loader()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        package = name.partition(".")[0]
        if package != PREDECESSOR:
            return None
        if name != package and not isinstance(sys.modules.get(package), StandIn):
            return None  # the real package is there, and does not have this module: Python says so
        if _inside(name) not in PROVIDED:
            raise ModuleNotFoundError(_missing(name, advice(name)), name=name)
        # Nothing is run from them; the typeshed asks for a loader that knows it may be handed any module.
        return ModuleSpec(name, self._loader, origin=__name__, is_package=True)  # type: ignore[arg-type]


_finder = _Finder()


def install() -> None:
    """Let `import agentscope_runtime` find Greenroom when it finds nothing else. Doing it twice is fine."""
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)


def uninstall() -> None:
    """Undo `install`, and forget the modules it made."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    for name, module in list(sys.modules.items()):
        if isinstance(module, StandIn):
            del sys.modules[name]
