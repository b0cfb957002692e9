"""Which sandboxes a session's turns have used, and since which turn: who forks the session has to know it.

Where processes share a storage it is written there, with the turn that was first: the session may be forked in another
process, or after a restart. Elsewhere it is in memory, bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeAlias, runtime_checkable

from msgspec import msgpack

from greenroom.actors.messages import SessionKey
from greenroom.sandbox.backend import BoxKind
from greenroom.sandbox.leases import LeaseKey
from greenroom.services.storage import Change, Conflict, FolderKey, Head, Storage
from greenroom.services.storage_service import fence
from greenroom.services.work import Work

KIND: Final = "sandbox-uses"
MOST: Final = 10_000
"""Sessions of which it is in memory. Those whose sandboxes were first used longest ago go first."""

FirstTurns: TypeAlias = Mapping[BoxKind, str]
"""The turn that used the session's sandbox of that kind first: what came of it believes to have it."""


@runtime_checkable
class InStorage(Protocol):
    """Leases that are kept in a storage, which runs as long as they do."""

    storage: Storage


class HasUses(Protocol):
    """The service whose sandboxes they are."""

    uses: SandboxUses


class SandboxUses:
    """`storage`: where it is written down besides; who has it starts and stops it."""

    def __init__(self, storage: Storage | None = None) -> None:
        self.storage = storage
        self._known: OrderedDict[SessionKey, FirstTurns] = OrderedDict()

    def __repr__(self) -> str:
        return f"<SandboxUses of {len(self._known)} sessions, in {self.storage or 'memory'}>"

    def stage(self, service: HasUses, key: LeaseKey, work: Work) -> None:
        """The turn uses that sandbox, which counts when it is committed. Raises `TurnOver`."""
        staged: Staged = work.staging(service, Staged if self.storage is None else StagedInStorage)
        staged.used.setdefault(SessionKey(key.user_id, key.session_id), set()).add(key.kind)

    async def of(self, session: SessionKey) -> FirstTurns:
        """What is known of the session. Raises `StoreUnavailable`."""
        if self.storage is None:
            return self.known(session)
        folder = await self.storage.read(_folder(session))  # another process may have forgotten it
        return decoded(folder.head if folder is not None else None)

    async def keep(self, session: SessionKey, first: FirstTurns) -> None:
        """Know that of a session. Raises `StoreUnavailable`."""
        if self.storage is not None:
            await self.storage.write([Change(key=_folder(session), head=msgpack.encode(first))])
        self.remember(session, first)

    async def forget(self, session: SessionKey) -> None:
        """Know nothing of it any more. Raises `StoreUnavailable`."""
        self.lose(session)
        if self.storage is not None:
            await self.storage.write([Change(key=_folder(session), delete=True)])

    def known(self, session: SessionKey) -> FirstTurns:
        """What is in memory of it: where there is a storage, it has that too."""
        return self._known.get(session, {})

    def remember(self, session: SessionKey, first: FirstTurns) -> None:
        """Have that in memory."""
        self._known[session] = first
        if len(self._known) > MOST:
            self._known.popitem(last=False)

    def lose(self, session: SessionKey) -> None:
        """Have nothing of it in memory."""
        self._known.pop(session, None)


class Staged:
    """What a turn has used."""

    def __init__(self, service: HasUses) -> None:
        self._uses = service.uses
        self._found: dict[SessionKey, Head | None] = {}
        self.used: dict[SessionKey, set[BoxKind]] = {}

    def apply(self, turn_id: str) -> None:
        for session in self.used:
            self._uses.remember(session, self._now(session, turn_id))

    def _now(self, session: SessionKey, turn_id: str) -> FirstTurns:
        return {**dict.fromkeys(self.used[session], turn_id), **self._before(session)}

    def _before(self, session: SessionKey) -> FirstTurns:
        return {**self._uses.known(session), **decoded(self._found.get(session))}


class StagedInStorage(Staged):
    """The same, written with the turn's ending. What is there already is found when that is refused: mostly there is
    nothing, or this process knows what."""

    def __init__(self, service: HasUses) -> None:
        super().__init__(service)
        assert self._uses.storage is not None
        self.storage = self._uses.storage

    def changes(self, turn_id: str) -> list[Change]:
        return [
            Change(
                key=_folder(session),
                expected=fence(self._found.get(session)),
                head=msgpack.encode(self._now(session, turn_id)),
            )
            for session, kinds in self.used.items()
            if not kinds <= self._before(session).keys()
        ]

    def look_again(self, conflict: Conflict) -> bool:
        session = SessionKey(conflict.key.user_id, conflict.key.session_id)
        if conflict.key.kind != KIND or session not in self.used:
            return False
        self._found[session] = conflict.found
        return True


def decoded(head: Head | None) -> FirstTurns:
    """What a folder says that stands so."""
    return {} if head is None else msgpack.decode(head.body, type=dict[BoxKind, str])


def by(turn_id: str, turns: Sequence[str], first: FirstTurns) -> FirstTurns:
    """What of it was so after that turn. `turns`: those that are kept of the session, oldest first."""
    later = turns[turns.index(turn_id) + 1 :] if turn_id in turns else ()
    return {kind: one for kind, one in first.items() if one not in later}


def _folder(session: SessionKey) -> FolderKey:
    return FolderKey(KIND, *session)
