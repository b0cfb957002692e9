"""The end of a turn, as far as it is kept: all of what it changed, or its words alone (law 3)."""

from __future__ import annotations

import logging
from typing import Final, Protocol

import anyio

from greenroom.actors.endings import record_of
from greenroom.actors.errors import SessionLost
from greenroom.actors.events import Item, Terminal, TurnCompleted
from greenroom.actors.handler import Handler
from greenroom.actors.ids import Sources
from greenroom.actors.ledger import Ledger
from greenroom.actors.messages import SessionKey
from greenroom.actors.session import Session
from greenroom.actors.turn import TurnRun
from greenroom.services.known_services import KnownServices
from greenroom.services.store import SessionStore, TurnCommit, TurnRecord
from greenroom.services.work import Work

logger = logging.getLogger("greenroom.actors")

LAST_SECONDS: Final = 1.0
"""What a store that answers needs for an ending: one that does not is not waited for while the loop is torn down."""


class Keeper(Protocol):
    """What turns are kept with. `services`: those that took part in turns. `ledger`: where the store is one that loses
    nothing."""

    handler: Handler
    store: SessionStore
    ledger: Ledger | None
    sources: Sources
    services: KnownServices

    @property
    def torn_down(self) -> bool:
        """Whether whoever owns the loop is closing it: all that runs in it was cancelled, not one turn alone."""
        ...


async def commit(run: TurnRun, work: Work, session: Session, keeper: Keeper) -> TurnCompleted:
    """Keep what a turn did that went well, if it is one that is kept.

    Raises whatever keeps it from being kept, an answer that is not as asked for among it; then nothing is.
    """
    composer = run.composer
    assert composer is not None
    composer.close()
    composer.end()
    output = tuple(composer.output)
    turn = run.log.turn
    ending = TurnCompleted(keeper.sources.now(), output, composer.usage, composer.incomplete)
    if turn.options is not None and turn.options.answer is not None and composer.incomplete is None:
        from greenroom.actors.answer_check import check_answer

        await check_answer(turn.options.answer, output, {tool.name for tool in turn.options.tools})
    if not turn.kept:
        work.roll_back()
        session.driver = None  # what it remembers of this turn is not to be remembered
        if keeper.ledger is not None:
            await keeper.ledger.end(run, ending, None)
        return ending
    record = TurnRecord(turn.id, "completed", ending.at, turn.request.input, output)
    state = keeper.handler.save(session)
    services = work.services
    if services:
        keeper.services.update(services)
    if keeper.ledger is not None:
        await keeper.ledger.complete(run, ending, record, state, work)
    else:
        if services:
            await work.write_elsewhere(None)
        await keeper.store.commit(session.key, TurnCommit(record, state))
    work.commit()
    return ending


async def keep_words(
    run: TurnRun, ending: Terminal, key: SessionKey, keeper: Keeper
) -> tuple[Terminal, bool]:
    """Keep what a turn that did not end well had said, marked so; the state stays the last good one.

    Of one that never began nothing is kept. Gives the ending that the turn has then, and whether it is kept. Raises
    `SessionLost`.
    """
    with anyio.move_on_after(LAST_SECONDS if keeper.torn_down else None):
        return await _keep_words(run, ending, key, keeper)
    if keeper.ledger is not None:
        raise SessionLost(
            "the server stopped before the turn's ending was written down; ask again in a moment"
        )
    return ending, False


async def _keep_words(
    run: TurnRun, ending: Terminal, key: SessionKey, keeper: Keeper
) -> tuple[Terminal, bool]:
    turn = run.log.turn
    record = record_of(turn, ending) if turn.kept and run.work is not None else None
    if keeper.ledger is not None:
        return await keeper.ledger.end(run, ending, record), record is not None
    if record is None:
        return ending, False
    try:
        await keeper.store.commit(key, TurnCommit(record, None))
    except Exception:
        logger.exception("the %s turn %s could not be added to its session's history", record.status, turn.id)
        return ending, False
    return ending, True


def settle(work: Work, ending: Terminal) -> None:
    """Apply what a turn changed, or nothing of it, as its ending says."""
    if isinstance(ending, TurnCompleted):
        work.commit()
    else:
        work.roll_back()


def last_words(run: TurnRun) -> tuple[Item, ...]:
    """What a turn had said when it was ended before its time."""
    if run.composer is None:
        return ()
    for _, usage in run.scope.usage:  # spent, although nobody will say so any more
        run.composer.report_usage(usage)
    run.scope.usage.clear()
    if not run.composer.ended:
        run.composer.abandon()
    return tuple(run.composer.output)
