"""What sandboxes there are for this user, of all processes: what `greenroom sandbox ps` shows and `stop` removes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Literal, TypeAlias

import anyio
from msgspec import Struct

from greenroom.actors.errors import SandboxError, SandboxUnavailable
from greenroom.sandbox.backend import Backend, FoundBox, Located
from greenroom.sandbox.box_folders import BoxFolders
from greenroom.sandbox.docker.backend import DockerBackend
from greenroom.sandbox.leases import Lease, LeaseChange, LeaseKey, Leases, LeaseState, SharedLeases
from greenroom.sandbox.local.backend import LocalBackend
from greenroom.sandbox.owners import OwnerFile, Owners, Standing
from greenroom.sandbox.remote.backend import RemoteBackend
from greenroom.sandbox.settings import SandboxSettings
from greenroom.sandbox.sqlite_leases import SqliteLeases

Hold: TypeAlias = Literal["alive", "waiting", "shared", "dead", "unknown"]
"""Who has a box. `waiting`: nobody, but a living process that shares its lease may go on with it, or removes it soon;
`shared`: its owner is dead, and whether another process went on with it is written where leases are shared, which was
not read."""

HOW_TO_REACH: Final = {
    "remote": "set GREENROOM_SANDBOX to its URL and GREENROOM_SANDBOX_TOKEN to its token, as the process had them",
    "docker": "set DOCKER_HOST to its engine's socket; `GREENROOM_SANDBOX=docker greenroom sandbox doctor` says more",
    "local": "`GREENROOM_SANDBOX=local greenroom sandbox doctor` says why",
}


class Item(Struct, frozen=True, kw_only=True):
    """A lease with its box, or one of them without the other.

    `where`: which engine it is in, as its owner says. `state`: none for a box without a lease. `epoch`: of the lease
    that was seen. `shared`: the lease is where processes share them. `running`: none when there is no box, or its
    backend cannot be asked.
    """

    lease: str
    backend: str
    owner: str
    hold: Hold
    where: str = ""
    key: LeaseKey | None = None
    state: LeaseState | None = None
    epoch: int = 0
    shared: bool = False
    created: float | None = None
    running: bool | None = None


class Inventory:
    """Looks at leases and at the backends that can be asked here. See `open_inventory`. `shared`: leases that processes
    share, besides those of this user's file."""

    def __init__(
        self,
        backends: Mapping[str, Backend],
        leases: Leases,
        owners: Owners,
        folders: BoxFolders,
        shared: SharedLeases | None = None,
    ) -> None:
        self._backends = backends
        self._leases = leases
        self._owners = owners
        self._folders = folders
        self._shared = shared

    async def items(self) -> Sequence[Item]:
        """All there are: those with a lease first, oldest first."""
        boxes: dict[tuple[str, str], FoundBox] = {}
        for name, backend in self._backends.items():
            boxes.update({(name, box.lease): box for box in await backend.boxes()})
        known = _Known(
            await self._owners.standing(),
            await self._owners.files(),
            "" if self._shared is None else self._shared.place,
        )
        leases = [(lease, False) for lease in await self._leases.all()]
        if self._shared is not None:
            leases += [(lease, True) for lease in await self._shared.all()]
        leases.sort(key=lambda one: one[0].created)
        found = [
            known.of_lease(lease, boxes.pop((lease.backend, lease.id), None), shared)
            for lease, shared in leases
        ]
        # Of a box that went from process to process they say whose it is now.
        notes = await self._folders.all()
        return [
            *found,
            *(
                known.of_box(name, FoundBox(box.lease, notes.get(box.lease) or box.owner, box.running))
                for (name, _), box in boxes.items()
            ),
        ]

    async def remove(self, item: Item) -> None:
        """Remove the box. With a living owner that is all: it notices, and tidies up; else its directory and its lease
        go too. Raises `SandboxUnavailable` when that cannot be done from here, or another process has it now."""
        backend = self._backend(item)
        if item.hold == "alive":
            await backend.remove(item.lease)
            return
        leases = self._shared if item.shared and self._shared is not None else self._leases
        if item.state is not None:
            await _claim(leases, item)
        await backend.remove(item.lease)
        await self._folders.remove(item.lease)
        if item.state is not None:
            await leases.erase(item.lease)

    def _backend(self, item: Item) -> Backend:
        """The backend that has it. An engine that does not have it has not lost it: it may be in another one."""
        backend = self._backends.get(item.backend)
        elsewhere = (
            backend is not None
            and item.running is None
            and item.where not in {"", backend.where if isinstance(backend, Located) else backend.name}
        )
        if backend is None or elsewhere:
            where = f" ({item.where})" if item.where else ""
            raise SandboxUnavailable(
                f"the sandbox {item.lease[:8]} is of the backend {item.backend!r}{where}, which these settings do not "
                f"reach: {HOW_TO_REACH.get(item.backend, 'name that backend')}"
            )
        if item.shared and item.hold == "unknown" and item.running is None:
            raise SandboxUnavailable(
                f"the sandbox {item.lease[:8]} is not on this machine, as far as can be seen; stop it where it is"
            )
        return backend


class _Known(Struct, frozen=True):
    """What is known of owners. `place`: where the shared leases are that were read; none: empty."""

    standing: Mapping[str, Standing]
    files: Mapping[str, OwnerFile]
    place: str

    def of_lease(self, lease: Lease, box: FoundBox | None, shared: bool) -> Item:
        return Item(
            lease=lease.id,
            backend=lease.backend,
            owner=lease.owner,
            hold=self._hold_of(lease, shared),
            where=self._where(lease.owner),
            key=lease.key,
            state=lease.state,
            epoch=lease.epoch,
            shared=shared,
            created=lease.created,
            running=None if box is None else box.running,
        )

    def of_box(self, backend: str, box: FoundBox) -> Item:
        hold = self._hold(box.owner)
        said = self.files.get(box.owner)
        if hold == "dead" and said is not None and said.place not in {"", self.place}:
            hold = "shared"
        return Item(
            lease=box.lease,
            backend=backend,
            owner=box.owner,
            hold=hold,
            where=self._where(box.owner),
            running=box.running,
        )

    def _hold_of(self, lease: Lease, shared: bool) -> Hold:
        hold = self._hold(lease.owner)
        may_go_on = shared and lease.key is not None and lease.state in {"ready", "free"}
        if hold == "dead" and may_go_on and self._company():
            return "waiting"
        return hold

    def _company(self) -> bool:
        """Whether a process lives that shares these leases."""
        return any(
            said.place == self.place and self._hold(owner) == "alive" for owner, said in self.files.items()
        )

    def _hold(self, owner: str) -> Hold:
        standing = self.standing.get(owner, "unknown")
        if standing == "ours":
            return "alive"
        return "dead" if standing == "elsewhere" else standing

    def _where(self, owner: str) -> str:
        said = self.files.get(owner)
        return "" if said is None else said.engine


async def _claim(leases: Leases, item: Item) -> None:
    """Nobody goes on with the box from now on, if nobody has since it was looked at."""
    if not await leases.change(item.lease, LeaseChange(state="ending"), epoch=item.epoch):
        now = [lease for lease in await leases.all() if lease.id == item.lease]
        if now and now[0].state != "ending":
            raise SandboxUnavailable(
                f"the sandbox {item.lease[:8]} changed hands just now; `greenroom sandbox ps` shows who has it"
            )


@asynccontextmanager
async def open_inventory(
    settings: SandboxSettings, shared: SharedLeases | None = None
) -> AsyncIterator[Inventory]:
    """The inventory of this user's state folder and of `shared`, and of the backends that can be asked with these
    settings."""
    docker, local = DockerBackend(settings), LocalBackend(settings)
    leases = SqliteLeases()
    backends: dict[str, Backend] = {}
    if settings.backend.startswith(("http://", "https://")):
        backends["remote"] = RemoteBackend(settings)  # it is not asked: who has it is written down
    async with AsyncExitStack() as stack:
        for backend, connect in ((docker, docker.attach), (local, local.start)):
            try:
                await connect()
            except SandboxError:  # nothing can be asked there; the doctor says why
                continue
            finally:
                stack.push_async_callback(_stop, backend)
            backends[backend.name] = backend
        for kept in (leases, shared):
            if kept is not None:
                await kept.start()
                stack.push_async_callback(kept.stop)
        yield Inventory(backends, leases, Owners(), BoxFolders(), shared)


async def _stop(backend: Backend) -> None:
    with anyio.CancelScope(shield=True):
        await backend.stop()
