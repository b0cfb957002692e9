"""What all keys of a keeper have: who gets which box, who uses it, and who must be told that his is lost."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Final

import anyio

from greenroom.actors.errors import LeaseHeld, LeaseOver, SandboxBusy, SandboxLost
from greenroom.sandbox.boxes import Boxes, Parts
from greenroom.sandbox.kept_box import KeptBox
from greenroom.sandbox.leases import LeaseKey
from greenroom.sandbox.reconcile import Reconciler
from greenroom.sandbox.tenancy import Tenancy, lost
from greenroom.sandbox.warm import HEALTH_SECONDS, WarmPool

CHECK_SECONDS: Final = 5.0
"""A box that was not used for so long is asked whether it is well before it is used again."""

SWEEP_SECONDS: Final = 5.0
"""Between two looks for boxes that are unused for too long."""

ATTEMPTS: Final = 3
"""To lease a key that processes who died had."""

LOSSES: Final = 10_000
"""Keys of which it is remembered that their box was lost. Those whose agents did not come back go first."""


class Tenants:
    """The tenancies of a keeper, by key. One that has no box and no use is not kept."""

    def __init__(self, parts: Parts, boxes: Boxes, pool: WarmPool, reconciler: Reconciler) -> None:
        self._parts = parts
        self._boxes = boxes
        self._pool = pool
        self._reconciler = reconciler
        reconciler.bereaved = self._bereaved
        self._tenancies: dict[LeaseKey, Tenancy] = {}
        self._losses: OrderedDict[LeaseKey, str] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Tenants: {len(self._tenancies)} keys>"

    # ------------------------------------------------------------------------------------------------------------ boxes

    async def box(self, tenancy: Tenancy, *, telling: bool = True) -> KeptBox:
        """The key's box, there and well. `telling`: that one was lost is raised, once."""
        while True:
            why = self._losses.pop(tenancy.key, None) if telling else None
            if why is not None:
                raise lost(tenancy.key, why)
            box = tenancy.box
            if box is None:
                await self._made(tenancy)
            elif box.ending:
                self._let_go_of(tenancy, box)
            elif asyncio.get_running_loop().time() - box.used < CHECK_SECONDS:
                return box
            else:
                await self._check(box)

    async def _check(self, box: KeptBox) -> None:
        try:
            with box.using(looking=True) as client:
                well = await client.healthy(HEALTH_SECONDS)
        except SandboxLost:
            well = False  # it ended meanwhile, and says why
        if not well:
            box.end("it no longer answered")

    async def _made(self, tenancy: Tenancy) -> None:
        """Make the key's box; those who want it meanwhile wait for the same."""
        if tenancy.making is None:
            tenancy.making = asyncio.get_running_loop().create_task(
                self._make(tenancy), name=f"greenroom box for {tenancy.key}", context=Context()
            )
            tenancy.making.add_done_callback(_heard)
        making = tenancy.making
        await asyncio.wait({making})  # who waits may be cancelled; the box is made all the same
        if making.cancelled():
            raise LeaseOver("the sandbox was released while it was made")
        making.result()

    async def _make(self, tenancy: Tenancy) -> None:
        try:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    tenancy.box = await self._lease(tenancy.key)
                    return
                except LeaseHeld:
                    if attempt == ATTEMPTS:
                        raise
                    await self._reconciler.free(tenancy.key)
        finally:
            tenancy.making = None
            self.left(tenancy)

    async def _lease(self, key: LeaseKey) -> KeptBox:
        with anyio.move_on_after(self._parts.settings.wait_seconds) as waiting:
            await self.former_gone(key)
        if waiting.cancelled_caught:
            raise SandboxBusy(
                f"the former {key.kind} sandbox of session {key.session_id!r} is still being removed, and there are "
                "never two; try again later, and see the log for what the engine says"
            )
        box = await self._pool.take(key)
        if box is not None:
            return box
        if self._boxes.full:
            self._pool.make_room()
        box = self._boxes.begin(key, key.kind)
        try:
            await box.arrival()
        except asyncio.CancelledError:
            box.end("it was released while it was made")
            raise
        return box

    async def former_gone(self, key: LeaseKey) -> None:
        """Wait until what ends of the key's boxes is gone."""
        for box in self._boxes.of(key):
            if box.ending:
                await box.gone.wait()

    async def release(self, key: LeaseKey, lost: str) -> None:
        """End the key's box after the calls in it. `lost`: remember that, for whoever comes back."""
        tenancy = self.of(key)
        if not lost:
            self._losses.pop(key, None)
        if tenancy.making:
            tenancy.making.cancel()
            await asyncio.wait({tenancy.making})
        box = tenancy.box
        if box is not None:
            tenancy.let_go()
            if lost and not box.ending:
                self.remember(key, lost)
            try:
                await box.quiet()
            finally:
                box.end("it was released")
        self.left(tenancy)
        await self.former_gone(key)

    # --------------------------------------------------------------------------------------------------------- records

    def all(self) -> list[Tenancy]:
        """Of all keys that have or use anything."""
        return list(self._tenancies.values())

    def of(self, key: LeaseKey) -> Tenancy:
        """The key's, new if need be; `left` must follow."""
        tenancy = self._tenancies.get(key)
        if tenancy is None:
            tenancy = self._tenancies[key] = Tenancy(key)
        return tenancy

    def left(self, tenancy: Tenancy) -> None:
        """Somebody is done with it."""
        tenancy.idle_since = asyncio.get_running_loop().time()
        if tenancy.idle and tenancy.box is None and self._tenancies.get(tenancy.key) is tenancy:
            del self._tenancies[tenancy.key]

    @contextmanager
    def visit(self, key: LeaseKey) -> Iterator[Tenancy]:
        """Somebody uses it."""
        tenancy = self.of(key)
        tenancy.visits += 1
        try:
            yield tenancy
        finally:
            tenancy.visits -= 1
            if tenancy.making and not tenancy.visits and self._boxes.wait_for_place(tenancy.key):
                tenancy.making.cancel()  # who would use it has gone; one that is being made is made, and kept a while
            self.left(tenancy)

    def _let_go_of(self, tenancy: Tenancy, box: KeptBox) -> None:
        """It ends, and the next use makes another. Whose it was learns that, if he does not know."""
        tenancy.let_go()
        if not box.told:
            self.remember(tenancy.key, box.why)

    def remember(self, key: LeaseKey, why: str) -> None:
        """Who uses the key next is told first that what it had is lost."""
        self._losses[key] = why
        while len(self._losses) > LOSSES:
            self._losses.popitem(last=False)

    def _bereaved(self, key: LeaseKey) -> None:
        self.remember(key, "the process that had it ended")

    # -------------------------------------------------------------------------------------------------------- idleness

    async def sweep_now_and_then(self) -> None:
        """End boxes that are unused for too long, until it is cancelled."""
        idle = self._parts.settings.idle_seconds
        while True:
            await anyio.sleep(min(SWEEP_SECONDS, idle / 4))
            self._sweep(asyncio.get_running_loop().time() - idle)

    def _sweep(self, idle_before: float) -> None:
        for tenancy in self.all():
            box = tenancy.box
            if box is None or not tenancy.idle:
                continue
            if not box.ending and tenancy.idle_since <= idle_before:
                box.end(f"it was not used for {self._parts.settings.idle_seconds:g} s and was removed")
            if box.ending:
                self._let_go_of(tenancy, box)
                self.left(tenancy)


def _heard(making: asyncio.Task[None]) -> None:
    """Those who waited may have gone: then its failure is nobody's, and that is fine."""
    if not making.cancelled():
        making.exception()
