"""The lines of this process's sessions, in which other processes record turns too (`DurableStore.accept`).

Their turns are run here, each when its time comes. Nobody need tell this process of them: whoever writes to a session
hears what has joined its line, and as long as turns are open in it this process has an ending to write. So those it has
not heard of are the last ones, until a turn that came here is recorded behind them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from greenroom.actors.archive import Archive
from greenroom.actors.errors import SessionLost, StoreUnavailable
from greenroom.actors.messages import SessionKey
from greenroom.actors.pauses import SHORTEST_PAUSE, rest, until_back
from greenroom.actors.recovery import Recovery
from greenroom.actors.roster import Roster
from greenroom.actors.turn import TurnKey, TurnRun
from greenroom.services.durable import DurableStore, InLine
from greenroom.services.durable_responses import NO_EVENTS
from greenroom.services.keyed_locks import KeyedLocks

logger = logging.getLogger("greenroom.actors")


class Lines:
    """Has those turns run. `locks`: who holds a session's takes in what comes to it, one after the other."""

    __slots__ = (
        "_archive",
        "_chance",
        "_closed",
        "_recovery",
        "_roster",
        "_store",
        "_tasks",
        "_wanted",
        "locks",
    )

    def __init__(
        self,
        store: DurableStore,
        roster: Roster,
        archive: Archive,
        recovery: Recovery,
        chance: Callable[[], float],
    ) -> None:
        self.locks: KeyedLocks[SessionKey] = KeyedLocks()
        self._store = store
        self._roster = roster
        self._archive = archive
        self._recovery = recovery
        self._chance = chance
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._wanted: dict[TurnKey, dict[str, Callable[[TurnRun], object]]] = {}
        """Turns that are looked for, and what is to be done with each, by what it is about."""

    def __repr__(self) -> str:
        return f"<Lines: {len(self._tasks)} are looked at>"

    def close(self) -> None:
        """Let nothing more in: when the turns are over that are here, another process has the rest."""
        self._closed = True

    async def done(self) -> None:
        """Wait until all that was heard of is let in, or let go of."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def stop(self) -> None:
        """Give that up: another process finds it."""
        for task in self._tasks:
            task.cancel()
        await self.done()

    # ------------------------------------------------------------------------------------------------------------------

    def has_new(self, joined: Sequence[InLine]) -> bool:
        """Whether turns are among these of which this process has not heard."""
        return any(self._is_new(one.turn_id, one.principal) for one in joined)

    def joined(self, key: SessionKey, turns: Sequence[InLine]) -> None:
        """These have joined the session's line, some time ago. Its first turn may be about to end."""
        if not self.has_new(turns):
            return
        actor = self._roster.find(key)
        if not self._closed:
            # The next one is heard of when that ends: what waits stays in the store.
            self._begin(self._let_in(key, 1))
        elif actor is None or len(actor.turns) <= 1:
            self._begin(self._let_go(key))

    def find(self, turn: TurnKey, about: str, what: Callable[[TurnRun], object]) -> None:
        """Do something with a turn that is not here, if it waits in the line of a session that is. Of what is said
        meanwhile the last of each kind (`about`) is done; and who looks may be told of that very turn once more."""
        if turn in self._wanted:
            self._wanted[turn][about] = what
        elif not self._closed:
            self._wanted[turn] = {about: what}
            self._begin(self._find(turn))

    async def let_in(
        self, key: SessionKey, most: int | None = None, among: Sequence[InLine] | None = None
    ) -> None:
        """Have the session's actor run all of which it has not heard, or so many. Who calls holds the session's lock.
        `among`: no others, as more may have joined since behind a turn that the actor does not have yet.

        Raises `SessionLost`, `Overloaded`, `SessionDamaged` and `StoreUnavailable`."""
        wanted = None if among is None else {(one.turn_id, one.principal) for one in among}

        def is_wanted(turn_id: str, principal: str | None) -> bool:
            return (wanted is None or (turn_id, principal) in wanted) and self._is_new(turn_id, principal)

        entries = await self._store.line(key, is_wanted, most)
        if entries:
            self._recovery.receive(self._roster.get(key), entries)

    # ------------------------------------------------------------------------------------------------------------------

    def _is_new(self, turn_id: str, principal: str | None) -> bool:
        return self._archive.run((principal, turn_id)) is None

    async def _let_in(self, key: SessionKey, most: int | None = None) -> None:
        async with self.locks.of(key):
            try:
                await until_back(lambda: self.let_in(key, most), self._chance)
            except SessionLost:
                raise
            except Exception:
                logger.exception("what joined the line of session %r cannot be run here", key.session_id)
            else:
                return
        await self._let_go(key)

    async def _let_go(self, key: SessionKey) -> None:
        """Another process may have the session, when the turns are over that are here."""
        pause = SHORTEST_PAUSE
        while not await self._has_let_go(key):
            pause = await rest(pause, self._chance)

    async def _has_let_go(self, key: SessionKey) -> bool:
        """False: its store is away. By the time that is back, turns of it may run here again."""
        while True:
            if turns := self._turns_of(key):
                await turns[-1].log.ended()
                continue
            async with self.locks.of(key):  # nothing comes in meanwhile
                if self._turns_of(key):
                    continue
                try:
                    await self._store.release(key, begun=False)
                except StoreUnavailable:
                    return False
                return True

    def _turns_of(self, key: SessionKey) -> Sequence[TurnRun]:
        actor = self._roster.find(key)
        return () if actor is None else (*actor.turns, *actor.leaving)

    async def _find(self, turn: TurnKey) -> None:
        principal, turn_id = turn
        try:
            entry = await self._store.find(turn_id, principal, NO_EVENTS)
            if entry is not None and entry.status != "ended" and entry.here:
                await self._let_in(entry.turn.key)
        finally:
            wanted = self._wanted.pop(turn)
        for what in wanted.values():
            if (run := self._archive.run(turn)) is not None:
                what(run)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _quietly(work: Awaitable[None]) -> None:
    try:
        await work
    except SessionLost as error:
        logger.debug("a line is another process's: %s", error)
    except Exception:
        logger.exception("the line of a session could not be looked at")
