"""Files of the workspace, and no others, whatever a path says and whoever changes folders meanwhile.

A path is taken apart into names, and each name is opened from the folder before it, held open, without following links:
no name, prefix or link leads out, and no race, since what was opened is what is used. Links in the workspace can be
listed, removed and moved; they are not followed, also where they lead to the workspace itself.

All functions block: call them in a thread. They raise `OSError`, `OutsideWorkspace` and `ValueError`.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Final

Names = tuple[str, ...]

ENTRIES: Final = 10_000
"""How many a listing may have."""
DEPTH: Final = 64

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without waiting: opening a pipe that nobody writes to would never return.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class OutsideWorkspace(Exception):
    """The path leads out of the workspace."""


class TooMany(Exception):
    """The listing would be too long."""


def names_of(path: str, root: str) -> Names:
    """The names that lead from the root to the path, none for the root itself.

    Raises `OutsideWorkspace` for a path that is not the root's or below, `ValueError` for one that cannot be.
    """
    if "\0" in path:
        raise ValueError("a path cannot hold the character NUL")
    os.fsencode(path)
    names = PurePosixPath(path).parts
    if names and names[0].startswith("/"):
        base = PurePosixPath(root).parts
        if _tidy(names[1:], path)[: len(base) - 1] != base[1:]:
            raise OutsideWorkspace(f"{path!r} is not in the workspace, {root}: give a path relative to it")
        return _tidy(names[1:], path)[len(base) - 1 :]
    return _tidy(names, path)


def _tidy(names: Names, path: str) -> Names:
    """Without `..`. No link is followed, so that `a/..` is always nothing."""
    kept: list[str] = []
    for name in names:
        if name != "..":
            kept.append(name)
        elif kept:
            kept.pop()
        else:
            raise OutsideWorkspace(f"{path!r} leads out of the workspace")
    return tuple(kept)


class Workspace:
    """One folder, held open."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)  # noqa: PTH100 (the root may be behind a link)
        self._folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._folder)

    def names(self, path: str) -> Names:
        """See `names_of`."""
        return names_of(path, self.root)

    def open_file(self, names: Names) -> tuple[BinaryIO, int]:
        """An ordinary file, for reading, and its size now."""
        with self._parent(names) as (folder, name):
            handle = os.open(name, _FILE, dir_fd=folder)
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            os.close(handle)
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(errno.EISDIR, f"{names[-1]} is a folder")
            raise PermissionError(errno.EPERM, f"{names[-1]} is no ordinary file")
        return os.fdopen(handle, "rb"), found.st_size

    @contextmanager
    def replacing(self, names: Names) -> Iterator[BinaryIO]:
        """A new file to write to. It takes the place of the old one at the end, at once, or not at all."""
        with self._parent(names, make=True) as (folder, name):
            mode = self._mode_of(folder, name)
            part = f".{secrets.token_hex(8)}.part"
            file = os.fdopen(os.open(part, _NEW, 0o666, dir_fd=folder), "wb")
            try:
                with file:
                    if mode is not None:
                        os.fchmod(file.fileno(), mode)
                    yield file
                os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(part, dir_fd=folder)
                raise

    def _mode_of(self, folder: int, name: str) -> int | None:
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, f"{name} is a folder")
        return stat.S_IMODE(found.st_mode) if stat.S_ISREG(found.st_mode) else None

    def entry(self, names: Names) -> dict[str, Any]:
        """What a listing says of one."""
        if not names:
            return self._described(names, os.fstat(self._folder))
        with self._parent(names) as (folder, name):
            return self._described(names, os.stat(name, dir_fd=folder, follow_symlinks=False))

    def exists(self, names: Names) -> bool:
        """Whether there is something there, be it a link that leads nowhere."""
        try:
            self.entry(names)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def entries(self, names: Names, depth: int) -> list[dict[str, Any]]:
        """The entries of a folder and of those in it, a folder before what is in it. Raises `TooMany`."""
        found: list[dict[str, Any]] = []
        self._list(names, min(depth, DEPTH), found)
        return found

    def _list(self, names: Names, depth: int, found: list[dict[str, Any]]) -> None:
        with self._opened(names) as folder:
            here = sorted(os.listdir(folder))  # noqa: PTH208 (a path has no handle)
            for name in here:
                try:
                    about = os.stat(name, dir_fd=folder, follow_symlinks=False)
                except FileNotFoundError:
                    continue  # removed since
                if len(found) >= ENTRIES:
                    raise TooMany(
                        f"there are more than {ENTRIES} entries: list a folder below, or with less depth"
                    )
                found.append(self._described((*names, name), about))
                if stat.S_ISDIR(about.st_mode) and depth > 1:
                    self._list_below((*names, name), depth - 1, found)

    def _list_below(self, names: Names, depth: int, found: list[dict[str, Any]]) -> None:
        try:
            self._list(names, depth, found)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return  # removed, replaced or closed since: its own entry is told

    def remove(self, names: Names) -> None:
        """Remove it with all that is in it; nothing there is fine."""
        if not names:
            raise PermissionError(errno.EPERM, "the workspace itself stays; remove what is in it")
        try:
            with self._parent(names) as (folder, name):
                self._remove(folder, name)
        except (FileNotFoundError, NotADirectoryError):
            return

    def _remove(self, folder: int, name: str) -> None:
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=folder)  # which does not follow links either
        else:
            os.unlink(name, dir_fd=folder)

    def clear(self) -> None:
        """Remove everything that is in the workspace."""
        for name in os.listdir(self._folder):  # noqa: PTH208 (likewise)
            self._remove(self._folder, name)

    def move(self, source: Names, destination: Names) -> None:
        """Give it another path; a file there is replaced, a folder only if it is empty."""
        if not source or not destination:
            raise PermissionError(errno.EPERM, "the workspace itself cannot be moved or replaced")
        with self._parent(source) as (from_folder, from_name):
            os.stat(from_name, dir_fd=from_folder, follow_symlinks=False)  # before folders are made for it
            with self._parent(destination, make=True) as (to_folder, to_name):
                os.replace(from_name, to_name, src_dir_fd=from_folder, dst_dir_fd=to_folder)

    def make_folder(self, names: Names) -> bool:
        """Make it and those above. False: it was there."""
        if not names:
            return False
        with self._parent(names, make=True) as (folder, name):
            try:
                os.mkdir(name, dir_fd=folder)
            except FileExistsError:
                if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    return False
                raise
            return True

    @contextmanager
    def _parent(self, names: Names, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """The folder that holds the last name, open."""
        if not names:
            raise IsADirectoryError(errno.EISDIR, "the path is the workspace itself, which is a folder")
        with self._opened(names[:-1], make=make) as folder:
            yield folder, names[-1]

    @contextmanager
    def _opened(self, names: Names, *, make: bool = False) -> Iterator[int]:
        folder = os.dup(self._folder)
        try:
            for name in names:
                below = self._below(folder, name, make)
                os.close(folder)
                folder = below
            yield folder
        finally:
            os.close(folder)

    def _below(self, folder: int, name: str, make: bool) -> int:
        if make:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=folder)
        return os.open(name, _FOLDER, dir_fd=folder)

    def _described(self, names: Names, about: os.stat_result) -> dict[str, Any]:
        kind = _KINDS.get(stat.S_IFMT(about.st_mode), "other")
        path = "/".join((self.root.rstrip("/"), *names))
        return {
            "path": _printable(path),
            "name": _printable(names[-1] if names else PurePosixPath(self.root).name),
            "type": kind,
            "size": about.st_size if kind == "file" else None,
            "mtime_ms": about.st_mtime_ns // 1_000_000,
        }


_KINDS: Final = {stat.S_IFDIR: "dir", stat.S_IFREG: "file", stat.S_IFLNK: "symlink"}


def _printable(name: str) -> str:
    """Bytes that are no text, which JSON cannot carry, become `?`."""
    return name.encode("utf-8", "replace").decode()
