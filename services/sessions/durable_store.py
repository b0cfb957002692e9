"""Sessions that are not lost, on any storage: `DurableStore`, written once for all engines.

What a session's folder has is said in `head`, what a write does to it in `draft`, whose it is in
`acceptance`. A turn costs two writes and no read: its acceptance and its ending.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from greenroom.actors.events import Event
from greenroom.actors.messages import SessionKey, Turn
from greenroom.actors.setting_checks import check_settings
from greenroom.services.durable import Acceptance, Changes, Ending, InLine, Passed, Standing, TurnEntry
from greenroom.services.service import Calls
from greenroom.services.sessions.acceptance import Acceptor, Blocked
from greenroom.services.sessions.draft import OPTIONS, Draft, Retention
from greenroom.services.sessions.head import KIND, folder_of
from greenroom.services.sessions.hold import Hold
from greenroom.services.sessions.joining import Join
from greenroom.services.sessions.owned import OwnedSessions
from greenroom.services.sessions.owner_life import OwnerLife, new_name
from greenroom.services.sessions.owner_notes import OwnerNotes
from greenroom.services.sessions.passing import changes_to_forget, passed
from greenroom.services.sessions.reading import HISTORY, legible, record_of
from greenroom.services.sessions.repeats import Terms, forget_repeats
from greenroom.services.sessions.turn_codec import encode_turn
from greenroom.services.sessions.turn_names import check_names
from greenroom.services.sessions.turns_anywhere import TurnsAnywhere
from greenroom.services.sessions.turns_here import TurnsHere
from greenroom.services.storage import Fence, Storage
from greenroom.services.store import SessionRecord, TurnCommit

DEFAULT = Retention()


def _nothing(*_: object) -> None:
    """Until somebody asks to be told."""


class DurableSessions:
    """A `DurableStore` on `storage`, which may be other processes' and other services' too.

    It forgets turns over `turns_kept` of a session, the states after all but the last `states_kept` turns, and the
    oldest of a session over `session_bytes`; of turns that ended, it keeps the last `logs_kept` findable with their
    logs, and forgets the oldest over `log_bytes`. The newest is kept whatever its size.

    This process has to renew what it owns each `lease_seconds`; when it does not, others may take it. It remembers how
    `max_holds` sessions stand, and `hold_bytes` of their states, to save reading. `monotonic`: seconds. `new_owner`: a
    name that no process had before. `reached`: called with the name of each point that a fault may be put at.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        turns_kept: int = DEFAULT.turns_kept,
        states_kept: int = DEFAULT.states_kept,
        session_bytes: int = DEFAULT.session_bytes,
        logs_kept: int = DEFAULT.logs_kept,
        log_bytes: int = DEFAULT.log_bytes,
        lease_seconds: float = 15.0,
        max_holds: int = 10_000,
        hold_bytes: int = 64 * 1024 * 1024,
        monotonic: Callable[[], float] = time.monotonic,
        new_owner: Callable[[], str] = new_name,
        reached: Callable[[str], object] = _nothing,
    ) -> None:
        given = locals()
        check_settings(type(self).__name__, given, OPTIONS)
        self.storage = storage
        self._reached = reached
        self._life = OwnerLife(
            storage,
            seconds=lease_seconds,
            new_name=new_owner,
            monotonic=monotonic,
            lost=self._lose,
            noted=lambda note: self._notes.read(note),  # noqa: PLW0108 - it is made below
            busy=lambda: self._owned.busy,
            beaten=lambda: self._acceptor.settle_all(),  # noqa: PLW0108
        )
        retention = Retention(**{name: given[name] for name in Retention.__struct_fields__})
        self._notes = OwnerNotes(storage, self._life)
        self._owned = OwnedSessions(
            storage, self._life, retention, max_holds, hold_bytes, self._notes.marked, monotonic
        )
        self._acceptor = Acceptor(self._owned, monotonic, reached)
        self._anywhere = TurnsAnywhere(self._owned, self._acceptor, reached)
        self._here = TurnsHere(self._owned, Terms(storage, new_owner, monotonic))
        self._lost: Callable[[], object] = _nothing
        self._calls = Calls(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self.storage!r}>"

    @property
    def owner(self) -> str:
        """This process's name among the owners."""
        return self._life.name

    async def start(self) -> None:
        """Be ready for use. Raises `StoreUnavailable` that says what is missing when it cannot."""
        if self._calls.allowed:
            return
        await self.storage.start()
        try:
            await self._life.start()
        except BaseException:
            await self.storage.stop()
            raise
        self._calls.allowed = True

    async def stop(self) -> None:
        """Let go, after what is under way. Sessions that still have open turns are for others to take."""
        if not self._calls.allowed:
            return
        self._calls.allowed = False
        await self._calls.none()
        await self._life.stop()
        self._forget_all()
        await self.storage.stop()

    # ------------------------------------------------------------------------------------------------- a `SessionStore`

    async def load(self, key: SessionKey) -> SessionRecord | None:
        """The session as of its last commit; none when there was none, or it was idle for too long."""
        with self._calls:
            hold = self._owned.held(key)
            if hold is not None and hold.head.open and not hold.head.commits:
                return None  # nobody else can have written to it
            folder = await self.storage.read(folder_of(key), HISTORY)
            with legible(key):
                spans = () if folder is None else folder.spans
                return await self._owned.aside.read(spans, lambda: record_of(key, folder))

    async def commit(self, key: SessionKey, turn: TurnCommit) -> None:
        """Keep a turn that was not accepted. Raises `HandlerError` for a record that cannot be kept, `SessionHeld` when
        another process works on a turn of the session, and `StoreUnavailable`."""
        key = SessionKey(*key)

        async def draw(hold: Hold) -> Draft:
            raw = await self._owned.aside.record(turn.record)
            await self._owned.with_state(key, hold)
            return await self._owned.bounded(key, hold, lambda draft: draft.commit(raw, turn.state), None)

        async def attempt() -> None:
            if key in self._acceptor.half_taken:
                raise Blocked(None)
            await self._acceptor.settle(key)
            await self._acceptor.as_owner(key, draw)

        with self._calls:
            async with self._owned.locks.of(key):
                try:
                    await self._owned.until_written(key, attempt)
                except Blocked as blocked:
                    raise blocked.held(key) from blocked

    async def fork(self, source: SessionKey, turn_id: str, target: SessionKey) -> bool:
        """Make `target` what `source` was after that turn; see `SessionStore.fork`."""
        source, target = SessionKey(*source), SessionKey(*target)
        with self._calls:
            async with self._owned.locks.of(target):
                return await self._owned.until_written(
                    target, partial(self._anywhere.fork, source, turn_id, target)
                )

    async def forget(
        self, key: SessionKey, expected: Fence | None = None, mark: Fence | None = None, others: Changes = ()
    ) -> None:
        """Keep nothing of the session any more, and refuse who still wants to write to it; see `DurableStore`."""
        key = SessionKey(*key)
        with self._calls:
            async with self._owned.locks.of(key):
                self._owned.drop(key)
                await self.storage.write(changes_to_forget(key, expected, mark, others))
                self._reached("forget.written")

    # ------------------------------------------------------------------------------------------- what its owner writes

    async def accept(self, turn: Turn, join: Join | None = None) -> Acceptance:
        """Record a turn, as the last of its session's open ones; see `DurableStore.accept`.

        Raises `InvalidRequest` for a turn that cannot be kept as it is, `NotServing` when this process takes no more
        sessions, and `StoreUnavailable`: then nothing of the turn is kept.
        """
        raw = encode_turn(turn)
        check_names(turn)
        with self._calls:
            async with self._owned.locks.of(turn.key):
                return await self._owned.until_written(
                    turn.key, lambda: self._acceptor.accept(turn, raw, join)
                )

    async def take(self, key: SessionKey) -> Sequence[TurnEntry]:
        """Make the session this process's, if its owner is gone, and give its open turns in their order, with events;
        nothing when it has none, or is another living process's."""
        key = SessionKey(*key)
        with self._calls:
            async with self._owned.locks.of(key):
                return await self._owned.until_written(key, lambda: self._acceptor.take(key))

    async def standing(self, key: SessionKey) -> Standing:
        """How the session stands for who wants to delete it; this process's then, if its owner is gone with open turns.

        Raises `SessionDamaged`, `SessionLost` and `StoreUnavailable`.
        """
        key = SessionKey(*key)
        with self._calls:
            async with self._owned.locks.of(key):
                return await self._owned.until_written(key, lambda: self._acceptor.standing(key))

    async def line(
        self, key: SessionKey, new: Callable[[str, str | None], bool], most: int | None = None
    ) -> Sequence[TurnEntry]:
        """Of the turns that joined the session's line the first `most` that `new` picks out, or all.

        Raises `SessionLost` and `StoreUnavailable`.
        """
        key = SessionKey(*key)
        with self._calls:
            async with self._owned.locks.of(key):
                return await self._owned.until_written(key, lambda: self._here.line(key, new, most))

    async def append(self, key: SessionKey, turn_id: str, first: int, events: Sequence[Event]) -> None:
        """Add events to the log of a running turn; what it has from number `first` on is replaced.

        Raises `TurnOver` for a turn that is not open, `HandlerError` for events that cannot be kept, `SessionLost` and
        `StoreUnavailable`.
        """
        key = SessionKey(*key)
        with self._calls:
            async with self._owned.locks.of(key):
                self._reached("append.before")
                await self._owned.until_written(key, lambda: self._here.append(key, turn_id, first, events))
                self._reached("append.written")

    async def finish(self, key: SessionKey, ending: Ending) -> None:
        """End a turn: all of what it did is kept or, when this raises, nothing.

        When this raised `StoreUnavailable` it may be called again with the same ending. Raises `TurnOver` for a turn
        that has ended, maybe by an earlier call with another ending, and `Conflict`, `HandlerError`, `SessionLost` and
        `StoreUnavailable`.
        """
        key = SessionKey(*key)
        with self._calls:
            async with self._owned.locks.of(key):
                self._reached("finish.before")
                await self._here.finish(key, ending)
                self._reached("finish.written")

    async def release(self, key: SessionKey, *, begun: bool) -> None:
        """Let the session go, with its open turns: another process takes it. Raises `SessionLost` and
        `StoreUnavailable`."""
        key = SessionKey(*key)
        with self._calls:
            async with self._owned.locks.of(key):
                await self._owned.until_written(key, lambda: self._here.release(key, begun))
                self._reached("release.written")

    async def drain(self) -> None:
        """From now on this process takes no session that is not its own."""
        with self._calls:
            await self._life.drain()

    # ----------------------------------------------------------------------------------------- turns, wherever they are

    async def find(self, turn_id: str, principal: str | None, first: int = 0) -> TurnEntry | None:
        """The turn's entry with the events from number `first` on; none: it never was, or is no longer kept."""
        with self._calls:
            return await self._anywhere.find(turn_id, principal, first)

    async def known(self, turn: Turn) -> TurnEntry | None:
        """The turn, wherever it is, that has the id or the idempotency key of this one; none: there is none."""
        with self._calls:
            return await self._anywhere.known(turn)

    async def remove(self, turn_id: str, principal: str | None) -> bool:
        """Keep nothing of an ended turn but what its session's history has. Whether it was kept."""
        with self._calls:
            return await self._anywhere.remove(turn_id, principal)

    async def forget_repeats(self) -> bool:
        """Keep nothing of what was for repeats and whose time is over. Whether that was all of it."""
        with self._calls:
            return await forget_repeats(self.storage)

    async def passed(self, limit: int) -> tuple[Sequence[Passed], Sequence[SessionKey]]:
        """Sessions that were to go with a process that is gone: those that may, and those with open turns."""
        with self._calls:
            return await passed(self.storage, limit)

    async def orphans(self, limit: int) -> Sequence[SessionKey]:
        """Sessions with open turns whose owner is gone."""
        with self._calls:
            heads = await self.storage.orphans(KIND, limit)
            return [*self._acceptor.half_taken, *(SessionKey(*head.key[1:]) for head in heads)][:limit]

    async def ask_to_cancel(self, turn_id: str, principal: str | None, reason: str) -> bool:
        """Have an open turn cancelled by who has it or takes it over. Whether its owner lives, and was asked."""
        with self._calls:
            asked = await self._anywhere.mark_cancelled(turn_id, principal, reason)
            return asked is not None and await self._notes.ask_to_cancel(*asked)

    def when_asked(self, cancel: Callable[[str, str | None, str], object]) -> None:
        """Call this (turn id, principal, reason) when another process asks this one to cancel a turn."""
        self._notes.cancel = cancel

    async def tell_followed(self, turn_id: str, principal: str | None, seconds: float) -> bool:
        """Tell the living owner of an open turn that it is followed here. Whether there was one to tell."""
        with self._calls:
            return await self._notes.tell_followed(turn_id, principal, seconds)

    async def leave_ending(self, turn_id: str, principal: str | None) -> bool:
        """Have the ending of an open turn of which nothing is kept left for who follows it here."""
        with self._calls:
            return await self._anywhere.leave_ending(turn_id, principal)

    def when_followed(self, followed: Callable[[str, str | None, str, float], object]) -> None:
        """Call this (turn id, principal, process, seconds) when another process says that it follows a turn."""
        self._notes.followed = followed

    async def hear(self) -> None:
        """Be given all that others asked or told this process before this was called. Raises `StoreUnavailable`."""
        with self._calls:
            await self._life.hear()

    def when_joined(self, joined: Callable[[SessionKey, Sequence[InLine]], object]) -> None:
        """Call this when turns of others were found in the line of a session of this process; see `DurableStore`."""
        self._owned.heard = joined

    def when_lost(self, lost: Callable[[], object]) -> None:
        """Call this when this process could not renew in time; it has begun anew then, as another owner."""
        self._lost = lost

    # ------------------------------------------------------------------------------------------------------------------

    def _forget_all(self) -> None:
        self._owned.clear()
        self._acceptor.clear()
        self._here.clear()

    def _lose(self) -> None:
        self._forget_all()
        self._lost()
