"""The tables of a storage in PostgreSQL, by version, and how those of an older version become the newest.

To change the tables, add a migration to `MIGRATIONS` and leave those there are as they are: databases of every version
are out there. Processes of the version before may be at work meanwhile (a deploy rolls): the functions they call, which
bear its number, are kept or, when that cannot be, dropped, and these processes are then told so.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final, TypeAlias

from greenroom.actors.errors import StoreUnavailable
from greenroom.services.postgres.functions import FUNCTIONS_1, SCHEMA

logger = logging.getLogger("greenroom.services")

Migration: TypeAlias = Sequence[str]

# `number` is what other tables know a folder by. `opened` is when it was opened, on the counter, which is also that of
# epochs and notes. Heads are written with each write and so have room on their pages; all else is written once or so.
_TABLES_1: Final = (
    "CREATE SEQUENCE SCHEMA.counter",
    """
    CREATE TABLE SCHEMA.folders (
        number bigint PRIMARY KEY,
        id bytea NOT NULL UNIQUE,
        kind text NOT NULL,
        user_id bytea NOT NULL,
        session_id bytea NOT NULL,
        epoch bigint NOT NULL,
        revision bigint NOT NULL,
        body bytea NOT NULL,
        owner bytea NOT NULL,
        opened bigint,
        used timestamptz NOT NULL,
        write_id bytea NOT NULL
    ) WITH (fillfactor = 70)
    """,
    "CREATE INDEX folders_by_user ON SCHEMA.folders (kind, sha256(user_id))",
    "CREATE INDEX folders_by_use ON SCHEMA.folders (used) WHERE opened IS NULL",
    "CREATE INDEX folders_open ON SCHEMA.folders (kind, opened) WHERE opened IS NOT NULL",
    """
    CREATE TABLE SCHEMA.cells (
        folder bigint NOT NULL,
        section text COLLATE "C" NOT NULL,
        number bigint NOT NULL,
        value bytea NOT NULL,
        PRIMARY KEY (folder, section, number)
    )
    """,
    "CREATE TABLE SCHEMA.names (id bytea PRIMARY KEY, folder bigint NOT NULL, value bytea NOT NULL)",
    "CREATE INDEX names_by_folder ON SCHEMA.names (folder)",
    """
    CREATE TABLE SCHEMA.owners (
        owner bytea PRIMARY KEY,
        state text NOT NULL,
        until timestamptz NOT NULL,
        given bigint NOT NULL
    )
    """,
    """
    CREATE TABLE SCHEMA.notes (
        owner bytea NOT NULL,
        number bigint NOT NULL,
        note bytea NOT NULL,
        PRIMARY KEY (owner, number)
    )
    """,
)

MIGRATIONS: Final[tuple[Migration, ...]] = ((*_TABLES_1, *FUNCTIONS_1),)
"""The first makes version 1 out of nothing, each further one the next version out of the one before it."""

_VERSIONS: Final = """
CREATE TABLE IF NOT EXISTS SCHEMA.versions (
    version int PRIMARY KEY, applied timestamptz NOT NULL DEFAULT clock_timestamp())
"""

# Looked up in tables: PostgreSQL's functions for it (`to_regclass`) may remember, all through a transaction, that what
# another process has made while this one waited for it was not there.
_HAS_SCHEMA: Final = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)"
_HAS_VERSIONS: Final = """
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_class AS one JOIN pg_catalog.pg_namespace AS its ON its.oid = one.relnamespace
    WHERE its.nspname = $1 AND one.relname = 'versions')
"""


def named(text: str, schema: str) -> str:
    """The statement, for that schema."""
    return text.replace(SCHEMA + ".", f'"{schema}".')


def lock_of(schema: str) -> int:
    """The advisory lock under which the tables are changed."""
    return int.from_bytes(sha256(f"greenroom migrates {schema}".encode()).digest()[:8], "big", signed=True)


async def migrate(connection: Any, schema: str, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the tables to the newest version, in one transaction: it is done whole or not at all.

    Raises `StoreUnavailable` for those of a newer version, which stay as they are, and what asyncpg raises.
    """
    if await _version(connection, schema, len(migrations)) == len(migrations):
        return
    async with connection.transaction(isolation="read_committed"):
        await connection.execute("SET LOCAL statement_timeout = 0")
        await connection.execute(
            "SELECT pg_advisory_xact_lock($1)", lock_of(schema)
        )  # who comes second waits
        version = await _version(connection, schema, len(migrations))
        if version == 0:
            if not await connection.fetchval(_HAS_SCHEMA, schema):
                await connection.execute(f'CREATE SCHEMA "{schema}"')
            await connection.execute(named(_VERSIONS, schema))
        for number, statements in enumerate(migrations[version:], version + 1):
            logger.info("schema %s becomes version %d", schema, number)
            for statement in statements:
                await connection.execute(named(statement, schema))
            await connection.execute(named("INSERT INTO SCHEMA.versions VALUES ($1)", schema), number)


async def _version(connection: Any, schema: str, known: int) -> int:
    """The version of the tables, 0 where there are none. Raises `StoreUnavailable` for a newer one than is known."""
    if not await connection.fetchval(_HAS_VERSIONS, schema):
        return 0
    found = await connection.fetchval(named("SELECT coalesce(max(version), 0) FROM SCHEMA.versions", schema))
    version: int = found
    if version > known:
        raise StoreUnavailable(
            f"its tables in schema {schema!r} are of version {version}, which a newer Greenroom has made; this one "
            f"knows version {known} and leaves them as they are; run the newer one, or name another schema"
        )
    return version
