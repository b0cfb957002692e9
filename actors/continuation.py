"""Where a turn goes that continues from another one (`Turn.after`): to that turn's session as long as nothing followed
it, else to a new session, forked from that one as it was after that turn.

Rule: between deciding that nothing followed and delivering the turn nobody waits for anything, so that of two turns
that continue from the same one, one appends and the other forks. Where processes share the store, what is known here
of a session that is idle may be out of date: the store is asked before a fork, and when it has accepted the turn it is
seen whether that has the place it was given (`intake`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Protocol

import anyio
from msgspec import structs

from greenroom.actors.actor import SessionActor
from greenroom.actors.errors import ContinuationNotFound, StoreUnavailable
from greenroom.actors.messages import SessionKey, Turn
from greenroom.actors.roster import Roster
from greenroom.actors.session import Sandboxes
from greenroom.services.durable import DurableStore, is_durable
from greenroom.services.durable_responses import NO_EVENTS
from greenroom.services.service import ForgottenTogether, Forkable
from greenroom.services.sessions.passing import forgotten, unforgotten
from greenroom.services.started import started_on
from greenroom.services.storage import Change, Fence, FolderKey
from greenroom.services.store import SessionRecord, SessionStore

logger = logging.getLogger("greenroom.actors")


class Continuations:
    """Places turns. `services`: those that took part in turns, and so have to follow a fork. `sandboxes`: forget
    sessions too; a fork has none of its source's."""

    __slots__ = ("_new_id", "_roster", "_sandboxes", "_services", "_store", "later")

    def __init__(
        self,
        roster: Roster,
        store: SessionStore,
        services: Iterable[object],
        new_id: Callable[[], str],
        sandboxes: Sandboxes | None = None,
    ) -> None:
        self._roster = roster
        self._store = store
        self._services = services
        self._new_id = new_id
        self._sandboxes = sandboxes
        self.later: Callable[[SessionKey, str | None], object] = _nobody
        """Does what `drop` could not do."""

    @property
    def owner(self) -> str | None:
        """Under what name this process has sessions of a shared store; it has another one when it was late."""
        return self._store.owner if is_durable(self._store) else None

    async def place(self, turn: Turn) -> Turn:
        """The turn as its session gets it. Deliver it before anything is awaited.

        Raises `ContinuationNotFound`, and `Overloaded` when no session can be activated.
        """
        after = turn.after
        if after is None:
            return turn
        while True:
            actor = await self._awake(turn.key)
            if actor.newest == after:
                return turn
            run = actor.find(after)
            if run is not None:
                await run.log.ended()
                continue
            known = (
                None if actor.busy else actor.newest
            )  # no other process has it while a turn is at work here
            record = await self._store.load(turn.key)
            if known is None or not self._was_behind(actor, known, after, record):
                return turn if await self._runs_elsewhere(turn, record) else await self._fork(turn, record)

    async def fork(self, turn: Turn) -> Turn:
        """The turn as its session gets it where others are known to follow the one that it continues from.

        Raises `ContinuationNotFound`.
        """
        return await self._fork(turn, await self._store.load(turn.key))

    async def _awake(self, key: SessionKey) -> SessionActor:
        """The session's actor, which knows its newest turn. It has not been waited for anything since it was found."""
        while True:
            actor = self._roster.get(key)
            if actor.newest is not None:
                return actor
            if not actor.busy:
                self._roster.working(actor)
                self._roster.resting(actor, asyncio.get_running_loop().time())
            record = await self._store.load(key)
            # It may have been let go meanwhile, and another taken its place.
            if actor.newest is None and self._roster.get(key) is actor:
                actor.last_kept = _newest_of(record)

    def _was_behind(self, actor: SessionActor, known: str, after: str, record: SessionRecord | None) -> bool:
        """Whether it was not known here that `after` is the newest turn: another process has had the session since.

        `known`: which one the actor believed it to be before `record` was read; it has done nothing since.
        """
        if not is_durable(self._store) or actor.busy or actor.newest != known or _newest_of(record) != after:
            return False
        actor.last_kept = after
        return True

    async def _runs_elsewhere(self, turn: Turn, record: SessionRecord | None) -> bool:
        """Whether another process works on the turn that this one continues from, or is to: then this one waits for the
        session, and whether that one is its newest is seen when this process has it."""
        after, store = turn.after, self._store
        if after is None or not is_durable(store):
            return False
        if record is not None and any(one.turn_id == after for one in record.turns):
            return False
        entry = await store.find(after, turn.principal, NO_EVENTS)
        return entry is not None and entry.status != "ended" and entry.turn.key == turn.key

    async def _fork(self, turn: Turn, record: SessionRecord | None) -> Turn:
        source, after = turn.key, turn.after
        assert after is not None
        target = SessionKey(source.user_id, self._new_id())
        if record is None:
            raise _not_kept(after)
        turns = [one.turn_id for one in record.turns]
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._undo, target)
            if not await self._store.fork(source, after, target):
                raise _not_kept(after)
            for service in self._taking_part():
                await _fork_service(service, source, after, turns, target)
            undo.pop_all()
        request = structs.replace(turn.request, session_id=target.session_id, user_id=target.user_id)
        # The store has marked the fork as one that goes with this process: a turn that is kept has it stay.
        passing = turn.passing or (False if turn.kept else None)
        return structs.replace(turn, key=target, request=request, temporary=not turn.kept, passing=passing)

    def _taking_part(self) -> list[object]:
        """Those that took part in turns here or belong to the application, and those beside the sessions: they may have
        taken part in turns that ran before this process began, or elsewhere."""
        known = list(self._services)
        if not is_durable(self._store):
            return known
        beside = (one for one in started_on(self._store.storage) if isinstance(one, Forkable))
        return [*known, *(one for one in beside if one not in known)]

    async def _undo(self, target: SessionKey) -> None:
        with anyio.CancelScope(shield=True):
            await self.drop(target)

    async def drop(self, fork: SessionKey, owner: str | None = None) -> None:
        """Keep nothing of a fork of which no turn came here: later, when its store is away. `owner`: not when this
        process has another name by now, as a turn that was recorded is then another's; else it goes with that name."""
        if owner is None or owner == self.owner:
            try:
                await self.forget(fork)
            except StoreUnavailable:
                self.later(fork, owner)

    def another_had(self, key: SessionKey) -> None:
        """What is known here of a session holds no more, as another process may have had it."""
        if self._sandboxes is not None:
            self._sandboxes.another_had(key)

    async def forget(self, key: SessionKey, expected: Fence | None = None, mark: Fence | None = None) -> None:
        """Keep nothing of a session, neither in the store nor in services; also when it fails at one of them.

        `expected`, `mark`: as it stands in a durable store (`DurableStore.forget`). Raises `Conflict` when it has
        changed since; then nothing of it has gone anywhere.
        """
        services = [service for service in self._taking_part() if isinstance(service, Forkable)]
        if expected is not None and is_durable(self._store):
            await self._forget_as_it_stands(self._store, key, expected, mark, services)
        else:
            await self._forget_in(key, [self._store, *services])

    async def _forget_as_it_stands(
        self,
        store: DurableStore,
        key: SessionKey,
        expected: Fence,
        mark: Fence | None,
        services: Sequence[Forkable],
    ) -> None:
        """With one write, what services have in the same storage too. What they have elsewhere goes when it is sure
        that the session has gone; a mark stays until it has, for others to do it when this process dies before."""
        changes: dict[FolderKey, Change] = {}  # two services may have the same folder
        elsewhere = []
        for service in services:
            if isinstance(service, ForgottenTogether) and service.storage is store.storage:
                changes.update((change.key, change) for change in service.to_forget(key))
            else:
                elsewhere.append(service)
        owner = store.owner
        boxes: object = self._sandboxes  # which go by themselves
        marking = any(service is not boxes for service in elsewhere)
        if marking:
            change = unforgotten(key, owner, mark)
            changes[change.key] = change
        await store.forget(key, expected, mark=mark, others=tuple(changes.values()))
        await self._forget_in(key, elsewhere)
        if marking:
            await _forgotten(store, key, owner)

    async def _forget_in(self, key: SessionKey, places: Sequence[_Place]) -> None:
        """In each of them, the last one first, and before all of them the session's sandboxes."""
        async with AsyncExitStack() as all_of_them:
            for place in places:
                all_of_them.push_async_callback(place.forget, key)
            if self._sandboxes is not None and self._sandboxes not in places:
                all_of_them.push_async_callback(self._sandboxes.forget, key)


class _Place(Protocol):
    """Where something of a session is kept."""

    async def forget(self, key: SessionKey) -> None: ...


async def _forgotten(store: DurableStore, key: SessionKey, owner: str) -> None:
    """Nothing of the session is kept anywhere, but that it was to go."""
    try:
        await forgotten(store.storage, key, owner)
    except StoreUnavailable as error:
        logger.warning(
            "that session %r is forgotten everywhere could not be written down; when this process is gone, another "
            "one does it again: %s",
            key,
            error,
        )


def _nobody(key: SessionKey, owner: str | None) -> None:
    """Until somebody does it."""


def _newest_of(record: SessionRecord | None) -> str:
    """The id of the newest turn that is kept; "" when there is none."""
    return record.turns[-1].turn_id if record is not None and record.turns else ""


async def _fork_service(
    service: object, source: SessionKey, after: str, turns: Sequence[str], target: SessionKey
) -> None:
    if not isinstance(service, Forkable):
        raise ContinuationNotFound(
            f"turn {after!r} is not its session's newest, and what the session has in {type(service).__name__} is kept "
            "as of now only; continue from the newest turn, or give that service the methods of `Forkable`",
            field="previous_response_id",
        )
    if not await service.fork(source, after, turns, target):
        raise _not_kept(after)


def _not_kept(after: str) -> ContinuationNotFound:
    return ContinuationNotFound(
        f"there is nothing to continue from at {after!r}: it never was, left nothing behind, or others followed it and "
        "the session as it was then is no longer kept (InMemoryStore(states_kept=…) says for how many turns); continue "
        "from a newer turn, or send the whole conversation as input",
        field="previous_response_id",
    )
