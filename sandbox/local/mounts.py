"""What a box on this machine sees of it: the arguments that bubblewrap makes its world with. Nothing here does I/O but
looking at which folders there are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from greenroom.sandbox.backend import EGRESS_SOCKET, MIB, TOKEN_FILE, BoxSpec

BOX: Final = Path("/box")
"""Where the box finds its directory: not the one on the host but a small one in memory. Nothing that a box writes
reaches this machine's disks, and of the host's directory it sees only the socket it may go out by."""

WORKSPACE: Final = Path("/workspace")
PACKAGE: Final = Path("/opt/greenroom")
COMPILED: Final = Path("/opt/compiled")
TEMPORARY: Final = "/tmp"
USER_ID: Final = 1000
"""Of an ordinary user's box; root's boxes have one each."""

SMALL: Final = MIB
SHARED_MEMORY: Final = 64 * MIB

SYSTEM: Final = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Links into /usr on most machines, folders on some."""

READABLE: Final = (
    "/usr",
    "/etc/alternatives",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/usr/share/fonts",
    "/var/cache/fontconfig",
)
"""What may be there and tells nothing about this machine's users."""

HOSTS: Final = b"127.0.0.1 localhost box\n::1 localhost\n"


class Place(Struct, frozen=True):
    """What boxes on this machine are made of.

    `folders`: read-only besides the system's: the interpreter, the environment, the browser. `imports`: where modules
    are that the interpreter does not find by itself. `image`: the package of the tool server. `user`: the box's user
    as the host sees it; none: this process's own, in a user namespace of the box.
    """

    bubblewrap: str
    python: str
    folders: tuple[Path, ...]
    imports: tuple[Path, ...]
    image: Path
    browser: Path | None
    trust: str = ""
    seccomp: bytes = b""
    """What keeps processes from system calls; empty: nothing does."""
    compiled: Path | None = None
    """Modules, compiled; none: those that are not, are compiled in each box."""


class World(Struct, frozen=True):
    """Arguments for bubblewrap, and the contents of files they speak of: each number stands for a file that is to be
    handed on, in the place of `{number}`."""

    arguments: tuple[str, ...]
    files: tuple[bytes, ...]


def world(place: Place, spec: BoxSpec, user: int | None) -> World:
    """The world of that box, for that user of this machine (none: in a user namespace)."""
    inside = USER_ID if user is None else user
    files = {
        "/etc/passwd": f"root:x:0:0:root:/:/bin/sh\nbox:x:{inside}:{inside}:box:{TEMPORARY}:/bin/bash\n".encode(),
        "/etc/group": f"root:x:0:\nbox:x:{inside}:\n".encode(),
        "/etc/hosts": HOSTS,
        f"{PACKAGE}/greenroom/__init__.py": b"",
        f"{PACKAGE}/greenroom/sandbox/__init__.py": b"",
        str(BOX / TOKEN_FILE): spec.token.encode(),
    }
    arguments = [
        *_namespaces(user),
        *("--clearenv",),
        *_system(),
        *("--proc", "/proc", "--dev", "/dev"),
        *_tmpfs("/dev/shm", SHARED_MEMORY),
        *_tmpfs(TEMPORARY, spec.limits.temporary),
        *_tmpfs(str(WORKSPACE), spec.limits.workspace),
        *_readable([*place.folders, *place.imports]),
        *_directory(spec),
        *_bound(place.image, PACKAGE / "greenroom/sandbox/image"),
        *(_bound(place.compiled, COMPILED) if place.compiled else ()),
        *_files(files),
        *(("--seccomp", f"{{{len(files)}}}") if place.seccomp else ()),
        *("--remount-ro", "/dev", "--remount-ro", "/"),
        *_variables(place, spec),
        *("--chdir", str(WORKSPACE)),
    ]
    return World(tuple(arguments), (*files.values(), place.seccomp))


def environment(place: Place, spec: BoxSpec) -> dict[str, str]:
    """What the tool server is told, wherever it runs; the paths are those of a box with isolation."""
    found = {
        "GREENROOM_BOX": str(BOX),
        "GREENROOM_BOX_KIND": spec.kind,
        "GREENROOM_BOX_BROWSER": str(place.browser) if place.browser and spec.kind == "browser" else "",
        "GREENROOM_BOX_TRUST": place.trust,
        "WORKSPACE_DIR": str(WORKSPACE),
        "PYTHONPATH": os.pathsep.join(map(str, (PACKAGE, *place.imports))),
        "PATH": f"{Path(place.python).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": TEMPORARY,
        "TMPDIR": TEMPORARY,
        "USER": "box",
        "LOGNAME": "box",
        "LANG": "C.UTF-8",
    }
    return {name: value for name, value in found.items() if value}


def _namespaces(user: int | None) -> Iterator[str]:
    yield from ("--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", "box")
    if user is None:
        yield from ("--unshare-all", "--uid", str(USER_ID), "--gid", str(USER_ID))
        return
    # Root makes the mounts without a user namespace, which would only hide that the box is root outside. The command
    # becomes somebody else at once, for which it needs these; the first process keeps them, and does nothing but wait.
    yield from ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")
    for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
        yield from ("--cap-add", capability)


def _system() -> Iterator[str]:
    for name in SYSTEM:
        path = Path(name)
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), name)
        elif path.is_dir():
            yield from ("--ro-bind", name, name)
    yield from _readable(Path(name) for name in READABLE)


def _readable(folders: Iterable[Path]) -> Iterator[str]:
    for folder in folders:
        if folder.exists():
            yield from _bound(folder, folder)


def _bound(source: Path, target: Path) -> Iterator[str]:
    """Read-only. The folders above are made beforehand: bubblewrap lets only itself through those it makes."""
    for above in reversed(target.parents[:-1]):
        yield from ("--perms", "0755", "--dir", str(above))
    yield from ("--ro-bind", str(source), str(target))


def _tmpfs(target: str, size: int) -> Iterator[str]:
    yield from ("--perms", "1777", "--size", str(size), "--tmpfs", target)


def _directory(spec: BoxSpec) -> Iterator[str]:
    # Without the sticky bit: the tool server, which is not who makes it, removes the token.
    yield from ("--perms", "0777", "--size", str(SMALL), "--tmpfs", str(BOX))
    way_out = spec.directory / EGRESS_SOCKET
    if way_out.exists():
        yield from ("--ro-bind", str(way_out), str(BOX / EGRESS_SOCKET))


def _files(files: Mapping[str, bytes]) -> Iterator[str]:
    for number, target in enumerate(files):
        if target != str(BOX / TOKEN_FILE):
            for above in reversed(Path(target).parents[:-1]):
                yield from ("--perms", "0755", "--dir", str(above))
        yield from ("--perms", "0444", "--file", f"{{{number}}}", target)


def _variables(place: Place, spec: BoxSpec) -> Iterator[str]:
    for name, value in environment(place, spec).items():
        yield from ("--setenv", name, value)
