"""Files of the workspace that the browser reads (uploads) and writes (pictures, PDFs, downloads).

No link is followed and no folder left: each part of a path is opened relative to the one before.
"""

from __future__ import annotations

import errno
import mimetypes
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final, TypedDict

from greenroom.sandbox.image.answers import ToolError

UPLOAD_BYTES: Final = 50 * 1024 * 1024
"""What the driver takes in memory."""
DOWNLOADS: Final = "downloads"
_NAME_LENGTH: Final = 120
_TRIES: Final = 1000


class Upload(TypedDict):
    """A file as the driver takes it."""

    name: str
    mimeType: str
    buffer: bytes


def read_upload(workspace: Path, path: str) -> Upload:
    """A file to be uploaded. Raises `ToolError` when it is none of the workspace, or too large."""
    parts = _parts(workspace, path)
    with _told(path), _folder(workspace, parts[:-1]) as folder:
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            data = _contents(path, file)
        finally:
            os.close(file)
    return {"name": parts[-1], "mimeType": mimetypes.guess_type(parts[-1])[0] or "", "buffer": data}


def _contents(path: str, file: int) -> bytes:
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        raise ToolError(f"{path} is no file. Give files, not folders.")
    if status.st_size > UPLOAD_BYTES:
        raise ToolError(f"{path} is too large to upload: at most {UPLOAD_BYTES // 1024 // 1024} MiB.")
    with os.fdopen(file, "rb", closefd=False) as opened:
        return opened.read(UPLOAD_BYTES)


def write_file(workspace: Path, path: str, data: bytes) -> Path:
    """Write a file that a tool was asked for, over one that is there. The path as tools are told it."""
    parts = _parts(workspace, path)
    with _told(path), _folder(workspace, parts[:-1], make=True) as folder:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(parts[-1], flags, 0o644, dir_fd=folder), "wb") as opened:
            opened.write(data)
    return workspace.joinpath(*parts)


def keep_download(workspace: Path, suggested: str, source: Path) -> Path:
    """Copy a finished download into the workspace, under a name that is free there."""
    name = file_name(suggested)
    with _told(name), _folder(workspace, [DOWNLOADS], make=True) as folder, source.open("rb") as opened:
        for number in range(_TRIES):
            free = f"{Path(name).stem}-{number}{Path(name).suffix}" if number else name
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                target = os.open(free, flags, 0o644, dir_fd=folder)
            except FileExistsError:
                continue
            try:
                with os.fdopen(target, "wb") as kept:
                    shutil.copyfileobj(opened, kept)
            except OSError:
                os.unlink(free, dir_fd=folder)  # half a file would look like a whole one
                raise
            return workspace / DOWNLOADS / free
    raise ToolError(f"There are too many downloads called {name}. Remove some of {workspace / DOWNLOADS}.")


def file_name(suggested: str) -> str:
    """A name for a file, made of what a page suggests."""
    name = suggested.encode(errors="replace").decode()
    name = re.sub(r"[\x00-\x1f\x7f/\\]", "_", name).strip().lstrip(".")
    while len(name.encode()) > _NAME_LENGTH:
        stem, suffix = Path(name).stem, Path(name).suffix[:20]
        name = stem[: len(stem) - 1 - len(stem) // 8] + suffix if len(stem) > 1 else suffix.strip(".")[:20]
    return name or "download"


def _parts(workspace: Path, path: str) -> list[str]:
    """The parts of a path below the workspace, which `/workspace/a`, `a` and `./a` all name."""
    pure = PurePosixPath(path)
    if pure.is_absolute():
        if not pure.is_relative_to(workspace):
            raise ToolError(f"{path} is not in the workspace. Only files of {workspace} can be used.")
        pure = pure.relative_to(workspace)
    parts = list(pure.parts)
    if ".." in parts or "\0" in path:
        raise ToolError(f"{path!r}: give the path without '..', as {workspace}/folder/file.")
    if not parts:
        raise ToolError(f"{path!r} is no file's name. Give one, like report.pdf.")
    return parts


@contextmanager
def _folder(workspace: Path, parts: list[str], *, make: bool = False) -> Iterator[int]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    folder = os.open(workspace, flags)
    try:
        for part in parts:
            if make:
                _make(part, folder)
            inner = os.open(part, flags | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def _make(part: str, folder: int) -> None:
    try:
        os.mkdir(part, 0o755, dir_fd=folder)
    except FileExistsError:
        return


_REASONS: Final = {
    errno.ENOENT: "there is no such file in the workspace",
    errno.ELOOP: "it is a link, and links are not followed",
    errno.ENOTDIR: "a part of it is no folder, or a link, and links are not followed",
    errno.EISDIR: "it is a folder",
    errno.ENOSPC: "the workspace is full; remove something",
    errno.EDQUOT: "the workspace is full; remove something",
    errno.ENAMETOOLONG: "the name is too long",
}


@contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, (error.strerror or str(error)).lower())
        raise ToolError(f"{path} cannot be used: {reason}.") from error
