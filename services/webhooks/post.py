"""One attempt to deliver a webhook: a POST that goes to a public address, or to one the operator named, and no further.

The URL is the client's choice, so it must not make this process knock on doors that only it can reach. Addresses are
judged when they are connected to, and not before: a name that leads elsewhere a moment later (DNS rebinding) leads
nowhere. Redirects are not followed, no proxy is used, no cookie is kept, and nothing of the answer is read but its
status and `Retry-After`.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from greenroom.actors.errors import InvalidRequest
from greenroom.sandbox.egress.addresses import Address, read_address, read_host
from greenroom.sandbox.egress.dial import Resolver, SystemResolver
from greenroom.services.webhooks.delivery import Answer
from greenroom.services.webhooks.gate import Gate

SECONDS: Final = 15.0
"""How long an attempt may take, from looking the name up to the status."""


class NotAllowed(OSError):
    """The address is none that webhooks may go to."""


class JudgingResolver(AbstractResolver):
    """Looks names up for aiohttp, and gives it only the addresses that the gate lets through."""

    def __init__(self, gate: Gate, resolver: Resolver) -> None:
        self._gate = gate
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`. Raises `NotAllowed` when there are only others."""
        fine: list[ResolveResult] = []
        why = "it leads nowhere"
        for text in await self._resolver.addresses(host):
            try:
                address = read_address(text)
            except ValueError:
                why = "it leads to no address of the internet"
                continue
            refusal = self._gate.why_not(address)
            if refusal is None and family in (socket.AF_UNSPEC, _family(address)):
                fine.append(_result(host, port, address))
            why = refusal or why
        if not fine:
            raise NotAllowed(why)
        return fine

    async def close(self) -> None:
        """There is nothing to let go."""


class Post:
    """Makes attempts, each with a connection of its own. Close it in the end."""

    def __init__(
        self,
        gate: Gate,
        *,
        seconds: float = SECONDS,
        resolver: Resolver | None = None,
        agent: str = "Greenroom",
    ) -> None:
        self._gate = gate
        self._agent = agent
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=JudgingResolver(gate, resolver or SystemResolver()),
                use_dns_cache=False,
                force_close=True,
            ),
            timeout=aiohttp.ClientTimeout(total=seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send it once."""
        try:
            target = self._target(url)
        except InvalidRequest as error:
            return Answer(why=error.message, final=True)
        sent = {"Content-Type": "application/json", "User-Agent": self._agent, **headers}
        try:
            async with self._session.post(target, data=body, headers=sent, allow_redirects=False) as answer:
                return Answer(
                    answer.status, _seconds(answer.headers.get("Retry-After")), f"HTTP {answer.status}"
                )
        except aiohttp.ClientConnectorError as error:
            return Answer(why=str(error.os_error), final=isinstance(error.os_error, NotAllowed))
        except TimeoutError:
            return Answer(why="there was no answer in time")
        except (aiohttp.ClientError, OSError) as error:
            return Answer(why=f"{type(error).__name__}: {error}")

    def _target(self, url: str) -> URL:
        """The URL as aiohttp reads it. Raises `InvalidRequest`: the rules may be others than when it was asked for."""
        host = self._gate.read(url)
        refusal = InvalidRequest(
            f"webhook cannot be told: its host can be read in two ways, one of them {host}"
        )
        try:
            target = URL(url)
            if _host_of(target) != host:
                raise refusal
        except ValueError as error:
            raise refusal from error
        return target

    async def close(self) -> None:
        """Let the connections go."""
        await self._session.close()


def _host_of(url: URL) -> str:
    """The host as aiohttp would connect to it, in our spelling."""
    text = url.raw_host or ""
    return read_host(f"[{text}]" if ":" in text else text).text


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _result(host: str, port: int, address: Address) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=str(address),
        port=port,
        family=_family(address),
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )


def _seconds(retry_after: str | None) -> float:
    """What `Retry-After` says, if it is a number."""
    text = retry_after or ""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0.0
