"""The plug point of engines: what runs boxes. Docker is one, bubblewrap on this machine is one, a URL is one.

A *box* is one running sandbox: a tool server (`greenroom.sandbox.image`, or the official image's) with what it drives.
A backend makes boxes, says what is left of them, and removes them. It knows no session, lease or agent: those who use
it write down a lease before they ask for a box (law 8), and the box carries the lease's id and its owner as labels,
so that whoever comes later can tell whose it was.

`tests/kits/backend_kit.py` is the conformance kit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol, TypeAlias, runtime_checkable

from msgspec import Meta, Struct

from greenroom.actors.setting_checks import Share, check_fields

MIB: Final = 1024 * 1024

BoxKind: TypeAlias = Literal["browser", "base"]
"""`base`: Python and a shell; `browser`: these and a browser that starts with the box."""

API_SOCKET: Final = "api.sock"
"""In a box's directory: where its tool server listens."""
EGRESS_SOCKET: Final = "egress.sock"
"""In a box's directory: where the filter listens that is the box's only way out."""
TOKEN_FILE: Final = "token"
"""In a box's directory: what callers must show. The tool server reads it at its start and removes it."""

BOX_SECONDS: Final = 60.0
"""How long a box may take to answer for the first time: from a cold page cache under load it takes 5 to 16 s."""


class BoxLimits(Struct, frozen=True, kw_only=True):
    """What one box may use. Sizes are in bytes."""

    memory: Share = 1024 * MIB
    """Memory and swap together."""
    pids: Share = 512
    """Processes and threads; an idle Chromium holds 63 to 83."""
    cpus: Annotated[float, Meta(gt=0)] = 2.0
    """Cores' worth of time."""
    temporary: Share = 256 * MIB
    """`/tmp`, where the browser keeps its profile, and downloads begin."""
    workspace: Share = 256 * MIB
    """`/workspace`, the files that tools see."""

    def __post_init__(self) -> None:
        check_fields(self)


class BoxSpec(Struct, frozen=True, kw_only=True):
    """What box to make.

    `lease`: the lease's id, 32 hexadecimal digits, unique for ever. `owner`: which process it is for. `directory`:
    the box's own directory on this host; it exists, is private, and holds `EGRESS_SOCKET` already if the box is to have
    a way out. The backend makes it usable for the box's user and mounts it, or whatever is in its place.
    """

    lease: str
    owner: str
    kind: BoxKind
    token: str
    directory: Path
    limits: BoxLimits = BoxLimits()

    def __repr__(self) -> str:
        return f"<BoxSpec {self.kind} {self.lease[:8]}>"  # the token is for nobody's log


class BoxAddress(Struct, frozen=True, kw_only=True):
    """Where a box's tool server is: at a UNIX socket of this host (`socket`), or at `url`. The protocol's routes are
    below `url`, which ends in `/fastapi`; with a socket its host part means nothing."""

    token: str
    url: str = "http://box/fastapi"
    socket: Path | None = None

    def __repr__(self) -> str:
        return f"<BoxAddress {self.socket or self.url}>"


class FoundBox(Struct, frozen=True):
    """A box that is there, or what is left of one. `running`: false for one that has ended and was not removed."""

    lease: str
    owner: str
    running: bool


@runtime_checkable
class Backend(Protocol):
    """Makes boxes. All methods may be called concurrently, for different leases; none blocks the event loop."""

    name: str
    """What it is called in settings, leases and logs: `docker`, `local`, `remote`."""

    async def start(self) -> None:
        """Make sure that boxes can be made here and are isolated as promised.

        Raises `SandboxUnavailable`, which says what is missing and what to do. Doing it twice is fine.
        """
        ...

    async def stop(self) -> None:
        """Let go of the engine. It removes no box: who made one removes it."""
        ...

    async def create(self, spec: BoxSpec) -> BoxAddress:
        """Start a box; its tool server may need a moment more to answer.

        When it fails or is cancelled nothing is left that `boxes` does not show and `remove` does not remove. Raises
        `SandboxUnavailable` (the engine will not, and why).
        """
        ...

    async def remove(self, lease: str) -> None:
        """End the box, whatever it does, and leave nothing of it but its directory. One that is gone is fine."""
        ...

    async def boxes(self) -> Sequence[FoundBox]:
        """All boxes of Greenroom's that this backend has, whoever made them."""
        ...

    def endings(self) -> AsyncIterator[str]:
        """The leases of boxes that end, as they end, those removed on purpose too. Some may be missed (the engine
        restarted, say): who must know looks at `boxes` now and then as well."""
        ...


@runtime_checkable
class Pausing(Protocol):
    """A backend that can stop a box's processes without ending them: what a warm pool needs."""

    async def pause(self, lease: str) -> None:
        """Freeze the box. Raises `SandboxLost` when it is gone."""
        ...

    async def resume(self, lease: str) -> None:
        """Let it run on. Raises `SandboxLost` when it is gone."""
        ...


@runtime_checkable
class Adopting(Protocol):
    """A backend whose boxes outlive the process that made them, so that another one can go on with them."""

    async def adopt(self, spec: BoxSpec) -> BoxAddress:
        """The way to a box that is there and that another process made with the same lease, token and directory.

        Raises `SandboxLost` when it is not there, or does not run.
        """
        ...

    async def let_go(self, lease: str) -> None:
        """Keep no way to it here. The box runs on."""
        ...


@runtime_checkable
class Located(Protocol):
    """A backend of which a user may have several: other boxes are at another `where`. What one left behind is only for
    those to judge who use the same."""

    @property
    def where(self) -> str:
        """Which it is, from its start on: the engine's or the box's address, nothing secret."""
        ...
