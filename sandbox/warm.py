"""The warm pool: boxes with a browser, made ahead and paused, for the next sessions."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

import anyio

from greenroom.actors.errors import LeaseHeld, SandboxError
from greenroom.sandbox.backend import BoxKind, Pausing
from greenroom.sandbox.boxes import Boxes, Parts
from greenroom.sandbox.kept_box import KeptBox
from greenroom.sandbox.leases import LeaseChange, LeaseKey

logger = logging.getLogger("greenroom.sandbox")

AGAIN_SECONDS: Final = 5.0
"""After a warm box could not be made: what prevents it may last."""

SETTLE_SECONDS: Final = 1.0
"""Before a box that was taken is made up for: who took it wants the processor now."""

HEALTH_SECONDS: Final = 5.0
"""How long a box may take to say that it is well."""

KIND: Final[BoxKind] = "browser"


class WarmPool:
    """Keeps up to `settings.warm` boxes ready while places are free. They yield to sessions that need a place."""

    def __init__(self, parts: Parts, boxes: Boxes) -> None:
        self._parts = parts
        self._boxes = boxes
        self._paused: deque[KeptBox] = deque()
        self._coming: KeptBox | None = None
        self._look = anyio.Event()
        boxes.freed = self.look

    def __repr__(self) -> str:
        return f"<WarmPool of {len(self)}>"

    def __len__(self) -> int:
        return sum(not box.ending for box in self._paused)

    def look(self) -> None:
        """There may be something to do."""
        self._look.set()

    async def fill(self) -> None:
        """Make warm boxes where they are missing, one at a time, until it is cancelled."""
        if not self._parts.settings.warm:
            return
        while True:
            self._look = anyio.Event()
            if not self._missing():
                await self._look.wait()
                await anyio.sleep(SETTLE_SECONDS)
            elif not await self._add_one():
                await anyio.sleep(AGAIN_SECONDS)

    def _missing(self) -> bool:
        self._paused = deque(box for box in self._paused if not box.ending)
        return len(self._paused) < self._parts.settings.warm and not self._boxes.full

    async def _add_one(self) -> bool:
        box = self._coming = self._boxes.begin(None, KIND, patient=False)
        try:
            await box.arrival()
            if isinstance(self._parts.backend, Pausing):
                await self._parts.backend.pause(box.lease.id)
        except SandboxError as error:
            box.end("it could not be kept warm")
            logger.info("No warm sandbox for now: %s", error)
            return False
        except asyncio.CancelledError:
            box.end("the warm pool is given up")
            raise
        finally:
            self._coming = None
        self._paused.append(box)
        return True

    def make_room(self) -> None:
        """A session waits for a place: give up a box."""
        box = self._paused.popleft() if self._paused else self._coming
        if box is not None:
            box.end("a session needed its place")

    async def take(self, key: LeaseKey) -> KeptBox | None:
        """A warm box that is the key's from now on, and well; none when there is none.

        Raises `LeaseHeld` when the key has a lease.
        """
        while self._paused and key.kind == KIND:
            box = self._paused.popleft()
            if box.ending:
                continue
            self.look()
            try:
                await self._give(box, key)
            except LeaseHeld:
                self._paused.appendleft(box)
                raise
            except SandboxError as error:
                box.end(f"it was not well when it was taken from the warm pool: {error}")
            except asyncio.CancelledError:
                box.end("who wanted it went away")
                raise
            if not box.ending:
                return box
            await box.gone.wait()  # its lease may be the key's already
        return None

    async def _give(self, box: KeptBox, key: LeaseKey) -> None:
        if not await self._parts.leases.change(box.lease.id, LeaseChange(state="ready", key=key)):
            box.end("somebody removed its lease")
            return
        box.belongs_to(key)
        if isinstance(self._parts.backend, Pausing):
            await self._parts.backend.resume(box.lease.id)
        if not await box.client.healthy(HEALTH_SECONDS):
            box.end("it was not well when it was taken from the warm pool")
