"""Stores by URL: `AgentApp(state="sqlite:///friday.db?turns_kept=500")`."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, unquote

from greenroom.actors.errors import ConfigurationError
from greenroom.services.memory_store import InMemoryStore
from greenroom.services.store import SessionStore

OPTIONS: Final[dict[str, type[int] | type[float]]] = {
    "turns_kept": int,
    "states_kept": int,
    "session_bytes": int,
    "idle_seconds": float,
    "busy_seconds": float,
}
"""Of a store in a SQLite file, which has them as arguments."""
_KINDS: Final = {int: "a whole number", float: "a number"}


def store_at(url: str) -> SessionStore:
    """The store that a URL names: `memory`, `sqlite:///friday.db`, `sqlite:////var/lib/friday.db`.

    Raises `ConfigurationError` for any other.
    """
    if url == "memory":
        return InMemoryStore()
    place, _, query = url.partition("?")
    if not place.startswith("sqlite:"):
        raise ConfigurationError(
            f'state={url!r}: this version keeps sessions in memory (state="memory"), in a SQLite file '
            '(state="sqlite:///friday.db"), or in a SessionStore of your own'
        )
    from greenroom.services.sqlite_store import SqliteStore

    return SqliteStore(_path(url, place), **_options(url, query))  # type: ignore[arg-type]


def _path(url: str, place: str) -> str:
    """The file: what follows the third slash, so that an absolute path makes four."""
    path = unquote(place.removeprefix("sqlite:///"))
    if not place.startswith("sqlite:///") or not path or "#" in place or "\0" in path:
        raise ConfigurationError(
            f"state={url!r} names no file; it is sqlite:///friday.db (three slashes) for one in the working folder, or "
            "sqlite:////var/lib/friday.db (four) for one anywhere, with %3F, %23 and %25 for ?, # and % in its name"
        )
    if path == ":memory:":
        raise ConfigurationError(f'state={url!r}: sessions in memory are state="memory"')
    return path


def _options(url: str, query: str) -> dict[str, int | float]:
    options: dict[str, int | float] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS or name in options:
            problem = "is there twice" if name in options else "is unknown"
            raise ConfigurationError(
                f"state={url!r}: the option {name!r} {problem}; there are {', '.join(OPTIONS)}"
            )
        try:
            options[name] = OPTIONS[name](text)
        except ValueError:
            raise ConfigurationError(
                f"state={url!r}: {name} is {_KINDS[OPTIONS[name]]}, not {text!r}"
            ) from None
        if not options[name] > 0:
            raise ConfigurationError(f"state={url!r}: {name} is more than 0, not {text}")
    return options
