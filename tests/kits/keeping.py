"""Keepers of fake boxes: several share a world, as processes share a machine."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from greenroom.actors.errors import SandboxLost
from greenroom.sandbox.backend import BoxSpec
from greenroom.sandbox.box_folders import BoxFolders
from greenroom.sandbox.keeper import Keeper
from greenroom.sandbox.leases import Lease, LeaseKey
from greenroom.sandbox.owners import OwnerFile, Owners, Standing
from greenroom.sandbox.result import ToolResult
from greenroom.sandbox.settings import SandboxSettings
from kits.fake_backend import FakeBackend, FakeBox, FakeEngine, MortalBackend
from kits.memory_leases import MemoryLeases, SharedMemoryLeases

KEY = LeaseKey("u", "s", "browser")
OTHER = LeaseKey("u", "t", "browser")


class MemoryOwners(Owners):
    """Owners without files. `table` is what processes share."""

    def __init__(self, table: dict[str, Standing], name: str) -> None:
        super().__init__(Path("/nowhere"), new_id=lambda: name)
        self.table = table

    async def enter(self, where: str) -> None:
        self.where = where
        self.table[self.id] = "alive"

    async def files(self) -> Mapping[str, OwnerFile]:
        return {}  # nobody is asked which engine he uses

    async def leave(self, *, all_gone: bool) -> None:
        if all_gone:
            self.table.pop(self.id, None)
        elif self.id in self.table:
            self.table[self.id] = "dead"

    async def standing(self) -> Mapping[str, Standing]:
        return {name: "ours" if name == self.id else standing for name, standing in self.table.items()}

    async def company(self) -> bool:
        return any(name != self.id and standing == "alive" for name, standing in self.table.items())

    async def forget(self, owner: str) -> None:
        if self.table.get(owner) != "alive":
            self.table.pop(owner, None)


class MemoryFolders(BoxFolders):
    """Directories that are only noted."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.there: dict[str, str] = {}
        self.keys: dict[str, str] = {}

    async def make(self, lease: str, owner: str) -> Path:
        self.there[lease] = owner
        return self.folder / lease

    async def keep_key(self, lease: str, token: str) -> None:
        self.keys[lease] = token

    async def take_over(self, lease: str, owner: str) -> tuple[Path, str]:
        if lease not in self.there or lease not in self.keys:
            raise SandboxLost("nothing leads to it")
        self.there[lease] = owner
        return self.folder / lease, self.keys[lease]

    async def remove(self, lease: str) -> None:
        self.there.pop(lease, None)
        self.keys.pop(lease, None)

    async def all(self) -> Mapping[str, str]:
        return dict(self.there)


class OpenWay:
    """A way out that leads nowhere; `open` are the boxes that have one, each by the last who listened for it."""

    def __init__(self) -> None:
        self.open: dict[str, object] = {}

    @asynccontextmanager
    async def listen(self, path: Path, who: str) -> AsyncIterator[None]:
        me = self.open[who] = object()
        try:
            yield
        finally:
            if self.open.get(who) is me:
                del self.open[who]


class World:
    """A machine in memory: an engine, leases, owners, directories. Law 8 is checked whenever a box is made or gone."""

    def __init__(self, **engine: Any) -> None:
        self.engine = FakeEngine(in_memory=True, **engine)
        self.engine.watch = self.check
        self.leases = MemoryLeases()
        self.gone: set[str] = set()
        self.asked: dict[str, Callable[[str], object]] = {}
        self.owners: dict[str, Standing] = {}
        self.folders = MemoryFolders()
        self.way_out = OpenWay()
        self.wrong: list[str] = []
        self._names = itertools.count()
        self._ids = itertools.count(1)

    def keeper(self, *, shared: bool = False, mortal: bool = False, **settings: Any) -> Keeper:
        """A process's keeper; several are several processes'. `shared`: they share leases, and boxes go from one to
        another; `mortal`: boxes end with their process all the same."""
        owners = MemoryOwners(self.owners, f"owner-{next(self._names)}")
        leases = SharedMemoryLeases(self.leases, self.gone, self.asked)
        leases.known_as(owners.id)
        return Keeper(
            MortalBackend(self.engine) if mortal else FakeBackend(self.engine),
            SandboxSettings(**settings),
            leases=leases if shared else self.leases,
            owners=owners,
            folders=self.folders,
            way_out=self.way_out,
            connect=self.engine.connect,
            new_id=lambda: f"{next(self._ids):032x}",
        )

    def die(self, keeper: Keeper) -> None:
        """That keeper's process counts as dead. It goes on nevertheless, which is the worst that a process can do that
        was taken for dead; nobody hears of it any more."""
        owner = keeper._parts.owners.id
        self.owners[owner] = "dead"
        self.asked.pop(owner, None)

    @asynccontextmanager
    async def keeping(self, **settings: Any) -> AsyncIterator[Keeper]:
        """A started keeper. After it nothing is left of its boxes."""
        keeper = self.keeper(**settings)
        await keeper.start()
        try:
            yield keeper
        finally:
            await keeper.stop()

    async def orphan(
        self, owner: str, standing: Standing | None, key: LeaseKey | None, *, backend: str = "fake"
    ) -> str:
        """A box of another process's, with all that is written down of it; its lease's id. `standing` none: there is no
        file of the owner's."""
        lease_id = f"{next(self._ids):032x}"
        if standing is not None:
            self.owners[owner] = standing
        await self.leases.add(
            Lease(
                id=lease_id,
                key=key,
                owner=owner,
                backend=backend,
                state="ready",
                created=float(int(lease_id, 16)),
            )
        )
        directory = await self.folders.make(lease_id, owner)
        await self.folders.keep_key(lease_id, lease_id)
        if backend == "fake":
            await FakeBackend(self.engine).create(
                BoxSpec(lease=lease_id, owner=owner, kind="browser", token=lease_id, directory=directory)
            )
        return lease_id

    def check(self) -> None:
        """Note a box without a lease, and a key with two boxes. (Raising it here would be an engine's error.)"""
        leased = {lease.id: lease.key for lease in self.leases.now.values()}
        living = [box.spec.lease for box in self.engine.living()]
        if not set(living) <= leased.keys():
            self.wrong.append("a box without a lease")
        keys = [leased[lease] for lease in living if leased.get(lease) is not None]
        if len(keys) != len(set(keys)):
            self.wrong.append("two boxes for one key")

    def nothing_left(self) -> None:
        """Fails when anything is, or when law 8 was broken meanwhile."""
        assert not self.wrong
        assert not self.engine.boxes
        assert not self.leases.now
        assert not self.folders.there
        assert not self.way_out.open
        assert not self.owners


@asynccontextmanager
async def short_folder() -> AsyncIterator[Path]:
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="gr-") as folder:
        yield Path(folder)


class Gate:
    """A tool that does not answer until it is opened."""

    def __init__(self) -> None:
        self.begun = anyio.Event()
        self.open = anyio.Event()

    async def __call__(self, box: FakeBox, arguments: dict[str, Any]) -> ToolResult:
        self.begun.set()
        await self.open.wait()
        return ToolResult.of_text(box.spec.lease)


async def ask(keeper: Keeper, key: LeaseKey = KEY, tool: str = "shell") -> str:
    """The lease of the box that answers."""
    return (await keeper.call(key, tool, {})).text.partition(" ")[0]


async def raised(call: Awaitable[object], kind: type[Exception]) -> str:
    """What an error says."""
    with pytest.raises(kind) as caught:
        await call
    return str(caught.value)
