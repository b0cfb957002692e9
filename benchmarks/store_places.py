"""Where the benchmark of stores keeps sessions: in files, and on servers of its own."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec import Struct

from benchmarks.servers import ROOT
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.memory_store import InMemoryStore
from greenroom.services.sqlite.store import SqliteStore
from greenroom.services.store import SessionStore

if str(ROOT / "tests") not in sys.path:
    sys.path.append(str(ROOT / "tests"))  # the servers are those of the tests

_numbers = itertools.count(1)


class Place(Struct, frozen=True):
    """`where`: for the table. `goal`: CPU that a turn may cost more than in memory, milliseconds. `speed`: turns a
    second, at least. `new`: makes an empty store; none: there is no such place here, for the reason `missing`."""

    where: str
    goal: float
    new: Callable[[], SessionStore] | None
    missing: str = ""
    speed: float | None = None


def new_in_memory() -> SessionStore:
    """A store that ends with the process."""
    return InMemoryStore()


def new_file(folder: Path) -> Path:
    """Of a store, which is made with it."""
    return folder / f"{next(_numbers)}.db"


def places(folder: Path, stack: ExitStack) -> list[Place]:
    """All that the table has. Servers end with the stack."""
    return [
        Place("in a SQLite file", 1, lambda: SqliteStore(new_file(folder)), speed=1_000),
        _place("on Redis", 1.5, _redis, stack),
        _place("in PostgreSQL", 2.5, _postgres, stack),
    ]


def _place(
    where: str, goal: float, start: Callable[[ExitStack], Callable[[], SessionStore]], stack: ExitStack
) -> Place:
    try:
        return Place(where, goal, start(stack))
    except (ImportError, pytest.skip.Exception) as error:
        return Place(where, goal, None, str(error))


def _redis(stack: ExitStack) -> Callable[[], SessionStore]:
    from greenroom.services.redis import link as redis_link  # noqa: F401 - whether its library is there
    from greenroom.services.redis.storage import RedisStorage
    from kits.redis_server import running_redis

    server = stack.enter_context(running_redis())
    return lambda: DurableSessions(RedisStorage(server.url(), prefix=f"bench{next(_numbers)}"))


def _postgres(stack: ExitStack) -> Callable[[], SessionStore]:
    from greenroom.services.postgres import pool as postgres_pool  # noqa: F401
    from greenroom.services.postgres.storage import PostgresStorage
    from kits.postgres_server import made_databases, running_postgres

    databases = stack.enter_context(made_databases())
    server = stack.enter_context(running_postgres(databases, fsync="on", full_page_writes="on"))
    return lambda: DurableSessions(PostgresStorage(server.url(), schema=f"bench{next(_numbers)}"))
