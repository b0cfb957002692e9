"""Where endpoints of the user's own may be: at paths that nothing else answers, by methods that there are.

It needs no server, so that most of it is refused where an endpoint is declared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from greenroom.actors.errors import ConfigurationError
from greenroom.transports.transport import Endpoint

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")

_VARIABLE: Final = re.compile(r"\{(\w+)(?::((?:[^{}]|\{[^{}]*\})*))?\}")
"""A part of a path that stands for any text, or for what its pattern says: `{id}`, `{id:[0-9]{3}}`."""


def methods_of(path: str, methods: str | Sequence[str]) -> tuple[str, ...]:
    """The methods as HTTP writes them, each once; a string is one. Raises `ConfigurationError` for others, and none."""
    given = tuple(methods) if isinstance(methods, Iterable) and not isinstance(methods, str) else (methods,)
    wanted = tuple(dict.fromkeys(method.upper() if isinstance(method, str) else method for method in given))
    unknown = [method for method in wanted if method not in METHODS]
    if unknown or not wanted:
        raise ConfigurationError(
            f"@app.endpoint({path!r}): methods={methods!r} is no list of HTTP's methods, which are {', '.join(METHODS)}"
        )
    return wanted


def check_path(path: object) -> None:
    """Raises `ConfigurationError` for what is no path."""
    if not isinstance(path, str):
        raise ConfigurationError('write the decorator with its path: @app.endpoint("/path")')
    if not path.startswith("/"):
        raise ConfigurationError(f"the endpoint path {path!r} does not begin with a slash")


def check_among(endpoint: Endpoint, others: Iterable[Endpoint]) -> None:
    """Raises `ConfigurationError` when one of the application's other endpoints answers the same requests."""
    for other in others:
        common = [method for method in endpoint.methods if _meets(method, other.methods)]
        common += [method for method in other.methods if _meets(method, endpoint.methods)]
        if common and _nameless(other.path) == _nameless(endpoint.path):
            raise ConfigurationError(
                f"@app.endpoint({endpoint.path!r}): {min(common)} {other.path} has an endpoint already; "
                "a path and a method have one, and what answers GET answers HEAD"
            )


def check_beside(endpoints: Iterable[Endpoint], routes: Iterable[tuple[str, str]]) -> None:
    """Raises `ConfigurationError` for an endpoint whose requests one of our routes (method, path) would answer.

    Of two that take a path, aiohttp asks the one whose path has more of it in words, then the first, which is ours.
    What takes any method (`*`) keeps all that is under its path to us.
    """
    known = [(method, path, re.compile(pattern_of(path))) for method, path in routes]
    for endpoint in endpoints:
        if endpoint.function is None:
            continue
        example = _example(endpoint.path)
        for method, path, pattern in known:
            goes_before = method == "*" or len(_words(path)) >= len(_words(endpoint.path))
            if goes_before and _meets(method, endpoint.methods) and pattern.fullmatch(example):
                raise ConfigurationError(
                    f"@app.endpoint({endpoint.path!r}): Greenroom itself answers "
                    f"{endpoint.methods[0] if method == '*' else method} {path}; "
                    "serve the function at another path"
                )


def _meets(method: str, methods: Sequence[str]) -> bool:
    return method == "*" or method in methods or (method == "GET" and "HEAD" in methods)


def _words(path: str) -> str:
    """The parts of a path before the first that has a variable in it."""
    before, variable, _ = path.partition("{")
    return before.rpartition("/")[0] if variable else before


def _nameless(path: str) -> str:
    """The path without the names of its variables: what it takes is the same."""
    return _VARIABLE.sub(lambda variable: f"{{{variable[2] or ''}}}", path)


def _example(path: str) -> str:
    """A path that such a request may have, the same for all names of variables."""
    return _VARIABLE.sub("x", path)


def pattern_of(path: str) -> str:
    """A regular expression for what a route takes."""
    parts = []
    end = 0
    for variable in _VARIABLE.finditer(path):
        parts += [re.escape(path[end : variable.start()]), f"(?:{variable[2] or '[^/]+'})"]
        end = variable.end()
    return "".join([*parts, re.escape(path[end:])])
