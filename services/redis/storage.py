"""Folders on a Redis server, which several machines may share. Each call is one script there: one way and back.

What the server must be set to, and what each setting can lose, is in the operator's guide (docs/stores.md).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

from anyio import CapacityLimiter, to_thread
from msgspec import Meta

from greenroom.actors.errors import ConfigurationError, MissingDependency
from greenroom.actors.setting_checks import Share, check_settings
from greenroom.services.redis import folders, scripts, wire
from greenroom.services.redis.words import shown
from greenroom.services.service import not_started
from greenroom.services.sizes import LARGE
from greenroom.services.storage import (
    LONGEST_IDLE,
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
    from redis.asyncio import Redis

    from greenroom.services.redis.link import RedisLink
    from greenroom.services.redis.wire import Answer, Call

NOTES: Final = 1_000
"""Notes that wait for an owner, at most."""
THREADS: Final = 2
"""That take large answers apart: off the loop (law 5)."""
LONGEST_WAIT: Final = 30.0
"""For an answer, seconds: the server keeps for a minute what it answered a call that may come again."""
ARGUMENTS: Final[Mapping[str, Any]] = {
    "prefix": str,
    "idle_seconds": Annotated[float, Meta(ge=0.001)],
    "answer_seconds": Annotated[float, Meta(gt=0, le=LONGEST_WAIT)],
    "connections": Share,
}
PREFIX: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""No colon: one ends it, so that what one deployment keeps is not in another's way, whatever its ids."""


class RedisStorage:
    """A `Storage` on the server at `url`: `redis://user:password@host:6379/0`, `rediss://...`, `unix:///path`.

    All keys begin with `prefix`: deployments with different ones share a server. A folder that nobody wrote to for
    `idle_seconds` is forgotten (`inf`: never). A call takes no longer than `answer_seconds`, and `connections` calls go
    on at a time. `client`: used instead of one of its own; whoever made it closes it.

    Raises `MissingDependency` without redis-py, and `ConfigurationError`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        prefix: str = "greenroom",
        idle_seconds: float = 365 * 86_400.0,
        answer_seconds: float = 5.0,
        connections: int = 16,
        client: Redis | None = None,
    ) -> None:
        if (url is None) is (client is None):
            raise ConfigurationError("RedisStorage takes a URL or a client, and one of them")
        _check(prefix, idle_seconds, answer_seconds, connections)
        self._prefix = prefix
        self._idle_ms = max(1, round(min(idle_seconds, LONGEST_IDLE) * 1000))
        self._place = "a client" if url is None else shown(url)
        self._connect = _connector(url, prefix, answer_seconds, connections, client)
        self._link: RedisLink | None = None
        self._started = 0
        self._changing = asyncio.Lock()
        self._threads = CapacityLimiter(THREADS)

    def __repr__(self) -> str:
        return f"<RedisStorage {self._place} {self._prefix}>"

    async def start(self) -> None:
        """Connect, and see that the server can be used; warns of settings that may lose sessions.

        Raises `StoreUnavailable`.
        """
        async with self._changing:
            if self._link is None:
                link = self._connect()
                try:
                    await link.check()
                except BaseException:
                    await link.close()
                    raise
                self._link = link
            self._started += 1

    async def stop(self) -> None:
        """Let go of connections, after what is under way."""
        async with self._changing:
            self._started = max(0, self._started - 1)
            if self._started == 0 and self._link is not None:
                link, self._link = self._link, None
                await link.close()

    async def write(self, changes: Sequence[Change]) -> tuple[Fence, ...]:
        """Do all changes together, or none. Raises `Conflict`, `NameTaken`."""
        if not changes:
            return ()
        answer = await self._call(folders.WRITE, wire.write_call(changes, self._idle_ms))
        return wire.written(answer, changes)

    async def read(self, key: FolderKey, spans: Sequence[Span] = ()) -> Folder | None:
        """The folder's head and those cells; none: it is not there."""
        answer = await self._call(folders.READ, wire.read_call(key, spans))
        if answer.size > LARGE:
            return await to_thread.run_sync(wire.folder_of, answer, key, spans, limiter=self._threads)
        return wire.folder_of(answer, key, spans)

    async def lookup(self, name: bytes) -> Named | None:
        """Where the name points; none: nowhere."""
        return wire.named_of(await self._call(scripts.LOOKUP, wire.Call((), [name])))

    async def sessions(self, kind: str, user_id: str) -> tuple[str, ...]:
        """The session ids of the user's folders of that kind, sorted by their UTF-8 bytes."""
        answer = await self._call(scripts.SESSIONS, wire.Call((), [wire.encode_key(kind, user_id)]))
        return tuple([wire.decode_text(one) for one in sorted(wire.strings_of(answer))])

    async def orphans(self, kind: str, limit: int) -> tuple[Head, ...]:
        """Folders of that kind that are open and whose owner is nobody or gone; those open for longest first."""
        answer = await self._call(scripts.ORPHANS, wire.Call((limit,), [wire.encode_text(kind)]))
        return tuple(wire.heads_of(answer))

    async def renew(self, owner: str, seconds: float, state: OwnerState = "serving") -> tuple[bytes, ...]:
        """The owner lives for `seconds` more; gives its notes. Raises `OwnerGone`."""
        numbers = int(seconds * 1_000_000), wire.STATES.index(state), self._idle_ms
        answer = await self._call(scripts.RENEW, wire.Call(numbers, [wire.encode_text(owner)]))
        if answer.outcome:
            raise OwnerGone(owner)
        return tuple(wire.strings_of(answer.skip(2)))

    async def note(self, owner: str, note: bytes) -> bool:
        """Leave a note that the owner's next renewal gives it. Whether it lives."""
        answer = await self._call(scripts.NOTE, wire.Call((NOTES,), [wire.encode_text(owner), note]))
        return not answer.outcome

    async def _call(self, script: scripts.Script, call: Call) -> Answer:
        if self._link is None:
            raise not_started(self)
        return await self._link.call(script, call)


def _check(prefix: str, idle_seconds: float, answer_seconds: float, connections: int) -> None:
    check_settings("RedisStorage", locals(), ARGUMENTS)
    if not PREFIX.fullmatch(prefix):
        raise ConfigurationError(f"prefix={prefix!r} is not of 1 to 64 letters, digits and _ . -")


def _connector(
    url: str | None, prefix: str, answer_seconds: float, connections: int, lent: Redis | None
) -> Callable[[], RedisLink]:
    """What makes a link, not yet connected; what is wrong with the URL is found now."""
    try:
        from greenroom.services.redis.link import RedisLink, client_with, options_of
    except ImportError as error:
        raise MissingDependency(
            f"RedisStorage needs redis-py ({error}): `pip install 'greenroom[redis]'` brings it"
        ) from error
    if lent is not None:
        if lent.connection_pool.connection_kwargs.get("decode_responses"):
            raise ConfigurationError(
                "the client given to RedisStorage decodes what is read (decode_responses=True)"
            )
        return lambda: RedisLink(lent, prefix, answer_seconds, connections, lent=True)
    options = options_of(url or "")

    def connector() -> RedisLink:
        client = client_with(options, connections=connections, answer_seconds=answer_seconds)
        return RedisLink(client, prefix, answer_seconds, connections)

    return connector
