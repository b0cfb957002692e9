"""Sockets that listen in a box's directory."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

BACKLOG: Final = 64

FOR_THE_BOX: Final = 0o666
"""Whoever gets into the directory may connect: that is the box's user."""
FOR_US: Final = 0o600


def listening_socket(path: Path, mode: int) -> socket.socket:
    """A socket that listens at the path; what was there is removed. Raises `OSError`. It touches the disk."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(str(path))
        path.chmod(mode)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def remove_socket(path: Path) -> None:
    """Remove the socket. A box may have put something else in its place, which goes with its directory."""
    with suppress(OSError):
        path.unlink()
