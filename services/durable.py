"""The plug for stores that lose nothing: a `SessionStore` that several processes may share and that outlives them.

A turn is recorded before it is acknowledged (`accept`), its events are added to its log as it runs (`append`), and it
ends with one write (`finish`): history, state, the rest of the log, the turn's record and what services staged,
together or not at all. All writes go through the fence of the session's folder (`greenroom.services.storage`): who has
lost the session, or never had it, writes nothing.

A session's open turns stand in the order of their acceptance. The first of them counts as begun, from the write that
made it the first: its acceptance, or the ending of the one before it. So no write is needed to begin a turn.

A session belongs to the process that accepted a turn for it. Another may take it when no turn of it is open, or when
its owner is gone; the open turns are then the taker's to run or to end. While its owner lives and has turns open, what
comes to another process joins the session's line: it is recorded there, behind those that came before it, wherever
from, and the owner runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeAlias, TypeGuard

from msgspec import Struct

from greenroom.actors.events import Event
from greenroom.actors.messages import SessionKey, Turn
from greenroom.services.storage import Change, Fence, Storage
from greenroom.services.store import SessionStore, TurnRecord

Changes: TypeAlias = Sequence[Change]
EntryStatus: TypeAlias = Literal["waiting", "running", "ended"]


class TurnEntry(Struct, frozen=True, kw_only=True):
    """What is kept of a turn from its acceptance on. `number`: its place among the session's turns, from 1.

    `status`: as of the last write; `waiting` was never begun, `running` (the first of the open ones) may have acted.
    `attempts`: how often it was begun, and not let go of in order. `ahead`: how many turns of the session's line are
    before it. `here`: whether the session belongs to this process; `owned`: whether it belongs to one that lives.
    `events`: those of its log that are kept, from the number on that was asked for; of an ended turn its ending is the
    last.
    `taken_at`: how many events of its log were known when it was first taken over from a process that had begun it and
    not let go of it; none: it never was. That process may have told others after these, under the same numbers.
    `cancelled`: why it is to be cancelled, by whoever has it (`DurableStore.ask_to_cancel`); none: it is not, or ended.
    """

    turn: Turn
    number: int
    status: EntryStatus
    attempts: int = 1
    ahead: int = 0
    here: bool = False
    owned: bool = False
    events: Sequence[Event] = ()
    taken_at: int | None = None
    cancelled: str | None = None


class ForRepeats(Struct, frozen=True, kw_only=True):
    """What repeats of an ended turn get of which nothing else is kept. `events`: all of its log. `seconds`: for how
    long, from when it is written, by the storage's clock. Only its idempotency key leads to it. A turn without one
    leaves it for those who follow it in other processes, if any do (`DurableStore.leave_ending`): by its id."""

    turn: Turn
    events: Sequence[Event]
    seconds: float


class Ending(Struct, frozen=True, kw_only=True):
    """How a turn ends. `record`: what the session's history has of it, none: nothing. `state`: the session's new
    state, none leaves the one before it. `first`: the number of the first of `events`, which end its log. `changes`:
    what services staged, in the same storage. `kept`: whether the turn can still be found afterwards; if not, no trace
    of it stays but what is `for_repeats`.
    """

    turn_id: str
    principal: str | None = None
    record: TurnRecord | None = None
    state: bytes | None = None
    first: int = 0
    events: Sequence[Event] = ()
    changes: Sequence[Change] = ()
    kept: bool = True
    for_repeats: ForRepeats | None = None


class InLine(Struct, frozen=True):
    """A turn of a session that has not ended. `size`: bytes of what is kept of it, 0 where that is not known."""

    turn_id: str
    principal: str | None = None
    size: int = 0


class TurnAccepted(Struct, frozen=True):
    """The turn is recorded, and the session is this process's. `fresh`: it was not before, so that what this process
    remembers of the session is out of date. `joined`: those before it in the session's line that were recorded under
    another owner's name; this process may not have heard of them."""

    number: int
    fresh: bool
    joined: Sequence[InLine] = ()


class TurnKnown(Struct, frozen=True):
    """The id or the idempotency key is another turn's, which has the same principal; nothing was recorded."""

    entry: TurnEntry


class SessionTaken(Struct, frozen=True):
    """The session is this process's now, and these turns of it, which are open, are to be run or ended first. Nothing
    was recorded."""

    turns: Sequence[TurnEntry]


class SessionElsewhere(Struct, frozen=True):
    """Another living process works on turns of the session; nothing was recorded. `owner`: its name. `turns`: those
    that have not ended, in their order; the first is at work."""

    owner: str
    turns: Sequence[InLine]


class TurnJoined(Struct, frozen=True):
    """The turn is recorded as the last in the line of a session that is another living process's, which is to run it.
    `elsewhere`: how the session stood before that."""

    entry: TurnEntry
    elsewhere: SessionElsewhere


class TurnsOpen(Struct, frozen=True):
    """Turns of the session are open, with a process that lives. `turns`: their ids and principals, in their order."""

    turns: Sequence[tuple[str, str | None]]


class Passed(Struct, frozen=True):
    """A session without open turns that was to go with a process that is gone, or that went and left something with
    services elsewhere. `standing`, `mark`: its version, and that of what marks it as such; either is another one when
    somebody has gone on with it since."""

    key: SessionKey
    standing: Fence
    mark: Fence


Acceptance: TypeAlias = TurnAccepted | TurnJoined | TurnKnown | SessionTaken | SessionElsewhere
Standing: TypeAlias = Fence | SessionTaken | TurnsOpen
"""Of a session without open turns, its version; it may be that of one that is not there."""


class DurableStore(SessionStore, Protocol):
    """A store of sessions that several processes share. `owner`: this process's name in it, another one each time it
    has to begin anew. `storage`: where services stage what is to be written with a turn's ending.

    All raise `StoreUnavailable`, and `SessionDamaged` for a session that cannot be read; those of an owner raise
    `SessionLost` when the session is no longer this process's.
    """

    storage: Storage

    @property
    def owner(self) -> str:
        """This process's name among the owners."""
        ...

    async def accept(
        self, turn: Turn, join: Callable[[SessionElsewhere], object] | None = None
    ) -> Acceptance:
        """Record a turn, as the last of its session's open ones.

        `join`: called with how things stand where the session is another living process's with open turns; unless it
        raises, which this does then too, the turn joins the line. None: it does not, and is told how they stand. Where
        it is not known whether it has joined, `StoreUnavailable` does not say that nothing is kept.
        """
        ...

    async def line(
        self, key: SessionKey, new: Callable[[str, str | None], bool], most: int | None = None
    ) -> Sequence[TurnEntry]:
        """Of the open turns of a session that is this process's which were recorded under another owner's name, those
        that `new` (turn id, principal) picks out, in their order: all, or the first so many."""
        ...

    async def take(self, key: SessionKey) -> Sequence[TurnEntry]:
        """Make the session this process's, if its owner is gone, and give its open turns in their order, with events.

        Gives nothing when it has none, or is another living process's.
        """
        ...

    async def standing(self, key: SessionKey) -> Standing:
        """How the session stands for who wants to delete it, which is this process's then if its owner is gone and
        turns are open."""
        ...

    async def forget(
        self,
        key: SessionKey,
        expected: Fence | None = None,
        mark: Fence | None = None,
        others: Changes = (),
    ) -> None:
        """Keep nothing of the session any more. One that is not kept is fine. `expected`: as it stood when none of its
        turns was open. `mark`: as `Passed` says. `others`: what goes with it, in the same storage; or stays, to say
        that services elsewhere still have something of it (`passing.unforgotten`). Raises `Conflict` when something has
        another version since; then nothing has changed."""
        ...

    async def append(self, key: SessionKey, turn_id: str, first: int, events: Sequence[Event]) -> None:
        """Add events to the log of a running turn. `first`: the number of the first of them; what the log has from
        there on (of a write that nobody knew to have been done) is replaced."""
        ...

    async def finish(self, key: SessionKey, ending: Ending) -> None:
        """End a turn: all of what it did is kept or, when this raises, nothing.

        Raises `Conflict` when a folder of `ending.changes` is not as expected (`Work.written` tries again then).
        """
        ...

    async def release(self, key: SessionKey, *, begun: bool) -> None:
        """Let the session go, with its open turns: another process takes it. `begun`: the first of them may have acted
        before it was taken; if not, it is to be begun, once more if it ever was, and all that others were told of it is
        in its log. It is not counted as begun here. A session without open turns need not be let go of."""
        ...

    async def find(self, turn_id: str, principal: str | None, first: int = 0) -> TurnEntry | None:
        """The turn's entry with the events from number `first` on; none: it never was, or is no longer kept."""
        ...

    async def known(self, turn: Turn) -> TurnEntry | None:
        """The turn, wherever it is, that has the id or the idempotency key of this one; none: there is none."""
        ...

    async def remove(self, turn_id: str, principal: str | None) -> bool:
        """Keep nothing of an ended turn but what its session's history has. Whether it was kept."""
        ...

    async def forget_repeats(self) -> bool:
        """Keep nothing of what was for repeats and whose time is over, whoever wrote it; a round of bounded length.
        Whether that was all of it."""
        ...

    async def passed(self, limit: int) -> tuple[Sequence[Passed], Sequence[SessionKey]]:
        """Sessions that were to go with a process that is gone (`Turn.passing`, and forks of which no turn was
        accepted), or went while it was not yet done with services elsewhere, up to `limit`: those that may be
        forgotten, and those of which turns are open still."""
        ...

    async def orphans(self, limit: int) -> Sequence[SessionKey]:
        """Sessions with open turns whose owner is gone."""
        ...

    async def ask_to_cancel(self, turn_id: str, principal: str | None, reason: str) -> bool:
        """Have a running or waiting turn cancelled: that and why (the first 1,000 characters) are recorded with it, for
        whoever takes it over (`TurnEntry.cancelled`), and its owner is asked, if it lives. Whether there was one to
        ask. Who asks again asks the owner again, and writes nothing; the first reason stays."""
        ...

    def when_asked(self, cancel: Callable[[str, str | None, str], object]) -> None:
        """Call this (turn id, principal, reason) when another process asks this one to cancel a turn, maybe more than
        once. That one was asked to cancel a turn that waits is known before the ending of the one before it is
        written: it need not begin."""
        ...

    async def tell_followed(self, turn_id: str, principal: str | None, seconds: float) -> bool:
        """Tell the living owner of a running or waiting turn that somebody follows it in this process, which holds for
        `seconds` unless it is told again; 0: nobody does any more. Whether there was one to tell."""
        ...

    async def leave_ending(self, turn_id: str, principal: str | None) -> bool:
        """Have the ending of an open turn of which nothing is to be kept (`Ending.for_repeats`) left for who follows it
        in this process, as for repeats; its id leads to it then. Whether the turn is open."""
        ...

    def when_followed(self, followed: Callable[[str, str | None, str, float], object]) -> None:
        """Call this (turn id, principal, the process's name, seconds) when a process tells this one who follows."""
        ...

    async def hear(self) -> None:
        """Be given all that others asked or told this process before this was called."""
        ...

    def when_joined(self, joined: Callable[[SessionKey, Sequence[InLine]], object]) -> None:
        """Call this when a write that ends something in a session of this process left open turns in its line that were
        recorded under another owner's name: it may not have heard of them."""
        ...

    def when_lost(self, lost: Callable[[], object]) -> None:
        """Call this when this process could not renew in time: others may have its sessions, and it must stop what it
        does for them. It has begun anew, as another owner, when this is called."""
        ...

    async def drain(self) -> None:
        """From now on this process takes no session that is not its own."""
        ...


def is_durable(store: SessionStore) -> TypeGuard[DurableStore]:
    """Whether the store is one that loses nothing."""
    return hasattr(store, "accept") and hasattr(store, "finish")
