"""Connections to one PostgreSQL, made when needed and never more than so many; and calls over them that have an end.

Each call is one statement, which the server does as a whole or not at all. It goes on in a task of its own: a caller
that gives up leaves no connection in the middle of something. A call that the server does not answer in time loses its
connection; so does one that asyncpg is unsure of. Nothing is ever cancelled on the server by us: it has the same time
limit, and ends by itself what nobody waits for.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import asyncpg

from greenroom.services.postgres.errors import (
    ERRORS,
    is_broken,
    is_full,
    is_read_only,
    is_starting,
    is_undone,
    unavailable,
    was_not_sent,
)

logger = logging.getLogger("greenroom.services")

PROBE_SECONDS: Final = 30.0
"""A connection unused for so long is tried before it is used: a firewall may have forgotten it without a word."""
PROBE_ANSWER_SECONDS: Final = 1.0
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 0.5
"""Between two tries of one call."""
UNDONE_TRIES: Final = 8
"""Of a call that the server rolled back for others' sake."""

Connect = Callable[[float], Awaitable[Any]]
"""A new connection, within so many seconds."""


class Connections:
    """At most `size` connections. Who gets one gives it back, whatever happened to it."""

    def __init__(self, connect: Connect, size: int) -> None:
        self._connect = connect
        self._size = size
        self._count = 0
        self._idle: list[tuple[float, Any]] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()

    def __repr__(self) -> str:
        return f"<Connections: {self._count} of {self._size}, {len(self._idle)} idle>"

    async def get(self, deadline: float) -> Any:
        """One that works, as far as is known. Raises what connecting raises, and `TimeoutError`."""
        while True:
            connection = await self._unused()
            if connection is None and self._count < self._size:
                connection = await self._new(deadline)
            if connection is None:
                connection = await self._returned(deadline)
            if connection is not None:
                return connection

    def give_back(self, connection: Any) -> None:
        """Take one back; one that is closed makes room for another."""
        if connection.is_closed():
            self._count -= 1
            self._hand_on(None)
        elif not self._hand_on(connection):
            self._idle.append((asyncio.get_running_loop().time(), connection))

    def drop_idle(self) -> None:
        """Let go of those that nobody uses."""
        for _, connection in self._idle:
            connection.terminate()
            self._count -= 1
        self._idle.clear()

    async def close(self, seconds: float) -> None:
        """Close all, which nobody uses any more; a server that does not answer is not waited for for longer."""
        idle, self._idle = [connection for _, connection in self._idle], []
        self._count -= len(idle)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(connection.close() for connection in idle))
        except ERRORS as error:
            logger.info("a connection to PostgreSQL was not closed in order: %r", error)
        finally:
            for connection in idle:
                connection.terminate()

    async def _unused(self) -> Any:
        """The one that was used last, if it still works."""
        loop = asyncio.get_running_loop()
        while self._idle:
            since, connection = self._idle.pop()
            if connection.is_closed() or (
                loop.time() - since > PROBE_SECONDS and not await self._answers(connection)
            ):
                self._count -= 1
                continue
            return connection
        return None

    async def _answers(self, connection: Any) -> bool:
        timer = asyncio.get_running_loop().call_later(PROBE_ANSWER_SECONDS, connection.terminate)
        try:
            await connection.execute("SELECT 1")
        except ERRORS as error:
            logger.info("a connection to PostgreSQL was lost while it was not used: %r", error)
            connection.terminate()
            return False
        finally:
            timer.cancel()
        return True

    async def _new(self, deadline: float) -> Any:
        """A new connection; none when the server allows no more and there are some of ours to wait for."""
        self._count += 1
        try:
            return await self._connect(max(deadline - asyncio.get_running_loop().time(), 0.001))
        except BaseException as error:
            self._count -= 1
            self._hand_on(None)
            if is_full(error) and self._count:
                return await self._returned(deadline)
            raise

    async def _returned(self, deadline: float) -> Any:
        """One that somebody gives back; none when there is room for a new one instead."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout_at(deadline):
                return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():  # it came at the same moment
                self._pass(waiter.result())
            raise

    def _hand_on(self, connection: Any) -> bool:
        """Give it to who has waited longest; `None`: tell that there is room. Whether somebody did wait."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False

    def _pass(self, connection: Any) -> None:
        if connection is None:
            self._hand_on(None)
        else:
            self.give_back(connection)


class Calls:
    """Calls over `connections`, each answered within `seconds` or not at all."""

    def __init__(self, connections: Connections, seconds: float) -> None:
        self._connections = connections
        self._seconds = seconds
        self._under_way: set[asyncio.Future[Any]] = set()

    async def call(
        self, statement: str, arguments: Sequence[object], again: Sequence[object] | None, *, changes: bool
    ) -> tuple[Any, bool]:
        """The statement's one row, and whether it was sent again. `again`: what to send when the connection breaks over
        it; none: it must not be sent twice. `changes`: whether it does more than read. Raises `StoreUnavailable`.
        """
        doing = asyncio.ensure_future(self._do(statement, arguments, again, changes))
        self._under_way.add(doing)
        doing.add_done_callback(self._ended)
        return await asyncio.shield(doing)

    async def done(self) -> None:
        """Wait for the calls that are under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _ended(self, doing: asyncio.Future[Any]) -> None:
        self._under_way.discard(doing)
        if not doing.cancelled():
            doing.exception()  # its caller may have given up, and then nobody else asks for it

    async def _do(
        self, statement: str, arguments: Sequence[object], again: Sequence[object] | None, changes: bool
    ) -> tuple[Any, bool]:
        deadline = asyncio.get_running_loop().time() + self._seconds
        broke = False
        for tries in itertools.count(1):
            sent = False
            try:
                connection = await self._connections.get(deadline)
                sent = True
                row = await self._ask(
                    connection, deadline, statement, again if broke and again else arguments
                )
                return row, broke
            except ERRORS as error:
                sent = sent and not was_not_sent(error)
                repeatable = again is not None if sent else broke
                broke = broke or (sent and is_broken(error))
                if not self._may_try_again(error, repeatable, tries, deadline):
                    logger.warning("a call to PostgreSQL failed: %r", error)
                    raise unavailable(error, maybe_done=changes and broke) from error
                await asyncio.sleep(min(FIRST_PAUSE * 2 ** (tries - 1), LONGEST_PAUSE))
        raise AssertionError("it ends in between")

    def _may_try_again(self, error: BaseException, repeatable: bool, tries: int, deadline: float) -> bool:
        """`repeatable`: whether it may be sent (again) after a connection was lost, or could not be made."""
        if asyncio.get_running_loop().time() + FIRST_PAUSE >= deadline:
            return False
        if is_read_only(error):
            self._connections.drop_idle()  # they all lead to the server that was the primary before
        if is_undone(error):
            return tries < UNDONE_TRIES
        return (
            was_not_sent(error) or is_starting(error) or (repeatable and (is_broken(error) or is_full(error)))
        )

    async def _ask(
        self, connection: Any, deadline: float, statement: str, arguments: Sequence[object]
    ) -> Any:
        loop = asyncio.get_running_loop()
        timer = loop.call_at(deadline, connection.terminate)
        try:
            return await _row(connection, statement, arguments)
        except BaseException as error:
            if not isinstance(error, asyncpg.PostgresError) or is_broken(error) or is_read_only(error):
                connection.terminate()
            if is_broken(error) and loop.time() >= deadline:
                raise TimeoutError("no answer in time") from error
            raise
        finally:
            timer.cancel()
            self._connections.give_back(connection)


async def _row(connection: Any, statement: str, arguments: Sequence[object]) -> Any:
    try:
        return await connection.fetchrow(statement, *arguments)
    except AttributeError as error:
        # asyncpg goes on with a connection that was lost while it asked what types the statement has.
        if not connection.is_closed():
            raise
        raise asyncpg.ConnectionDoesNotExistError("the connection was lost") from error
