"""Bounds for the processes of one box: control groups, of either version, where this user may make them.

The groups lie below one called `greenroom` at the root of each hierarchy, as engines have theirs: there a crashed
process's groups are found again by whoever comes later, whatever group that one runs in.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from greenroom.sandbox.backend import BoxLimits

log = logging.getLogger(__name__)

Controller: TypeAlias = Literal["memory", "pids", "cpu"]
CONTROLLERS: Final[tuple[Controller, ...]] = ("memory", "pids", "cpu")

PERIOD: Final = 100_000
"""Microseconds over which cores' time is counted: the kernel's default."""

PROCESSES: Final = "cgroup.procs"
"""A group's file that processes are moved by."""

EMPTYING_SECONDS: Final = 5.0
"""How long a group may take to become empty after its processes were killed."""


class Cgroups(Struct, frozen=True):
    """Where groups can be made. `parents`: the folder for each controller that is there; in version 2 all are one."""

    version: Literal[1, 2]
    parents: Mapping[Controller, Path]

    @property
    def controllers(self) -> tuple[Controller, ...]:
        """What is bounded for a box as a whole."""
        return tuple(self.parents)

    @property
    def described(self) -> str:
        """In the log's words."""
        return f"control groups (version {self.version})"

    @property
    def needed(self) -> tuple[str, ...]:
        """Variables of the environment that `before` is to find: none."""
        return ()

    def before(self, name: str, limits: BoxLimits) -> list[str]:
        """What goes before a box's command: nothing, it goes into its groups by itself."""
        return []

    def make(self, name: str, limits: BoxLimits) -> list[Path]:
        """Make the groups of a box; what writes 0 into all of these files is in them."""
        groups = self._groups(name)
        for group in groups:
            group.mkdir(exist_ok=True)
        write = _limits_of_version_1 if self.version == 1 else _limits_of_version_2
        for controller in self.parents:
            for file, value in write(controller, limits):
                _set(self.parents[controller] / name / file, value)
        return [group / PROCESSES for group in groups]

    def remove(self, name: str) -> None:
        """Kill what is in the groups and remove them. Groups that are not there are fine."""
        deadline = time.monotonic() + EMPTYING_SECONDS
        for group in self._groups(name):
            while not _removed(group):
                if time.monotonic() > deadline:
                    log.warning("the control group %s does not become empty, it stays", group)
                    break
                _kill_all(group)
                time.sleep(0.005)  # in a thread; the kernel tells nobody of version 1 when a group is empty

    def has(self, name: str) -> bool:
        """Whether there is a group of that box."""
        return any(group.is_dir() for group in self._groups(name))

    def _groups(self, name: str) -> list[Path]:
        return list(dict.fromkeys(parent / name for parent in self.parents.values()))


def find_cgroups(mounts: Path = Path("/proc/self/mounts")) -> Cgroups | None:
    """The hierarchies in which this process may make groups; none when there are none."""
    first: dict[Controller, Path] = {}
    for line in mounts.read_text().splitlines():
        _, folder, kind, options, *_ = line.split()
        if kind == "cgroup2":
            parents = _parents_of_version_2(Path(folder))
            if parents:
                return Cgroups(2, parents)
        elif kind == "cgroup":
            for controller in CONTROLLERS:
                if controller in options.split(",") and _usable(Path(folder) / "greenroom"):
                    first[controller] = Path(folder) / "greenroom"
    return Cgroups(1, first) if first else None


def _parents_of_version_2(root: Path) -> dict[Controller, Path]:
    """The controllers that groups below `root` can have, switched on where that is needed."""
    parent = root / "greenroom"
    known = (root / "cgroup.controllers").read_text().split()
    if not any(controller in known for controller in CONTROLLERS) or not _usable(parent):
        return {}
    for folder in (root, parent):
        for controller in CONTROLLERS:
            # One at a time: a controller that is not there must not keep the others away. The next lines look.
            _set_if_possible(folder / "cgroup.subtree_control", f"+{controller}")
    there = (parent / "cgroup.subtree_control").read_text().split()
    return {controller: parent for controller in CONTROLLERS if controller in there}


def _usable(parent: Path) -> bool:
    try:
        parent.mkdir(exist_ok=True)
    except OSError as error:
        log.debug("no control groups in %s: %s", parent.parent, error)
        return False
    return os.access(parent, os.W_OK)


def _limits_of_version_1(controller: Controller, limits: BoxLimits) -> Sequence[tuple[str, str]]:
    if controller == "memory":
        # In this order: memory and swap together may not be less than memory alone.
        return [
            ("memory.limit_in_bytes", str(limits.memory)),
            ("memory.memsw.limit_in_bytes", str(limits.memory)),
        ]
    if controller == "pids":
        return [("pids.max", str(limits.pids))]
    return [("cpu.cfs_period_us", str(PERIOD)), ("cpu.cfs_quota_us", str(int(limits.cpus * PERIOD)))]


def _limits_of_version_2(controller: Controller, limits: BoxLimits) -> Sequence[tuple[str, str]]:
    if controller == "memory":
        return [("memory.max", str(limits.memory)), ("memory.swap.max", "0")]
    if controller == "pids":
        return [("pids.max", str(limits.pids))]
    return [("cpu.max", f"{int(limits.cpus * PERIOD)} {PERIOD}")]


def _set(file: Path, value: str) -> None:
    try:
        file.write_text(value)
    except OSError as error:
        # Kernels without accounting of swap have no such file; then there is nothing to bound either.
        if "swap" not in file.name and "memsw" not in file.name:
            raise
        log.debug("%s is not there: %s", file, error)


def _set_if_possible(file: Path, value: str) -> None:
    try:
        file.write_text(value)
    except OSError as error:
        log.debug("%s does not take %s: %s", file, value, error)


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in {errno.EBUSY, errno.ENOTEMPTY}:
            return False
        raise
    return True


def _kill_all(group: Path) -> None:
    for pid in _pids(group):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _pids(group: Path) -> list[int]:
    try:
        return [int(line) for line in (group / PROCESSES).read_text().split()]
    except (FileNotFoundError, OSError) as error:
        log.debug("%s: %s", group, error)
        return []
