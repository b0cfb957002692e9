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
from msgspec import Struct

from greenroom.actors.errors import LeaseHeld, SandboxError
from greenroom.sandbox.backend import Adopting, FoundBox
from greenroom.sandbox.boxes import REMOVE_SECONDS, Boxes, Parts
from greenroom.sandbox.leases import Held, Lease, LeaseChange, LeaseKey
from greenroom.sandbox.owners import Standing

logger = logging.getLogger("greenroom.sandbox")

EVERY_SECONDS: Final = 5.0
"""Between two comparisons. Endings that the backend tells of are acted on at once."""

LOOK_SECONDS: Final = 30.0
"""How long one comparison may take; an engine that is stuck is asked again."""


class Found(Struct, frozen=True, kw_only=True):
    """What there is, read in this order. `there`: leases of boxes that were in use by this process before `boxes` was
    read; `known`: leases that a task of this process takes care of, looked at last of all; `waiting`: those whose boxes
    wait for their sessions a while longer."""

    standing: Mapping[str, Standing]
    there: frozenset[str]
    boxes: Sequence[FoundBox]
    folders: Mapping[str, str]
    leases: Sequence[Lease]
    known: Collection[str]
    waiting: Collection[str] = ()


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

    def over(lease: Lease) -> bool:
        if lease.id in found.waiting:
            return False
        let_go = lease.state == "free" and found.standing.get(lease.owner) in {"alive", "ours"}
        return nobodys(lease.id, lease.owner) or (let_go and lease.id not in found.known)

    remove = {lease.id for lease in found.leases if lease.backend == backend and over(lease)}
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
        self._since: dict[str, float] = {}
        """When boxes that may wait for their sessions were first seen without a process."""
        self.grace = parts.settings.grace_seconds if parts.shared is not None else 0.0
        """How long they wait. Where leases are not shared, sessions end with their process, and none comes back."""

    def __repr__(self) -> str:
        return f"<Reconciler: {len(self._removals)} removals>"

    async def once(self) -> None:
        """Compare, and begin what is to be done. Raises `SandboxError` when the engine cannot be asked."""
        found = await self._look()
        todo = decide(found, self._parts.backend.name)
        leases = {lease.id: lease for lease in found.leases}
        for lease_id in todo.lost:
            if box := self._boxes.get(lease_id):
                box.end("it ended, as by a crash or for want of memory")
        for lease_id in todo.remove:
            self._remove(lease_id, leases.get(lease_id))
        for owner in todo.forget:
            await self._parts.owners.forget(owner)

    async def clear(self) -> None:
        """Remove all that nobody has who lives, also what still waits for its session; wait until it is gone."""
        self.grace = 0.0
        await self.once()
        await self.settled()
        await self.once()  # whose boxes are gone now is forgotten

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

    async def free(self, key: LeaseKey) -> Lease | None:
        """Somebody who died has the key's lease, or had it and let it go: see to it that the key can be leased, unless
        this process may go on with the box, whose lease is given then.

        Raises `LeaseHeld` when somebody has it who lives, or who is unknown.
        """
        held = await self.held(key)
        return None if held is None else await self._free(held, key)

    async def dismiss(self, held: Held) -> None:
        """The session whose box that was is no more: remove it now, unless somebody has it who lives."""
        lease = held.lease
        standing = (await self._parts.owners.standing()).get(lease.owner, "unknown")
        if lease.backend == self._parts.backend.name and (
            standing == "dead" or (lease.state == "free" and standing in {"alive", "ours"})
        ):
            self._remove(lease.id, lease, telling=False)
            await asyncio.shield(self._removals[lease.id])

    async def held(self, key: LeaseKey) -> Held | None:
        """The key's lease."""
        shared = self._parts.shared
        if shared is not None:
            return await shared.find(key)
        for lease in await self._parts.leases.all():
            if lease.key == key:
                return Held(lease, gone=False)
        return None

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
        return Found(
            standing=standing,
            there=there,
            boxes=boxes,
            folders=folders,
            leases=leases,
            known=known,
            waiting=self._waiting(leases, standing),
        )

    def _waiting(self, leases: Sequence[Lease], standing: Mapping[str, Standing]) -> Collection[str]:
        """Those whose sessions may come back: they have had no process for no longer than the grace."""
        now = asyncio.get_running_loop().time()
        alone = {
            lease.id
            for lease in leases
            if lease.key is not None
            and (lease.state == "free" or (lease.state == "ready" and standing.get(lease.owner) == "dead"))
        }
        self._since = {lease_id: self._since.get(lease_id, now) for lease_id in alone}
        return {lease_id for lease_id, since in self._since.items() if now - since < self.grace}

    async def _free(self, held: Held, key: LeaseKey) -> Lease | None:
        parts, lease = self._parts, held.lease
        standing = (await parts.owners.standing()).get(lease.owner, "unknown")
        if standing == "ours" and (box := self._boxes.get(lease.id)):
            await box.gone.wait()
            return None
        dead = standing in {"dead", "elsewhere"} or held.gone
        if not (dead or standing == "ours" or lease.state == "free"):
            raise LeaseHeld(
                f"the {key.kind} sandbox of session {key.session_id!r} belongs to another process "
                f"({'it runs' if standing == 'alive' else 'it is not of this machine, or its record was removed'}); "
                "end it there, or with `greenroom sandbox stop`"
            )
        here = lease.backend == parts.backend.name and standing not in {"elsewhere", "unknown"}
        if here and self._may_adopt(lease):
            return lease
        if here:
            self._remove(lease.id, lease)
            await asyncio.shield(self._removals[lease.id])
        else:
            # The box is in an engine that this process does not use. The key is let go of; who uses that engine
            # finds the lease, or the box by its labels, and removes it: its owner is dead.
            self.bereaved(key)
            given_up = LeaseChange(state="ending", keyless=True)
            await parts.leases.change(lease.id, given_up, epoch=lease.epoch)
        return None

    def _may_adopt(self, lease: Lease) -> bool:
        return (
            self._parts.shared is not None
            and isinstance(self._parts.backend, Adopting)
            and lease.state in {"ready", "free"}
            and lease.id not in self._removals
        )

    # ----------------------------------------------------------------------------------------------------- removing

    def _remove(self, lease_id: str, lease: Lease | None, *, telling: bool = True) -> None:
        if lease_id in self._removals:
            return
        removal = asyncio.get_running_loop().create_task(
            self._tidy(lease_id, lease, telling), name=f"greenroom removal {lease_id[:8]}", context=Context()
        )
        self._removals[lease_id] = removal
        removal.add_done_callback(lambda _: self._removals.pop(lease_id))

    async def _tidy(self, lease_id: str, lease: Lease | None, telling: bool) -> None:
        """Remove the box, then what is written down. The next comparison tries again what failed."""
        parts = self._parts
        try:
            with anyio.fail_after(REMOVE_SECONDS):
                if lease is not None and not await self._claimed(lease):
                    return
                if lease is not None and lease.key is not None and telling and not self._ended_here(lease):
                    self.bereaved(lease.key)
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

    def _ended_here(self, lease: Lease) -> bool:
        """Whether its box ended in this process, which has told whoever had it: it only could not be written down."""
        return lease.owner == self._parts.owners.id and lease.state != "free"

    async def _claimed(self, lease: Lease) -> bool:
        """Whether it is to be removed: nobody has gone on with its box meanwhile."""
        leases = self._parts.leases
        if not await leases.change(lease.id, LeaseChange(state="ending"), epoch=lease.epoch):
            now = [found for found in await leases.all() if found.id == lease.id]
            if now and now[0].state != "ending":
                return False
        return True

    async def _tidy_folder(self, lease_id: str) -> None:
        try:
            await self._parts.folders.remove(lease_id)
        except OSError:
            if lease_id not in self._complaints:  # once: it will be tried every few seconds
                self._complaints.add(lease_id)
                logger.exception("The directory of lease %s cannot be removed", lease_id)
