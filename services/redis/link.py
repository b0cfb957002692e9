"""Calling scripts on a Redis server: connections, how long to wait, what to call again, and what errors mean.

A call that writes may be sent twice, and is done once. When the connection breaks before the answer, nobody knows
whether it was done; so the call goes out again with the number it had, and the server, which keeps the last call of
each slot with its answer, carries it out or says what it answered (`_WRITING` in `scripts`). Fences alone would
do for a change that expects one, but not for one that does not, nor for notes.

When no answer came in time, the call does not go out again: the server is slow. It may still lie in the server's
buffers; but it says until when it may be carried out, by the server's clock, and that is before this process gives up.
So what was said to have failed for that reason does not happen later.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import Connection, ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as LinkBroken
from redis.exceptions import TimeoutError as LinkSlow

from greenroom.actors.errors import ConfigurationError, StoreUnavailable
from greenroom.services.redis.schema import VERSION, newer
from greenroom.services.redis.scripts import START, TRY, Script
from greenroom.services.redis.sending import sending_in_parts
from greenroom.services.redis.wire import LATE, NEWER, Answer, Call
from greenroom.services.redis.words import (
    REFUSED,
    SOON_SECONDS,
    busy,
    dangers,
    flaws,
    meaning,
    shown,
    unanswered,
    unavailable,
)

T = TypeVar("T")

logger = logging.getLogger("greenroom.services")

OPTIONS: Final = frozenset(
    {
        "db",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_cert_reqs",
        "ssl_check_hostname",
    }
)
"""What a URL may say of its own, behind a question mark, besides what a store takes."""
CODES: Final = {
    BusyLoadingError: "LOADING",
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    NoPermissionError: "NOPERM",
    MasterDownError: "MASTERDOWN",
}
NOT_LET_IN: Final = ("max number of clients", "certificate verify failed")
"""What errors say that redis-py has no class for, when a connection is not made for a reason that stays."""
IN_TIME: Final = 0.9
"""Of the time a call may take, when the server may carry it out at the latest: before its caller gives up."""
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 0.3
"""Seconds between tries to reach the server."""
KEEPALIVE: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""An idle connection is known to be dead within a minute, and no router on the way takes it for forgotten."""
SETTINGS: Final = ("appendonly", "appendfsync", "maxmemory-policy")


def options_of(url: str) -> dict[str, Any]:
    """What a connection is made with. Raises `ConfigurationError`, with nothing secret in it."""
    try:
        options: dict[str, Any] = dict(parse_url(url))
        unknown = set(parse_qs(urlsplit(url).query)) - OPTIONS
    except ValueError:
        raise ConfigurationError(
            f"{shown(url)} names no Redis server; it is redis://[user:password@]host[:port][/number], rediss://... "
            "with TLS, or unix://[user:password@]/path/of/socket, with %40 for @ in a password, and so on"
        ) from None
    if unknown:
        raise ConfigurationError(f"{shown(url)}: {', '.join(sorted(unknown))}: there is no such option")
    if "path" not in options:
        known = {name: seconds for name, seconds in KEEPALIVE.items() if hasattr(socket, name)}
        options["socket_keepalive"] = True
        options["socket_keepalive_options"] = {getattr(socket, name): value for name, value in known.items()}
    return options


def client_with(options: dict[str, Any], *, connections: int, answer_seconds: float) -> Redis:
    """A client that is not connected yet."""
    kind = sending_in_parts(options.get("connection_class", Connection))
    pool = ConnectionPool(
        max_connections=connections,
        socket_timeout=None,  # a call's own time bounds all: waiting for its turn, connecting, sending, the answer
        socket_connect_timeout=answer_seconds,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        client_name="greenroom",
        driver_info=None,  # it would read files to find its own version, on the event loop
        **{**options, "connection_class": kind},
    )
    return Redis.from_pool(pool)


class RedisLink:
    """A client, and the calls that are under way. `prefix`: of all keys. `lent`: somebody else closes the client."""

    def __init__(
        self,
        client: Redis,
        prefix: str,
        answer_seconds: float,
        connections: int,
        *,
        lent: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._client = client
        self._lent = lent
        self._prefix = prefix.encode()
        self._answer_seconds = answer_seconds
        self._free = asyncio.Semaphore(connections)
        """First come, first served, as redis-py's pools are not: who waits there may be overtaken for seconds."""
        self._monotonic = monotonic
        self._name = new_id()
        self._ahead = 0
        """The server's clock less ours, in us, and by how long an answer took less than that."""
        self._slots: list[int] = []
        self._slot_count = 0
        self._call_count = 0
        self._calls: set[asyncio.Task[Answer]] = set()

    async def check(self) -> None:
        """See that the server can be used, and warn of what its settings may lose. Raises `StoreUnavailable`."""
        try:
            async with asyncio.timeout(self._answer_seconds):
                info = await self._persist(self._client.info, self._end())
                for flaw in flaws(info):
                    raise StoreUnavailable(f"the Redis server cannot be used: {flaw}")
                seconds, us = await self._client.time()
                await self._evaluate(TRY, Call((), [self._name.encode()]).arguments())
                version = (await self._evaluate(START, Call((), ()).arguments())).skip(2).number()
                if version > VERSION:
                    raise newer(version)
                config = await self._settings()
        except (RedisError, OSError) as error:
            what, retry_after = self._meaning(error)
            raise StoreUnavailable(
                f"the Redis server cannot be used: {what} ({error})", retry_after=retry_after
            ) from error
        self._saw(seconds * 1_000_000 + us)
        for danger in dangers(info, config):
            logger.warning("the Redis server that keeps sessions may lose them: %s", danger)

    async def close(self) -> None:
        """Let go of the connections, after what is under way."""
        while self._calls:
            await asyncio.wait(self._calls)
        if not self._lent:
            await self._client.aclose()

    async def call(self, script: Script, call: Call) -> Answer:
        """Have the server carry it out. Raises `StoreUnavailable`.

        It is carried on by itself when the caller gives up: a connection that is given up over a call is lost, and a
        crowd of clients that go must not have all of them made anew.
        """
        task = asyncio.create_task(self._carry_out(script, call))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return await asyncio.shield(task)

    async def _carry_out(self, script: Script, call: Call) -> Answer:
        begun = False
        try:
            async with asyncio.timeout(self._answer_seconds), self._free:
                begun = True
                return await (self._write(script, call) if script.writes else self._read(script, call))
        except (RedisError, OSError) as error:
            if not begun:
                raise unavailable(*busy(self._answer_seconds), unknown=False) from error
            logger.warning("a call of the Redis server failed: %s: %s", type(error).__name__, error)
            if isinstance(error, ReadOnlyError):  # where the server was, another may be: look again
                await self._client.connection_pool.disconnect(inuse_connections=False)
            what, seconds = self._meaning(error)
            unknown = script.writes and not _has_answered(error)
            raise unavailable(what, seconds, unknown=unknown) from error

    async def _read(self, script: Script, call: Call) -> Answer:
        arguments = call.arguments()
        return await self._persist(lambda: self._evaluate(script, arguments), self._end())

    async def _write(self, script: Script, call: Call) -> Answer:
        slot = self._slots.pop() if self._slots else self._new_slot()
        self._call_count += 1
        header = b"%b:%d" % (self._name.encode(), slot), self._call_count.to_bytes(8, "big")
        call = Call(call.numbers, [*header, *call.strings])
        end = self._end()
        sent = 0

        def send() -> Awaitable[Answer]:
            nonlocal sent
            sent += 1
            return self._evaluate(script, call.arguments(end + self._ahead))

        answer = await self._persist(send, end)
        if not self._is_in_time(answer):  # the clocks went apart, and are together now
            answer = await self._persist(send, end)
            if not self._is_in_time(answer):
                raise unavailable("calls reach it too late", SOON_SECONDS, unknown=False)
        if sent == 1:  # else, or when it has failed, it may be under way still, and the slot is its memory
            self._slots.append(slot)
        if answer.outcome == NEWER:
            raise newer(answer.skip(2).number())
        return answer

    async def _persist(self, send: Callable[[], Awaitable[T]], end: int) -> T:
        """What comes of it. Sends again when the connection breaks: at once, as one that was idle may have been cut,
        and until the time is over, as a server that is started anew is away for a moment."""
        pause = 0.0
        while True:
            try:
                return await send()
            except LinkBroken as error:
                if not _may_pass(error) or self._now() + pause * 1_000_000 > end:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause + FIRST_PAUSE, LONGEST_PAUSE)

    async def _evaluate(self, script: Script, arguments: list[bytes]) -> Answer:
        execute: Any = self._client.execute_command
        try:
            return Answer(await execute("EVALSHA", script.sha, 0, self._prefix, *arguments))
        except NoScriptError:  # the server is another, or was started anew
            return Answer(await execute("EVAL", script.text, 0, self._prefix, *arguments))

    def _end(self) -> int:
        """Until when, by our clock, a call that begins now may be carried out."""
        return self._now() + int(self._answer_seconds * IN_TIME * 1_000_000)

    def _new_slot(self) -> int:
        self._slot_count += 1
        return self._slot_count

    def _is_in_time(self, answer: Answer) -> bool:
        self._saw(answer.now)
        return answer.outcome != LATE

    def _saw(self, now: int) -> None:
        self._ahead = now - self._now()

    def _now(self) -> int:
        return int(self._monotonic() * 1_000_000)

    async def _settings(self) -> dict[str, str]:
        try:
            found = await self._client.config_get(*SETTINGS)
        except (NoPermissionError, ResponseError):  # who rents a server may often not ask
            return {}
        return {str(name): str(value) for name, value in found.items()}

    def _meaning(self, error: Exception) -> tuple[str, float]:
        if isinstance(error, TimeoutError | LinkSlow):
            return unanswered(self._answer_seconds)
        error = _first(error)
        if isinstance(error, AuthenticationError):
            return REFUSED
        # redis-py takes the first word of what it knows away.
        code = next((code for kind, code in CODES.items() if isinstance(error, kind)), "")
        return meaning(f"{code} {error}", lost=not _has_answered(error))


def _first(error: Exception) -> Exception:
    """What the server answered while a connection was made, which redis-py wraps in one that says it broke."""
    return error.__cause__ if isinstance(error.__cause__, RedisError) else error


def _may_pass(error: Exception) -> bool:
    """Whether it may go better in a moment."""
    return not _has_answered(error) or isinstance(_first(error), BusyLoadingError)


def _has_answered(error: Exception) -> bool:
    """Whether it is the server that refused, which redis-py may take for a broken connection."""
    error = _first(error)
    refused = isinstance(error, ResponseError | AuthenticationError | BusyLoadingError)
    return refused or any(words in str(error) for words in NOT_LET_IN)
