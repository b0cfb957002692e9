"""Makes boxes and ends them, within a bound: the part of law 8 that concerns one box.

A box's whole life is one task: wait for a place, write the lease, make directory and way out, make the box, be there,
and, when it is to end, the same backwards. Nothing is locked while a backend works, so one that hangs holds up nobody
but who wants that box.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import anyio
import msgspec

from greenroom.actors.errors import LeaseHeld, SandboxBusy, SandboxError, SandboxLost, SandboxUnavailable
from greenroom.sandbox.backend import (
    BOX_SECONDS,
    EGRESS_SOCKET,
    Adopting,
    Backend,
    BoxAddress,
    BoxKind,
    BoxSpec,
)
from greenroom.sandbox.box_folders import BoxFolders
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.kept_box import KeptBox
from greenroom.sandbox.leases import Lease, LeaseChange, LeaseKey, Leases, SharedLeases
from greenroom.sandbox.owners import Owners
from greenroom.sandbox.settings import SandboxSettings

logger = logging.getLogger("greenroom.sandbox")

REMOVE_SECONDS: Final = 30.0
"""How long a removal may take before it counts as failed; the slowest engine needs half a second."""

ADOPT_SECONDS: Final = 10.0
"""How long a box that is taken over may take to answer."""

RETRY_SECONDS: Final = 1.0
"""Between two attempts to remove a box that its engine does not let go of."""


class WayOut(Protocol):
    """What decides where boxes may go: `EgressFilter`."""

    def listen(self, path: Path, who: str) -> AbstractAsyncContextManager[object]:
        """Serve a box at the UNIX socket `path` while it is entered."""
        ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What boxes are made with. `connect` gives the client of a box at an address."""

    backend: Backend
    settings: SandboxSettings
    leases: Leases
    owners: Owners
    folders: BoxFolders
    way_out: WayOut
    connect: Callable[[BoxAddress], BoxClient]
    clock: Callable[[], float]
    new_id: Callable[[], str]

    @property
    def shared(self) -> SharedLeases | None:
        """The leases, where processes share them for their boxes to be handed over."""
        return self.leases if isinstance(self.leases, SharedLeases) else None


class Boxes:
    """All boxes of this process. `freed`: called when there may be a place for another."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.freed: Callable[[], object] = bool
        self._places = anyio.CapacityLimiter(parts.settings.boxes)
        self._by_id: dict[str, KeptBox] = {}
        self._placed: set[KeptBox] = set()
        self._lives: set[asyncio.Task[None]] = set()
        self._removals: set[anyio.CancelScope] = set()

    def __repr__(self) -> str:
        return f"<Boxes: {len(self._by_id)} of {self._parts.settings.boxes}>"

    def begin(self, key: LeaseKey | None, kind: BoxKind, *, patient: bool = True) -> KeptBox:
        """Begin to make a box. `patient`: it waits for a place, `wait_seconds` at most."""
        parts = self._parts
        lease = Lease(
            id=parts.new_id(),
            key=key,
            owner=parts.owners.id,
            backend=parts.backend.name,
            state="making",
            created=parts.clock(),
        )
        box = KeptBox(lease)
        self._begin(box, self._live(box, patient, lambda: self._new(box, kind)))
        return box

    def adopt(self, lease: Lease) -> KeptBox:
        """Begin to take over a box that another process made. It never is there when that fails; `LeaseHeld`: another
        one was quicker, and else nothing is left of it."""
        own = msgspec.structs.replace(
            lease, owner=self._parts.owners.id, state="ready", epoch=lease.epoch + 1
        )
        box = KeptBox(own)
        self._begin(box, self._live(box, True, lambda: self._former(box, lease)))
        return box

    def _begin(self, box: KeptBox, living: Coroutine[Any, Any, None]) -> None:
        self._by_id[box.lease.id] = box
        life = asyncio.get_running_loop().create_task(
            living,
            name=f"greenroom box {box.lease.id[:8]}",
            context=Context(),  # it outlives the turn that wanted it
        )
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)

    def get(self, lease_id: str) -> KeptBox | None:
        """The box of this lease, until it is gone."""
        return self._by_id.get(lease_id)

    def all(self) -> list[KeptBox]:
        """All that are not gone, those that wait for a place too."""
        return list(self._by_id.values())

    def of(self, key: LeaseKey) -> list[KeptBox]:
        """The key's that are not gone: one at most, but for one that has been refused a lease."""
        return [box for box in self._by_id.values() if box.lease.key == key and not box.left_behind]

    def wait_for_place(self, key: LeaseKey) -> bool:
        """Whether the key's only waits for a place."""
        return any(not box.ending and box not in self._placed for box in self.of(key))

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return self._places.statistics().tasks_waiting

    @property
    def full(self) -> bool:
        """Whether the next one would have to wait."""
        return self._places.available_tokens < 1 or self.waiting > 0

    async def end_all(self, why: str, seconds: float, *, handing: bool = False) -> bool:
        """End all boxes. `handing`: those of sessions are let go. False: leases of this process's are still written
        down, as some could not be removed in time, or were let go."""
        left = False
        for box in self.all():
            if handing and box.there and box.lease.key is not None and not box.ending:
                box.hand_over(why)
            box.end(why)
            left = left or box.handing
        lives = tuple(self._lives)
        with anyio.move_on_after(seconds):
            await asyncio.gather(*map(asyncio.shield, lives))
        for removal in tuple(self._removals):
            removal.cancel()
        await asyncio.gather(*lives)
        return not self._by_id and not left

    # ---------------------------------------------------------------------------------------------------- one life

    async def _live(self, box: KeptBox, patient: bool, life: Callable[[], Awaitable[None]]) -> None:
        try:
            with box.until_end:
                await self._take_place(box, patient)
                await life()
        except SandboxError as error:
            box.end(str(error))
            box.failed(error)
        except Exception as error:
            logger.exception("Making or removing %r failed", box)
            box.end(str(error))
            box.failed(SandboxUnavailable(f"no sandbox could be made: {type(error).__name__}: {error}"))
        finally:
            box.end("the process that had it ends")
            box.failed(SandboxLost(box.why))
            self._leave_place(box)

    async def _take_place(self, box: KeptBox, patient: bool) -> None:
        settings = self._parts.settings
        seconds = settings.wait_seconds if patient or not self.full else 0.0
        with anyio.move_on_after(seconds):
            await self._places.acquire_on_behalf_of(box)
            self._placed.add(box)
            return
        raise SandboxBusy(
            f"{settings.boxes} sandboxes run, as many as may, and none became free within "
            f"{settings.wait_seconds:g} s; try again later, or allow more with SandboxSettings(boxes=...)"
        )

    def _leave_place(self, box: KeptBox) -> None:
        if not box.left_behind:
            del self._by_id[box.lease.id]
        if box in self._placed:
            self._placed.discard(box)
            self._places.release_on_behalf_of(box)
        box.gone.set()
        self.freed()

    async def _new(self, box: KeptBox, kind: BoxKind) -> None:
        parts, lease = self._parts, box.lease
        try:
            await parts.leases.add(lease)
            directory = await parts.folders.make(lease.id, lease.owner)
            spec = self._spec(lease, kind, secrets.token_urlsafe(32), directory)
            if parts.shared is not None:
                await parts.folders.keep_key(lease.id, spec.token)
            async with parts.way_out.listen(directory / EGRESS_SOCKET, lease.id):
                await self._from_make_to_remove(box, lambda: self._make(lease, spec))
        finally:
            with anyio.CancelScope(shield=True):
                await self._over(box)

    async def _former(self, box: KeptBox, found: Lease) -> None:
        """The life of a box that another process began. Its way out is listened to at the same place as before."""
        parts, lease = self._parts, box.lease
        assert lease.key is not None
        mine = LeaseChange(state="ready", owner=lease.owner)
        if not await parts.leases.change(lease.id, mine, epoch=found.epoch):
            raise LeaseHeld("another process took it over, or began to remove it")
        try:
            directory, token = await parts.folders.take_over(lease.id, lease.owner)
            spec = self._spec(lease, lease.key.kind, token, directory)
            async with parts.way_out.listen(directory / EGRESS_SOCKET, lease.id):
                await self._from_make_to_remove(box, lambda: self._adopted(spec))
        finally:
            with anyio.CancelScope(shield=True):
                if not box.left:  # nothing led to it, and it is there all the same
                    await self._remove(box)
                await self._over(box)

    async def _from_make_to_remove(self, box: KeptBox, make: Callable[[], Awaitable[BoxClient]]) -> None:
        try:
            client = await make()
            try:
                box.arrived(client)
                await anyio.sleep_forever()  # until `until_end` is cancelled
            finally:
                with anyio.CancelScope(shield=True):
                    await client.close()
        except SandboxError as error:  # not through the way out, which may wrap it
            box.end(str(error))
            box.failed(error)
        finally:
            with anyio.CancelScope(shield=True):
                await self._leave(box)

    async def _leave(self, box: KeptBox) -> None:
        """Remove the box, or keep no way to one that runs on."""
        box.left = True
        if not (box.taken or box.handing):
            await self._remove(box)
        elif isinstance(self._parts.backend, Adopting):
            await self._parts.backend.let_go(box.lease.id)
        elif box.handing:
            await self._remove(box, noting=False)

    async def _over(self, box: KeptBox) -> None:
        """Write down what became of it, last of all."""
        parts, lease = self._parts, box.lease
        if box.taken or box.left_behind:
            return
        if not box.handing:
            await self._remove_folder(lease.id)
            await parts.leases.erase(lease.id)
            return
        if not isinstance(
            parts.backend, Adopting
        ):  # who goes on with the session is told by the lease that it is lost
            await self._remove_folder(lease.id)
        free = LeaseChange(state="free", person=lease.person)
        if not await parts.leases.change(lease.id, free, epoch=lease.epoch):
            logger.info("Lease %s was another process's before it was let go", lease.id)

    def _spec(self, lease: Lease, kind: BoxKind, token: str, directory: Path) -> BoxSpec:
        limits = self._parts.settings.limits
        return BoxSpec(
            lease=lease.id, owner=lease.owner, kind=kind, token=token, directory=directory, limits=limits
        )

    async def _make(self, lease: Lease, spec: BoxSpec) -> BoxClient:
        parts = self._parts
        with anyio.move_on_after(BOX_SECONDS):
            client = parts.connect(await parts.backend.create(spec))
            try:
                await client.ready(BOX_SECONDS, warm=lease.key is None)
                if not await parts.leases.change(lease.id, LeaseChange(state="ready")):
                    raise SandboxLost("somebody removed its lease while it was made")
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await client.close()
                raise
            return client
        raise SandboxUnavailable(
            f"the {parts.backend.name} backend did not have a sandbox ready within {BOX_SECONDS:g} s; is the machine "
            "overloaded, or the engine stuck? `greenroom sandbox doctor` looks"
        )

    async def _adopted(self, spec: BoxSpec) -> BoxClient:
        parts = self._parts
        assert isinstance(parts.backend, Adopting)
        client = parts.connect(await parts.backend.adopt(spec))
        try:
            if not await client.healthy(ADOPT_SECONDS):
                raise SandboxLost("it does not answer")
        except BaseException:
            with anyio.CancelScope(shield=True):
                await client.close()
            raise
        return client

    async def _remove(self, box: KeptBox, *, noting: bool = True) -> None:
        """Try until the box is gone; `end_all` may put an end to it, and the box is left behind then."""
        lease_id = box.lease.id
        with anyio.CancelScope() as removal:
            self._removals.add(removal)
            try:
                if noting and not await self._note_ending(box):
                    box.was_taken()
                    return
                while True:
                    if await self._removed(lease_id):
                        break
                    await anyio.sleep(RETRY_SECONDS)
            finally:
                self._removals.discard(removal)
        box.left_behind = removal.cancelled_caught

    async def _note_ending(self, box: KeptBox) -> bool:
        """Write down that it ends. False: another process has taken it over, and it is for that one to end it."""
        leases, lease = self._parts.leases, box.lease
        try:
            if not await leases.change(lease.id, LeaseChange(state="ending"), epoch=lease.epoch):
                for found in await leases.all():
                    if found.id == lease.id and found.owner != lease.owner:
                        return False
        except SandboxUnavailable as error:  # it ends all the same
            logger.warning("That lease %s ends could not be written down: %s", lease.id, error)
        return True

    async def _removed(self, lease_id: str) -> bool:
        try:
            with anyio.fail_after(REMOVE_SECONDS):
                await self._parts.backend.remove(lease_id)
        except SandboxError as error:
            logger.warning(
                "The box of lease %s could not be removed, and is tried again: %s", lease_id, error
            )
            return False
        except Exception:  # whatever it is, the box may be there, and so its lease must be
            logger.exception("The box of lease %s could not be removed, and is tried again", lease_id)
            return False
        return True

    async def _remove_folder(self, lease_id: str) -> None:
        try:
            await self._parts.folders.remove(lease_id)
        except OSError:
            logger.exception("The directory of lease %s is left: who tidies up tries again", lease_id)
