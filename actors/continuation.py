"""Where a turn goes that continues from another one (`Turn.after`): to that turn's session as long as nothing followed
it, else to a new session, forked from that one as it was after that turn.

Rule: between deciding that nothing followed and delivering the turn nobody waits for anything, so that of two turns
that continue from the same one, one appends and the other forks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack

import anyio
from msgspec import structs

from greenroom.actors.actor import SessionActor
from greenroom.actors.errors import ContinuationNotFound
from greenroom.actors.messages import SessionKey, Turn
from greenroom.actors.roster import Roster
from greenroom.actors.session import Sandboxes
from greenroom.services.durable import is_durable
from greenroom.services.service import Forkable
from greenroom.services.started import started_on
from greenroom.services.store import SessionStore


class Continuations:
    """Places turns. `services`: those that took part in turns, and so have to follow a fork. `sandboxes`: forget
    sessions too; a fork has none of its source's."""

    __slots__ = ("_new_id", "_roster", "_sandboxes", "_services", "_store")

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
            if run is None:
                return await self._fork(turn, after)
            await run.log.ended()

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
                actor.last_kept = record.turns[-1].turn_id if record is not None and record.turns else ""

    async def _fork(self, turn: Turn, after: str) -> Turn:
        source = turn.key
        target = SessionKey(source.user_id, self._new_id())
        record = await self._store.load(source)
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
        return structs.replace(turn, key=target, request=request, temporary=not turn.kept)

    def _taking_part(self) -> list[object]:
        """Those that took part in turns here, and those beside the sessions, which may have in turns that ran before
        this process began, or elsewhere."""
        known = list(self._services)
        if not is_durable(self._store):
            return known
        beside = (one for one in started_on(self._store.storage) if isinstance(one, Forkable))
        return [*known, *(one for one in beside if one not in known)]

    async def _undo(self, target: SessionKey) -> None:
        with anyio.CancelScope(shield=True):
            await self.forget(target)

    async def forget(self, key: SessionKey) -> None:
        """Keep nothing of a session, neither in the store nor in services; also when it fails at one of them."""
        forgetting: list[Callable[[SessionKey], Awaitable[None]]] = [self._store.forget]
        forgetting += [service.forget for service in self._taking_part() if isinstance(service, Forkable)]
        if self._sandboxes is not None:
            forgetting.append(self._sandboxes.forget)
        async with AsyncExitStack() as all_of_them:
            for forget in forgetting:
                all_of_them.push_async_callback(forget, key)


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
