"""One box of this process, from the moment it is wanted until it is gone: its state, and who waits for it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import msgspec

from greenroom.actors.errors import SandboxLost, SandboxTimeout
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.leases import Lease, LeaseKey


class KeptBox:
    """Coming, then there, then ending, then gone; it may skip being there.

    `ending`: it ends or has ended, and nobody may begin to use it; `why` is why. `gone` is set when nothing of it is
    left, its lease included, or when it had to be left behind. `until_end` is the scope of its life's task. `left`: it
    was removed, or let go, or that was tried. `used`: when it answered last, as far as is known. `told`: who had it
    knows that it is lost, or nothing is. `handing`: it is let go, for another process to go on with it. `taken`:
    another process has done that already."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.why = ""
        self.until_end = anyio.CancelScope()
        self.gone = anyio.Event()
        self.left_behind = False
        self.left = False
        self._arrival: asyncio.Future[BoxClient] = asyncio.get_running_loop().create_future()
        self.ending = False
        self.used = asyncio.get_running_loop().time()
        self.told = False
        self.handing = False
        self.taken = False
        self._calls: set[anyio.CancelScope] = set()
        self._views: set[anyio.CancelScope] = set()
        self._quiet = anyio.Event()

    def __repr__(self) -> str:
        state = (
            "gone" if self.gone.is_set() else "ending" if self.ending else "there" if self.there else "coming"
        )
        return f"<KeptBox {self.lease.id[:8]}, {state}>"

    @property
    def there(self) -> bool:
        """Whether its tool server answered."""
        return self._arrival.done() and not self._arrival.cancelled() and self._arrival.exception() is None

    @property
    def client(self) -> BoxClient:
        """Of one that is there."""
        return self._arrival.result()

    def belongs_to(self, key: LeaseKey) -> None:
        """It was a warm one, and is this key's from now on."""
        self.lease = msgspec.structs.replace(self.lease, key=key)

    async def arrival(self) -> None:
        """Wait until it is there. Raises what prevented it."""
        await asyncio.shield(self._arrival)

    def arrived(self, client: BoxClient) -> None:
        """Its tool server answered."""
        self._arrival.set_result(client)

    def failed(self, error: BaseException) -> None:
        """It will never be there. Fine when it was."""
        if not self._arrival.done():
            self._arrival.set_exception(error)
            self._arrival.exception()  # somebody may have stopped waiting for it: no warning then

    def end(self, why: str) -> None:
        """Have it end, with what is under way in it. Doing it twice is fine."""
        if not self.ending:
            self.why = why
            self.ending = True
            self.until_end.cancel()
            for use in (*self._calls, *self._views):
                use.cancel()

    def hand_over(self, why: str) -> None:
        """Let it go as it is. Who uses it here hears that he no longer has it."""
        if not self.ending:
            self.handing = self.told = True
            self.end(why)

    def was_taken(self) -> None:
        """Another process has it: here it just ends."""
        self.taken = self.told = True
        self.end("another process has taken it over")

    @property
    def calling(self) -> bool:
        """Whether a call is under way in it."""
        return bool(self._calls)

    async def quiet(self) -> None:
        """Wait until no call is under way in it."""
        while self._calls:
            self._quiet = anyio.Event()
            await self._quiet.wait()

    @contextmanager
    def using(self, *, looking: bool = False) -> Iterator[BoxClient]:
        """A call is under way, or somebody only looks, whom nobody waits for. Raises `SandboxLost` when it ends
        meanwhile; then who had it knows (`told`)."""
        uses = self._views if looking else self._calls
        try:
            with anyio.CancelScope() as use:
                uses.add(use)
                try:
                    if self.ending:
                        use.cancel()
                    yield self.client
                finally:
                    uses.discard(use)
                    self.used = asyncio.get_running_loop().time()
                    if not self._calls:
                        self._quiet.set()
            if use.cancelled_caught:
                raise SandboxLost(self.why)
        except SandboxTimeout:
            self.used = -math.inf  # before it is used again it is asked whether it is well
            raise
        except SandboxLost as error:
            self.end(error.message)
            self.told = self.told or not looking
            raise
