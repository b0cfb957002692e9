"""From the name of a framework, as `@app.query(framework=…)` gives it, to its adapter.

Nothing of a framework is imported until its name is resolved, and AgentScope's line is told by its installed version:
importing it to find out takes a second.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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


def of_line(line: int, module: str, name: str) -> Any:
    """What a module of ours has of this name, which is written for one line of AgentScope.

    Raises `MissingDependency` without that line.
    """
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        installed = _installed()
        if line == _line(installed):
            raise MissingDependency(_why_not_imported(installed, line, error)) from error
        raise MissingDependency(_what_to_install(f"greenroom.{name}", line, installed)) from error


def shadow() -> str | None:
    """The file, or the folder, of the user's that Python takes for AgentScope because it is called like it; none: it
    takes none."""
    try:
        spec = find_spec("agentscope")
    except ValueError:  # something made by hand stands there
        return None
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    if any((Path(folder) / "agent").is_dir() for folder in folders):
        return None
    return spec.origin or (folders[0] if folders else None)


def _agentscope(wanted: int | None) -> FrameworkAdapter:
    installed = _installed()
    line = _line(installed)
    if line not in AGENTSCOPE or wanted not in (None, line):
        what = "framework 'agentscope" + (f"{wanted}'" if wanted else "'")
        raise MissingDependency(_what_to_install(what, wanted, installed))
    module, name, _ = AGENTSCOPE[line]
    try:
        adapter: FrameworkAdapter = getattr(import_module(module), name)()
    except ImportError as error:
        raise MissingDependency(_why_not_imported(installed, line, error)) from error
    return adapter


def _why_not_imported(installed: str | None, line: int, error: ImportError) -> str:
    """Of the right line, which is installed."""
    if taken := shadow():
        return (
            f"AgentScope {installed} is installed but cannot be imported, as {taken} is called like it and is found "
            "first; give that another name"
        )
    return (
        f"AgentScope {installed} is installed but cannot be imported ({error}); "
        f"`pip install '{AGENTSCOPE[line][2]}'` brings the versions that fit together"
    )


def _what_to_install(what: str, wanted: int | None, installed: str | None) -> str:
    found = "AgentScope is not installed" if installed is None else f"AgentScope {installed} is installed"
    if wanted is None:
        return (
            f"{found}, and {what} needs 2.x or 1.x: `pip install '{AGENTSCOPE[2][2]}'` for 2.x, "
            f"`pip install '{AGENTSCOPE[1][2]}'` for 1.x"
        )
    install = f"`pip install '{AGENTSCOPE[wanted][2]}'`"
    where = "" if installed is None else " in an environment of its own"
    return f"{found}, and {what} needs {wanted}.x: {install}{where}"


def _line(installed: str | None) -> int | None:
    return int(installed.partition(".")[0]) if installed is not None else None


def _installed() -> str | None:
    try:
        return version("agentscope")
    except PackageNotFoundError:
        return None
