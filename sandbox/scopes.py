"""Bounds for the processes of one box where an ordinary user's control groups belong to systemd: a scope of his own
service manager for each box, which goes away with the last process in it."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias

from msgspec import Struct

from greenroom.sandbox.backend import BoxLimits
from greenroom.sandbox.local.cgroups import CONTROLLERS, Cgroups, Controller, find_cgroups

log = logging.getLogger(__name__)

ROOT: Final = Path("/sys/fs/cgroup")

TRIAL_SECONDS: Final = 10.0

BUS: Final = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
"""By which the service manager is found."""


class Scopes(Struct, frozen=True):
    """`controllers`: what the user's service manager may bound; it takes no notice of the other wishes."""

    controllers: tuple[Controller, ...]

    @property
    def described(self) -> str:
        """In the log's words."""
        return "scopes of systemd"

    @property
    def needed(self) -> tuple[str, ...]:
        """By what the service manager is found; the box's own command does not get it."""
        return BUS

    def make(self, name: str, limits: BoxLimits) -> list[Path]:
        """Nothing: a scope is made when its command starts."""
        return []

    def remove(self, name: str) -> None:
        """Nothing: a scope goes with its last process."""

    def before(self, name: str, limits: BoxLimits) -> list[str]:
        """What goes before a command, so that it runs in a scope of the box, with an environment that tells nothing."""
        wishes = (
            f"MemoryMax={limits.memory}",
            "MemorySwapMax=0",
            f"TasksMax={limits.pids}",
            f"CPUQuota={int(limits.cpus * 100)}%",
        )
        properties = [word for wish in wishes for word in ("-p", wish)]
        scope = ["systemd-run", "--user", "--scope", "--quiet", "--collect", f"--unit=greenroom-{name}"]
        return [*scope, *properties, "--", "env", "-i", f"PATH={os.environ.get('PATH', os.defpath)}"]


Groups: TypeAlias = Cgroups | Scopes


def find_groups() -> Groups | None:
    """What bounds boxes as a whole on this machine, for this user; none when nothing does. Blocks shortly."""
    return find_cgroups() or find_scopes()


def find_scopes(
    environ: Mapping[str, str] = os.environ, root: Path = ROOT, user: int | None = None
) -> Scopes | None:
    """The user's service manager, if there is one that may bound something. Tries it; blocks shortly."""
    user = os.getuid() if user is None else user
    if user == 0 or shutil.which("systemd-run") is None or "XDG_RUNTIME_DIR" not in environ:
        return None
    delegated = root / f"user.slice/user-{user}.slice/user@{user}.service/cgroup.controllers"
    try:
        known = delegated.read_text().split()
        scopes = Scopes(tuple(name for name in CONTROLLERS if name in known))
        command = [*scopes.before(f"trial-{os.getpid()}", BoxLimits()), "true"]
        done = subprocess.run(command, capture_output=True, timeout=TRIAL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.debug("no scopes of systemd: %s", error)
        return None
    if done.returncode:
        log.debug("systemd makes no scopes: %s", done.stderr.decode(errors="replace"))
        return None
    return scopes if scopes.controllers else None
