"""Looking names up and connecting to addresses that were judged: the filter's way to the internet."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from ipaddress import IPv6Address
from typing import Final, Protocol, TypeAlias

import anyio

from greenroom.sandbox.egress.addresses import Address
from greenroom.sandbox.egress.refusal import Refusal
from greenroom.sandbox.egress.rules import Route, Target, own_address

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

CHUNK: Final = 64 * 1024
"""Bytes that are read at a time, and that wait on their way at most."""
NEXT_ADDRESS_SECONDS: Final = 0.25
"""An address that has not answered yet is joined by the next one after so long (RFC 8305)."""
MOST_ADDRESSES: Final = 8
LOOKUP_THREADS: Final = 64
"""More than ten boxes, the usual bound, use with names that take their time."""


class Resolver(Protocol):
    """Looks names up."""

    async def addresses(self, host: str) -> Sequence[str]:
        """The addresses of `host`, best first. Raises `OSError` when there are none."""
        ...


class SystemResolver:
    """The system's: files, DNS and what else it is set up for. Its lookups block, so they have threads of their own:
    a box that asks for slow names holds up neither the event loop nor other work in threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="greenroom-lookup")

    async def addresses(self, host: str) -> Sequence[str]:
        found = await asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host)
        return list(dict.fromkeys(found))


class Lookups:
    """One box's lookups, so many at a time: slow names of one box do not keep others from looking up theirs. One that
    nobody waits for any more counts until it is over, since it holds a thread as long."""

    def __init__(self, resolver: Resolver, most: int) -> None:
        self._resolver = resolver
        self._free = anyio.Semaphore(most)
        self._running: set[asyncio.Task[Sequence[str]]] = set()

    async def addresses(self, host: str) -> Sequence[str]:
        """The addresses of `host`. Raises `OSError` when there are none."""
        await self._free.acquire()
        task = asyncio.create_task(self._ask(host), name=f"lookup of {host}")
        self._running.add(task)
        task.add_done_callback(self._over)
        await asyncio.wait([task])
        return task.result()

    def close(self) -> None:
        """Forget those that run."""
        for task in self._running:
            task.cancel()

    async def _ask(self, host: str) -> Sequence[str]:
        return await self._resolver.addresses(host)

    def _over(self, task: asyncio.Task[Sequence[str]]) -> None:
        self._running.discard(task)
        self._free.release()
        if not task.cancelled():
            task.exception()  # whoever asked may have gone


def _look_up(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for _, _, _, _, sockaddr in found]


def is_own(address: Address) -> bool:
    """Whether the address is one of this machine's: what its kernel would connect to it from is the address itself.

    A public address of this host leads past the firewall that guards it from outside. No packet is sent. Raises
    `OSError` when it cannot be told, for want of file descriptors: a box may be what uses them up.
    """
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect((str(address), 9))
        except OSError:  # no way to it: connecting will say so
            return False
        return bool(probe.getsockname()[0] == str(address))


async def dial(target: Target, route: Route) -> Streams:
    """Connect to the route's addresses, to the first that answers. Raises `Refusal`, and has no end of its own."""
    addresses = route.addresses[:MOST_ADDRESSES]
    try:
        own = not route.trusted and any(map(is_own, addresses))
    except OSError as error:
        raise Refusal(HTTPStatus.BAD_GATEWAY, f"{target} cannot be reached", detail=str(error)) from None
    if own:
        raise own_address(target)
    attempts = _Attempts(route.port)
    await attempts.run(addresses)
    if attempts.won is not None:
        return attempts.won
    why = "; ".join(dict.fromkeys(attempts.errors))
    raise Refusal(HTTPStatus.BAD_GATEWAY, f"{target} cannot be reached", detail=why)


class _Attempts:
    """Connections that are being tried, one of which wins."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.won: Streams | None = None
        self.errors: list[str] = []

    async def run(self, addresses: Iterable[Address]) -> None:
        try:
            async with anyio.create_task_group() as group:
                for address in addresses:
                    over = anyio.Event()
                    group.start_soon(self._try, address, over, group.cancel_scope)
                    with anyio.move_on_after(NEXT_ADDRESS_SECONDS):
                        await over.wait()
        except BaseException:
            if self.won is not None:  # cancelled from outside after all
                self.won[1].transport.abort()
                self.won = None
            raise

    async def _try(self, address: Address, over: anyio.Event, others: anyio.CancelScope) -> None:
        try:
            streams = await asyncio.open_connection(str(address), self._port, limit=CHUNK)
        except OSError as error:
            self.errors.append(error.strerror or str(error))
            over.set()
            return
        if self.won is not None:
            streams[1].transport.abort()
            return
        self.won = streams
        others.cancel()
