"""What services on a storage have in common: they start and stop it, and change folders without losing anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

from greenroom.actors.errors import StoreUnavailable
from greenroom.services.service import not_started
from greenroom.services.started import add_started, drop_started, note_start, note_stop
from greenroom.services.storage import NOT_THERE, Change, Conflict, Fence, FolderKey, Head, Storage

MOST_TRIES: Final = 100
"""Each one that fails means that another process got its write through meanwhile."""
NOBODY: Final = FolderKey("health", "", "")
"""A folder that is never there: asking for it shows whether the storage answers."""

T = TypeVar("T")


class StorageService:
    """A service that keeps what it has in a storage. Others may use it too: each starts and stops it for itself."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._started = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.storage if self._started else 'not started'}>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Be ready for use. Raises `StoreUnavailable` that says what is missing."""
        note_start(self)
        if self._started:
            return
        self._started = True
        try:
            await self.storage.start()
        except BaseException:
            self._started = False
            raise
        add_started(self.storage, self)

    async def stop(self) -> None:
        """Let go of the storage, which keeps what there is."""
        if self._started:
            self._started = False
            note_stop(self)
            drop_started(self.storage, self)
            await self.storage.stop()

    async def health(self) -> bool:
        """Whether it is started and its storage answers."""
        if not self._started:
            return False
        try:
            await self.storage.read(NOBODY)
        except StoreUnavailable:
            return False
        return True

    def _use(self) -> Storage:
        if not self._started:
            raise not_started(self)
        return self.storage


def fence(head: Head | None) -> Fence:
    """What to expect of a folder that stood so."""
    return NOT_THERE if head is None else head.fence


async def change_folder(
    storage: Storage, key: FolderKey, decide: Callable[[Head | None], tuple[Sequence[Change], T]]
) -> T:
    """Write the changes that `decide` makes of how a folder stands, with nothing in between; gives what else it gave.

    `decide` is called again when others were faster. What it raises comes out, and changes nothing. Without changes
    nothing is written.
    """
    folder = await storage.read(key)
    head = None if folder is None else folder.head
    for _ in range(MOST_TRIES):
        changes, result = decide(head)
        if not changes:
            return result
        try:
            await storage.write(changes)
        except Conflict as conflict:
            if conflict.key != key:
                raise
            head = conflict.found
        else:
            return result
    raise too_busy(key)


def too_busy(key: FolderKey) -> StoreUnavailable:
    """The error for a folder that others change all the time."""
    return StoreUnavailable(
        f"other processes change the {key.kind} of session {key.session_id!r} all the time, so that this one found it "
        f"changed {MOST_TRIES} times in a row; nothing was kept of what it had to say; try again in a moment"
    )
