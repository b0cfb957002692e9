"""Folders in PostgreSQL: many processes, on many machines, share them.

Each call is one statement, which runs a function on the server (`functions`): one trip, done as a whole or not
at all. Owners live by the server's clock.

When a connection breaks over a write, nobody knows whether it was done. It is sent again if that cannot do it twice: if
one of its folders must have a certain fence. Whichever of the two comes first changes that fence, and the server knows
the other by its id: it answers what the first did, or that it cannot tell any more. Other writes end as
`StoreUnavailable`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Final

from msgspec import Meta

from greenroom.actors.errors import MissingDependency, StoreUnavailable
from greenroom.actors.setting_checks import Count, Seconds, Share, check_settings
from greenroom.services.postgres import rows
from greenroom.services.service import not_started
from greenroom.services.storage import (
    LONGEST_IDLE,
    NOT_THERE,
    Change,
    Fence,
    Folder,
    FolderKey,
    Head,
    Named,
    OwnerGone,
    OwnerState,
    Span,
)

if TYPE_CHECKING:
    from greenroom.services.postgres.server import PostgresServer

logger = logging.getLogger("greenroom.services")

NOTES: Final = 1_000
"""Notes that wait for an owner, at most."""
OWNER_KEPT_SECONDS: Final = 30 * 86_400.0
"""For how long an owner that is gone is remembered: one that was paused for longer would begin anew under its name."""
SWEPT_AT_ONCE: Final = 100
"""Idle folders forgotten in one transaction."""
SWEEP_SECONDS: Final = (1.0, 600.0)
"""Between two looks for idle folders, at least and at most."""
LONGEST_ANSWER: Final = 600.0
ARGUMENTS: Final[Mapping[str, Any]] = {
    "schema": str,
    "idle_seconds": Seconds,
    "pool_size": Share,
    "answer_seconds": Annotated[float, Meta(gt=0, le=LONGEST_ANSWER)],
    "statement_cache_size": Count,
}


class PostgresStorage:
    """A `Storage` in the PostgreSQL database of `url`, in tables of its own in `schema`, which are made if need be.

    `url`: `postgresql://user:password@host/database`, with asyncpg's options. `idle_seconds`: folders that nobody wrote
    to for so long are forgotten (`inf`: never). `pool_size`: connections of this process, at most. `answer_seconds`:
    how long a call may take, with waiting for a connection. `statement_cache_size`: 0 behind a pooler that hands out
    connections by transaction, as PgBouncer does; nothing then outlives a transaction, and a call takes two trips.
    `unique`: bytes that no other storage has.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "greenroom",
        idle_seconds: float = 365 * 86_400.0,
        pool_size: int = 8,
        answer_seconds: float = 5.0,
        statement_cache_size: int = 100,
        unique: Callable[[], bytes] = lambda: os.urandom(8),
    ) -> None:
        check_settings("PostgresStorage", locals(), ARGUMENTS)
        self.schema = schema
        self._server = _server(url, schema, pool_size, answer_seconds, statement_cache_size)
        self._idle_seconds = min(float(idle_seconds), LONGEST_IDLE)
        self._seed = int.from_bytes(sha256(schema.encode()).digest()[:8], "big", signed=True)
        self._prefix = unique()
        self._numbers = itertools.count()
        self._given: dict[str, int] = {}
        """By owner, the last note that came here."""
        self._started = 0
        self._changing = asyncio.Lock()
        self._sweeping: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<PostgresStorage {self._server.place}, schema {self.schema}>"

    async def start(self) -> None:
        """Connect, and bring the tables to this version; it counts.

        Raises `StoreUnavailable` that says what is missing when they cannot be used.
        """
        async with self._changing:
            if not self._started:
                await self._server.start()
                self._sweeping = asyncio.create_task(self._sweep())
            self._started += 1

    async def stop(self) -> None:
        """Close the connections, after what is under way, when it was started no more often."""
        async with self._changing:
            self._started = max(0, self._started - 1)
            if self._started or self._sweeping is None:
                return
            sweeping, self._sweeping = self._sweeping, None
            sweeping.cancel()
            await asyncio.wait([sweeping])
            await self._server.stop()

    async def write(self, changes: Sequence[Change]) -> tuple[Fence, ...]:
        """Do all changes together, or none; it is on the server's disk then. Raises `Conflict`, `NameTaken`."""
        self._check_started()
        if not changes:
            return ()
        write_id = self._prefix + next(self._numbers).to_bytes(8, "big")
        arguments = rows.write_arguments(changes, write_id, self._idle_seconds, self._seed)
        fenced = any(change.expected is not None for change in changes)
        row, again = await self._server.call("write_1", arguments, arguments if fenced else None)
        verdict = row["verdict"]
        if verdict == "done":
            return rows.fences_of(row)
        if verdict == "unclear" or (again and verdict == "conflict"):
            return _outcome(changes, row)
        raise rows.conflict_of(changes, row) if verdict == "conflict" else rows.name_taken_of(changes, row)

    async def read(self, key: FolderKey, spans: Sequence[Span] = ()) -> Folder | None:
        """The folder's head and those cells; none: it is not there."""
        row = await self._read("read_1", *rows.read_arguments(key, spans, self._idle_seconds))
        return None if row is None else rows.folder_of(key, row, len(spans))

    async def lookup(self, name: bytes) -> Named | None:
        """Where the name points; none: nowhere."""
        row = await self._read("lookup_1", self._idle_seconds, rows.name_id(name))
        return None if row is None else rows.named_of(row)

    async def sessions(self, kind: str, user_id: str) -> tuple[str, ...]:
        """The session ids of the user's folders of that kind, sorted by their UTF-8 bytes."""
        row = await self._read("sessions_1", self._idle_seconds, kind, rows.encode(user_id))
        return tuple(map(rows.decode, row[0]))

    async def orphans(self, kind: str, limit: int) -> tuple[Head, ...]:
        """Folders of that kind that are open and whose owner is nobody or gone; those open for longest first."""
        row = await self._read("orphans_1", kind, limit)
        return rows.orphans_of(kind, row)

    async def renew(self, owner: str, seconds: float, state: OwnerState = "serving") -> tuple[bytes, ...]:
        """The owner lives for `seconds` more; gives its notes. Raises `OwnerGone`."""
        self._check_started()
        arguments = (rows.encode(owner), float(seconds), state)
        last = self._given.get(owner)
        row, again = await self._server.call("renew_1", (*arguments, None), (*arguments, last))
        if row["lives"]:
            self._given[owner] = row["last"]
        if state == "gone" or not row["lives"]:
            self._given.pop(owner, None)
        if not row["lives"] and not (again and state == "gone"):  # which was then done the first time
            raise OwnerGone(owner)
        return tuple(row["notes"] or ())

    async def note(self, owner: str, note: bytes) -> bool:
        """Leave a note that the owner's next renewal gives it. Whether it lives."""
        self._check_started()
        row, _ = await self._server.call("note_1", (rows.encode(owner), note, NOTES), None)
        lives: bool = row[0]
        return lives

    async def _read(self, function: str, *arguments: object) -> Any:
        self._check_started()
        row, _ = await self._server.call(function, arguments, arguments)
        return row

    async def _sweep(self) -> None:
        """Forget what is idle, now and then, whatever else goes on."""
        least, most = SWEEP_SECONDS
        arguments = (self._idle_seconds, OWNER_KEPT_SECONDS, SWEPT_AT_ONCE)
        while True:
            await asyncio.sleep(min(max(self._idle_seconds / 20, least), most))
            try:
                while (await self._server.call("sweep_1", arguments, arguments))[0][0] == SWEPT_AT_ONCE:
                    pass
            except StoreUnavailable:
                logger.info("%r: what is idle is looked for later", self)

    def _check_started(self) -> None:
        if not self._started:
            raise not_started(self)


def _outcome(changes: Sequence[Change], row: Any) -> tuple[Fence, ...]:
    """Of a write whose connection broke, and after which others wrote. Raises `StoreUnavailable` when nobody can tell
    what became of it."""
    if len(changes) == 1 and changes[0].ends and row["body"] is None:
        return (NOT_THERE,)
    raise StoreUnavailable(
        "the connection to PostgreSQL broke over a write, and others have written since: whether it was done before "
        "is not known, as a whole or not at all; read how things stand, and try again",
        retry_after=1.0,
        maybe_done=True,
    )


def _server(url: str, schema: str, pool_size: int, seconds: float, cache: int) -> PostgresServer:
    try:
        from greenroom.services.postgres.server import PostgresServer
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise MissingDependency(
            "keeping sessions in PostgreSQL needs asyncpg: pip install 'greenroom[postgres]'"
        ) from error
    return PostgresServer(url, schema=schema, pool_size=pool_size, seconds=seconds, cache=cache)
