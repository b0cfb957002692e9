"""The keeper of a process's boxes: who uses which, from its lease to its end.

Law 8 is kept here: a lease is written before its box exists and erased after it is gone; no box outlives its lease for
long, none is taken away during a turn or a call, no key ever has two. `boxes` is the life of one box, `reconcile` what
happens when something dies, `warm` what is made ahead; here is what keys have.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import Context
from typing import Any, Final

import anyio
import msgspec
from msgspec import Struct

from greenroom.actors.errors import LeaseOver, SandboxError, SandboxLost
from greenroom.sandbox.backend import Backend, BoxAddress, Located
from greenroom.sandbox.box_folders import BoxFolders
from greenroom.sandbox.boxes import Boxes, Parts, WayOut
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.egress.filter import EgressFilter
from greenroom.sandbox.leases import Lease, LeaseKey, Leases
from greenroom.sandbox.owners import Owners, sharing
from greenroom.sandbox.reconcile import Reconciler
from greenroom.sandbox.result import ToolResult
from greenroom.sandbox.settings import SandboxSettings
from greenroom.sandbox.sqlite_leases import SqliteLeases
from greenroom.sandbox.tenancy import ACTS, BLIND, Tenancy, handed_back, lost
from greenroom.sandbox.tenants import Tenants
from greenroom.sandbox.warm import WarmPool

logger = logging.getLogger("greenroom.sandbox")

START_SECONDS: Final = 20.0
"""How long a start waits for the removal of what dead processes left; it goes on afterwards."""

STOP_SECONDS: Final = 30.0
"""How long a stop tries to remove boxes; what is left then, the next process removes."""


class KeeperStatistics(Struct, frozen=True):
    """What a keeper has: boxes that sessions have, boxes that are being made, warm ones, ones being removed, and how
    many first uses wait for one to become free."""

    ready: int
    making: int
    warm: int
    ending: int
    waiting: int


class Keeper:
    """Gives each key its box, at the first use of it. Started once, stopped once.

    `leases`, `owners`, `folders`, `way_out`: where leases, owners and boxes' directories are, and the filter that is
    boxes' way out; by default those of this user and of the settings. `connect` gives the client of a box.
    """

    def __init__(
        self,
        backend: Backend,
        settings: SandboxSettings,
        *,
        leases: Leases | None = None,
        owners: Owners | None = None,
        folders: BoxFolders | None = None,
        way_out: WayOut | None = None,
        connect: Callable[[BoxAddress], BoxClient] = BoxClient,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._parts = Parts(
            backend=backend,
            settings=settings,
            leases=leases or SqliteLeases(),
            owners=owners or Owners(new_id=new_id),
            folders=folders or BoxFolders(),
            way_out=way_out or EgressFilter(settings.egress),
            connect=connect,
            clock=clock,
            new_id=new_id,
        )
        self._boxes = Boxes(self._parts)
        self._pool = WarmPool(self._parts, self._boxes)
        self._reconciler = Reconciler(self._parts, self._boxes)
        self._tenants = Tenants(self._parts, self._boxes, self._pool, self._reconciler)
        self._turning = asyncio.Lock()  # starting or stopping
        self._open = False
        self._background: asyncio.Task[None] | None = None
        self._notes: set[asyncio.Task[None]] = set()
        self._calls = 0
        self._quiet = anyio.Event()

    def __repr__(self) -> str:
        return f"<Keeper of {self._parts.backend.name} boxes, {self._boxes}>"

    # ------------------------------------------------------------------------------------------------ start and stop

    async def start(self) -> None:
        """Start the backend and tidy up what dead processes left. Doing it twice is fine.

        Raises `SandboxUnavailable`, which says what is missing and what to do.
        """
        async with self._turning:
            if self._background is not None:
                return
            parts = self._parts
            await parts.backend.start()
            try:
                await parts.leases.start()
                backend = parts.backend
                where = backend.where if isinstance(backend, Located) else backend.name
                if parts.shared is not None:
                    parts.shared.when_told(self._tenants.asked, self._tenants.taken)
                    where = sharing(where, parts.shared.place)
                await parts.owners.enter(where)
                await self._reconciler.once()
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self._let_go(all_gone=True, leaving=False)
                raise
            self._background = asyncio.get_running_loop().create_task(
                self._work(), name="greenroom keeper", context=Context()
            )
            with anyio.move_on_after(START_SECONDS):
                await self._reconciler.settled()
            self._open = True

    async def stop(self) -> None:
        """Wait for the calls under way, refuse new ones, remove all boxes of this keeper; or let those of sessions go,
        if processes share their leases and another one is there. Doing it twice is fine."""
        self._open = False
        self.wait_for_nobody()
        while self._calls:
            self._quiet = anyio.Event()
            await self._quiet.wait()
        async with self._turning:
            background, self._background = self._background, None
            if background is None:
                return
            self._open = False
            with anyio.CancelScope(shield=True):
                background.cancel()
                await asyncio.wait({background})
                all_gone = await self._end_all()
                await self._let_go(all_gone=all_gone)

    def wait_for_nobody(self) -> None:
        """Calls that wait for a person to hand the browser back are refused: this process stops."""
        for tenancy in self._tenants.all():
            tenancy.comes_back()
            tenancy.handed_back.set()

    async def _end_all(self) -> bool:
        """End or let go of all boxes. Whether nothing of them is left."""
        handing = self._parts.shared is not None
        for tenancy in self._tenants.all():
            if tenancy.box is not None:
                tenancy.box.lease = msgspec.structs.replace(tenancy.box.lease, person=tenancy.told)
        return await self._boxes.end_all("the process that had it stops", STOP_SECONDS, handing=handing)

    async def _let_go(self, *, all_gone: bool, leaving: bool = True) -> None:
        # Leases that were let go name this owner, until somebody goes on with the boxes or removes them.
        leaving = leaving and self._parts.shared is not None
        await self._parts.owners.leave(all_gone=all_gone and not leaving)
        if leaving:
            with anyio.move_on_after(STOP_SECONDS):
                await self._leave_to_others()
        await self._reconciler.stop()
        await self._parts.leases.stop()
        await self._parts.backend.stop()

    async def _leave_to_others(self) -> None:
        """Where nobody is left to go on with boxes, remove all there are. Who stops leaves first and looks then, so
        that of those who stop at the same time the last one finds nobody, and what all the others have let go."""
        owners = self._parts.owners
        if await owners.company():
            return
        try:
            await self._reconciler.clear()
            if all(lease.owner != owners.id for lease in await self._parts.leases.all()):
                await owners.forget(owners.id)
        except SandboxError as error:
            logger.warning("What is left of sandboxes is for the next process to remove: %s", error)

    async def _work(self) -> None:
        async with anyio.create_task_group() as group:
            for work in (
                self._reconciler.repeat,
                self._reconciler.listen,
                self._pool.fill,
                self._tenants.sweep_now_and_then,
            ):
                group.start_soon(work)

    # --------------------------------------------------------------------------------------------------------- using

    async def call(
        self, key: LeaseKey, tool: str, arguments: Mapping[str, Any], seconds: float | None = None
    ) -> ToolResult:
        """Run one tool in the key's box; the first call makes the box. `seconds` (none: the settings' `call_seconds`)
        are for the tool alone, not for making a box nor for waiting until a person hands the browser back.

        Cancelling it cancels the tool inside the box. Raises `SandboxLost` once when the box the key had is gone (the
        next call gets a new one), `SandboxTimeout`, `SandboxBusy`, `SandboxUnavailable`, `LeaseHeld` (another process
        has the key's box), `LeaseOver` (the keeper is not started, or stopped).
        """
        seconds = self._parts.settings.call_seconds if seconds is None else seconds
        with self._calling(), self._tenants.visit(key) as tenancy:
            if tool.startswith("browser_"):
                return await self._browse(tenancy, tool, arguments, seconds)
            box = await self._tenants.box(tenancy)
            with _losing(key), box.using() as client:
                return await client.call(tool, arguments, seconds)

    @asynccontextmanager
    async def client(self, key: LeaseKey, *, looking: bool = False) -> AsyncIterator[BoxClient]:
        """The client of the key's box, for its files: `async with keeper.client(key) as client:`. The box stays while
        it is used. Makes the box, and raises, as `call` does.

        `looking`: for the live view. The agent's news of a lost box are left for the agent, and neither `release` nor
        `stop` wait for who only looks: the block is cancelled then, and raises `SandboxLost`.
        """
        self._check_open()
        with self._tenants.visit(key) as tenancy:
            box = await self._tenants.box(tenancy, telling=not looking)
            with _losing(key), box.using(looking=looking) as client:
                yield client

    @contextmanager
    def hold(self, key: LeaseKey) -> Iterator[None]:
        """While it is entered the key's box, if it has or gets one, is not taken away for being idle: a turn."""
        tenancy = self._tenants.of(key)
        tenancy.holds += 1
        try:
            yield
        finally:
            tenancy.holds -= 1
            self._tenants.left(tenancy)

    def expect(self, key: LeaseKey) -> None:
        """The key's session is at work in this process: if it has a box in another one, go on with that here."""
        if self._open and self.sharing:
            self._tenants.expect(self._tenants.of(key))

    @property
    def sharing(self) -> bool:
        """Whether processes share their leases, so that boxes go from one to another with their sessions."""
        return self._parts.shared is not None

    async def hand_over(self, key: LeaseKey) -> None:
        """Let go of the key's box, when the calls under way are done, for another process of the session's."""
        if self.sharing:
            await self._tenants.hand_over(key)

    def lease_of(self, key: LeaseKey) -> Lease | None:
        """The lease of the box that the key has at this moment."""
        boxes = [box for box in self._boxes.of(key) if box.there and not box.ending]
        return boxes[0].lease if boxes else None

    async def release(self, key: LeaseKey, *, lost: str = "") -> None:
        """End the key's box when the calls under way are done, and wait until it is gone. None is fine.

        `lost`: why, for an agent that comes back later and must not go on in an empty browser unawares: the next call
        raises `SandboxLost` with it.
        """
        await self._tenants.release(key, lost)

    def bereave(self, key: LeaseKey, why: str) -> None:
        """Who uses the key next believes that it has a box, and has none: that call raises `SandboxLost`."""
        self._tenants.remember(key, why)

    def statistics(self) -> KeeperStatistics:
        """What it has at this moment."""
        boxes, waiting = self._boxes.all(), self._boxes.waiting
        ending = sum(box.ending for box in boxes)
        ready = sum(box.there and not box.ending and box.lease.key is not None for box in boxes)
        warm = len(self._pool)
        return KeeperStatistics(
            ready=ready,
            making=len(boxes) - ready - warm - ending - waiting,
            warm=warm,
            ending=ending,
            waiting=waiting,
        )

    # ------------------------------------------------------------------------------------------------------- a person

    async def take_over(self, key: LeaseKey) -> None:
        """A person takes the browser: calls of `browser_…` tools wait from now on, and their time does not run. Returns
        when none is under way any more. Doing it twice is fine."""
        self._check_open()
        tenancy = self._tenants.of(key)
        must_look = tenancy.must_look
        new = tenancy.take_over()
        try:
            await tenancy.browsing_over()
        except asyncio.CancelledError:
            if new:
                self.hand_back(key)
                tenancy.must_look = must_look  # nobody has used the page
            raise
        if new:
            await self._tenants.note_person(tenancy)

    def hand_back(self, key: LeaseKey) -> None:
        """The person is done. Tools that act on what the agent saw before are not carried out until it has looked
        again: the first of them is answered with what the page is now. Doing it twice is fine."""
        tenancy = self._tenants.of(key)
        had = tenancy.person
        tenancy.hand_back()
        self._tenants.left(tenancy)
        if had and self.sharing:
            noting = asyncio.get_running_loop().create_task(
                self._tenants.note_person(tenancy), name="greenroom person", context=Context()
            )
            self._notes.add(noting)
            noting.add_done_callback(self._notes.discard)

    async def _browse(
        self, tenancy: Tenancy, tool: str, arguments: Mapping[str, Any], seconds: float
    ) -> ToolResult:
        box = await self._tenants.box(tenancy)
        while tenancy.person:
            await tenancy.handed_back.wait()
            self._check_open()
            if tenancy.person:
                raise LeaseOver(
                    "this process stops, and a person has the browser; another process goes on with it"
                )
            box = await self._tenants.box(tenancy)
        with tenancy.browsing(), _losing(tenancy.key), box.using() as client:
            if tenancy.must_look and tool in ACTS:
                answer = handed_back(tool, await client.call("browser_snapshot", {}, seconds))
            else:
                answer = await client.call(tool, arguments, seconds)
            tenancy.must_look = tenancy.must_look and tool in BLIND
            return answer

    # ---------------------------------------------------------------------------------------------------- book-keeping

    def _check_open(self) -> None:
        if not self._open:
            raise LeaseOver("sandboxes are used before they are started, or after they were stopped")

    @contextmanager
    def _calling(self) -> Iterator[None]:
        self._check_open()
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._quiet.set()


@contextmanager
def _losing(key: LeaseKey) -> Iterator[None]:
    """A box that ends under way is told of in words that help a model."""
    try:
        yield
    except SandboxLost as error:
        raise lost(key, error.message.rstrip(".")) from error
