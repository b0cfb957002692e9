"""The keeper of a process's boxes: who uses which, from its lease to its end.

Law 8 is kept here: a lease is written before its box exists and erased after it is gone; no box outlives its lease for
long, none is taken away during a turn or a call, no key ever has two.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from greenroom.sandbox.backend import Backend
from greenroom.sandbox.leases import LeaseKey, Leases
from greenroom.sandbox.result import ToolResult
from greenroom.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from greenroom.sandbox.client import BoxClient


class KeeperStatistics(Struct, frozen=True):
    """What a keeper has: boxes that sessions have, boxes that are being made, warm ones, ones being removed, and how
    many first uses wait for one to become free."""

    ready: int
    making: int
    warm: int
    ending: int
    waiting: int


class Keeper:
    """Gives each key its box, at the first use of it. Started once, stopped once."""

    def __init__(
        self,
        backend: Backend,
        settings: SandboxSettings,
        *,
        leases: Leases | None = None,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        """Start the backend and tidy up what dead processes left. Doing it twice is fine.

        Raises `SandboxUnavailable`, which says what is missing and what to do.
        """
        raise NotImplementedError

    async def stop(self) -> None:
        """Wait for the calls under way, refuse new ones, remove all boxes of this keeper. Doing it twice is fine."""
        raise NotImplementedError

    async def call(
        self, key: LeaseKey, tool: str, arguments: Mapping[str, Any], seconds: float | None = None
    ) -> ToolResult:
        """Run one tool in the key's box; the first call makes the box. `seconds` (none: the settings' `call_seconds`)
        are for the tool alone, not for making a box nor for waiting until a person hands the browser back.

        Cancelling it cancels the tool inside the box. Raises `SandboxLost` once when the box the key had is gone (the
        next call gets a new one), `SandboxTimeout`, `SandboxBusy`, `SandboxUnavailable`, `LeaseHeld` (another process
        has the key's box), `LeaseOver` (the keeper is not started, or stopped).
        """
        raise NotImplementedError

    def client(self, key: LeaseKey) -> AbstractAsyncContextManager[BoxClient]:
        """The client of the key's box, for its files and the live view: `async with keeper.client(key) as client:`.
        The box stays while it is used. Makes the box, and raises, as `call` does."""
        raise NotImplementedError

    def hold(self, key: LeaseKey) -> AbstractContextManager[None]:
        """While it is entered the key's box, if it has or gets one, is not taken away for being idle: a turn."""
        raise NotImplementedError

    async def take_over(self, key: LeaseKey) -> None:
        """A person takes the browser: calls of `browser_…` tools wait from now on, and their time does not run. Returns
        when none is under way any more. Doing it twice is fine."""
        raise NotImplementedError

    def hand_back(self, key: LeaseKey) -> None:
        """The person is done. Tools that act on what the agent saw before are not carried out until it has looked
        again: the first of them is answered with what the page is now. Doing it twice is fine."""
        raise NotImplementedError

    async def release(self, key: LeaseKey, *, lost: str = "") -> None:
        """End the key's box when the calls under way are done, and wait until it is gone. None is fine.

        `lost`: why, for an agent that comes back later and must not go on in an empty browser unawares: the next call
        raises `SandboxLost` with it.
        """
        raise NotImplementedError

    def statistics(self) -> KeeperStatistics:
        """What it has at this moment."""
        raise NotImplementedError
