"""Agent states by user, session and round in a storage: they outlive the process, and several processes share them.

A session's rounds are a folder (`round_folder`). Outside a turn a round is saved by one conditional write, done again
from how things stand when another process was faster: no round is lost. Inside a turn, rounds are staged and written
with the turn's ending; of two turns that saved the same round, the one that commits last is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from greenroom.actors.errors import HandlerError, TurnOver
from greenroom.actors.messages import SessionKey
from greenroom.services.agent_state import DEFAULT_SESSION, encoded_state, next_round
from greenroom.services.keyed_locks import KeyedLocks
from greenroom.services.plain_json import decode
from greenroom.services.round_folder import KIND, SECTION, RoundBounds, Rounds, decode_rounds, encode_rounds
from greenroom.services.session_map import DEFAULT_BOUNDS
from greenroom.services.storage import Cell, Change, Conflict, FolderKey, Head, Span, Storage
from greenroom.services.storage_service import MOST_TRIES, StorageService, change_folder, fence, too_busy
from greenroom.services.work import current_work

GUESSES: Final = 10_000
"""Sessions of which it is remembered where their latest state lies, so that one read finds it."""
LARGEST_ROUND: Final = 2**53 - 1


class _Staged:
    """What one turn saved, and how the folders stood when it last looked."""

    __slots__ = ("_service", "found", "rounds", "storage")

    def __init__(self, service: DurableStateService) -> None:
        self._service = service
        self.storage = service.storage
        self.found: dict[SessionKey, Head | None] = {}
        self.rounds: dict[SessionKey, dict[int, bytes]] = {}

    def changes(self, turn_id: str) -> list[Change]:
        return [
            self._service._change(key, self.found[key], rounds, turn_id)
            for key, rounds in self.rounds.items()
        ]

    def look_again(self, conflict: Conflict) -> bool:
        key = SessionKey(conflict.key.user_id, conflict.key.session_id)
        if conflict.key.kind != KIND or key not in self.rounds:
            return False
        self.found[key] = conflict.found
        return True

    def apply(self, turn_id: str) -> None:
        """Nothing is left to do: the rounds were written with the turn's ending."""


class DurableStateService(StorageService):
    """A `StateService` in a storage.

    `rounds_kept`: of each session, those with the highest numbers. `turns_kept`: it is known how a session was after so
    many of its last turns (`Forkable`). `session_bytes`: of all states that are held of one session, after which turns
    are forgotten first and then rounds. Sessions that nobody saves for the storage's `idle_seconds` are forgotten.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        rounds_kept: int = 20,
        turns_kept: int = 50,
        session_bytes: int = DEFAULT_BOUNDS.session_bytes,
    ) -> None:
        super().__init__(storage)
        self._bounds = RoundBounds(
            rounds_kept=rounds_kept, turns_kept=turns_kept, session_bytes=session_bytes
        )
        self._saving: KeyedLocks[SessionKey] = KeyedLocks()
        self._guesses: OrderedDict[SessionKey, int] = OrderedDict()

    async def save_state(
        self, user_id: str, state: dict[str, Any], session_id: str | None = None, round_id: int | None = None
    ) -> int:
        """Keep a copy of `state` and give its round; see `StateService.save_state`."""
        storage = self._use()
        key = SessionKey(user_id, session_id or DEFAULT_SESSION)
        raw = encoded_state(state, self._bounds.session_bytes)
        if round_id is not None and not 0 <= round_id <= LARGEST_ROUND:
            raise HandlerError(
                f"round_id={round_id}: rounds are numbered from 0 to 2**53 - 1", field="round_id"
            )
        if current_work.get() is not None:
            return await self._stage(key, raw, round_id)

        def save(head: Head | None) -> tuple[list[Change], int]:
            number = next_round(_rounds(head).current(), round_id, self._bounds.rounds_kept)
            return [self._change(key, head, {number: raw}, None)], number

        async with self._saving.of(key):
            return await change_folder(storage, _folder(key), save)

    async def export_state(
        self, user_id: str, session_id: str | None = None, round_id: int | None = None
    ) -> dict[str, Any] | None:
        """A copy of the state of a round, or of the latest; none when it is not kept."""
        self._use()
        key = SessionKey(user_id, session_id or DEFAULT_SESSION)
        staged = self._staged()
        rounds = staged.rounds.get(key) if staged is not None else None
        if staged is not None and rounds:
            seen = self._seen(staged, key)
            round_id = max(seen) if round_id is None else round_id
            if round_id in rounds and round_id in seen:
                return _state(rounds[round_id])
            if round_id not in seen:
                return None
        return _state(await self._read(key, round_id, staged))

    async def fork(self, source: SessionKey, turn_id: str, turns: Sequence[str], target: SessionKey) -> bool:
        """Make `target` what `source` was after that turn; see `Forkable.fork`."""
        folder = await self._use().read(_folder(source), [Span(SECTION)])
        rounds = _rounds(folder.head).forked(turn_id, turns) if folder is not None else Rounds()
        if folder is None or not rounds or not rounds.next:
            await self.forget(target)
            return rounds is not None
        cells = rounds.cells()
        put = [(Cell(SECTION, number), raw) for number, raw in folder.spans[0] if number in cells]
        change = Change(key=_folder(target), delete=True, head=encode_rounds(rounds), put=put)
        await self._use().write([change])
        return True

    async def forget(self, key: SessionKey) -> None:
        """Keep nothing of the session any more."""
        await self._use().write(self.to_forget(key))

    def to_forget(self, key: SessionKey) -> Sequence[Change]:
        """What that writes; see `ForgottenTogether`."""
        return [Change(key=_folder(key), delete=True)]

    def _staged(self) -> _Staged | None:
        """What this turn did. None outside a turn, and after its end, when what is committed is what counts."""
        work = current_work.get()
        if work is None:
            return None
        try:
            return work.staging(self, _Staged)
        except TurnOver:
            return None

    async def _stage(self, key: SessionKey, raw: bytes, round_id: int | None) -> int:
        work = current_work.get()
        assert work is not None
        if key not in work.staging(self, _Staged).found:
            folder = await self._use().read(_folder(key))
            work.staging(self, _Staged).found.setdefault(key, None if folder is None else folder.head)
        staged = work.staging(self, _Staged)  # the turn may have ended while this waited
        number = next_round(self._seen(staged, key), round_id, self._bounds.rounds_kept)
        rounds = staged.rounds.setdefault(key, {})
        rounds[number] = raw
        if len(rounds) > self._bounds.rounds_kept:
            del rounds[min(rounds)]
        return number

    def _seen(self, staged: _Staged, key: SessionKey) -> set[int]:
        """The numbers of the rounds that the turn sees."""
        numbers = {*_rounds(staged.found[key]).current(), *staged.rounds.get(key, ())}
        return set(sorted(numbers)[-self._bounds.rounds_kept :])

    async def _read(self, key: SessionKey, round_id: int | None, staged: _Staged | None) -> bytes | None:
        """The round's bytes. Where it lies is known from the head that comes with it, so it is guessed first."""
        cell = self._guesses.get(key, 0)
        for _ in range(MOST_TRIES):
            folder = await self._use().read(_folder(key), [Span(SECTION, cell, cell)])
            if staged is not None:
                staged.found[key] = None if folder is None else folder.head
            rounds = _rounds(None if folder is None else folder.head)
            wanted = rounds.latest() if round_id is None else rounds.current().get(round_id)
            if folder is None or wanted is None:
                return None
            if round_id is None:
                self._guess(key, wanted.cell)
            for number, raw in folder.spans[0]:
                if number == wanted.cell:
                    return raw
            cell = wanted.cell
        raise too_busy(_folder(key))

    def _change(
        self, key: SessionKey, head: Head | None, new: Mapping[int, bytes], turn_id: str | None
    ) -> Change:
        """The write that adds rounds to a folder that stands so."""
        rounds = _rounds(head)
        put, drop = rounds.save(new, turn_id, self._bounds)
        latest = rounds.latest()
        if latest is not None:
            self._guess(key, latest.cell)
        return Change(key=_folder(key), expected=fence(head), head=encode_rounds(rounds), put=put, drop=drop)

    def _guess(self, key: SessionKey, cell: int) -> None:
        self._guesses[key] = cell
        self._guesses.move_to_end(key)
        if len(self._guesses) > GUESSES:
            self._guesses.popitem(last=False)


def _folder(key: SessionKey) -> FolderKey:
    return FolderKey(KIND, *key)


def _rounds(head: Head | None) -> Rounds:
    return decode_rounds(None if head is None else head.body)


def _state(raw: bytes | None) -> dict[str, Any] | None:
    state: dict[str, Any] | None = None if raw is None else decode(raw)
    return state
