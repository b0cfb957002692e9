"""What sandboxes there are for this user, of all processes: what `greenroom sandbox ps` shows and `stop` removes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
from msgspec import Struct

from greenroom.actors.errors import SandboxError, SandboxUnavailable
from greenroom.sandbox.backend import Backend, FoundBox
from greenroom.sandbox.box_folders import BoxFolders
from greenroom.sandbox.docker import DockerBackend
from greenroom.sandbox.leases import Lease, LeaseChange, LeaseKey, Leases, LeaseState
from greenroom.sandbox.local import LocalBackend
from greenroom.sandbox.owners import Owners, Standing
from greenroom.sandbox.settings import SandboxSettings
from greenroom.sandbox.sqlite_leases import SqliteLeases


class Item(Struct, frozen=True, kw_only=True):
    """A lease with its box, or one of them without the other.

    `state`: none for a box without a lease. `running`: none when there is no box, or its backend cannot be asked.
    """

    lease: str
    backend: str
    owner: str
    standing: Standing
    key: LeaseKey | None = None
    state: LeaseState | None = None
    created: float | None = None
    running: bool | None = None


class Inventory:
    """Looks at leases and at the backends that can be asked here. See `open_inventory`."""

    def __init__(
        self, backends: Mapping[str, Backend], leases: Leases, owners: Owners, folders: BoxFolders
    ) -> None:
        self._backends = backends
        self._leases = leases
        self._owners = owners
        self._folders = folders

    async def items(self) -> Sequence[Item]:
        """All there are: those with a lease first, oldest first."""
        boxes: dict[tuple[str, str], FoundBox] = {}
        for name, backend in self._backends.items():
            boxes.update({(name, box.lease): box for box in await backend.boxes()})
        standing = await self._owners.standing()
        leases = await self._leases.all()
        found = [_of_lease(lease, boxes.pop((lease.backend, lease.id), None), standing) for lease in leases]
        notes = (
            await self._folders.all()
        )  # of a box that went from process to process they say whose it is now
        return [
            *found,
            *(
                _of_box(name, FoundBox(box.lease, notes.get(box.lease) or box.owner, box.running), standing)
                for (name, _), box in boxes.items()
            ),
        ]

    async def remove(self, item: Item) -> None:
        """Remove the box. With a living owner that is all: it notices, and tidies up; else its directory and its lease
        go too. Raises `SandboxUnavailable` when its backend cannot be asked here."""
        backend = self._backends.get(item.backend)
        if backend is None:
            raise SandboxUnavailable(
                f"the sandbox {item.lease[:8]} is of the backend {item.backend!r}, which cannot be asked from here; "
                "`greenroom sandbox doctor` says why"
            )
        if item.standing != "alive" and item.state is not None:
            await self._leases.change(item.lease, LeaseChange(state="ending"))
        await backend.remove(item.lease)
        if item.standing != "alive":
            await self._folders.remove(item.lease)
            await self._leases.erase(item.lease)


@asynccontextmanager
async def open_inventory(settings: SandboxSettings) -> AsyncIterator[Inventory]:
    """The inventory of this user's state folder, and of the backends that can be asked with these settings."""
    docker, local = DockerBackend(settings), LocalBackend(settings)
    leases = SqliteLeases()
    backends: dict[str, Backend] = {}
    async with AsyncExitStack() as stack:
        for backend, connect in ((docker, docker.attach), (local, local.start)):
            try:
                await connect()
            except SandboxError:  # nothing can be asked there; the doctor says why
                continue
            finally:
                stack.push_async_callback(_stop, backend)
            backends[backend.name] = backend
        await leases.start()
        stack.push_async_callback(leases.stop)
        yield Inventory(backends, leases, Owners(), BoxFolders())


async def _stop(backend: Backend) -> None:
    with anyio.CancelScope(shield=True):
        await backend.stop()


def _of_lease(lease: Lease, box: FoundBox | None, standing: Mapping[str, Standing]) -> Item:
    return Item(
        lease=lease.id,
        backend=lease.backend,
        owner=lease.owner,
        standing=standing.get(lease.owner, "unknown"),
        key=lease.key,
        state=lease.state,
        created=lease.created,
        running=None if box is None else box.running,
    )


def _of_box(backend: str, box: FoundBox, standing: Mapping[str, Standing]) -> Item:
    return Item(
        lease=box.lease,
        backend=backend,
        owner=box.owner,
        standing=standing.get(box.owner, "unknown"),
        running=box.running,
    )
