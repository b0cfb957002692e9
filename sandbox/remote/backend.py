"""The remote backend: one box that runs elsewhere, at a URL, made by whoever runs it.

It has one lease at a time. A box of ours is reset before a session gets it and when the session is through with it. The
official image cannot be reset, and who had it can have changed anything in it: it is given once. What its sessions can
reach is up to where it runs; this host's egress filter is not in its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import anyio
import msgspec

from greenroom.actors.errors import (
    ConfigurationError,
    SandboxBusy,
    SandboxError,
    SandboxFileNotFound,
    SandboxLost,
    SandboxUnavailable,
)
from greenroom.sandbox.backend import API_SOCKET, BOX_SECONDS, BoxAddress, BoxSpec, FoundBox
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.remote.gate import PREFIX, Gate, remote_session
from greenroom.sandbox.remote.record import Holding, RemoteRecord
from greenroom.sandbox.settings import SandboxSettings

_log = logging.getLogger(__name__)

REACH_SECONDS: Final = 10.0
"""For the first answer at the start."""
WATCH_SECONDS: Final = 3.0
"""Between two looks at whether the box still answers, and for its answer."""
MISSES: Final = 2
"""A box that does not answer so often in a row has ended."""
RESET_SECONDS: Final = 20.0
"""For a box that is given back; the next lease resets it anyhow."""
ENDINGS_KEPT: Final = 100


class RemoteBackend:
    """The box at `settings.backend` with `settings.token`. `folder`: where the record of who has it is kept.

    Raises `ConfigurationError` for a URL or a token that cannot be used.
    """

    name = "remote"

    def __init__(self, settings: SandboxSettings, *, folder: Path | None = None) -> None:
        self._url = box_url(settings.backend)
        if not settings.token:
            raise ConfigurationError(
                f"the sandbox at {self._url} wants a token: set GREENROOM_SANDBOX_TOKEN (or "
                "SandboxSettings(token=...)) to the SECRET_TOKEN that it was started with"
            )
        self._token = settings.token
        self._record = RemoteRecord(self._url, settings.token, folder)
        self._held: dict[str, contextlib.AsyncExitStack] = {}
        self._listeners: set[asyncio.Queue[str]] = set()

    def __repr__(self) -> str:
        return f"<RemoteBackend at {self._url}>"

    @property
    def where(self) -> str:
        """The box's address."""
        return f"remote {self._url}"

    async def start(self) -> None:
        """Make sure that the box answers and takes the token. Raises `SandboxUnavailable`."""
        if not _keeps_secrets(self._url):
            _log.warning(
                "the sandbox at %s is spoken to without encryption, its token too; use https", self._url
            )
        async with self._client() as client:
            try:
                await client.ready(REACH_SECONDS)
            except SandboxError as error:
                raise SandboxUnavailable(
                    f"the sandbox at {self._url} cannot be used: {error}; is it running, and is the URL right "
                    "(GREENROOM_SANDBOX)?"
                ) from error

    async def stop(self) -> None:
        """Close the ways to the box. Who has it is still written down."""
        for lease in list(self._held):
            await self._close(lease)

    async def create(self, spec: BoxSpec) -> BoxAddress:
        """Give the box to the lease. Raises `SandboxBusy` while another has it."""
        async with self._record.locked() as holding:
            self._check_free(holding, spec.lease)
            await self._record.write(Holding(lease=spec.lease, owner=spec.owner))
            try:
                resettable = await self._reset(BOX_SECONDS)
            except SandboxError as error:
                await self._record.write(Holding())
                raise SandboxUnavailable(
                    f"the sandbox at {self._url} could not be made ready: {error}"
                ) from error
            if not resettable:
                await self._record.write(Holding(lease=spec.lease, owner=spec.owner, spent=True))
        return await self._open(spec)

    async def adopt(self, spec: BoxSpec) -> BoxAddress:
        """The way to the box of a lease that another process gave it to. Raises `SandboxLost` when it has another."""
        async with self._record.locked() as holding:
            if holding.lease != spec.lease or holding.ended:
                raise SandboxLost(f"the sandbox at {self._url} ended, or is another session's")
            await self._record.write(msgspec.structs.replace(holding, owner=spec.owner))
        return await self._open(spec)

    async def let_go(self, lease: str) -> None:
        """Close the way to the box."""
        await self._close(lease)

    async def remove(self, lease: str) -> None:
        """Take the box back from the lease, and reset it if it can be."""
        await self._close(lease)
        async with self._record.locked() as holding:
            if holding.lease != lease:
                return
            if not holding.spent:
                try:
                    await self._reset(RESET_SECONDS)
                except SandboxError as error:
                    _log.warning("the sandbox at %s was given back and not reset: %s", self._url, error)
            await self._record.write(Holding(spent=holding.spent))
        self._tell(lease)

    async def boxes(self) -> Sequence[FoundBox]:
        """The box, when a lease has it."""
        holding = await self._record.read()
        if holding.lease is None:
            return []
        return [FoundBox(holding.lease, holding.owner, not holding.ended)]

    async def endings(self) -> AsyncIterator[str]:
        """Leases that gave the box back, or whose box no longer answers."""
        told: asyncio.Queue[str] = asyncio.Queue(ENDINGS_KEPT)
        self._listeners.add(told)
        try:
            while True:
                yield await told.get()
        finally:
            self._listeners.discard(told)

    # ------------------------------------------------------------------------------------------------------ inside

    def _check_free(self, holding: Holding, lease: str) -> None:
        if holding.lease not in {None, lease}:
            raise SandboxBusy(
                f"the sandbox at {self._url} is in use by another session; it serves one at a time. Wait until that "
                "session is through, or run more sandboxes (the backends docker and local make one for each session)"
            )
        if holding.spent:
            raise SandboxUnavailable(
                f"the sandbox at {self._url} was given to a session before and cannot be reset, so it is given to no "
                "other one: what the first left in it would be the second's. Start a new container with a new "
                "SECRET_TOKEN and set GREENROOM_SANDBOX_TOKEN to it, or run Greenroom's own image, which is reset "
                f"(if this container is a new one with the same token: remove {self._record.path})"
            )

    async def _open(self, spec: BoxSpec) -> BoxAddress:
        async def holds() -> bool:
            return (await self._record.read()).lease == spec.lease

        path = spec.directory / API_SOCKET
        async with contextlib.AsyncExitStack() as opening:
            session = await opening.enter_async_context(remote_session(self._token))
            gate = Gate(session, self._url, spec.token, holds)
            await opening.enter_async_context(gate.open(path))
            watching = asyncio.create_task(self._watch(spec.lease), name=f"watch over {spec.lease}")
            opening.push_async_callback(_end, watching)
            self._held[spec.lease] = opening.pop_all()
        return BoxAddress(token=spec.token, socket=path)

    async def _close(self, lease: str) -> None:
        held = self._held.pop(lease, None)
        if held is not None:
            with anyio.CancelScope(shield=True):
                await held.aclose()

    async def _watch(self, lease: str) -> None:
        """Tell when the box no longer answers, or is no longer the lease's."""
        missed = 0
        async with self._client() as client:
            while missed < MISSES:
                await anyio.sleep(WATCH_SECONDS)
                if (await self._record.read()).lease != lease:
                    break
                missed = 0 if await client.healthy(WATCH_SECONDS) else missed + 1
        async with self._record.locked() as holding:
            if holding.lease == lease:
                await self._record.write(msgspec.structs.replace(holding, ended=True))
        self._tell(lease)

    def _tell(self, lease: str) -> None:
        for told in self._listeners:
            with contextlib.suppress(asyncio.QueueFull):  # who does not listen looks at `boxes`
                told.put_nowait(lease)

    async def _reset(self, seconds: float) -> bool:
        """Whether the box can be reset; then it has been."""
        async with self._client() as client:
            try:
                with anyio.fail_after(seconds):
                    await client.reset()
            except SandboxFileNotFound:
                return False
            except TimeoutError:
                raise SandboxUnavailable(f"it was not reset within {seconds:g} s") from None
        return True

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[BoxClient]:
        client = BoxClient(BoxAddress(token=self._token, url=self._url))
        try:
            yield client
        finally:
            await client.close()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("the watch over a remote sandbox ended", exc_info=error)


def box_url(text: str) -> str:
    """The URL below which the protocol's routes are. Raises `ConfigurationError`."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"the sandbox's URL {text!r} is not understood: {error}") from None
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        raise ConfigurationError(f"the sandbox's URL {text!r} is not like https://sandbox.example.com")
    if parts.username is not None:
        raise ConfigurationError(
            "the sandbox's URL has a user's name in it; what it wants to be shown is its token "
            "(GREENROOM_SANDBOX_TOKEN)"
        )
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path if path.endswith(PREFIX) else path + PREFIX}"


def _keeps_secrets(url: str) -> bool:
    """Whether nobody reads along: it is encrypted, or stays on this host."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
