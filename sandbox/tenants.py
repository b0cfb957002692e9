"""What all keys of a keeper have: who gets which box, who uses it, and who must be told that his is lost."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Final

import anyio
import msgspec

from greenroom.actors.errors import LeaseHeld, LeaseOver, SandboxBusy, SandboxError, SandboxLost
from greenroom.sandbox.boxes import Boxes, Parts
from greenroom.sandbox.kept_box import KeptBox
from greenroom.sandbox.leases import Lease, LeaseChange, LeaseKey, Person
from greenroom.sandbox.reconcile import Reconciler
from greenroom.sandbox.tenancy import Tenancy, lost
from greenroom.sandbox.warm import HEALTH_SECONDS, WarmPool

logger = logging.getLogger("greenroom.sandbox")

CHECK_SECONDS: Final = 5.0
"""A box that was not used for so long is asked whether it is well before it is used again."""

SWEEP_SECONDS: Final = 5.0
"""Between two looks for boxes that are unused for too long."""

ATTEMPTS: Final = 3
"""To lease a key that processes who died had."""

LOOK_SECONDS: Final = 0.1
"""Between two looks whether another process has let go of a box that is wanted here."""

ASK_SECONDS: Final = 2.0
"""Between two times that it is asked to."""

PERSON_SECONDS: Final = 60.0
"""How long a person who had the browser may take to find the process that goes on with it."""

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
        self._handing: set[asyncio.Task[None]] = set()
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

    def expect(self, tenancy: Tenancy) -> None:
        """The session is at work here: if another process had its box, go on with that."""
        if self._parts.shared is not None and tenancy.box is None and tenancy.making is None:
            tenancy.making = asyncio.get_running_loop().create_task(
                self._go_on(tenancy), name=f"greenroom box for {tenancy.key}", context=Context()
            )
            tenancy.making.add_done_callback(_heard)

    async def _make(self, tenancy: Tenancy) -> None:
        try:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    tenancy.box = await self._lease(tenancy.key)
                    return
                except LeaseHeld:
                    if attempt == ATTEMPTS:
                        raise
                    if await self._former(tenancy):
                        return
        finally:
            tenancy.making = None
            self.left(tenancy)

    async def _go_on(self, tenancy: Tenancy) -> None:
        try:
            await self.former_gone(tenancy.key)
            await self._former(tenancy)
        finally:
            tenancy.making = None
            self.left(tenancy)

    async def _former(self, tenancy: Tenancy) -> bool:
        """Go on with the box that another process had, or see to it that the key can be leased. Whether there is
        nothing more to do: the tenancy has a box, or is to be told that it lost one."""
        found = await self._let_go_elsewhere(tenancy.key)
        if found is None:
            return False
        if self._boxes.full:
            self._pool.make_room()
        box = self._boxes.adopt(found)
        try:
            await box.arrival()
        except LeaseHeld:
            return False
        except SandboxBusy:
            raise
        except SandboxError as error:
            self.remember(
                tenancy.key, f"the process that had it ended, and it could not be gone on with: {error}"
            )
            return True
        except asyncio.CancelledError:
            box.end("it was released while it was taken over")
            raise
        tenancy.box = box
        logger.info("Session %r goes on with its %s sandbox", tenancy.key.session_id, tenancy.key.kind)
        self._remember_person(tenancy, box.lease.person)
        return True

    async def _let_go_elsewhere(self, key: LeaseKey) -> Lease | None:
        """The lease of a box to go on with. Another process that has it and lives is asked for it, and waited for."""
        shared, loop = self._parts.shared, asyncio.get_running_loop()
        until, ask = loop.time() + self._parts.settings.wait_seconds, 0.0
        while True:
            try:
                return await self._reconciler.free(key)
            except LeaseHeld:
                held = None if shared is None else await shared.find(key)
                if shared is None or loop.time() >= until:
                    raise
                if held is not None and loop.time() >= ask:
                    ask = loop.time() + ASK_SECONDS
                    await shared.ask(held.lease.id)
            await anyio.sleep(LOOK_SECONDS)

    def _remember_person(self, tenancy: Tenancy, person: Person) -> None:
        """A person who had the browser in another process has it here, and is waited for a while."""
        if person == "has" and not tenancy.person:
            tenancy.take_over()
            tenancy.missing = asyncio.get_running_loop().call_later(PERSON_SECONDS, self._give_up_on, tenancy)
        tenancy.must_look = person == "had"

    def _give_up_on(self, tenancy: Tenancy) -> None:
        tenancy.hand_back()
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
        if box is None and not lost and self._parts.shared is not None:
            await self._release_elsewhere(key)

    async def _release_elsewhere(self, key: LeaseKey) -> None:
        """Another process may have, or have had, the key's box: that goes as soon as nobody uses it."""
        shared = self._parts.shared
        held = await shared.find(key) if shared is not None else None
        if held is not None and shared is not None:
            await self._reconciler.dismiss(held)
            await shared.ask(held.lease.id)

    async def hand_over(self, key: LeaseKey) -> None:
        """Let go of the key's box after the calls in it, for another process of the session's."""
        tenancy = self.of(key)
        if tenancy.making:
            tenancy.making.cancel()
            await asyncio.wait({tenancy.making})
        box = tenancy.box
        if box is not None:
            box.lease = msgspec.structs.replace(box.lease, person=tenancy.told)
            tenancy.let_go()
            tenancy.hand_back()  # the person is the other process's now
            await box.quiet()
            box.hand_over("its session is another process's now")
            await box.gone.wait()
        self.left(tenancy)

    def asked(self, lease_id: str) -> None:
        """Another process wants that box: it gets it as soon as no turn and no call uses it here."""
        box = self._boxes.get(lease_id)
        if box is not None and box.lease.key is not None:
            tenancy = self.of(box.lease.key)
            tenancy.asked = tenancy.box is box
            self.left(tenancy)

    def taken(self, lease_id: str) -> None:
        """Another process took that box over, as this one seemed to be gone."""
        box = self._boxes.get(lease_id)
        if box is not None:
            box.was_taken()

    async def note_person(self, tenancy: Tenancy) -> None:
        """Write down whether a person has the browser, for a process that goes on with it after this one died."""
        box = tenancy.box
        if self._parts.shared is None or box is None or not box.there or box.ending:
            return
        lease, told = box.lease, tenancy.told
        box.lease = msgspec.structs.replace(lease, person=told, epoch=lease.epoch + 1)
        change = LeaseChange(state="ready", person=told)
        try:
            if not await self._parts.leases.change(lease.id, change, epoch=lease.epoch):
                box.was_taken()
        except SandboxError as error:
            box.lease = lease
            logger.warning("Whether a person has the browser could not be written down: %s", error)

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
        if tenancy.asked and not (tenancy.holds or tenancy.making or (tenancy.box and tenancy.box.calling)):
            tenancy.asked = False
            handing = asyncio.get_running_loop().create_task(
                self.hand_over(tenancy.key), name=f"handing over the box of {tenancy.key}", context=Context()
            )
            self._handing.add(handing)
            handing.add_done_callback(self._handing.discard)
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
