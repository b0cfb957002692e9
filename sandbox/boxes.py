"""Makes boxes and ends them, within a bound: the part of law 8 that concerns one box.

A box's whole life is one task: wait for a place, write the lease, make directory and way out, make the box, be there,
and, when it is to end, the same backwards. Nothing is locked while a backend works, so one that hangs holds up nobody
but who wants that box.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import anyio

from greenroom.actors.errors import SandboxBusy, SandboxError, SandboxLost, SandboxUnavailable
from greenroom.sandbox.backend import BOX_SECONDS, EGRESS_SOCKET, Backend, BoxAddress, BoxKind, BoxSpec
from greenroom.sandbox.box_folders import BoxFolders
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.kept_box import KeptBox
from greenroom.sandbox.leases import Lease, LeaseKey, Leases
from greenroom.sandbox.owners import Owners
from greenroom.sandbox.settings import SandboxSettings

logger = logging.getLogger("greenroom.sandbox")

REMOVE_SECONDS: Final = 30.0
"""How long a removal may take before it counts as failed; the slowest engine needs half a second."""

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
        box = self._by_id[lease.id] = KeptBox(lease)
        life = asyncio.get_running_loop().create_task(
            self._live(box, kind, patient),
            name=f"greenroom box {lease.id[:8]}",
            context=Context(),  # it outlives the turn that wanted it
        )
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)
        return box

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

    async def end_all(self, why: str, seconds: float) -> bool:
        """End all boxes. False: some could not be removed in time; their leases are still written down."""
        for box in self.all():
            box.end(why)
        lives = tuple(self._lives)
        with anyio.move_on_after(seconds):
            await asyncio.gather(*map(asyncio.shield, lives))
        for removal in tuple(self._removals):
            removal.cancel()
        await asyncio.gather(*lives)
        return not self._by_id

    # ---------------------------------------------------------------------------------------------------- one life

    async def _live(self, box: KeptBox, kind: BoxKind, patient: bool) -> None:
        try:
            with box.until_end:
                await self._take_place(box, patient)
                await self._with_lease(box, kind)
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

    async def _with_lease(self, box: KeptBox, kind: BoxKind) -> None:
        parts, lease = self._parts, box.lease
        try:
            await parts.leases.add(lease)
            directory = await parts.folders.make(lease.id, lease.owner)
            async with parts.way_out.listen(directory / EGRESS_SOCKET, lease.id):
                await self._from_make_to_remove(box, kind, directory)
        finally:
            if not box.left_behind:
                with anyio.CancelScope(shield=True):
                    await self._remove_folder(lease.id)
                    await parts.leases.erase(lease.id)  # last of all

    async def _from_make_to_remove(self, box: KeptBox, kind: BoxKind, directory: Path) -> None:
        try:
            client = await self._make(box.lease, kind, directory)
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
                await self._remove(box)

    async def _make(self, lease: Lease, kind: BoxKind, directory: Path) -> BoxClient:
        parts = self._parts
        spec = BoxSpec(
            lease=lease.id,
            owner=lease.owner,
            kind=kind,
            token=secrets.token_urlsafe(32),
            directory=directory,
            limits=parts.settings.limits,
        )
        with anyio.move_on_after(BOX_SECONDS):
            client = parts.connect(await parts.backend.create(spec))
            try:
                await client.ready(BOX_SECONDS, warm=lease.key is None)
                if not await parts.leases.change(lease.id, state="ready"):
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

    async def _remove(self, box: KeptBox) -> None:
        """Try until the box is gone; `end_all` may put an end to it, and the box is left behind then."""
        lease_id = box.lease.id
        with anyio.CancelScope() as removal:
            self._removals.add(removal)
            try:
                await self._note_ending(lease_id)
                while True:
                    if await self._removed(lease_id):
                        break
                    await anyio.sleep(RETRY_SECONDS)
            finally:
                self._removals.discard(removal)
        box.left_behind = removal.cancelled_caught

    async def _note_ending(self, lease_id: str) -> None:
        try:
            await self._parts.leases.change(lease_id, state="ending")
        except SandboxUnavailable:
            logger.exception("That lease %s ends could not be written down", lease_id)  # it ends all the same

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
