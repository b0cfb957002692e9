"""A box's directory while a container uses it: open to the box's user until its tool server listens, then closed.

The directory is on the host's disk, where no limit of the box's counts. So what runs in the box must not write to it:
only the tool server does, once, when it makes its socket, before any tool runs.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from greenroom.sandbox.backend import API_SOCKET, EGRESS_SOCKET, TOKEN_FILE
from greenroom.sandbox.docker.config import BOX_USER

OPEN: Final = 0o770
CLOSED: Final = 0o710
OPEN_TO_ALL: Final = 0o777
CLOSED_TO_ALL: Final = 0o711


def open_folder(directory: Path, token: str) -> None:
    """Let the box's user write to it, read the token and use the way out. Blocks shortly.

    Root gives them to that user alone. Who is not root cannot, and relies on what is above: nobody else knows the
    directory's name, and none can list the names.
    """
    root = os.geteuid() == 0
    path = directory / TOKEN_FILE
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400 if root else 0o444)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o400 if root else 0o444)  # whatever the umask is
        if root:
            os.fchown(file.fileno(), BOX_USER, BOX_USER)
        file.write(token)
    egress = directory / EGRESS_SOCKET
    if egress.exists():
        egress.chmod(0o660 if root else 0o666)
        if root:
            os.chown(egress, 0, BOX_USER)
    if root:
        os.chown(directory, 0, BOX_USER)
    directory.chmod(OPEN if root else OPEN_TO_ALL)


def is_listening(directory: Path) -> bool:
    """Whether the tool server has made its socket."""
    try:
        return stat.S_ISSOCK((directory / API_SOCKET).lstat().st_mode)
    except OSError:
        return False


def has_token(directory: Path) -> bool:
    """Whether the tool server has taken the token: all that one does here which listens at a port."""
    return not (directory / TOKEN_FILE).exists()


def close_folder(directory: Path) -> None:
    """Nothing more is made in it, removed or renamed."""
    directory.chmod(CLOSED if os.geteuid() == 0 else CLOSED_TO_ALL)
    (directory / TOKEN_FILE).unlink(missing_ok=True)
