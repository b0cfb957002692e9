"""Storages and stores by URL: `AgentApp(state="sqlite:///friday.db?turns_kept=500")`.

A place has one storage object in a process, so that sessions and services in it are written together. What lies in it
is shared by all who name it; options of the storage belong to the place, those of sessions to the store.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, unquote, urlencode
from weakref import WeakKeyDictionary, WeakValueDictionary

from msgspec import Struct

from greenroom.actors.errors import ConfigurationError
from greenroom.actors.setting_checks import check_setting
from greenroom.services.sessions.memory_store import InMemoryStore
from greenroom.services.sessions.owner_life import RENEWALS
from greenroom.services.storage import Storage
from greenroom.services.store import SessionStore

Option: TypeAlias = int | float | str
Kinds: TypeAlias = Mapping[str, type[Option]]

SESSIONS: Final[Kinds] = {
    "turns_kept": int,
    "states_kept": int,
    "session_bytes": int,
    "logs_kept": int,
    "log_bytes": int,
    "lease_seconds": float,
}
"""Options of stores of sessions, which have them as arguments, whatever the storage."""
USUAL_LEASE: Final = 15.0
USUAL_ANSWER: Final = 5.0
"""`lease_seconds` and, of storages on servers, `answer_seconds`, when nothing is said. With a shorter lease, an answer
has the time from one renewal to the next."""
_KINDS: Final = {int: "a whole number", float: "a number", str: "text"}


class Scheme(Struct, frozen=True):
    """A kind of storage. `options`: of its storages, which have them as arguments. `place`: from a URL without options,
    the place as its storage takes it. `storage`: makes one. `passes`: whether options that are not ours are the
    library's, and stay in the URL. `parts`: options that say which of several storages in a place is meant, and what
    they are when nothing is said."""

    options: Kinds
    place: Callable[[str], str]
    storage: Callable[..., Storage]
    passes: bool = False
    parts: Mapping[str, Option] = MappingProxyType({})


def storage_at(url: str) -> Storage:
    """The storage that a URL names: `sqlite:///friday.db`, `redis://host/0`, `postgresql://host/database`.

    The same object for the same place, for as long as anybody has it. Raises `ConfigurationError` for a URL that names
    none, and for one with other options than the place was named with before.
    """
    return _storage(url)[0]


def store_at(url: str) -> SessionStore:
    """The store of sessions that a URL names: one of `storage_at`'s, or `memory`. Raises `ConfigurationError`."""
    if url == "memory":
        return InMemoryStore()
    storage, options = _storage(url)
    try:
        _check_answers(url, storage, options.get("lease_seconds", USUAL_LEASE))
        return _store_on(url, storage, options)
    except ConfigurationError as error:
        raise ConfigurationError(f"{shown_url(url)!r}: {error}") from None


def _check_answers(url: str, storage: Storage, lease: float) -> None:
    """That a call ends well before the lease does: a process renews after a third of it, by such a call."""
    if "answer_seconds" not in _SCHEMES[url.partition(":")[0]].options:
        return
    answer = float(_chosen[storage].get("answer_seconds", USUAL_ANSWER))
    if answer > lease / 2:
        raise ConfigurationError(
            f"answer_seconds={answer:g} is more than half of lease_seconds={lease:g}: a process that waits as long for "
            "an answer loses its sessions; shorten the one or lengthen the other"
        )


def _store_on(url: str, storage: Storage, options: dict[str, Any]) -> SessionStore:
    if url.startswith("sqlite:"):
        from greenroom.services.sqlite.store import SqliteStore

        return SqliteStore(storage, **options)  # type: ignore[arg-type]
    from greenroom.services.sessions.durable_store import DurableSessions

    return DurableSessions(storage, **options)


def _storage(url: str) -> tuple[Storage, dict[str, Any]]:
    """The storage, and the options of a store on it."""
    check_setting("a storage", "url", url, str)
    place, _, query = url.partition("?")
    scheme = _SCHEMES.get(place.partition(":")[0])
    if scheme is None or ":" not in place:
        raise ConfigurationError(
            f'{shown_url(url)!r}: this version keeps sessions in memory ("memory"), in a SQLite file '
            '("sqlite:///friday.db"), on a Redis server ("redis://localhost"), in a PostgreSQL database '
            '("postgresql://localhost/friday"), or in a SessionStore of your own'
        )
    try:
        options, others = _options(query, scheme)
        where = scheme.place(place)
    except ConfigurationError as error:
        raise ConfigurationError(f"{shown_url(url)!r}: {error}") from None
    sessions: dict[str, Any] = {name: options.pop(name) for name in SESSIONS if name in options}
    if others:
        where = f"{where}?{urlencode(others)}"
    named = where, *(options.get(part, usual) for part, usual in scheme.parts.items())
    known = _storages.get(named)
    if known is None:
        lease = sessions.get("lease_seconds", USUAL_LEASE)
        if "answer_seconds" in scheme.options and lease < USUAL_ANSWER * RENEWALS:
            options.setdefault("answer_seconds", lease / RENEWALS)
        known = _storages[named] = scheme.storage(where, **options)
        _chosen[known] = options
    for name, value in options.items():
        if name not in scheme.parts and _chosen[known].get(name) != value:
            raise ConfigurationError(
                f"{shown_url(url)!r}: the place was named before, with another {name}; give it the same options "
                "wherever it is named, or in one place only, and there first"
            )
    return known, sessions


_storages: Final[WeakValueDictionary[tuple[object, ...], Storage]] = WeakValueDictionary()
_chosen: Final[WeakKeyDictionary[Storage, Mapping[str, Option]]] = WeakKeyDictionary()
"""The options that each was made with."""


def _options(query: str, scheme: Scheme) -> tuple[dict[str, Option], list[tuple[str, str]]]:
    """Our options in a query, and the library's."""
    kinds = {**SESSIONS, **scheme.options}
    options: dict[str, Option] = {}
    others: list[tuple[str, str]] = []
    for name, text in parse_qsl(query, keep_blank_values=True):
        kind = kinds.get(name)
        if kind is not None and name not in options:
            options[name] = _option(name, text, kind)
        elif kind is None and scheme.passes:
            others.append((name, text))
        else:
            problem = "is unknown" if kind is None else "is there twice"
            raise ConfigurationError(f"the option {name!r} {problem}; there are {', '.join(kinds)}")
    return options, others


def _option(name: str, text: str, kind: type[Option]) -> Option:
    try:
        value = kind(text)
    except ValueError:
        raise ConfigurationError(f"{name} is {_KINDS[kind]}, not {text!r}") from None
    if not isinstance(value, str) and not value > 0 and name not in _MAY_BE_NOTHING:
        raise ConfigurationError(f"{name} is more than 0, not {text}")
    return value


_MAY_BE_NOTHING: Final = frozenset({"statement_cache_size"})


def shown_url(url: str) -> str:
    """A URL without its password."""
    url = re.sub(r"^([^:/?#]+://[^/?#@]*?:).*@", r"\1***@", url)
    return re.sub(r"([?&][^=&#]*password=)[^&#]*", r"\1***", url)


# --------------------------------------------------------------------------------------------------------- the schemes


def _sqlite_place(place: str) -> str:
    """The file: what follows the third slash, so that an absolute path makes four."""
    path = unquote(place.removeprefix("sqlite:///"))
    if not place.startswith("sqlite:///") or not path or "#" in place or "\0" in path:
        raise ConfigurationError(
            "it names no file; it is sqlite:///friday.db (three slashes) for one in the working folder, or "
            "sqlite:////var/lib/friday.db (four) for one anywhere, with %3F, %23 and %25 for ?, # and % in its name"
        )
    if path == ":memory:":
        raise ConfigurationError('sessions in memory are "memory"')
    return str(Path(path).absolute())


def _sqlite(path: str, **options: Any) -> Storage:
    from greenroom.services.sqlite.storage import SqliteStorage

    return SqliteStorage(path, **options)


def _redis(url: str, **options: Any) -> Storage:
    from greenroom.services.redis.storage import RedisStorage

    return RedisStorage(url, **options)


def _postgres(url: str, **options: Any) -> Storage:
    from greenroom.services.postgres.storage import PostgresStorage

    return PostgresStorage(url, **options)


def _as_it_is(place: str) -> str:
    return place


_SQLITE: Final = Scheme({"idle_seconds": float, "busy_seconds": float}, _sqlite_place, _sqlite)
_REDIS: Final = Scheme(
    {"idle_seconds": float, "answer_seconds": float, "connections": int, "prefix": str},
    _as_it_is,
    _redis,
    passes=True,
    parts={"prefix": "greenroom"},
)
_POSTGRES: Final = Scheme(
    {
        "idle_seconds": float,
        "answer_seconds": float,
        "pool_size": int,
        "statement_cache_size": int,
        "schema": str,
    },
    _as_it_is,
    _postgres,
    passes=True,
    parts={"schema": "greenroom"},
)
_SCHEMES: Final[Mapping[str, Scheme]] = {
    "sqlite": _SQLITE,
    "redis": _REDIS,
    "rediss": _REDIS,
    "unix": _REDIS,
    "postgresql": _POSTGRES,
    "postgres": _POSTGRES,
}
