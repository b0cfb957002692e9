"""From the name of a framework, as `@app.query(framework=…)` gives it, to its adapter.

Nothing of a framework is imported until its name is resolved, and AgentScope's line is told by its installed version:
importing it to find out takes a second.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from greenroom.actors.errors import ConfigurationError, MissingDependency
from greenroom.actors.frameworks.adapter import FrameworkAdapter

AGENTSCOPE = {
    1: ("greenroom.actors.frameworks.agentscope1", "AgentScope1Adapter", "greenroom[agentscope1]"),
    2: ("greenroom.actors.frameworks.agentscope2", "AgentScope2Adapter", "greenroom[agentscope]"),
}
"""By line: the adapter's module, its class, and what to install."""

PLUG = ("messages", "translator", "driver")


def resolve_framework(framework: str | FrameworkAdapter) -> FrameworkAdapter:
    """A new adapter for a framework's name; an adapter object is given back as it is.

    `agentscope` is the installed line; `agentscope1` and `agentscope2` say which. `text` and `events` are for handlers
    without a framework. Raises `MissingDependency` when the framework is not installed, `ConfigurationError` for a
    name that is not known.
    """
    match framework:
        case "text" | "events":
            from greenroom.actors.frameworks.plain import PlainAdapter

            return PlainAdapter()
        case "agentscope":
            return _agentscope(None)
        case "agentscope1":
            return _agentscope(1)
        case "agentscope2":
            return _agentscope(2)
    if not isinstance(framework, str) and all(callable(getattr(framework, name, None)) for name in PLUG):
        return framework
    raise ConfigurationError(
        f"framework={framework!r} is not known; it is 'agentscope' (the installed line), 'agentscope1', 'agentscope2', "
        "'text', 'events', or an adapter object (greenroom.actors.frameworks.adapter.FrameworkAdapter)"
    )


def _agentscope(wanted: int | None) -> FrameworkAdapter:
    installed = _installed()
    line = int(installed.partition(".")[0]) if installed is not None else None
    if line not in AGENTSCOPE or wanted not in (None, line):
        raise MissingDependency(_what_to_install(wanted, installed))
    module, name, extra = AGENTSCOPE[line]
    try:
        adapter: FrameworkAdapter = getattr(import_module(module), name)()
    except ImportError as error:
        raise MissingDependency(
            f"AgentScope {installed} is installed but cannot be imported ({error}); "
            f"`pip install '{extra}'` brings the versions that fit together"
        ) from error
    return adapter


def _what_to_install(wanted: int | None, installed: str | None) -> str:
    found = "AgentScope is not installed" if installed is None else f"AgentScope {installed} is installed"
    if wanted is None:
        return (
            f"{found}, and framework 'agentscope' needs 2.x or 1.x: `pip install '{AGENTSCOPE[2][2]}'` for 2.x, "
            f"`pip install '{AGENTSCOPE[1][2]}'` for 1.x"
        )
    install = f"`pip install '{AGENTSCOPE[wanted][2]}'`"
    where = "" if installed is None else " in an environment of its own"
    return f"{found}, and framework 'agentscope{wanted}' needs {wanted}.x: {install}{where}"


def _installed() -> str | None:
    try:
        return version("agentscope")
    except PackageNotFoundError:
        return None
