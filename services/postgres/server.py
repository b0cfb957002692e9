"""One PostgreSQL, as a storage uses it: where it is, what it must be set to, and calls of its functions.

Imports asyncpg, so whoever imports this is using it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import asyncpg

from greenroom.actors.errors import ConfigurationError, StoreUnavailable
from greenroom.services.postgres.errors import ERRORS, meaning
from greenroom.services.postgres.pool import Calls, Connections
from greenroom.services.postgres.rows import WRITE_ARGUMENTS
from greenroom.services.postgres.schema import migrate, named

logger = logging.getLogger("greenroom.services")

OLDEST: Final = 12
"""The first PostgreSQL that has all that is used here and is still looked after by somebody."""
MIGRATION_SECONDS: Final = 600.0
"""For the tables to become those of this version, with waiting for another process that does it."""
CLOSE_SECONDS: Final = 2.0

_ARGUMENTS: Final = {
    "write_1": WRITE_ARGUMENTS,
    "read_1": 5,
    "lookup_1": 2,
    "sessions_1": 3,
    "orphans_1": 2,
    "renew_1": 4,
    "note_1": 3,
    "sweep_1": 3,
}
_READING: Final = {"read_1", "lookup_1", "sessions_1", "orphans_1"}
_HOST: Final = re.compile(r"(\[[^]]*\]|[^]:[]*)(:\d*)?")
_SETTINGS: Final = """
SELECT current_setting('server_version_num')::int / 10000 AS version,
    current_setting('transaction_read_only') = 'on' AS read_only,
    ARRAY(
        SELECT name || '=off' FROM unnest(ARRAY['fsync', 'full_page_writes', 'synchronous_commit']) AS name
        WHERE current_setting(name) = 'off'
    ) AS unsafe
"""


class PostgresServer:
    """The PostgreSQL of `url`. `place`: the URL without user, password and options."""

    def __init__(self, url: str, *, schema: str, pool_size: int, seconds: float, cache: int) -> None:
        parts = _parts(url)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", schema):
            raise ConfigurationError(f"schema={schema!r} is not a name of letters, digits and _, at most 63")
        self.place = f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._url = url
        self._schema = schema
        self._seconds = seconds
        self._cache = cache
        self._connections = Connections(self._connect, pool_size)
        self._calls = Calls(self._connections, seconds)
        self._statements = {
            name: named(
                f"SELECT * FROM SCHEMA.{name}({', '.join(f'${n}' for n in range(1, count + 1))})", schema
            )
            for name, count in _ARGUMENTS.items()
        }

    def __repr__(self) -> str:
        return f"<PostgresServer {self.place}: {self._connections!r}>"

    async def start(self) -> None:
        """Connect, look at how it is set, and make or change the tables. Raises `StoreUnavailable`."""
        deadline = asyncio.get_running_loop().time() + self._seconds
        try:
            connection = await self._connections.get(deadline)
            try:
                async with asyncio.timeout_at(deadline):
                    await self._check(connection)
                async with asyncio.timeout(MIGRATION_SECONDS):
                    await migrate(connection, self._schema)
            except BaseException:
                connection.terminate()
                raise
            finally:
                self._connections.give_back(connection)
        except (*ERRORS, StoreUnavailable) as error:
            await self.stop()
            raise self._unusable(error) from error

    async def stop(self) -> None:
        """Close the connections, after the calls that are under way."""
        await self._calls.done()
        await self._connections.close(CLOSE_SECONDS)

    async def call(
        self, function: str, arguments: Sequence[object], again: Sequence[object] | None
    ) -> tuple[Any, bool]:
        """The function's one row, and whether it was sent again; see `Calls.call`. Raises `StoreUnavailable`."""
        return await self._calls.call(
            self._statements[function], arguments, again, changes=function not in _READING
        )

    async def _connect(self, seconds: float) -> Any:
        connect: Any = asyncpg.connect  # its types are narrower than what it takes
        return await connect(
            self._url,
            timeout=seconds,
            statement_cache_size=self._cache,
            max_cached_statement_lifetime=0,
            server_settings=self._session() if self._cache else None,
        )

    def _session(self) -> dict[str, str]:
        """What our sessions on the server are set to. A pooler takes no settings: there the role's own hold."""
        return {
            "application_name": "greenroom",
            "statement_timeout": f"{round(self._seconds * 1000)}ms",
            "default_transaction_isolation": "read committed",
            "jit": "off",  # it takes longer than these statements
        }

    async def _check(self, connection: Any) -> None:
        found = await connection.fetchrow(_SETTINGS)
        if found["version"] < OLDEST:
            raise StoreUnavailable(f"it is version {found['version']}; Greenroom needs {OLDEST} or later")
        if found["read_only"]:
            raise asyncpg.ReadOnlySQLTransactionError("transaction_read_only is on")
        if found["unsafe"]:
            logger.warning(
                "%s is set to lose what it has acknowledged when it or its machine crashes: %s",
                self.place,
                ", ".join(found["unsafe"]),
            )

    def _unusable(self, error: Exception) -> StoreUnavailable:
        """The error for who starts the application."""
        if isinstance(error, StoreUnavailable):
            return StoreUnavailable(f"the PostgreSQL at {self.place} cannot be used: {error}")
        words, seconds = meaning(error)
        return StoreUnavailable(
            f"the PostgreSQL at {self.place} cannot be used: {words} ({error})", retry_after=seconds
        )


def _parts(url: str) -> SplitResult:
    """Raises `ConfigurationError` that does not repeat the URL, as there is a password in it."""
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if (
        parts.scheme not in {"postgresql", "postgres"}
        or parts.netloc.count("@") > 1
        or "@" in parts.path + parts.query
        or parts.fragment
        or not all(map(_HOST.fullmatch, hosts))
    ):
        raise ConfigurationError(
            "the URL of PostgreSQL is postgresql://user:password@host:5432/database; in a password, write "
            "%2F, %3A, %40, %3F, %23, %25 for / : @ ? # %"
        )
    return parts
