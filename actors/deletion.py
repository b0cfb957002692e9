"""Deleting sessions: what runs or waits in one is cancelled, in whichever process, and when all has its ending nothing
of the session is kept.

Where processes share the store, a session is deleted as it stood when none of its turns was open, or not at all: a turn
that another process accepts meanwhile is cancelled too, or belongs to a session that begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

import anyio

from greenroom.actors.continuation import Continuations
from greenroom.actors.elsewhere import LONGEST_LOOK, SEEN_SECONDS, SHORTEST_LOOK
from greenroom.actors.errors import NotServing, SessionDamaged, SessionHeld, SessionLost, TurnNotFound
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import SessionKey
from greenroom.actors.roster import Roster
from greenroom.services.durable import DurableStore, Standing, TurnsOpen
from greenroom.services.storage import Conflict, Fence

DELETED: Final = "its session is deleted"
SKEW_SECONDS: Final = 1.0
"""By so much the clocks of processes may differ."""


class Others(Protocol):
    """What other processes have to do with it. `seconds`: how long turns elsewhere are waited for."""

    seconds: float
    store: DurableStore

    async def vacate(self, key: SessionKey) -> Standing:
        """How the session stands. What a dead process left of it has been taken over, to be cancelled."""
        ...

    async def cancel(self, turn_id: str, principal: str | None, reason: str) -> TurnLog:
        """Have a turn cancelled that does not run here. Raises `TurnNotFound`, `SessionDamaged` when it cannot be read,
        and `StoreUnavailable`."""
        ...


class Deletion:
    """Deletes sessions. `others`: where processes share the store. `now`: seconds since the epoch."""

    __slots__ = ("_continuations", "_now", "_others", "_roster", "under_way")

    def __init__(
        self,
        roster: Roster,
        continuations: Continuations,
        others: Others | None,
        now: Callable[[], float],
    ) -> None:
        self.under_way: dict[SessionKey, asyncio.Task[None]] = {}
        """Sessions that are being deleted here, of which no turns are taken."""
        self._roster = roster
        self._now = now
        self._continuations = continuations
        self._others = others

    def __repr__(self) -> str:
        return f"<Deletion of {len(self.under_way)} sessions>"

    async def of(self, key: SessionKey) -> None:
        """Delete a session. Who gives up waiting changes nothing.

        Raises `SessionHeld` when another process does not end its turns in time, `NotServing` when this one stops, and
        `StoreUnavailable`: then the session is kept.
        """
        task = self.under_way.get(key)
        if task is None:
            deleting = self._delete(key) if self._others is None else self._delete_shared(key, self._others)
            task = self.under_way[key] = asyncio.get_running_loop().create_task(deleting)
            task.add_done_callback(lambda _: self.under_way.pop(key))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            raise NotServing(
                "this process stops, and deletes nothing more; ask again, for another one to do it"
            ) from None

    async def stop(self) -> None:
        """Give up what is not deleted yet."""
        for task in self.under_way.values():
            task.cancel()
        while self.under_way:
            await asyncio.wait(self.under_way.values())

    async def _delete(self, key: SessionKey, standing: Fence | None = None) -> None:
        await self._end_here(key)
        actor = self._roster.find(key)
        if actor is not None:
            actor.forget_session(None)
        await self._continuations.forget(key, standing)

    async def _delete_shared(self, key: SessionKey, others: Others) -> None:
        deadline = asyncio.get_running_loop().time() + others.seconds
        unseen, seen = False, None
        while True:
            unseen |= await self._end_here(key)
            try:
                standing = await others.vacate(key)
                if isinstance(standing, TurnsOpen):
                    await self._end_elsewhere(key, standing.turns, others, deadline)
            except SessionDamaged:  # nobody can work on what is open in it, or does what he was asked to
                await self._delete(key)
                return
            if not isinstance(standing, Fence):
                unseen = True
            elif standing != seen and (unseen or await self._just_ended(key, others, deadline)):
                await asyncio.sleep(SEEN_SECONDS)  # who follows them in other processes gets their endings
                unseen, seen = False, standing
            elif await self._is_forgotten(key, standing, deadline):
                return

    async def _just_ended(self, key: SessionKey, others: Others, deadline: float) -> bool:
        """Whether a turn of the session ended so lately that who follows it in another process may not know how.

        That is not asked to the last: where turns keep coming, there would always be one.
        """
        if asyncio.get_running_loop().time() > deadline - others.seconds / 2:
            return False
        record = await others.store.load(key)
        if record is None or not record.turns:
            return False
        return abs(self._now() - record.turns[-1].at) < SEEN_SECONDS + SKEW_SECONDS

    async def _end_here(self, key: SessionKey) -> bool:
        """Cancel the session's turns in this process and see them end. Whether there were any."""
        actor = self._roster.find(key)
        turns = () if actor is None else actor.turns
        for run in turns:
            if actor is not None:
                actor.cancel(run, DELETED)
        for run in turns:
            with suppress(SessionLost):  # another process has it now
                await run.log.ended()
        return bool(turns)

    async def _end_elsewhere(
        self, key: SessionKey, turns: Sequence[tuple[str, str | None]], others: Others, deadline: float
    ) -> None:
        """Have the turns cancelled, and wait a while for their endings. Raises `SessionHeld` when it is too late, and
        `SessionDamaged` when then one of them cannot be read, which may be why."""
        late = asyncio.get_running_loop().time() >= deadline
        logs = []
        for turn_id, principal in turns:
            try:
                logs.append(await others.cancel(turn_id, principal, DELETED))
            except TurnNotFound:
                """It has ended."""
            except SessionDamaged:  # its process may live, and end it; so may the session's other turns
                if late:
                    raise
                await others.store.ask_to_cancel(turn_id, principal, DELETED)
        if late:
            raise _held(key, others.seconds)
        await asyncio.sleep(SHORTEST_LOOK)
        with anyio.move_on_after(LONGEST_LOOK):  # then it is looked whether their process still lives
            for log in logs:
                with suppress(SessionLost):  # nothing is kept of it, or it is to be looked for anew
                    await log.ended()

    async def _is_forgotten(self, key: SessionKey, standing: Fence, deadline: float) -> bool:
        """Keep nothing of the session as it stood. False when another process has done something in it since."""
        try:
            await self._delete(key, standing)
        except Conflict:
            if self._others is not None and asyncio.get_running_loop().time() >= deadline:
                raise _held(key, self._others.seconds) from None
            return False
        return True


def _held(key: SessionKey, seconds: float) -> SessionHeld:
    return SessionHeld(
        f"another process works on turns of session {key.session_id!r}; they were asked to stop and have not all done "
        f"so within {seconds:g} s; nothing is deleted; try again in a moment"
    )
