"""The backend that needs no engine: boxes made with bubblewrap, on this machine, with its own browser and Python."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TypeVar

import anyio
from anyio import to_thread
from anyio.streams.memory import MemoryObjectSendStream

from greenroom.actors.errors import SandboxUnavailable
from greenroom.sandbox.backend import BoxAddress, BoxSpec, FoundBox
from greenroom.sandbox.local.boxes import Boxes
from greenroom.sandbox.local.mounts import Place
from greenroom.sandbox.local.place import find_bare_place, find_place
from greenroom.sandbox.local.trial import try_a_box
from greenroom.sandbox.local.users import told_bounds
from greenroom.sandbox.scopes import Groups, find_groups
from greenroom.sandbox.settings import SandboxSettings

log = logging.getLogger(__name__)

T = TypeVar("T")


class LocalBackend:
    """Boxes that are processes of this machine, in namespaces of their own. They end with the process that made them.

    Where none can be made and the settings allow it, they are processes like any other: no isolation at all.
    """

    name = "local"

    def __init__(self, settings: SandboxSettings) -> None:
        self._settings = settings
        self._boxes: Boxes | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: set[MemoryObjectSendStream[str]] = set()
        self._making: dict[str, asyncio.Task[BoxAddress]] = {}
        self._bare = False

    def __repr__(self) -> str:
        isolated = "" if self._boxes is None else ", without isolation" if self._bare else ", isolated"
        return f"<LocalBackend{isolated}>"

    async def start(self) -> None:
        """Try a box. Raises `SandboxUnavailable`, which says what is missing and what to do."""
        if self._boxes is None:
            self._loop = asyncio.get_running_loop()
            place, groups = await to_thread.run_sync(self._found)
            self._boxes = Boxes(place, groups, self._ended)

    async def stop(self) -> None:
        """Let go of everything but the boxes."""
        while self._making:
            await asyncio.wait(self._making.values())
        for listener in self._listeners:
            listener.close()
        boxes, self._boxes, self._loop = self._boxes, None, None
        if boxes is not None:
            await to_thread.run_sync(boxes.close)

    async def create(self, spec: BoxSpec) -> BoxAddress:
        """Start a box. Raises `SandboxUnavailable`."""
        making = asyncio.create_task(self._in_thread(self._started.make, spec))
        self._making[spec.lease] = making
        making.add_done_callback(partial(self._made, spec.lease))
        # Making one takes some tens of milliseconds and is not left half done; `remove` waits for it.
        return await asyncio.shield(making)

    async def remove(self, lease: str) -> None:
        """End the box and what is left of it."""
        boxes = self._started
        making = self._making.get(lease)
        if making is not None:
            await asyncio.wait([making])
        await self._in_thread(boxes.remove, lease)

    async def boxes(self) -> Sequence[FoundBox]:
        """All of this user's on this machine."""
        return await self._in_thread(self._started.all)

    async def endings(self) -> AsyncIterator[str]:
        """The leases of boxes made here, as they end."""
        tell, told = anyio.create_memory_object_stream[str](math.inf)
        self._listeners.add(tell)
        try:
            async for lease in told:
                yield lease
        finally:
            self._listeners.discard(tell)
            tell.close()
            told.close()

    async def pause(self, lease: str) -> None:
        """Stop the box's processes. Raises `SandboxLost` when it is gone."""
        await self._in_thread(self._started.pause, lease)

    async def resume(self, lease: str) -> None:
        """Let them run on. Raises `SandboxLost` when it is gone."""
        await self._in_thread(self._started.resume, lease)

    @property
    def _started(self) -> Boxes:
        if self._boxes is None:
            raise SandboxUnavailable("the local backend is not started, or was stopped: await its start()")
        return self._boxes

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await to_thread.run_sync(partial(work, *arguments))

    def _made(self, lease: str, making: asyncio.Task[BoxAddress]) -> None:
        del self._making[lease]
        if not making.cancelled() and making.exception() is not None:
            log.debug("box %s was not made: %s", lease[:8], making.exception())

    def _ended(self, lease: str) -> None:
        """Called in the thread that watches the boxes."""
        loop = self._loop
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self._tell, lease)
        except RuntimeError:
            log.debug("box %s ended after the event loop was closed", lease[:8])

    def _tell(self, lease: str) -> None:
        for listener in self._listeners:
            listener.send_nowait(lease)

    # ------------------------------------------------------------------------------------------------ in worker threads

    def _found(self) -> tuple[Place, Groups | None]:
        groups = find_groups()
        try:
            place = find_place(self._settings)
            try_a_box(place, groups)
        except SandboxUnavailable as error:
            if not self._settings.unsafe_local_browser:
                raise
            place, self._bare = find_bare_place(self._settings), True
            log.warning(
                "local sandboxes run WITHOUT ISOLATION, as unsafe_local_browser allows: pages and code in them can do "
                "whatever this user can. They cannot be isolated because %s", error,
            )  # fmt: skip
        else:
            who = "users of their own" if os.geteuid() == 0 else "a user namespace"
            log.info(
                "local sandboxes: bubblewrap, %s, browser %s; %s", who, place.browser, told_bounds(groups)
            )
        return place, groups
