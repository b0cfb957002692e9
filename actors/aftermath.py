"""What is left to do when a turn has its ending: keep its response, let go of a session that was for it alone.

No ending waits for a store: each is a task, unless it is done at once. An application that stops waits for all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

from greenroom.actors.continuation import Continuations
from greenroom.actors.errors import StoreUnavailable
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import SessionKey, Turn
from greenroom.actors.pauses import LONGEST_AWAY, SHORTEST_PAUSE, rest
from greenroom.actors.turn import TurnKey
from greenroom.services.response_store import ResponseRecord, ResponseStore, is_at_once

logger = logging.getLogger("greenroom.actors")


class Aftermath:
    """Does what is left to do. `responses`: where responses are kept; none: nowhere. `chance`: as `Sources` has it."""

    __slots__ = ("_at_once", "_chance", "_continuations", "_keeping", "_responses", "_stopping", "_tasks")

    def __init__(
        self, continuations: Continuations, responses: ResponseStore | None, chance: Callable[[], float]
    ) -> None:
        self._continuations = continuations
        self._chance = chance
        self._responses = responses
        self._at_once = responses is not None and is_at_once(responses)
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeping: dict[TurnKey, asyncio.Task[None]] = {}
        """Responses on their way to where they are kept."""

    def __repr__(self) -> str:
        return f"<Aftermath: {len(self._tasks)} tasks>"

    def of(self, log: TurnLog) -> None:
        """The turn has ended. Its events are taken now, as its log may be let go at any time."""
        turn = log.turn
        if turn.stored and self._responses is not None:
            self._keep(turn, log, self._responses)
        if turn.temporary:
            self.forget(turn.key)

    def _keep(self, turn: Turn, log: TurnLog, responses: ResponseStore) -> None:
        record = ResponseRecord(
            turn=turn, key=turn.key, events=log.events(), background=turn.background, text_size=log.size
        )
        putting = responses.put(record)
        if not self._at_once:
            key = turn.principal, turn.id
            task = self._keeping[key] = self._begin(putting, f"keeping the response of turn {turn.id}")
            task.add_done_callback(lambda _: self._keeping.pop(key, None))
            return
        try:
            putting.send(None)
        except StopIteration:
            return
        except Exception:
            logger.exception("keeping the response of turn %s failed", turn.id)
        else:
            putting.close()
            logger.error(
                "keeping the response of turn %s waited, which its store said it never does", turn.id
            )

    def forget(self, key: SessionKey, owner: str | None = None) -> None:
        """Keep nothing of a session. `owner`: as long as this process has that name."""
        _ = self._begin(self._forget(key, owner), f"forgetting session {key.session_id!r}")

    async def _forget(self, key: SessionKey, owner: str | None) -> None:
        """Waits for a store that is away, unless the application stops: then it goes as what a dead process left."""
        pause = SHORTEST_PAUSE
        while owner is None or owner == self._continuations.owner:
            try:
                await self._continuations.forget(key)
                return
            except StoreUnavailable:
                if self._stopping:
                    raise
                pause = await rest(pause, self._chance, LONGEST_AWAY)

    async def forget_response(self, key: TurnKey) -> None:
        """Keep the turn's response no longer, if it is kept. Raises `StoreUnavailable`."""
        if self._responses is None:
            return
        if key in self._keeping:
            await asyncio.wait([self._keeping[key]])
        await self._responses.delete(*key)

    async def done(self) -> None:
        """Wait until all is done that can be."""
        self._stopping = True
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, work: Coroutine[object, object, None], what: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._do(work, what), name=what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _do(self, work: Coroutine[object, object, None], what: str) -> None:
        try:
            await work
        except Exception:
            logger.exception("%s failed", what)
