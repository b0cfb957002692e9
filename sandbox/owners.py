"""Which processes own boxes, and which of them are dead.

An owner is a keeper's life in one process. While it lives it holds a lock on its file, which the kernel lets go of
however the process ends; pids would not do, they are used again. An owner without a file is none of this folder's: it
is unknown, another machine's or another user's, and what it has is left alone.
"""

from __future__ import annotations

import fcntl
import os
import uuid
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec
from anyio import to_thread
from msgspec import Struct

from greenroom.actors.errors import SandboxUnavailable
from greenroom.sandbox.places import private_folder, state_folder

Standing: TypeAlias = Literal["ours", "alive", "dead", "elsewhere", "unknown"]
"""`elsewhere`: dead, and what it left is in an engine other than ours, where we cannot look."""

_NEW: Final = ".new"
"""Ends the name of a file that is not locked yet. What is left of one is nobody's."""


_LEASES_IN: Final = ", with leases in "


class OwnerFile(Struct, frozen=True):
    """What an owner says of itself. `where`: which engine its boxes are in, and which leases it shares. `pid`: for
    those who look: only the lock counts."""

    where: str
    pid: int

    @property
    def engine(self) -> str:
        """Which engine its boxes are in."""
        return self.where.partition(_LEASES_IN)[0]

    @property
    def place(self) -> str:
        """Where the leases are that it shares; empty: it shares none."""
        return self.where.partition(_LEASES_IN)[2]


def sharing(where: str, place: str) -> str:
    """The `where` of one who shares leases: who has others cannot judge what he left."""
    return where + _LEASES_IN + place


class Owners:
    """The owners whose files are in one folder; none: `owners` in the user's state folder. `id` is this one's."""

    def __init__(
        self, folder: Path | None = None, *, new_id: Callable[[], str] = lambda: uuid.uuid4().hex
    ) -> None:
        self.folder = folder or state_folder() / "owners"
        self.id = new_id()
        self._lock: int | None = None
        self._where: str | None = None

    def __repr__(self) -> str:
        return f"<Owners in {self.folder}, we are {self.id[:8]}>"

    async def enter(self, where: str) -> None:
        """Be alive from now on, with boxes in the engine that `where` says. Doing it twice is fine.

        Raises `SandboxUnavailable` when the folder is of no use.
        """
        self._where = where
        try:
            await to_thread.run_sync(self._enter, where)
        except OSError as error:
            raise SandboxUnavailable(
                f"this process cannot make itself known in {self.folder} ({error}), so its sandboxes could not be "
                "tidied up after it; see to the folder's rights, or name another one with GREENROOM_STATE"
            ) from error

    async def leave(self, *, all_gone: bool) -> None:
        """Be dead from now on. `all_gone`: nothing of ours is left; else the file stays, and others tidy up."""
        await to_thread.run_sync(self._leave, all_gone)

    async def standing(self) -> Mapping[str, Standing]:
        """How each owner with a file stands. Those that are not in it are unknown. To one who has not entered all dead
        ones are `dead`."""
        return await to_thread.run_sync(self._standing)

    async def files(self) -> Mapping[str, OwnerFile]:
        """What each owner says of itself, those left out whose file says nothing that can be read."""
        return await to_thread.run_sync(self._files)

    async def company(self) -> bool:
        """Whether another one lives whose boxes are where this one's are, or were until it left."""
        return await to_thread.run_sync(self._company)

    async def forget(self, owner: str) -> None:
        """Remove the file of a dead owner of whom nothing is left."""
        await to_thread.run_sync(self._forget, owner)

    # --------------------------------------------------------------------------------------------- in worker threads

    def _enter(self, where: str) -> None:
        if self._lock is not None:
            return
        private_folder(self.folder.parent)
        private_folder(self.folder)
        new = self.folder / (self.id + _NEW)
        lock = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(lock, msgspec.json.encode(OwnerFile(where, os.getpid())))
            new.rename(self.folder / self.id)  # locked before anybody sees it
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock
        _ENTERED.add(self)

    def _leave(self, all_gone: bool) -> None:
        lock, self._lock = self._lock, None
        if lock is None:
            return
        _ENTERED.discard(self)
        if all_gone:
            (self.folder / self.id).unlink(missing_ok=True)
        os.close(lock)

    def _standing(self) -> Mapping[str, Standing]:
        found: dict[str, Standing] = {}
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.name == self.id:
                found[self.id] = "ours"
            elif not path.name.endswith(_NEW):
                found[path.name] = self._of(path)
        return found

    def _files(self) -> Mapping[str, OwnerFile]:
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        said = {path.name: _said(path) for path in paths if not path.name.endswith(_NEW)}
        return {owner: file for owner, file in said.items() if file is not None}

    def _company(self) -> bool:
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.name == self.id or path.name.endswith(_NEW) or _unlocked(path):
                continue
            said = _said(path)
            if said is not None and said.where == self._where:
                return True
        return False

    def _of(self, path: Path) -> Standing:
        if not _unlocked(path):
            return "alive"
        try:
            said = msgspec.json.decode(path.read_bytes(), type=OwnerFile)
        except FileNotFoundError:
            return "alive"  # forgotten just now: nothing of it is left
        except msgspec.DecodeError:
            return "dead"  # none of ours wrote that, or a full disk cut it off
        return "dead" if self._where in {None, said.where} else "elsewhere"

    def _forget(self, owner: str) -> None:
        path = self.folder / owner
        if _unlocked(path):
            path.unlink(missing_ok=True)

    def _close_in_child(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _said(path: Path) -> OwnerFile | None:
    """What is in the file; none: it left just now, or nothing that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=OwnerFile)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _unlocked(path: Path) -> bool:
    """Whether nobody holds the lock. Shared, so that two who look at once do not take each other for the owner."""
    try:
        looking = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False  # it left just now, or was forgotten: nothing of it is left
    try:
        fcntl.flock(looking, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(looking)


_ENTERED: Final[weakref.WeakSet[Owners]] = weakref.WeakSet()


def _let_go_in_child() -> None:
    # A forked child shares the lock: it would keep us alive after our death.
    for owners in list(_ENTERED):
        owners._close_in_child()


os.register_at_fork(after_in_child=_let_go_in_child)
