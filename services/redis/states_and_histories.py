"""Agent states and session histories on a Redis server, with the names and arguments of AgentScope Runtime's."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from greenroom.services.durable_history import DurableSessionHistoryService
from greenroom.services.durable_state import DurableStateService
from greenroom.services.redis.storage import RedisStorage
from greenroom.services.session_map import DEFAULT_BOUNDS
from greenroom.services.storage import Storage
from greenroom.services.store_urls import storage_at

if TYPE_CHECKING:
    from redis.asyncio import Redis

with suppress(ImportError):  # who makes a service without redis-py is told what is missing
    # Now, when the application is loaded: services are mostly made in its event loop, which no import may hold up.
    from greenroom.services.redis import link as redis_link  # noqa: F401

HERE: Final = "redis://localhost:6379/0"


class RedisStateService(DurableStateService):
    """A `StateService` on a Redis server.

    `redis_url`: where it is; an application with the same URL as its `state` writes a turn's states together with the
    turn, otherwise they are written just before it. `redis_client`: used instead; whoever made it closes it.

    `ttl_seconds`: a session that nobody saves for so long is forgotten, none: as the storage has it.
    `socket_timeout`: how long an answer may take; `max_connections`: how many calls go on at a time. With any of them,
    or a client, the service has connections of its own. The other connection settings of AgentScope Runtime are taken
    and change nothing: connections are kept alive, and calls that broke are made again where that is safe.
    """

    def __init__(
        self,
        redis_url: str = HERE,
        redis_client: Redis | None = None,
        socket_timeout: float | None = None,
        socket_connect_timeout: float | None = None,
        max_connections: int | None = None,
        retry_on_timeout: bool = True,
        ttl_seconds: float | None = None,
        health_check_interval: float | None = None,
        socket_keepalive: bool = True,
        *,
        rounds_kept: int = 20,
        turns_kept: int = 50,
        session_bytes: int = DEFAULT_BOUNDS.session_bytes,
    ) -> None:
        storage = _storage(redis_url, redis_client, ttl_seconds, socket_timeout, max_connections)
        super().__init__(storage, rounds_kept=rounds_kept, turns_kept=turns_kept, session_bytes=session_bytes)


class RedisSessionHistoryService(DurableSessionHistoryService):
    """A `SessionHistoryService` on a Redis server; the arguments are those of `RedisStateService`.

    `max_messages_per_session`: of each session, the newest are kept; none: 2,000.
    """

    def __init__(
        self,
        redis_url: str = HERE,
        redis_client: Redis | None = None,
        socket_timeout: float | None = None,
        socket_connect_timeout: float | None = None,
        max_connections: int | None = None,
        retry_on_timeout: bool = True,
        ttl_seconds: float | None = None,
        max_messages_per_session: int | None = None,
        health_check_interval: float | None = None,
        socket_keepalive: bool = True,
        *,
        turns_kept: int = 50,
        session_bytes: int = DEFAULT_BOUNDS.session_bytes,
    ) -> None:
        storage = _storage(redis_url, redis_client, ttl_seconds, socket_timeout, max_connections)
        super().__init__(
            storage,
            messages_kept=max_messages_per_session or 2_000,
            turns_kept=turns_kept,
            session_bytes=session_bytes,
        )


def _storage(
    url: str,
    client: Redis | None,
    idle_seconds: float | None,
    answer_seconds: float | None,
    connections: int | None,
) -> Storage:
    """The storage at the URL, which all share that say no more than the URL; others have one of their own."""
    given = {"idle_seconds": idle_seconds, "answer_seconds": answer_seconds, "connections": connections}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if client is None and not options:
        return storage_at(url)
    if client is None:
        return RedisStorage(url, **options)
    if client.connection_pool.connection_kwargs.get("decode_responses"):
        return UndecodedStorage(client, **options)
    return RedisStorage(client=client, **options)


class UndecodedStorage(RedisStorage):
    """For those whose client decodes what it reads, as AgentScope Runtime's services had it: on connections of its own
    to the same server, made as the client makes them. The client stays as it is."""

    def __init__(self, client: Redis, **options: Any) -> None:
        from redis.asyncio import ConnectionPool, Redis

        given = client.connection_pool
        settings = {**given.connection_kwargs, "decode_responses": False, "driver_info": None}
        self._pool = ConnectionPool(
            connection_class=given.connection_class, max_connections=given.max_connections, **settings
        )
        super().__init__(client=Redis(connection_pool=self._pool), **options)

    async def stop(self) -> None:
        """Let go of its connections, when it was stopped as often as it was started."""
        await super().stop()
        if not self._started:
            await self._pool.disconnect()
