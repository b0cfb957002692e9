"""Leases of sandboxes in a storage, for sessions that go from process to process: on one machine their boxes go with
them, and no machine takes another's boxes for orphans.

Each lease is a folder, whose head it is, and whose name is its key: so no key has two. The folder's owner is this
process as the storage knows it, renewed while it lives (`OwnerLife`): so whoever finds a lease knows whether its owner
is gone, on whatever machine he was. Who asks for a lease leaves its owner a note.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from msgspec import Struct, msgpack

from greenroom.actors.errors import LeaseHeld, SandboxUnavailable, StoreUnavailable
from greenroom.actors.setting_checks import Seconds, check_settings
from greenroom.sandbox.backend import BoxKind
from greenroom.sandbox.leases import Held, Lease, LeaseChange, LeaseKey, LeaseState, Person
from greenroom.services.service import not_started
from greenroom.services.sessions.owner_life import OwnerLife
from greenroom.services.storage import (
    NOT_THERE,
    Change,
    Conflict,
    Folder,
    FolderKey,
    Head,
    NameTaken,
    Storage,
)
from greenroom.services.storage_service import MOST_TRIES, too_busy

logger = logging.getLogger("greenroom.services")

KIND: Final = "lease"
PLACE: Final = FolderKey("lease-place", "", "")
READ_AT_ONCE: Final = 16
T = TypeVar("T")


class _Compact(Struct, array_like=True, frozen=True):
    """A lease, all fields by position: one may be added at the end, with a default, none moved."""

    user_id: bytes | None
    session_id: bytes | None
    kind: BoxKind | None
    owner: str
    backend: str
    state: LeaseState
    created: float
    epoch: int
    person: Person


class DurableLeases:
    """`SharedLeases` in `storage`, which may be the sessions' own. This process has to renew what it owns each
    `lease_seconds`; when it does not, others may go on with its boxes. `monotonic`: seconds."""

    def __init__(
        self,
        storage: Storage,
        *,
        lease_seconds: float = 15.0,
        monotonic: Callable[[], float] = time.monotonic,
        new_name: Callable[[], str] = lambda: f"sandboxes-{uuid.uuid4().hex}",
    ) -> None:
        check_settings("DurableLeases", locals(), {"lease_seconds": Seconds})
        self.storage = storage
        self.place = ""
        self._life = OwnerLife(
            storage,
            seconds=lease_seconds,
            new_name=new_name,
            monotonic=monotonic,
            lost=self._late,
            noted=self._noted,
            busy=lambda: bool(self._mine),
            beaten=self._claim_anew,
        )
        self._mine: dict[str, int] = {}
        """Leases of this process's, with their epochs."""
        self._unsure = False
        self._asked: Callable[[str], object] = bool
        self._taken: Callable[[str], object] = bool
        self._order = asyncio.Lock()
        self._started = False

    def __repr__(self) -> str:
        return f"<DurableLeases in {self.storage!r}>"

    async def start(self) -> None:
        """Be ready, and live from now on. Raises `SandboxUnavailable`."""
        if self._started:
            return
        self._order = asyncio.Lock()
        with _as_sandbox_error():
            await self.storage.start()
            try:
                self.place = await _place(self.storage)
                await self._life.start()
            except BaseException:
                await self.storage.stop()
                raise
        self._started = True

    async def stop(self) -> None:
        """Be gone from now on, after what is under way."""
        if self._started:
            async with self._order:
                self._started = False
            await self._life.stop()
            self._mine.clear()
            await self.storage.stop()

    async def add(self, lease: Lease) -> None:
        """Write down a new one. Raises `LeaseHeld` when its key has one already."""
        await self._in_order(self._add(lease))

    async def change(self, lease_id: str, change: LeaseChange, *, epoch: int | None = None) -> bool:
        """Change it; with `epoch`, only one that has it. Raises `LeaseHeld` when the key has another lease."""
        return await self._in_order(self._change(lease_id, change, epoch))

    async def erase(self, lease_id: str) -> None:
        """Forget it. One that is not there is fine."""
        await self._in_order(self._erase(lease_id))

    async def all(self) -> Sequence[Lease]:
        """All there are, of all owners on all machines, oldest first."""
        return await self._in_order(self._all())

    async def find(self, key: LeaseKey) -> Held | None:
        """The key's lease."""
        return await self._in_order(self._find(key))

    async def ask(self, lease_id: str) -> None:
        """Leave its owner a note, which he reads when he renews: within a second."""
        await self._in_order(self._ask(lease_id))

    def when_told(self, asked: Callable[[str], object], taken: Callable[[str], object]) -> None:
        """Call `asked` with each lease that somebody asks for, `taken` with each that another process took over."""
        self._asked, self._taken = asked, taken

    # ----------------------------------------------------------------------------------------------------- one by one

    async def _in_order(self, work: Coroutine[Any, Any, T]) -> T:
        """All calls are carried out in their order, those too whose callers stop waiting."""
        return await asyncio.shield(asyncio.ensure_future(self._next(work)))

    async def _next(self, work: Coroutine[Any, Any, T]) -> T:
        async with self._order:
            if not self._started:
                work.close()
                raise not_started(self)
            with _as_sandbox_error():
                return await work

    async def _add(self, lease: Lease) -> None:
        change = Change(
            key=_folder(lease.id),
            expected=NOT_THERE,
            head=_encoded(lease),
            owner=self._life.name,
            open=True,
            names=_names(lease),
        )
        try:
            await self.storage.write([change])
        except NameTaken:
            raise _already(lease.key) from None
        except Conflict:
            raise SandboxUnavailable(
                f"lease {lease.id} is there already: no lease is written twice"
            ) from None
        self._mine[lease.id] = lease.epoch

    async def _change(self, lease_id: str, change: LeaseChange, epoch: int | None) -> bool:
        folder = await self.storage.read(_folder(lease_id))
        head = None if folder is None else folder.head
        for _ in range(MOST_TRIES):
            if head is None:
                return False
            old = _decoded(lease_id, head.body)
            new = change.of(old, epoch)
            if new is None:
                return False
            try:
                await self.storage.write([self._changed(head, old, new, takes=change.owner is not None)])
            except Conflict as conflict:
                head = conflict.found
            except NameTaken:
                raise _already(new.key) from None
            else:
                self._note(new, takes=change.owner is not None)
                return True
        raise too_busy(_folder(lease_id))

    def _changed(self, head: Head, old: Lease, new: Lease, *, takes: bool) -> Change:
        renamed = old.key != new.key
        return Change(
            key=head.key,
            expected=head.fence,
            head=_encoded(new),
            owner=self._life.name if takes else None,
            names=_names(new) if renamed else (),
            unname=[name for name, _ in _names(old)] if renamed else (),
        )

    def _note(self, lease: Lease, *, takes: bool) -> None:
        if lease.state == "free":
            self._mine.pop(lease.id, None)
        elif takes or lease.id in self._mine:
            self._mine[lease.id] = lease.epoch

    async def _erase(self, lease_id: str) -> None:
        await self.storage.write([Change(key=_folder(lease_id), delete=True)])
        self._mine.pop(lease_id, None)

    async def _all(self) -> Sequence[Lease]:
        ids = await self.storage.sessions(KIND, "")
        found: list[Lease] = []
        for at in range(0, len(ids), READ_AT_ONCE):
            some = ids[at : at + READ_AT_ONCE]
            folders = await asyncio.gather(*(self.storage.read(_folder(lease_id)) for lease_id in some))
            found += [
                _decoded(lease_id, folder.head.body)
                for lease_id, folder in zip(some, folders, strict=True)
                if folder is not None
            ]
        return sorted(found, key=lambda lease: lease.created)

    async def _find(self, key: LeaseKey) -> Held | None:
        named = await self.storage.lookup(_name(key))
        folder = None if named is None else await self.storage.read(named.key)
        if folder is None:
            return None
        lease = _decoded(folder.head.key.session_id, folder.head.body)
        return Held(lease, folder.head.owner_state == "gone") if lease.key == key else None

    async def _ask(self, lease_id: str) -> None:
        folder = await self.storage.read(_folder(lease_id))
        if folder is not None:
            await self.storage.note(folder.head.owner, lease_id.encode())

    # --------------------------------------------------------------------------------------------------- this process

    def _noted(self, note: bytes) -> None:
        self._asked(note.decode())

    def _late(self) -> None:
        self._unsure = True

    async def _claim_anew(self) -> None:
        """This process was late and has another name now: what others have not taken is its own under that name."""
        if not self._unsure:
            return
        async with self._order:
            self._unsure = False  # before: who is late once more meanwhile has yet another name
            try:
                for lease_id, epoch in list(self._mine.items()):
                    if not await self._claimed(lease_id, epoch):
                        del self._mine[lease_id]
                        self._taken(lease_id)
            except BaseException:
                self._unsure = True
                raise

    async def _claimed(self, lease_id: str, epoch: int) -> bool:
        folder: Folder | None = await self.storage.read(_folder(lease_id))
        if folder is None:
            return True  # it is being removed
        if _decoded(lease_id, folder.head.body).epoch != epoch:
            return False
        try:
            await self.storage.write(
                [Change(key=folder.head.key, expected=folder.head.fence, owner=self._life.name)]
            )
        except Conflict:
            return await self._claimed(lease_id, epoch)
        return True


async def _place(storage: Storage) -> str:
    """A name of the storage's own, made by who comes first."""
    folder = await storage.read(PLACE)
    if folder is not None:
        return folder.head.body.decode()
    name = uuid.uuid4().hex
    try:
        await storage.write([Change(key=PLACE, expected=NOT_THERE, head=name.encode(), open=True)])
    except Conflict:
        return await _place(storage)
    return name


@contextmanager
def _as_sandbox_error() -> Iterator[None]:
    try:
        yield
    except StoreUnavailable as error:
        raise SandboxUnavailable(
            f"where leases of sandboxes are kept cannot be used ({error}), so none is made; see to the store"
        ) from error


def _folder(lease_id: str) -> FolderKey:
    return FolderKey(KIND, "", lease_id)


def _name(key: LeaseKey) -> bytes:
    user_id, session_id, kind = key
    return msgpack.encode((KIND, _bytes(user_id), _bytes(session_id), kind))


def _names(lease: Lease) -> Sequence[tuple[bytes, bytes]]:
    return () if lease.key is None else ((_name(lease.key), b""),)


def _encoded(lease: Lease) -> bytes:
    user_id, session_id, kind = lease.key or (None, None, None)
    return msgpack.encode(
        _Compact(
            None if user_id is None else _bytes(user_id),
            None if session_id is None else _bytes(session_id),
            kind,
            lease.owner,
            lease.backend,
            lease.state,
            lease.created,
            lease.epoch,
            lease.person,
        )
    )


def _decoded(lease_id: str, body: bytes) -> Lease:
    kept = msgpack.decode(body, type=_Compact)
    key = None
    if kept.user_id is not None and kept.session_id is not None and kept.kind is not None:
        key = LeaseKey(_text(kept.user_id), _text(kept.session_id), kept.kind)
    return Lease(
        id=lease_id,
        key=key,
        owner=kept.owner,
        backend=kept.backend,
        state=kept.state,
        created=kept.created,
        epoch=kept.epoch,
        person=kept.person,
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _already(key: LeaseKey | None) -> LeaseHeld:
    assert key is not None
    return LeaseHeld(
        f"session {key.session_id!r} has a {key.kind} sandbox already; it must be gone before another"
    )
