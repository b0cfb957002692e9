"""Compares what is written down with what really is, and tidies up: the part of law 8 for when something dies.

What to do is decided by a pure function. It holds because of the order in which things are read (`Found`): an owner
that was dead then began nothing since; a box or directory without a lease either never had one or is being removed by
somebody; and removing twice is fine, as no id is ever used again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import Context
from typing import Final

import anyio
import msgspec
from msgspec import Struct

from greenroom.actors.errors import LeaseHeld, SandboxError
from greenroom.sandbox.backend import FoundBox
from greenroom.sandbox.boxes import REMOVE_SECONDS, Boxes, Parts
from greenroom.sandbox.leases import Lease, LeaseKey
from greenroom.sandbox.owners import Standing

logger = logging.getLogger("greenroom.sandbox")

EVERY_SECONDS: Final = 5.0
"""Between two comparisons. Endings that the backend tells of are acted on at once."""

LOOK_SECONDS: Final = 30.0
"""How long one comparison may take; an engine that is stuck is asked again."""


class Found(Struct, frozen=True, kw_only=True):
    """What there is, read in this order. `there`: leases of boxes that were in use by this process before `boxes` was
    read; `known`: leases that a task of this process takes care of, looked at last of all."""

    standing: Mapping[str, Standing]
    there: frozenset[str]
    boxes: Sequence[FoundBox]
    folders: Mapping[str, str]
    leases: Sequence[Lease]
    known: Collection[str]


class Todo(Struct, frozen=True):
    """What is to be done: boxes to remove with all that is theirs, by lease; boxes of ours that died; owners of whom
    nothing is left."""

    remove: frozenset[str]
    lost: frozenset[str]
    forget: frozenset[str]


def decide(found: Found, backend: str) -> Todo:
    """What is to be done by one who has this backend. What is an unknown owner's, or a living one's, stays."""
    leased = {lease.id for lease in found.leases}

    def nobodys(lease_id: str, owner: str) -> bool:
        standing = found.standing.get(owner, "unknown")
        return standing == "dead" or (standing == "ours" and lease_id not in found.known)

    remove = {
        lease.id for lease in found.leases if lease.backend == backend and nobodys(lease.id, lease.owner)
    }
    without = [(box.lease, box.owner) for box in found.boxes]
    without += found.folders.items()
    remove |= {lease_id for lease_id, owner in without if lease_id not in leased and nobodys(lease_id, owner)}
    busy = {lease.owner for lease in found.leases} | {owner for _, owner in without}
    dead = {owner for owner, standing in found.standing.items() if standing == "dead"}
    running = {box.lease for box in found.boxes if box.running}
    return Todo(frozenset(remove), found.there - running, frozenset(dead - busy))


class Reconciler:
    """Compares now and then, and when the backend tells of an ending.

    `bereaved`: called with each key whose box is removed because who had it is dead, before it is.
    """

    def __init__(self, parts: Parts, boxes: Boxes) -> None:
        self._parts = parts
        self._boxes = boxes
        self.bereaved: Callable[[LeaseKey], object] = bool
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._complaints: set[str] = set()

    def __repr__(self) -> str:
        return f"<Reconciler: {len(self._removals)} removals>"

    async def once(self) -> None:
        """Compare, and begin what is to be done. Raises `SandboxError` when the engine cannot be asked."""
        found = await self._look()
        todo = decide(found, self._parts.backend.name)
        keys = {lease.id: lease.key for lease in found.leases}
        for lease_id in todo.lost:
            if box := self._boxes.get(lease_id):
                box.end("it ended, as by a crash or for want of memory")
        for lease_id in todo.remove:
            self._remove(lease_id, keys.get(lease_id))
        for owner in todo.forget:
            await self._parts.owners.forget(owner)

    async def settled(self) -> None:
        """Wait until the removals that were begun are done."""
        await asyncio.gather(*map(asyncio.shield, self._removals.values()))

    async def repeat(self) -> None:
        """Compare every few seconds, until it is cancelled."""
        while True:
            await anyio.sleep(EVERY_SECONDS)
            try:
                with anyio.fail_after(LOOK_SECONDS):
                    await self.once()
            except SandboxError as error:  # an engine that is away comes back; until then nothing is decided
                logger.warning("What sandboxes there are could not be compared with their leases: %s", error)
            except Exception:
                logger.exception("What sandboxes there are could not be compared with their leases")

    async def listen(self) -> None:
        """Act on what the backend tells of, until it is cancelled."""
        while True:
            try:
                async for lease_id in self._parts.backend.endings():
                    if box := self._boxes.get(lease_id):
                        box.end("it ended, as by a crash or for want of memory")
            except Exception:  # `repeat` finds what this misses
                logger.exception("The %s backend stopped telling of endings", self._parts.backend.name)
            await anyio.sleep(EVERY_SECONDS)

    async def free(self, key: LeaseKey) -> None:
        """Somebody who died has the key's lease: see to it that the key can be leased.

        Raises `LeaseHeld` when somebody has it who lives, or who is unknown.
        """
        for lease in await self._parts.leases.all():
            if lease.key == key:
                await self._free(lease, key)

    async def stop(self) -> None:
        """Put an end to removals under way; others find what is left."""
        for removal in self._removals.values():
            removal.cancel()
        await asyncio.gather(*self._removals.values(), return_exceptions=True)

    # ------------------------------------------------------------------------------------------------------ looking

    async def _look(self) -> Found:
        parts = self._parts
        standing = await parts.owners.standing()
        there = frozenset(box.lease.id for box in self._boxes.all() if box.there and not box.ending)
        boxes = await parts.backend.boxes()
        folders = await parts.folders.all()
        leases = await parts.leases.all()
        known = {box.lease.id for box in self._boxes.all()} | self._removals.keys()
        return Found(standing=standing, there=there, boxes=boxes, folders=folders, leases=leases, known=known)

    async def _free(self, lease: Lease, key: LeaseKey) -> None:
        parts = self._parts
        standing = (await parts.owners.standing()).get(lease.owner, "unknown")
        if standing == "ours" and (box := self._boxes.get(lease.id)):
            await box.gone.wait()
        elif standing not in {"dead", "elsewhere", "ours"}:
            raise LeaseHeld(
                f"the {key.kind} sandbox of session {key.session_id!r} belongs to another process "
                f"({'it runs' if standing == 'alive' else 'it is not of this machine, or its record was removed'}); "
                "end it there, or with `greenroom sandbox stop`"
            )
        elif lease.backend == parts.backend.name and standing != "elsewhere":
            self._remove(lease.id, key)
            await asyncio.shield(self._removals[lease.id])
        else:
            # The box is in an engine that this process does not use. The key is let go of; who uses that engine
            # finds the lease, or the box by its labels, and removes it: its owner is dead.
            self.bereaved(key)
            await parts.leases.erase(lease.id)
            await parts.leases.add(msgspec.structs.replace(lease, key=None, state="ending"))

    # ----------------------------------------------------------------------------------------------------- removing

    def _remove(self, lease_id: str, key: LeaseKey | None) -> None:
        if lease_id in self._removals:
            return
        if key is not None:
            self.bereaved(key)
        removal = asyncio.get_running_loop().create_task(
            self._tidy(lease_id), name=f"greenroom removal {lease_id[:8]}", context=Context()
        )
        self._removals[lease_id] = removal
        removal.add_done_callback(lambda _: self._removals.pop(lease_id))

    async def _tidy(self, lease_id: str) -> None:
        """Remove the box, then what is written down. The next comparison tries again what failed."""
        parts = self._parts
        try:
            with anyio.fail_after(REMOVE_SECONDS):
                await parts.leases.change(lease_id, state="ending")
                await parts.backend.remove(lease_id)
            await self._tidy_folder(lease_id)
            await parts.leases.erase(lease_id)
        except SandboxError as error:
            logger.warning(
                "What is left of lease %s could not be removed, and is tried again: %s", lease_id, error
            )
        except Exception:
            logger.exception("What is left of lease %s could not be removed, and is tried again", lease_id)
        else:
            logger.info("Removed what was left of lease %s", lease_id)

    async def _tidy_folder(self, lease_id: str) -> None:
        try:
            await self._parts.folders.remove(lease_id)
        except OSError:
            if lease_id not in self._complaints:  # once: it will be tried every few seconds
                self._complaints.add(lease_id)
                logger.exception("The directory of lease %s cannot be removed", lease_id)
