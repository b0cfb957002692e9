"""What all services have in common: they are started before they are used, and stopped once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from greenroom.actors.errors import ConfigurationError
from greenroom.actors.messages import SessionKey
from greenroom.services.storage import Change, Storage


class Service(Protocol):
    """Something sessions use that outlives them."""

    async def start(self) -> None:
        """Be ready for use. Doing it twice is fine."""
        ...

    async def stop(self) -> None:
        """Let go of everything. Doing it twice is fine."""
        ...

    async def health(self) -> bool:
        """Whether it is ready for use."""
        ...


@runtime_checkable
class Forkable(Protocol):
    """A service that remembers how its sessions were after each of their last turns, as turns commit (`work`)."""

    async def fork(self, source: SessionKey, turn_id: str, turns: Sequence[str], target: SessionKey) -> bool:
        """Make `target` what `source` was after that turn. `turns`: those of `source` that are kept, oldest first.

        A turn that changed nothing here left the session as the one before it had. False, and no `target`, when how it
        was is no longer known. `source` stays as it is, and later changes of either do not show in the other.
        """
        ...

    async def forget(self, key: SessionKey) -> None:
        """Keep nothing of the session any more. One that is not kept is fine."""
        ...


@runtime_checkable
class ForgottenTogether(Forkable, Protocol):
    """One that keeps what it has in a storage: sessions that lie in the same one are deleted together with it."""

    storage: Storage

    def to_forget(self, key: SessionKey) -> Sequence[Change]:
        """What `forget` writes."""
        ...


def not_started(service: object) -> ConfigurationError:
    """The error for use before `start` or after `stop`."""
    return ConfigurationError(
        f"{type(service).__name__} is used while it is not started; `await service.start()` in @app.init, "
        "and stop it in @app.shutdown, not before"
    )


class Calls:
    """Counts the calls of a service that are under way, so that stopping it can wait for them; used as `with calls:`.

    Raises `ConfigurationError` on entering while they are not `allowed`.
    """

    __slots__ = ("_count", "_none", "_service", "allowed")

    def __init__(self, service: object) -> None:
        self.allowed = False
        self._service = service
        self._count = 0
        self._none: asyncio.Event | None = None

    def __enter__(self) -> None:
        if not self.allowed:
            raise not_started(self._service)
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if not self._count and self._none is not None:
            self._none.set()

    async def none(self) -> None:
        """Wait until no call is under way."""
        if self._count:
            self._none = asyncio.Event()
            await self._none.wait()
            self._none = None
