"""Where sandboxes keep their things on this machine.

Records of leases must outlive a crash of the machine, as containers do: they are in the user's state folder. A box's
sockets must not, and a socket's path may have 107 characters at most: boxes' directories are in the runtime folder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """`$GREENROOM_STATE`, else `greenroom` in the user's state folder."""
    own = environ.get("GREENROOM_STATE")
    if own:
        return Path(own).expanduser()
    shared = environ.get("XDG_STATE_HOME")
    return (Path(shared) if shared else Path("~/.local/state").expanduser()) / "greenroom"


def run_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """`$GREENROOM_RUN`, else `greenroom` in the user's runtime folder, else one of his own in the temporary folder."""
    own = environ.get("GREENROOM_RUN")
    if own:
        return Path(own).expanduser()
    shared = environ.get("XDG_RUNTIME_DIR")
    if shared and Path(shared).is_dir():
        return Path(shared) / "greenroom"
    return Path(tempfile.gettempdir()) / f"greenroom-{os.getuid()}"


def private_folder(path: Path) -> Path:
    """The folder, made if need be; only its user may look into it.

    Raises `PermissionError` when somebody else made it: in a shared folder its name can be guessed.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.stat(follow_symlinks=False)
    if path.is_symlink() or found.st_uid != os.getuid():
        raise PermissionError(
            f"{path} belongs to another user, so what is put there is not safe; remove it, or name another folder "
            "with GREENROOM_STATE and GREENROOM_RUN"
        )
    path.chmod(
        0o711
    )  # the users of boxes pass through to their own directories, whose names nobody else knows
    return path
