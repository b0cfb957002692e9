"""The egress filter: the one way out of a box, and who decides where it leads.

A box has no network. Its tool server relays 127.0.0.1:3128 to a UNIX socket in the box's directory, at the other end of
which this filter speaks the proxy's side of HTTP: CONNECT, and requests in absolute form.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from greenroom.sandbox.settings import EgressRules


class Resolver(Protocol):
    """Looks names up."""

    async def addresses(self, host: str) -> Sequence[str]:
        """The addresses of `host`, best first. Raises `OSError` when there are none."""
        ...


class EgressLimits(Struct, frozen=True, kw_only=True):
    """Bounds of one box's way out. Times are in seconds, sizes in bytes."""

    connections: int = 128
    head_seconds: float = 15.0
    connect_seconds: float = 15.0
    idle_seconds: float = 600.0


class EgressStatistics(Struct, frozen=True):
    """What went through one listener so far."""

    open: int
    accepted: int
    refused: int


class EgressListener(Protocol):
    """One box's way out while it is open."""

    def statistics(self) -> EgressStatistics:
        """How many connections are open, were accepted, were refused."""
        ...


class EgressFilter:
    """Lets boxes go where `rules` say. One filter serves any number of boxes.

    Raises `ConfigurationError` for rules that cannot be understood.
    """

    def __init__(
        self, rules: EgressRules, *, resolver: Resolver | None = None, limits: EgressLimits = EgressLimits()
    ) -> None:
        self._rules = rules
        self._resolver = resolver
        self._limits = limits

    @asynccontextmanager
    async def listen(self, path: Path, who: str) -> AsyncIterator[EgressListener]:
        """Serve a box at the UNIX socket `path`, until the context is left: then its connections end too.

        `who` (the lease's id) is what refusals are logged with. Raises `OSError` when nothing can listen there.
        """
        raise NotImplementedError
        yield
