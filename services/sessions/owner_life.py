"""This process's life as an owner of sessions: a name, renewed in time or given up.

An owner that is late to renew is gone for good, and others take what it had. So who cannot be sure to have renewed
stops in time, by his own clock and a margin before the storage would say so, and begins anew under another name.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Final

from greenroom.actors.errors import ConfigurationError, StoreUnavailable
from greenroom.services.storage import OwnerGone, OwnerState, Storage

logger = logging.getLogger("greenroom.services")

MARGIN: Final = 0.2
"""Part of the lease before whose end this process stops."""
RENEWALS: Final = 3
"""In one lease."""
LONGEST_LEASE: Final = 86_400.0
"""Seconds: as long nobody else works on what a process had that died."""
LOOK_SECONDS: Final = 1.0
"""Between two looks at whether to renew; while turns are open each of them renews, as notes come with renewals."""
LATE: Final = (
    "where sessions are kept did not answer in time, so this process stops what it does for its sessions; others may "
    "have taken them"
)
NEVER: Final = float("-inf")


def new_name() -> str:
    """A name that no process had before."""
    return uuid.uuid4().hex


class OwnerLife:
    """Renews an owner of sessions until it is stopped.

    `seconds`: of its lease, up to a day; others raise `ConfigurationError`. `lost`: called when it was late and has
    another name now. `noted`: called with each note that is left for it. `busy`: whether notes should come soon.
    `beaten`: begun after each renewal, beside those that follow, but not before what was begun last has come to an end.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        seconds: float,
        new_name: Callable[[], str],
        monotonic: Callable[[], float] = time.monotonic,
        lost: Callable[[], object],
        noted: Callable[[bytes], object],
        busy: Callable[[], bool],
        beaten: Callable[[], Awaitable[object]],
    ) -> None:
        if not 0 < seconds <= LONGEST_LEASE:
            raise ConfigurationError(
                f"lease_seconds={seconds} is not more than 0 and up to {LONGEST_LEASE:g}, a day: as long nobody "
                "else has the sessions of a process that died"
            )
        self._storage = storage
        self._seconds = seconds
        self._new_name = new_name
        self._monotonic = monotonic
        self._lost = lost
        self._noted = noted
        self._busy = busy
        self._beaten = beaten
        self._state: OwnerState = "serving"
        self._until = NEVER
        """Until when this process may be sure that it lives."""
        self._begun = self._given = 0
        """Renewals that were begun, and the number of the last one that gave this process its notes."""
        self._beating = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._tending: asyncio.Task[None] | None = None
        """What is done after a renewal: that may take longer than a lease."""
        self.name = new_name()

    def __repr__(self) -> str:
        return f"<OwnerLife of {self.name}, {self._state}>"

    @property
    def draining(self) -> bool:
        """Whether it takes no more sessions."""
        return self._state == "draining"

    def lives(self) -> bool:
        """Whether this process may write as owner. If it was late it is another owner after this call."""
        if self._monotonic() < self._until:
            return True
        if self._until != NEVER:
            self._begin_anew()
        return False

    async def start(self) -> None:
        """Begin, under a new name. Raises `StoreUnavailable`."""
        self.name, self._state, self._until = self._new_name(), "serving", NEVER
        await self._renew()
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"renewing {self.name}")

    async def stop(self) -> None:
        """Say that this owner is gone, so that others need not wait for it."""
        tasks = [task for task in (self._task, self._tending) if task is not None]
        self._task = self._tending = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        lived, self._until = self._until != NEVER, NEVER
        if lived:
            try:
                await self._storage.renew(self.name, 0.0, "gone")
            except OwnerGone:
                logger.info("%s was gone before it stopped", self.name)
            except StoreUnavailable as error:
                logger.warning("%s is gone in %.0f s at the latest: %s", self.name, self._seconds, error)

    async def drain(self) -> None:
        """Take no more sessions. Raises `StoreUnavailable`; it holds all the same, here."""
        self._state = "draining"
        await self.beat()

    async def beat(self) -> None:
        """Renew now. Raises `StoreUnavailable` when that is not confirmed; who is late has another name then."""
        async with self._beating:
            await self._beat()

    async def hear(self) -> None:
        """Be given all notes that were left before this was called. Those who call at once share a renewal.

        Raises `StoreUnavailable` when that is not confirmed; who is late has another name then.
        """
        before = self._begun
        async with self._beating:
            if self._given <= before:
                await self._beat()

    # ------------------------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        name = self.name
        try:
            await self._renew()
        except OwnerGone:
            if self._until == NEVER:
                self.name = self._new_name()
            elif self.name == name:
                self._begin_anew()
            await self._renew()
        except StoreUnavailable:
            self.lives()
            raise

    async def _renew(self) -> None:
        """A renewal counts from before it was asked for; one that does not come back in time is given up."""
        name, asked = self.name, self._monotonic()
        self._begun += 1
        number = self._begun
        patience = self._seconds if self._until == NEVER else max(0.0, self._until - asked)
        try:
            async with asyncio.timeout(patience):
                notes = await self._storage.renew(name, self._seconds, self._state)
        except TimeoutError:
            raise StoreUnavailable(LATE) from None
        if name != self.name:  # somebody saw meanwhile that it was late
            raise StoreUnavailable(LATE)
        self._until = asked + self._seconds * (1 - MARGIN)
        for note in notes:
            self._noted(note)
        self._given = number

    def _begin_anew(self) -> None:
        before, self.name, self._until = self.name, self._new_name(), NEVER
        logger.error(
            "the owner %s was not renewed in time: its sessions may be others' now; it goes on as %s",
            before,
            self.name,
        )
        self._lost()

    async def _run(self) -> None:
        due = self._monotonic() + self._seconds / RENEWALS
        while True:
            await asyncio.sleep(min(LOOK_SECONDS, self._seconds / RENEWALS))
            if self._monotonic() < due and self.lives() and not self._busy():
                continue
            try:
                await self.beat()
                due = self._monotonic() + self._seconds / RENEWALS
                self._tend()
            except StoreUnavailable as error:
                logger.warning("%s could not be renewed: %s", self.name, error)
            except Exception:
                logger.exception("%s goes on being renewed", self.name)

    def _tend(self) -> None:
        if self._tending is None or self._tending.done():
            work = self._after_renewal()
            self._tending = asyncio.get_running_loop().create_task(work, name=f"renewed {self.name}")

    async def _after_renewal(self) -> None:
        try:
            await self._beaten()
        except StoreUnavailable as error:
            logger.warning("what %s does when it is renewed could not be done: %s", self.name, error)
        except Exception:
            logger.exception("what %s does when it is renewed failed; it is tried again", self.name)
