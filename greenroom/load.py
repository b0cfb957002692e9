"""Loading an application from where the command line names it: `app.py`, `app.py:name`, `package.module:name`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

from greenroom import compat
from greenroom.actors.errors import ConfigurationError
from greenroom.actors.frameworks.resolve import shadow
from greenroom.app import AgentApp

_OURS: Final = Path(__file__).parent
_LIBRARIES: Final = ("site-packages", "dist-packages")

loading: ContextVar[bool] = ContextVar("greenroom_loading", default=False)
"""Whether the user's file is being loaded, so that it must not begin to serve by itself."""


class NoSuchApplication(ConfigurationError):
    """The application was not named so that it can be found."""


class LoadFailed(ConfigurationError):
    """The user's file failed while it was loaded; the message holds the part of the traceback that is in it."""


class Target(NamedTuple):
    """Which application is meant: of a file or of a module, and maybe by which name."""

    file: Path | None
    module: str
    name: str | None


def load_application(spec: str) -> AgentApp:
    """The application that `spec` names, with `agentscope_runtime` standing for Greenroom while it is loaded and after.

    The file is loaded as a module and not as `__main__`, so what is under `if __name__ == "__main__":` does not run.
    Raises `NoSuchApplication`, and `LoadFailed` with the user's part of the traceback.
    """
    compat.install()
    target = parse(spec)
    return choose(load(target), target)


def parse(spec: str) -> Target:
    """What a command line's argument means. Raises `NoSuchApplication` when there is no such file."""
    where, colon, name = spec.rpartition(":")
    if not colon or not name.isidentifier():  # also `C:\\app.py`
        where, name = spec, ""
    path = Path(where)
    if path.suffix == ".py" or path.is_file() or "/" in where or "\\" in where:
        if path.is_dir():
            raise NoSuchApplication(
                f"{path} is a folder; name the file in it: greenroom serve {path / 'app.py'}"
            )
        if not path.is_file():
            raise NoSuchApplication(
                f"there is no file {path} in {Path.cwd()}; name the file that makes your AgentApp"
            )
        return Target(path.resolve(), path.stem, name or None)
    if not all(part.isidentifier() for part in where.split(".")):
        raise NoSuchApplication(
            f"{spec!r} names neither a file nor a module; write app.py, app.py:name or package.module:name"
        )
    return Target(None, where, name or None)


def load(target: Target) -> ModuleType:
    """The user's module. Raises `LoadFailed`."""
    token = loading.set(True)
    try:
        with _words_for_failures(target):
            if target.file is None:
                _look_first_in(Path.cwd())
                return importlib.import_module(target.module)
            _look_first_in(target.file.parent)
            return _load_file(target.file)
    finally:
        loading.reset(token)


def _look_first_in(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _load_file(file: Path) -> ModuleType:
    taken = file.stem in sys.modules or not file.stem.isidentifier()
    name = f"greenroom_application_{file.stem}" if taken else file.stem
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise NoSuchApplication(f"{file.name} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and annotations look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _words_for_failures(target: Target) -> Iterator[None]:
    what = target.file.name if target.file else target.module
    try:
        yield
    except NoSuchApplication:
        raise
    except ModuleNotFoundError as error:
        if (
            target.file is None
            and error.name is not None
            and f"{target.module}.".startswith(f"{error.name}.")
        ):
            raise NoSuchApplication(
                f"there is no module {error.name} in {Path.cwd()} or among what is installed; "
                "name a file (app.py) or a module that Python can import from here"
            ) from error
        raise LoadFailed(
            f"{what} could not be loaded:\n\n{users_part(error)}\n\n{_hint(error, target)}"
        ) from error
    except SystemExit as error:
        raise LoadFailed(
            f"{what} ended itself while it was loaded (sys.exit({error.code!r})); "
            'put what is for running it as a script under `if __name__ == "__main__":`'
        ) from error
    except Exception as error:
        hint = _hint(error, target)
        raise LoadFailed(
            f"{what} could not be loaded:\n\n{users_part(error)}" + (f"\n\n{hint}" if hint else "")
        ) from error


# -- choosing ----------------------------------------------------------------------------------------------------------


def choose(module: ModuleType, target: Target) -> AgentApp:
    """The application in the module. Raises `NoSuchApplication` when there is none of the name, or more than one."""
    what = target.file.name if target.file else target.module
    if target.name is not None:
        return _named(module, target.name, what)
    found = {name: value for name, value in vars(module).items() if isinstance(value, AgentApp)}
    if len({id(value) for value in found.values()}) == 1:
        return next(iter(found.values()))
    if found:
        raise NoSuchApplication(
            f"{what} makes several applications: {', '.join(found)}; say which: {what}:{next(iter(found))}"
        )
    raise NoSuchApplication(f"{what} has no AgentApp at its top level; {_what_else(module)}")


def _named(module: ModuleType, name: str, what: str) -> AgentApp:
    value = vars(module).get(name)
    if isinstance(value, AgentApp):
        return value
    if value is None:
        raise NoSuchApplication(f"{what} has no {name!r}; {_what_else(module)}")
    raise NoSuchApplication(f"{name!r} of {what} is {_kind(value)}, not an AgentApp; {_what_else(module)}")


def _what_else(module: ModuleType) -> str:
    own = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and (
            not hasattr(value, "__module__") or type(value).__name__ == "AgentApp" or _made_in(value, module)
        )
    }
    foreign = [name for name, value in own.items() if _is_predecessors(value)]
    if foreign:
        return (
            f"{foreign[0]} is made by the AgentScope Runtime that is installed; with it gone "
            "(pip uninstall agentscope-runtime) the same application runs on Greenroom"
        )
    applications = [name for name, value in own.items() if isinstance(value, AgentApp)]
    if applications:
        return f"it has {', '.join(applications)}"
    names = ", ".join(f"{name} ({_kind(value)})" for name, value in list(own.items())[:12])
    return f"it has {names or 'nothing'}; make one: `app = AgentApp()`"


def _made_in(value: object, module: ModuleType) -> bool:
    """Whether a function or class is the module's own, and any other object counts as its own."""
    return not callable(value) or getattr(value, "__module__", module.__name__) == module.__name__


def _is_predecessors(value: object) -> bool:
    return any(base.__module__.split(".")[0] == compat.PREDECESSOR for base in type(value).__mro__)


def _kind(value: object) -> str:
    if isinstance(value, type):
        return "a class"
    kind = type(value).__name__
    return f"an {kind}" if kind[0] in "aeiouAEIOU" else f"a {kind}"


# -- the user's part of a traceback -------------------------------------------------------------------------------


def users_part(error: BaseException) -> str:
    """An error's traceback without the frames of libraries and of ours: where in the user's code it went wrong."""
    report = traceback.TracebackException.from_exception(error)
    _trim(report)
    return "".join(report.format()).rstrip()


def _trim(report: traceback.TracebackException) -> None:
    """Keep the user's frames only, also in the errors that led to this one."""
    report.stack = traceback.StackSummary.from_list(
        [frame for frame in report.stack if _is_users(frame.filename)]
    )
    for earlier in (report.__cause__, report.__context__):
        if earlier is not None:
            _trim(earlier)


def blames_user(error: BaseException) -> bool:
    """Whether the error came out of the user's code."""
    return any(_is_users(frame.filename) for frame in traceback.extract_tb(error.__traceback__))


def _is_users(filename: str) -> bool:
    path = Path(filename)
    if filename.startswith("<") or any(part in _LIBRARIES for part in path.parts):
        return False
    library = Path(traceback.__file__).parent
    return not any(
        path.resolve().is_relative_to(folder) for folder in (_OURS.resolve(), library, *_our_rooms())
    )


def _our_rooms() -> list[Path]:
    """Where our rooms really are, when Greenroom is installed for its own development."""
    return [(_OURS / room).resolve() for room in ("actors", "services", "sandbox", "transports")]


def _hint(error: BaseException, target: Target) -> str:
    if not isinstance(error, ImportError):
        return ""
    package = (error.name or "").partition(".")[0]
    if package == "agentscope":
        return _agentscope_hint()
    if "relative import" in str(error) and target.file is not None:
        return _package_hint(target, target.file)
    if package in ("mcp", "openai", "greenlet"):
        return (
            "AgentScope 1.x needs older or more packages than it asks for; "
            'install them with it: pip install "greenroom[agentscope1]"'
        )
    if package == compat.PREDECESSOR or not package or not isinstance(error, ModuleNotFoundError):
        return ""
    return f"The module {package} is not installed here; install it, most likely by: pip install {package}"


def _package_hint(target: Target, file: Path) -> str:
    """For a file that imports from its package: it can be loaded as a module of that alone."""
    top = file.parent
    if (top == Path.cwd() and not (top / "__init__.py").is_file()) or not top.name.isidentifier():
        return (
            f"{file.name} is in no package; what lies beside it is found as `import helper`, without the dot"
        )
    while (top.parent / "__init__.py").is_file():
        top = top.parent
    module = ".".join(file.with_suffix("").relative_to(top.parent).parts)
    named = f"{module}:{target.name or 'app'}"
    where = "" if top.parent == Path.cwd() else f" in the folder {top.parent}"
    return f"{file.name} is part of a package; name it as a module: greenroom serve {named}{where}"


def _agentscope_hint() -> str:
    from importlib.metadata import PackageNotFoundError, version

    extras = '"greenroom[agentscope1]" for AgentScope 1.x, "greenroom[agentscope]" for 2.x'
    try:
        installed = version("agentscope")
    except PackageNotFoundError:
        return f"AgentScope is not installed here; pip install {extras}"
    if taken := shadow():
        return f"{taken} is called like AgentScope and is found first; give that another name"
    return (
        f"AgentScope {installed} is installed, and does not have this name; "
        f"is the application written for another line? pip install {extras}"
    )
