"""Who asks for a turn, while it is being taken in: he may go before it is accepted, and its policy says what then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from greenroom.actors.errors import GreenroomError
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Turn
from greenroom.actors.repeats import cut_short
from greenroom.services.durable import SessionElsewhere

Verdict: TypeAlias = "asyncio.Future[TurnLog | GreenroomError]"
"""What becomes of a turn that waits, when that is known before its time comes."""


class Withdrawn(GreenroomError):
    """Who asked for the turn has gone, and it is not to run without him: nothing of it is kept. Nobody is told."""

    code = "withdrawn"


class Asker:
    """`deadline`: until when his turn waits for another process, seconds of the loop's clock. `verdict`: what his turn
    waits for besides its time. `stands`: how a session of another process stood when his turn was about to join its
    line; `maybe_joined`: whether it has is not known."""

    __slots__ = ("_gone", "_turn", "deadline", "maybe_joined", "stands", "verdict")

    def __init__(self, turn: Turn, deadline: float) -> None:
        self._turn = turn
        self._gone = False
        self.deadline = deadline
        self.verdict: Verdict | None = None
        self.stands: SessionElsewhere | None = None
        self.maybe_joined = False

    def __repr__(self) -> str:
        return f"<Asker for {self._turn.id}{' (gone)' if self._gone else ''}>"

    async def wait(self, taking: asyncio.Task[TurnLog], left: Callable[[TurnLog], object]) -> TurnLog:
        """The turn's log, when it is taken in.

        If he goes before that, a turn that runs on whatever happens is taken in all the same; one that is to be
        cancelled is not, at once or after its grace. `left`: told of the log of one that was accepted by then.

        Raises `StoreUnavailable` when this process stops before it is known whether the turn is taken in.
        """
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            if taking.cancelled():  # he has not gone: this process stops
                raise cut_short(self._turn) from None
            if self._turn.disconnect.policy != "continue":
                self._leave(taking)
                taking.add_done_callback(partial(_tell, left))
            raise
        finally:
            # Its error has this frame in its traceback: what was refused would stay until it is collected.
            del taking

    def answer(self) -> TurnLog:
        """What was found out of the turn before its time came. Raises it, where it is refused."""
        verdict, self.verdict = self.verdict, None
        assert verdict is not None
        answer = verdict.result()
        if isinstance(answer, TurnLog):
            return answer
        try:
            raise answer
        finally:
            del verdict, answer

    @property
    def late(self) -> bool:
        """Whether his turn waits no longer for another process."""
        return asyncio.get_running_loop().time() >= self.deadline

    def check(self) -> None:
        """Raises `Withdrawn` when the turn is not to be accepted any more."""
        if self._gone:
            raise self._withdrawn()

    def _leave(self, taking: asyncio.Task[TurnLog]) -> None:
        wanted = self._turn.disconnect
        if wanted.policy == "grace":
            timer = asyncio.get_running_loop().call_later(wanted.grace_seconds, self._withdraw)
            taking.add_done_callback(lambda _: timer.cancel())
        else:
            self._withdraw()

    def _withdraw(self) -> None:
        self._gone = True
        if self.verdict is not None and not self.verdict.done():
            self.verdict.set_result(self._withdrawn())

    def _withdrawn(self) -> Withdrawn:
        return Withdrawn(f"the client of turn {self._turn.id} has gone before it was accepted")


def _tell(left: Callable[[TurnLog], object], taking: asyncio.Task[TurnLog]) -> None:
    if not taking.cancelled() and taking.exception() is None:
        left(taking.result())
