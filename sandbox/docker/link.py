"""How a container is reached: by a socket in its directory, or, where an engine cannot share sockets, by a port.

An engine in a virtual machine (Docker Desktop, Colima, `podman machine`) shares folders with this host, and no sockets.
There a box is reached at a published port of 127.0.0.1 with its token. It then has the engine's network, and no filter
stands before it: so that is never taken unasked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, TypeAlias

Link: TypeAlias = Literal["socket", "port"]

INSIDE: Final = "inside"


def shared_folder(directory: Path, *, port: bool) -> Path:
    """What of a box's directory the container sees. With a port not the filter's socket: the box would take it for its
    way out, and nothing comes through it from another machine."""
    return directory / INSIDE if port else directory


def advice(engine_kernel: str, own_kernel: str, *, port: bool) -> str:
    """What to do when a box does not start in an engine that has another kernel than this host; else empty."""
    if engine_kernel in {"", own_kernel}:
        return ""
    found = (
        f". The engine runs in a virtual machine (its kernel is {engine_kernel}, this host's {own_kernel}), which has "
        "to share the runtime folder with this host: GREENROOM_RUN names another one"
    )
    if port:
        return found
    return (
        f"{found}. It cannot share sockets: GREENROOM_SANDBOX_LINK=port has boxes reached at a port of 127.0.0.1 "
        "instead; they have the engine's network then, without the egress filter (docs/sandbox.md)"
    )
