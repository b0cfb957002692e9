"""The plug for webhooks that are on their way: where they are kept until they have arrived.

In memory nothing needs be kept but what the sender itself holds. In a storage each is a folder of kind `outbox`, which
is written with its turn's ending and is gone when it has arrived: who sends dies with nothing lost, and another process
goes on. A message may so arrive twice, with the same id both times; it always arrives, or is given up by the rules.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from greenroom.services.durable import is_durable
from greenroom.services.storage import Change, Conflict, FolderKey, Head, Storage
from greenroom.services.store import SessionStore

logger = logging.getLogger("greenroom.webhooks")

KIND: Final = "outbox"
CLASHES: Final = 5
"""How often a change is tried again that another's was quicker than."""


class Delivery(Struct, frozen=True, kw_only=True):
    """One message on its way. `id`: the same at every attempt; `user_id`, `turn_id`: whose and of what; `attempts`: how
    many have failed; `due`: when the next is, seconds since the epoch."""

    id: str
    url: str
    body: bytes
    user_id: str
    turn_id: str
    attempts: int = 0
    due: float = 0.0


class Outbox(Protocol):
    """Keeps deliveries. `shared`: whether other processes may leave some behind. The methods that wait raise
    `StoreUnavailable`."""

    shared: bool

    def changes(self, delivery: Delivery) -> Sequence[Change]:
        """What keeps it, to be written with its turn's ending; nothing: it is not kept."""
        ...

    async def failed(self, delivery: Delivery) -> bool:
        """It did not arrive, and is as given now. Whether it is still this process's to send."""
        ...

    async def over(self, delivery: Delivery) -> None:
        """It has arrived, or is given up: keep it no longer."""
        ...

    async def left_behind(self, limit: int) -> Sequence[Delivery]:
        """Deliveries whose process is gone; they are this one's now."""
        ...


class InMemoryOutbox:
    """Keeps nothing: what the sender holds is all there is, and ends with the process."""

    shared = False

    def changes(self, delivery: Delivery) -> Sequence[Change]:
        return ()

    async def failed(self, delivery: Delivery) -> bool:
        return True

    async def over(self, delivery: Delivery) -> None:
        """There is nothing to let go."""

    async def left_behind(self, limit: int) -> Sequence[Delivery]:
        return ()


class StorageOutbox:
    """Keeps deliveries in a storage. `owner`: gives this process's name among the storage's owners, as of now."""

    shared = True

    __slots__ = ("_owner", "_storage")

    def __init__(self, storage: Storage, owner: Callable[[], str]) -> None:
        self._storage = storage
        self._owner = owner

    def __repr__(self) -> str:
        return f"<StorageOutbox of {self._owner()!r} in {self._storage!r}>"

    def changes(self, delivery: Delivery) -> Sequence[Change]:
        body = msgspec.msgpack.encode(delivery)
        return (Change(key=_key(delivery), head=body, owner=self._owner(), open=True),)

    async def failed(self, delivery: Delivery) -> bool:
        for _ in range(CLASHES):
            head = await self._head(delivery)
            if head is None or head.owner != self._owner():
                return False  # another process took it for dead, and sends it
            change = Change(key=head.key, expected=head.fence, head=msgspec.msgpack.encode(delivery))
            if await self._write(change):
                return True
        return False

    async def over(self, delivery: Delivery) -> None:
        for _ in range(CLASHES):
            head = await self._head(delivery)
            if head is None or await self._write(Change(key=head.key, expected=head.fence, delete=True)):
                return

    async def left_behind(self, limit: int) -> Sequence[Delivery]:
        taken = []
        for head in await self._storage.orphans(KIND, limit):
            change = Change(key=head.key, expected=head.fence, take=True, owner=self._owner())
            if await self._write(change) and (delivery := _read(head)) is not None:
                taken.append(delivery)
        return taken

    async def _head(self, delivery: Delivery) -> Head | None:
        folder = await self._storage.read(_key(delivery))
        return None if folder is None else folder.head

    async def _write(self, change: Change) -> bool:
        try:
            await self._storage.write([change])
        except Conflict:
            return False
        return True


def outbox_of(store: SessionStore) -> Outbox:
    """Where deliveries are kept by an application whose sessions are in this store."""
    if is_durable(store):
        return StorageOutbox(store.storage, lambda: store.owner)
    return InMemoryOutbox()


def _key(delivery: Delivery) -> FolderKey:
    return FolderKey(KIND, delivery.user_id, delivery.id)


def _read(head: Head) -> Delivery | None:
    try:
        return msgspec.msgpack.decode(head.body, type=Delivery)
    except msgspec.DecodeError:
        logger.exception(
            "a webhook that was on its way cannot be read, and is left in the store: %r", head.key
        )
        return None
