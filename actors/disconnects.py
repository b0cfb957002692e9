"""What becomes of a turn when its client goes (law 4): its own policy says, and the process that runs the turn judges.

Who follows a turn here, its log knows. Of a turn with the policy `cancel` or `grace` that is followed in another
process, that one says so (`followers`): when somebody comes, every few seconds after that, and when nobody is left.
What it says comes with this process's renewals in the store, so before a turn is cancelled all is asked for that was
said until then. It holds for a bounded time: what a process said that died runs out, and its clients count as gone.

A turn that was taken over from a process that is gone lost its client by no doing of the client's. It has
`RETURN_SECONDS` to come back, or the turn's own grace where that is longer.

All this is for turns that ask for it: one that runs on whatever happens costs nothing here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from greenroom.actors.errors import StoreUnavailable
from greenroom.actors.log import TurnLog
from greenroom.actors.turn import TurnKey

logger = logging.getLogger("greenroom.actors")

RETURN_SECONDS: Final = 10.0
"""What a client has to find a turn that was taken over: those that wait between two tries do so for 8 s at the most."""
PAUSE: Final = 0.5
"""Between two tries to hear what others said, seconds."""


class _Absence(Struct, eq=False):
    """The time since nobody follows a turn. `reason`: why the turn is cancelled if it lasts."""

    log: TurnLog
    reason: str
    timer: asyncio.TimerHandle | None = None

    def end(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


class Disconnects:
    """Judges the turns of this process that nobody follows.

    `cancel`: called with the (turn id, principal, reason) of each that is to be stopped; one that has ended is fine.
    `hear`: waited for before that, so that `followed` was called with all that other processes said until then; raises
    `StoreUnavailable`. None: there are no others.
    """

    __slots__ = ("_absences", "_cancel", "_elsewhere", "_hear", "_judging")

    def __init__(
        self,
        cancel: Callable[[str, str | None, str], object],
        hear: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._cancel = cancel
        self._hear = hear
        self._absences: dict[TurnKey, _Absence] = {}
        self._elsewhere: dict[TurnKey, dict[str, asyncio.TimerHandle]] = {}
        """Turns that are followed in other processes: by the process's name, what ends when its word runs out."""
        self._judging: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return (
            f"<Disconnects: {len(self._absences)} turns deserted, {len(self._elsewhere)} followed elsewhere>"
        )

    def left(self, log: TurnLog) -> None:
        """Somebody who followed the turn has gone before its end."""
        wanted = log.turn.disconnect
        if wanted.policy == "cancel":
            self._begin(log, 0.0, "the client disconnected")
        elif wanted.policy == "grace":
            seconds = wanted.grace_seconds
            self._begin(log, seconds, f"the client disconnected and did not come back within {seconds:g} s")

    def taken_over(self, log: TurnLog) -> None:
        """The turn came here from another process: its clients may be connected there, or have lost that one."""
        wanted = log.turn.disconnect
        if wanted.policy != "continue":
            seconds = max(RETURN_SECONDS, wanted.grace_seconds if wanted.policy == "grace" else 0.0)
            why = f"the turn is in another process now, and no client of it was seen there for {seconds:g} s"
            self._begin(log, seconds, why)

    def followed(self, log: TurnLog, process: str, seconds: float) -> None:
        """Another process says that the turn is followed there, which holds for so long; 0: it is no longer."""
        key, loop = _key(log), asyncio.get_running_loop()
        others = self._elsewhere.setdefault(key, {})
        before = others.pop(process, None)
        if before is not None:
            before.cancel()
        if seconds > 0:
            others[process] = loop.call_later(seconds, self.followed, log, process, 0.0)
        elif not others:
            del self._elsewhere[key]
            self.left(log)

    def over(self, log: TurnLog) -> None:
        """The turn has ended, or is another process's."""
        key = _key(log)
        self._come_back(key)
        for timer in self._elsewhere.pop(key, {}).values():
            timer.cancel()

    async def stop(self) -> None:
        """Judge nothing any more."""
        for absence in self._absences.values():
            absence.end()
        for others in self._elsewhere.values():
            for timer in others.values():
                timer.cancel()
        for task in self._judging:
            task.cancel()
        if self._judging:
            await asyncio.wait(self._judging)

    # ------------------------------------------------------------------------------------------------------------------

    def _begin(self, log: TurnLog, seconds: float, reason: str) -> None:
        """The time runs from the last leave."""
        key = _key(log)
        if log.terminal is not None or log.lost is not None or self._is_followed(log):
            return
        self._come_back(key)
        absence = self._absences[key] = _Absence(log, reason)
        if seconds:
            absence.timer = asyncio.get_running_loop().call_later(seconds, self._is_up, absence)
        else:
            self._is_up(absence)

    def _is_followed(self, log: TurnLog) -> bool:
        return log.watched or _key(log) in self._elsewhere

    def _come_back(self, key: TurnKey) -> None:
        absence = self._absences.pop(key, None)
        if absence is not None:
            absence.end()

    def _is_up(self, absence: _Absence) -> None:
        if self._hear is None:
            self._judge(absence)
            return
        task = asyncio.get_running_loop().create_task(self._judge_when_heard(absence, self._hear))
        self._judging.add(task)
        task.add_done_callback(self._judging.discard)

    async def _judge_when_heard(self, absence: _Absence, hear: Callable[[], Awaitable[object]]) -> None:
        """A store that is away keeps the turn for as long as this process has it: who knows who follows it by now."""
        while self._lasts(absence):
            try:
                await hear()
            except StoreUnavailable:  # who renews in vain says so
                await asyncio.sleep(PAUSE)
            except Exception:
                logger.exception("what was said of who follows turn %s was not heard", absence.log.id)
                await asyncio.sleep(PAUSE)
            else:
                self._judge(absence)

    def _judge(self, absence: _Absence) -> None:
        log = absence.log
        if self._lasts(absence):
            del self._absences[_key(log)]
            if not self._is_followed(log):
                self._cancel(log.id, log.turn.principal, absence.reason)

    def _lasts(self, absence: _Absence) -> bool:
        """Whether nobody has left once more since, and the turn is here and has not ended."""
        return self._absences.get(_key(absence.log)) is absence


def _key(log: TurnLog) -> TurnKey:
    return log.turn.principal, log.id
