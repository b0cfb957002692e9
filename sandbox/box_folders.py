"""The boxes' own directories on this host.

One for each box, in the runtime folder, made before it and removed after it. Beside them it is written whose they are:
a directory that was left behind is removed only when its owner is known to be dead.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from anyio import to_thread

from greenroom.actors.errors import SandboxLost, SandboxUnavailable
from greenroom.sandbox.backend import API_SOCKET, EGRESS_SOCKET
from greenroom.sandbox.places import private_folder, run_folder

LONGEST_SOCKET: Final = 107
"""Bytes that a socket's path may have."""


class BoxFolders:
    """The directories below `folder`; none: the user's runtime folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or run_folder()
        self._directories = self.folder / "boxes"
        self._notes = self.folder / "owners"
        self._keys = self.folder / "keys"

    def __repr__(self) -> str:
        return f"<BoxFolders in {self.folder}>"

    async def make(self, lease: str, owner: str) -> Path:
        """A box's directory, empty and private. Raises `SandboxUnavailable` when it cannot be made."""
        try:
            return await to_thread.run_sync(self._make, lease, owner)
        except OSError as error:
            raise SandboxUnavailable(
                f"a sandbox's directory cannot be made in {self.folder} ({error}); see to the folder's rights, or name "
                "another one with GREENROOM_RUN"
            ) from error

    async def keep_key(self, lease: str, token: str) -> None:
        """Keep what the box wants to be shown, for another process of this user's to go on with it. It lies beside the
        box's directory, where no box can see it."""
        try:
            await to_thread.run_sync(self._keep_key, lease, token)
        except OSError as error:
            raise SandboxUnavailable(
                f"what belongs to a sandbox cannot be kept in {self.folder} ({error}); see to the folder's rights"
            ) from error

    async def take_over(self, lease: str, owner: str) -> tuple[Path, str]:
        """The directory and the key of a box that is another owner's from now on. Raises `SandboxLost`."""
        try:
            return await to_thread.run_sync(self._take_over, lease, owner)
        except OSError as error:
            raise SandboxLost(f"nothing leads to it any more ({error})") from error

    async def remove(self, lease: str) -> None:
        """Remove it with all that is in it. One that is gone is fine. Raises `OSError` when it cannot be."""
        await to_thread.run_sync(self._remove, lease)

    async def all(self) -> Mapping[str, str]:
        """The owner of each, by lease."""
        return await to_thread.run_sync(self._all)

    # --------------------------------------------------------------------------------------------- in worker threads

    def _make(self, lease: str, owner: str) -> Path:
        private_folder(self.folder)
        directory, note = self._directories / lease, self._notes / lease
        longest = len(bytes(directory)) + 1 + max(len(API_SOCKET), len(EGRESS_SOCKET))
        if longest > LONGEST_SOCKET:
            raise SandboxUnavailable(
                f"a sandbox's socket in {directory} would have a path of {longest} bytes, and {LONGEST_SOCKET} are "
                "possible; name a folder with a shorter path with GREENROOM_RUN"
            )
        private_folder(directory.parent)
        private_folder(note.parent)
        note.write_text(owner, encoding="ascii")
        directory.mkdir(mode=0o700)
        return directory

    def _keep_key(self, lease: str, token: str) -> None:
        private_folder(self._keys)
        handle = os.open(self._keys / lease, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(token)

    def _take_over(self, lease: str, owner: str) -> tuple[Path, str]:
        directory = self._directories / lease
        token = (self._keys / lease).read_text(encoding="ascii")
        directory.stat()
        unfinished = self._keys / f"{lease}.new"  # where nobody looks for notes
        unfinished.write_text(owner, encoding="ascii")
        unfinished.replace(self._notes / lease)
        return directory, token

    def _remove(self, lease: str) -> None:
        # Made by others than its user in part: rmtree goes by file descriptors, and follows no link.
        directory = self._directories / lease
        if directory.exists():
            shutil.rmtree(directory)
        (self._keys / lease).unlink(missing_ok=True)
        (self._notes / lease).unlink(missing_ok=True)

    def _all(self) -> Mapping[str, str]:
        if not self._notes.is_dir():
            return {}
        return {note.name: _read(note) for note in self._notes.iterdir()}


def _read(note: Path) -> str:
    try:
        return note.read_text(encoding="ascii")
    except FileNotFoundError:
        return ""  # gone meanwhile
