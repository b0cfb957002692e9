"""The sessions that are this process's: what it holds of each, and the writes that go through their fences.

All writes of a session go one after the other, each on what the one before it left. A hold that may be out of date,
because a write's outcome is not known or another process has written, is dropped, and what is needed is read again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from msgspec import UNSET, UnsetType

from greenroom.actors.errors import HandlerError, SessionLost, StoreUnavailable
from greenroom.actors.messages import SessionKey
from greenroom.services.durable import InLine
from greenroom.services.keyed_locks import KeyedLocks
from greenroom.services.sessions.aside import Aside
from greenroom.services.sessions.draft import Draft, Retention
from greenroom.services.sessions.head import (
    EARLIER,
    ENTRY,
    TURN,
    OpenTurn,
    SessionHead,
    decode_ended,
    decode_head,
    folder_of,
    in_line,
    is_marked,
    log_span,
)
from greenroom.services.sessions.hold import Hold, hold_of
from greenroom.services.sessions.just_ended import JustEnded
from greenroom.services.sessions.lines import READ_AT_ONCE, NotRead
from greenroom.services.sessions.log import read_log
from greenroom.services.sessions.owner_life import OwnerLife
from greenroom.services.sessions.reading import STATE_SPAN, legible
from greenroom.services.sessions.turn_codec import decode_turn
from greenroom.services.sessions.turn_names import names_of
from greenroom.services.storage import NOT_THERE, Change, Conflict, Folder, NameTaken, Span, Storage

T = TypeVar("T")

MOST_TRIES: Final = 100
"""Of one write, each of which found that another process had got through meanwhile."""


class OwnedSessions:
    """Holds, of at most `most` sessions without open turns and `most_bytes` of states. `marked`: called with open
    turns that may have been marked meanwhile, as to be cancelled. `monotonic`: seconds."""

    def __init__(
        self,
        storage: Storage,
        life: OwnerLife,
        retention: Retention,
        most: int,
        most_bytes: int,
        marked: Callable[[OpenTurn], object],
        monotonic: Callable[[], float],
    ) -> None:
        self.storage = storage
        self.life = life
        self.retention = retention
        self.aside = Aside()
        self.locks: KeyedLocks[SessionKey] = KeyedLocks()
        self.heard: Callable[[SessionKey, Sequence[InLine]], object] = _nobody
        """As `DurableStore.when_joined` says."""
        self.just_ended = JustEnded(monotonic)
        self._most = most
        self._most_bytes = most_bytes
        self._marked = marked
        self._bytes = 0
        self._holds: OrderedDict[SessionKey, Hold] = OrderedDict()
        self._open: set[SessionKey] = set()

    def __repr__(self) -> str:
        return f"<OwnedSessions: {len(self._holds)} held, {len(self._open)} with open turns>"

    def __len__(self) -> int:
        return len(self._holds)

    @property
    def busy(self) -> bool:
        """Whether turns are open."""
        return bool(self._open)

    # ------------------------------------------------------------------------------------------------------- the holds

    def held(self, key: SessionKey) -> Hold | None:
        """What is held of the session; none: nothing, or this process is no longer the owner that it was."""
        return self._holds.get(key) if self.life.lives() else None

    def keep(self, key: SessionKey, hold: Hold) -> None:
        """Hold the session as it is now. Others that are not needed may have to go."""
        self.drop(key)
        self._holds[key] = hold
        self._bytes += _bytes_of(hold)
        if hold.head.open:
            self._open.add(key)
        if len(self._holds) - len(self._open) > self._most or self._bytes > self._most_bytes:
            self._make_room()

    def drop(self, key: SessionKey) -> None:
        """Hold nothing of the session. One that is not held is fine."""
        hold = self._holds.pop(key, None)
        if hold is not None:
            self._bytes -= _bytes_of(hold)
            self._open.discard(key)

    def clear(self) -> None:
        """Hold nothing."""
        self._holds.clear()
        self._open.clear()
        self._bytes = 0

    def _make_room(self) -> None:
        """The one used longest ago goes first. Of one with open turns only the state goes."""
        for key in list(self._holds):
            hold = self._holds[key]
            if not hold.head.open:
                self.drop(key)
            elif self._bytes > self._most_bytes and hold.state is not UNSET:
                self._bytes -= _bytes_of(hold)
                hold.state = UNSET
            if len(self._holds) - len(self._open) <= self._most and self._bytes <= self._most_bytes:
                return

    # ------------------------------------------------------------------------------- reading what is needed for a write

    async def mine(self, key: SessionKey) -> Hold:
        """The session, held. Raises `SessionLost` when it is not this process's."""
        hold = self.held(key)
        if hold is None:
            folder = await self.storage.read(folder_of(key))
            if folder is None or folder.head.owner != self.life.name or not self.life.lives():
                raise SessionLost(
                    f"session {key.session_id!r} is another process's now, or was forgotten: what this one wanted to "
                    "write was refused; whoever asked for it asks again"
                )
            with legible(key):
                hold = hold_of(folder.head.fence, decode_head(folder.head.body), folder.head.owner)
            self.heed(hold.head)
            self.keep(key, hold)
        return hold

    def joined(self, head: SessionHead) -> Sequence[InLine]:
        """The open turns that were not recorded by this process under the name it has now."""
        if not head.open:
            return ()
        return tuple(in_line(one) for one in head.open if not is_marked(one.mark, self.life.name))

    def hear(self, key: SessionKey, head: SessionHead) -> None:
        """Something has ended in the session, which stands so now."""
        joined = self.joined(head)
        if joined:
            self.heard(key, joined)

    def heed(self, head: SessionHead) -> None:
        """A session of this process has another head than it knew: turns of it may have been cancelled. So one that
        waits is not begun, as that takes a write; notes may come later, or be lost."""
        for opened in head.open:
            self._marked(opened)

    async def log_at(self, key: SessionKey, hold: Hold, opened: OpenTurn, first: int) -> None:
        """Hold the turn's log, to go on with event number `first`. Raises `Conflict` when the hold is out of date."""
        log = hold.logs.get(opened.number)
        if log is not None and log.events == first:
            return
        number = opened.number
        folder = await self.read(key, hold, [Span(ENTRY, number, number), log_span(number)])
        with legible(key):
            ((_, entry),), chunks = folder.spans
            names = names_of(decode_turn(entry))
            try:
                hold.logs[number] = read_log(names, entry, chunks, first)
            except IndexError as error:
                raise HandlerError(f"turn {opened.turn_id} skips events: {error}", field="first") from error

    async def with_state(self, key: SessionKey, hold: Hold) -> None:
        """Hold the session's state. Raises `Conflict` when the hold is out of date."""
        if isinstance(hold.state, UnsetType):
            ((*states,),) = (await self.read(key, hold, [STATE_SPAN])).spans
            hold.state = states[0][1] if states else None
            if self._holds.get(key) is hold:
                self._bytes += _bytes_of(hold)

    async def bounded(
        self, key: SessionKey, hold: Hold, draw: Callable[[Draft], None], just: int | None
    ) -> Draft:
        """A draft that `draw` fills, within the session's bounds. Raises `Conflict` when the hold is out of date."""
        lately = [number for number in (just, self.just_ended.first(key)) if number is not None]
        while True:
            draft = Draft(hold)
            draw(draft)
            try:
                draft.bound(self.retention, min(lately, default=None))
            except NotRead as missing:
                await self._read_more(key, hold, missing)
            else:
                return draft

    async def _read_more(self, key: SessionKey, hold: Hold, missing: NotRead) -> None:
        end = missing.number + READ_AT_ONCE
        folder = await self.read(key, hold, [Span(missing.section, missing.number, end - 1)])
        (cells,) = folder.spans
        commits = hold.head.commits
        with legible(key):
            if missing.section == TURN:
                hold.turns = hold.turns.read({number: len(raw) for number, raw in cells}, end, commits)
            elif missing.section == EARLIER:
                hold.earlier = hold.earlier.read(
                    {number: len(raw) for number, raw in cells}, end, commits - 1
                )
            else:
                ended = {number: decode_ended(raw) for number, raw in cells}
                hold.ended = hold.ended.read(ended, end, hold.head.next_entry - 1)

    async def read(self, key: SessionKey, hold: Hold, spans: Sequence[Span]) -> Folder:
        """The session's folder as it is held. Raises `Conflict` when the hold is out of date."""
        folder = await self.storage.read(folder_of(key), spans)
        if folder is None or folder.head.fence != hold.fence:
            self.drop(key)
            raise Conflict(folder_of(key), None if folder is None else folder.head)
        return folder

    # --------------------------------------------------------------------------------------------------------- writing

    async def write(
        self,
        key: SessionKey,
        draft: Draft,
        others: Sequence[Change] = (),
        *,
        owner: str | None = None,
        take: bool = False,
    ) -> None:
        """Write a draft, and what is to be written with it. `owner`: who has the session then, none: this process, as
        it has it already. Raises `Conflict`, `NameTaken`, `StoreUnavailable`."""
        change = draft.change(key, owner=owner, take=take)
        if owner is None and draft.hold.owner != self.life.name:  # it was late since this was begun
            self.drop(key)
            raise Conflict(change.key, None)
        try:
            fence, *_ = await self.storage.write([change, *others])
        except Conflict as conflict:
            if conflict.key == change.key:
                self.drop(key)
            raise
        except NameTaken:
            raise
        except BaseException:
            self.drop(key)  # whether it was written is not known
            raise
        hold = draft.hold
        hold.owner = hold.owner if owner is None else owner
        if fence == NOT_THERE or hold.owner != self.life.name:
            self.drop(key)
        else:
            hold.fence = fence
            self.keep(key, hold)

    async def until_written(self, key: SessionKey, attempt: Callable[[], Awaitable[T]]) -> T:
        """What comes of `attempt`, which is made again when another process has written to the session meanwhile."""
        for _ in range(MOST_TRIES):
            try:
                return await attempt()
            except Conflict as conflict:
                if conflict.key != folder_of(key):
                    raise
        raise StoreUnavailable(
            f"session {key.session_id!r} was written to by other processes at the same time, {MOST_TRIES} times in a "
            "row; nothing was written; try again",
            retry_after=1.0,
        )


def _nobody(key: SessionKey, joined: Sequence[InLine]) -> None:
    """Until somebody asks to be told."""


def _bytes_of(hold: Hold) -> int:
    return len(hold.state) if isinstance(hold.state, bytes) else 0
