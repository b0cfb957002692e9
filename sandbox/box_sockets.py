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


def listening_socket(path: Path, mode: int) -> tuple[socket.socket, int]:
    """A socket that listens at the path, and which file it is; what was there is removed. Raises `OSError`. It touches
    the disk."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(str(path))
        path.chmod(mode)
        listening.listen(BACKLOG)
        listening.setblocking(False)
        return listening, path.lstat().st_ino
    except BaseException:
        listening.close()
        raise


def remove_socket(path: Path, file: int) -> None:
    """Remove the socket if it is still this file: whoever took the box over has made his own in its place. (A box may
    have put something else there, which goes with its directory.)"""
    with suppress(OSError):
        if path.lstat().st_ino == file:
            path.unlink()
