"""The unit of work: what a turn changes in services, kept aside until the turn's commit (law 3).

A service that takes part looks at `current_work`. Inside a turn it writes to its own staging area of the work and reads
through it; the turn's end applies all areas, or none. Outside a turn it writes at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Protocol, TypeVar, runtime_checkable

from greenroom.actors.errors import HandlerError, StoreUnavailable, TurnOver
from greenroom.services.storage import Change, Conflict, FolderKey, Storage

MOST_TRIES = 100
"""Writes of one turn's changes that found a folder changed by others; each time one of the others got through."""


class Staging(Protocol):
    """What one service has staged in one turn."""

    def apply(self, turn_id: str) -> None:
        """Make the changes real. Must not fail: what can fail is checked when staging."""
        ...


@runtime_checkable
class DurableStaging(Staging, Protocol):
    """What a service on a storage has staged. `apply` comes after its changes were written."""

    storage: Storage

    def changes(self, turn_id: str) -> Sequence[Change]:
        """What is to be written with the turn's ending, of other folders than other services'."""
        ...

    def look_again(self, conflict: Conflict) -> bool:
        """Others changed a folder since the service looked at it: from now on `changes` go on from how it stands.

        Whether it is a folder of this staging.
        """
        ...


S = TypeVar("S", bound=Staging)
T = TypeVar("T")


class Work:
    """The changes of one turn."""

    __slots__ = ("_closed", "_endings", "_services", "_stagings", "turn_id")

    def __init__(self, turn_id: str) -> None:
        self.turn_id = turn_id
        self._services: dict[int, object] = {}
        """By their identity: one that is not hashable, or equal to another, is as good as any."""
        self._stagings: dict[int, Staging] = {}
        self._endings: list[Callable[[], object]] | None = None  # most turns want none
        self._closed = False

    def __repr__(self) -> str:
        return f"<Work of {self.turn_id}: {len(self._stagings)} services{', closed' if self._closed else ''}>"

    def staging(self, service: object, new: type[S]) -> S:
        """The service's staging area, made with `new(service)` at first use.

        Raises `TurnOver` when the turn has ended: late code of a cancelled turn changes nothing.
        """
        if self._closed:
            raise TurnOver(
                f"turn {self.turn_id} has ended, so {type(service).__name__} refused a change that came after it; "
                "code that outlives a turn must run outside of it (start it in @app.init)"
            )
        area = self._stagings.get(id(service))
        if area is None:
            area = self._stagings[id(service)] = new(service)  # type: ignore[call-arg]
            self._services[id(service)] = service
        assert isinstance(area, new)
        return area

    @property
    def services(self) -> tuple[object, ...]:
        """The services that take part."""
        return tuple(self._services.values())

    def changes_in(self, storage: Storage) -> list[Change]:
        """What services on that storage have staged: it is written with the turn's ending.

        Raises `HandlerError` when two services have changed the same folder, as one of them would be lost.
        """
        changes: dict[FolderKey, Change] = {}
        for area in self._stagings.values():
            if isinstance(area, DurableStaging) and area.storage is storage:
                for change in area.changes(self.turn_id):
                    if changes.setdefault(change.key, change) is not change:
                        raise HandlerError(
                            f"turn {self.turn_id} changed the {change.key.kind} of session {change.key.session_id!r} "
                            "through two services that keep it in one place; make one service and use it everywhere"
                        )
        return list(changes.values())

    async def written(self, storage: Storage, write: Callable[[Sequence[Change]], Awaitable[T]]) -> T:
        """What `write` gives for what services on that storage have staged.

        It is called again, with their changes from how things stand then, when it raises `Conflict` because others have
        changed a service's folder. What else it raises comes out, a `Conflict` over no service's folder among it.
        """
        for _ in range(MOST_TRIES):
            try:
                return await write(self.changes_in(storage))
            except Conflict as conflict:
                areas = [area for area in self._stagings.values() if isinstance(area, DurableStaging)]
                if not any(area.storage is storage and area.look_again(conflict) for area in areas):
                    raise
        raise StoreUnavailable(
            f"what turn {self.turn_id} changed was changed by others at the same time, {MOST_TRIES} times in a row; "
            "nothing of the turn was kept; send it again when there is less to do"
        )

    async def write_elsewhere(self, storage: Storage | None) -> None:
        """Write what services on other storages have staged, each storage's together. Raises `StoreUnavailable`."""
        if not self._stagings:
            return
        areas = [area for area in self._stagings.values() if isinstance(area, DurableStaging)]
        for other in {id(area.storage): area.storage for area in areas}.values():
            if other is not storage:
                await self.written(other, other.write)

    def when_over(self, call: Callable[[], object]) -> None:
        """Call this when the turn has ended, however it did; at once when it has. `call` must not fail."""
        if self._closed:
            call()
        elif self._endings is None:
            self._endings = [call]
        else:
            self._endings.append(call)

    def commit(self) -> None:
        """Apply all that was staged, and close."""
        self._closed = True
        for area in self._stagings.values():
            area.apply(self.turn_id)
        self._forget()
        self._tell()

    def roll_back(self) -> None:
        """Forget all that was staged, and close."""
        self._closed = True
        self._forget()
        self._tell()

    def _forget(self) -> None:
        self._stagings.clear()
        self._services.clear()

    def _tell(self) -> None:
        endings, self._endings = self._endings, None
        for call in endings or ():
            call()


current_work: ContextVar[Work | None] = ContextVar("greenroom_work", default=None)
