"""The ledger: how a turn reaches a store that loses nothing.

What a running turn says is written now and then, and before anything that comes after a step of a tool; its ending and
all the rest go with one write. Where the store cannot be reached an ending waits for it: nobody is told of an ending
that is not written down. Who has lost the session to another process writes nothing (`SessionLost`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from msgspec import structs

from greenroom.actors.endings import record_of
from greenroom.actors.errors import (
    ConfigurationError,
    GreenroomError,
    SessionLost,
    StoreUnavailable,
    TurnOver,
)
from greenroom.actors.events import Event, Terminal
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import SessionKey, Turn
from greenroom.actors.pauses import LONGEST_AWAY, rest
from greenroom.actors.turn import TurnKey, TurnRun
from greenroom.services.durable import DurableStore, Ending, ForRepeats
from greenroom.services.sizes import LARGE, size_of, size_of_all
from greenroom.services.storage import Change
from greenroom.services.store import TurnRecord
from greenroom.services.webhooks.announcing import Announcer
from greenroom.services.work import Work

logger = logging.getLogger("greenroom.actors")

FIRST_PAUSE: Final = 0.05
"""Between the first two tries to reach a store, seconds."""
AT_ONCE: Final = LARGE
"""Characters of text that one write adds to a log, unless a single event has more."""
STOPPED: Final = "this process stopped before the turn's ending was written down; ask again in a moment"


class Ledger:
    """Writes turns down. `journal_seconds`: how often what running turns say is written; `patience`: for how long the
    ending of a turn that went well is tried to be written, before it is one that failed; `repeats_seconds`: how long a
    repeat gets the answer of a turn of which nothing else is kept; `chance`: as of `Sources`."""

    __slots__ = (
        "_announcer",
        "_away",
        "_chance",
        "_fresh",
        "_patience",
        "_repeats_seconds",
        "_running",
        "_seconds",
        "_timer",
        "lost",
        "store",
    )

    def __init__(
        self,
        store: DurableStore,
        announcer: Announcer | None,
        *,
        journal_seconds: float,
        patience: float,
        repeats_seconds: float,
        chance: Callable[[], float],
    ) -> None:
        self.store = store
        self._announcer = announcer
        self.lost: Callable[[SessionKey, SessionLost], None] = _nobody
        """Hears of sessions that are another process's now."""
        self._seconds = journal_seconds
        self._patience = patience
        self._repeats_seconds = repeats_seconds
        self._chance = chance
        self._running: dict[TurnKey, TurnRun] = {}
        self._fresh: set[TurnKey] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._away = False
        """Whether the store could not be reached when something was last written to it: said once."""

    def __repr__(self) -> str:
        return f"<Ledger of {self.store!r}, {len(self._running)} turns run>"

    async def _wait(self, pause: float) -> float:
        return await rest(pause, self._chance, LONGEST_AWAY)

    # -- while a turn runs -----------------------------------------------------------------------------------------

    def begun(self, run: TurnRun) -> None:
        """The turn runs from now on."""
        self._running[run.key] = run
        self._fresh.add(run.key)
        if self._timer is None:
            self._look_later()

    def over(self, run: TurnRun) -> None:
        """The turn runs no more."""
        self._running.pop(run.key, None)
        self._fresh.discard(run.key)

    async def flush(self, run: TurnRun) -> None:
        """Have written what the turn has said until now. Waits for a store that cannot be reached.

        Raises `SessionLost`, and `HandlerError` for what cannot be written.
        """
        upto = len(run.log)
        pause = FIRST_PAUSE
        while run.journaled < upto:
            before = run.journaled
            refusal = await asyncio.shield(self._write(run))
            if refusal is not None:
                raise refusal
            if run.journaled == before:
                pause = await self._wait(pause)

    async def write_rest(self, run: TurnRun, told: Sequence[Event]) -> None:
        """Write what is not yet written of a turn that this process is about to let go. `told`: its events until then.

        Raises `StoreUnavailable`, `SessionLost`, and `HandlerError` for what cannot be written.
        """
        if run.writing is not None:
            await asyncio.wait([run.writing])
        written = run.journaled
        while written < len(told):
            written += await self._append_piece(run.log.turn, told, written, len(told))

    def said_more(self, run: TurnRun) -> None:
        """The running turn has said so much that it is to be written soon: the ending is to have little left."""
        if run.writing is None or run.writing.done():
            _ = self._write(run)

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._look)

    def _look(self) -> None:
        """Short turns are over before they are looked at twice, and cost no write but their ending."""
        self._timer = None
        for key, run in self._running.items():
            if key not in self._fresh and run.running and len(run.log) > run.journaled:
                _ = self._write(run)
        self._fresh.clear()
        if self._running:
            self._look_later()

    def _write(self, run: TurnRun) -> asyncio.Task[GreenroomError | None]:
        if run.writing is None or run.writing.done():
            run.writing = asyncio.get_running_loop().create_task(self._append(run))
        return run.writing

    async def _append(self, run: TurnRun) -> GreenroomError | None:
        """Write what is new. Gives what stands in the way for good, which the turn's ending will meet as well."""
        if run.log.lost is not None:
            return run.log.lost.again()
        try:
            await self._append_until(run, len(run.log))
        except StoreUnavailable as error:
            if not self._away:
                logger.warning("what turns say is not written down for now: %s", error)
            self._away = True
        except SessionLost as error:
            if run.log.lost is None:
                self.lost(run.log.turn.key, error)
            return error
        except GreenroomError as error:
            return error
        else:
            self._away = False
        return None

    async def _append_until(self, run: TurnRun, end: int) -> None:
        """Write what is new before event number `end`. Raises as `append`, and `SessionLost` when the turn does not go
        on here."""
        while run.journaled < end:
            run.journaled += await self._append_piece(run.log.turn, run.log.events(), run.journaled, end)

    async def _append_piece(self, turn: Turn, told: Sequence[Event], written: int, end: int) -> int:
        """Write some of the events that are not `written`, before number `end`: no more than is quickly encoded. How
        many."""
        stop = written + 1
        size = size_of(told[written])
        while stop < end and (size := size + size_of(told[stop])) <= AT_ONCE:
            stop += 1
        await self.store.append(turn.key, turn.id, written, told[written:stop])
        return stop - written

    # -- when it ends ----------------------------------------------------------------------------------------------

    async def complete(
        self, run: TurnRun, ending: Terminal, record: TurnRecord, state: bytes | None, work: Work
    ) -> None:
        """Write the ending of a turn that went well, and all that it changed.

        Raises `SessionLost`, and `StoreUnavailable` when the store could not be reached for too long: what becomes of
        the turn is then still to be written.
        """
        storage = self.store.storage
        await work.write_elsewhere(storage)
        deadline = asyncio.get_running_loop().time() + self._patience
        pause = FIRST_PAUSE
        while True:
            try:
                await work.written(storage, partial(self._finish, run, ending, record, state))
                return
            except StoreUnavailable:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
                pause = await self._wait(pause)

    async def end(self, run: TurnRun, ending: Terminal, record: TurnRecord | None) -> Terminal:
        """Write an ending that changes nothing. Waits for a store that cannot be reached. Raises `SessionLost`.

        Gives the ending that the turn has then: another one, if it turns out that that had been written.
        """
        pause = FIRST_PAUSE
        bare = False
        while True:
            try:
                return await self._end_once(run, ending, record, bare)
            except StoreUnavailable as error:
                logger.warning("the ending of turn %s is not written down yet: %s", run.log.id, error)
                pause = await self._wait(pause)
            except SessionLost:
                raise
            except ConfigurationError as error:
                raise SessionLost(STOPPED) from error
            except Exception:
                if bare:  # while this process lives, nobody else can end it
                    logger.exception("the ending of turn %s cannot be written; it is tried again", run.log.id)
                    pause = await self._wait(pause)
                else:
                    logger.exception("what turn %s said cannot be kept; its ending is", run.log.id)
                    record, bare = None, True

    async def _end_once(
        self, run: TurnRun, ending: Terminal, record: TurnRecord | None, bare: bool
    ) -> Terminal:
        try:
            await self._finish(run, ending, record, bare=bare)
        except TurnOver:
            entry = await self.store.known(run.log.turn)
            if entry is not None and entry.turn.id == run.log.id and isinstance(entry.events[-1], Terminal):
                return entry.events[-1]
        return ending

    async def end_of_another(
        self, log: TurnLog, written: int, ending: Terminal, *, bare: bool = False
    ) -> None:
        """Write the ending of a turn that another process had begun. `written`: how many of the log's events are.
        `bare`: the session's history gets nothing of it.

        Waits for a store that cannot be reached. Raises `SessionLost`, and what stands in the way for good.
        """
        turn, pause = log.turn, FIRST_PAUSE
        record = record_of(turn, ending) if turn.kept and not bare else None
        told = log.events()
        while True:
            try:
                while not bare and size_of_all(told[written:]) > AT_ONCE:
                    written += await self._append_piece(turn, told, written, len(told))
                await self.store.finish(turn.key, self._ending(turn, ending, record, None, written, told))
                return
            except StoreUnavailable as error:
                logger.warning("the ending of turn %s is not written down yet: %s", turn.id, error)
                pause = await self._wait(pause)

    async def _finish(
        self,
        run: TurnRun,
        ending: Terminal,
        record: TurnRecord | None,
        state: bytes | None = None,
        changes: Sequence[Change] = (),
        bare: bool = False,
    ) -> None:
        """`bare`: with nothing of what the turn said, but what is written already."""
        if run.writing is not None:
            await asyncio.wait([run.writing])
        if run.log.lost is not None:
            raise run.log.lost.again()
        turn, said = run.log.turn, run.log.events()
        # What was said is there as deltas, and once more in parts and items that are done.
        much = run.composer is not None and 3 * run.composer.spent > AT_ONCE
        if much and not bare and turn.kept and size_of_all(said[run.journaled :]) > AT_ONCE:
            await self._append_until(run, len(said))
        if bare:
            ending, said = structs.replace(ending, output=()), said[: run.journaled]
        await self.store.finish(
            turn.key, self._ending(turn, ending, record, state, run.journaled, said, changes)
        )

    def _ending(
        self,
        turn: Turn,
        ending: Terminal,
        record: TurnRecord | None,
        state: bytes | None,
        written: int,
        said: Sequence[Event],
        changes: Sequence[Change] = (),
    ) -> Ending:
        if self._announcer is not None and turn.webhook is not None:
            changes = [*changes, *self._announcer.changes(turn, ending)]
        return Ending(
            turn_id=turn.id,
            principal=turn.principal,
            record=record,
            state=state,
            first=written,
            events=[*said[written:], ending],
            changes=changes,
            kept=turn.kept,
            for_repeats=None
            if turn.kept
            else ForRepeats(turn=turn, events=[*said, ending], seconds=self._repeats_seconds),
        )


def _nobody(key: SessionKey, error: SessionLost) -> None:
    """Until somebody asks to be told."""
