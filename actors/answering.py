"""Answering a turn: its handler is run, and what it says is written down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final
from weakref import WeakSet

import anyio

from greenroom.actors.composer import Composer
from greenroom.actors.handler import Handler
from greenroom.actors.ledger import AT_ONCE
from greenroom.actors.messages import Turn
from greenroom.actors.retelling import retold
from greenroom.actors.session import NO_OPTIONS, Session
from greenroom.actors.surroundings import Surroundings
from greenroom.actors.turn import TurnRun
from greenroom.services.work import current_work

logger = logging.getLogger("greenroom.actors")

BREATH: Final = 256
"""Events after which a handler that never waits lets others run: some 0.2 ms of the loop."""
_SILENT: Final = WeakSet[Handler]()
"""Handlers that said nothing in some turn."""


async def answer(run: TurnRun, session: Session, system: Surroundings) -> None:
    """Run the handler and write down what it says."""
    turn = run.log.turn
    if run.journaled:
        composer = _resumed(run, system)
    else:
        composer = Composer(run.log, system.sources.uuid, system.limits.turn_bytes)
    run.composer = composer
    session.principal = turn.principal
    session.turn_id = turn.id
    session.options = turn.options or NO_OPTIONS
    work = current_work.get()
    if system.sandboxes is not None and work is not None:
        system.sandboxes.at_work(session.key, work)
    handler = system.handler
    translator = handler.adapter.translator(composer)
    stream = await handler.answer(session, turn)
    feed, breath, ledger, steps = translator.feed, BREATH, system.ledger, composer.steps
    much = composer.spent + AT_ONCE
    try:
        async for item in stream:
            feed(item)
            if ledger is not None and composer.steps != steps:
                steps = composer.steps
                await ledger.flush(run)
            if composer.spent > much and ledger is not None:
                much = composer.spent + AT_ONCE
                ledger.said_more(run)
            breath -= 1
            if not breath:
                breath = BREATH
                await asyncio.sleep(0)
    except BaseException:
        with anyio.move_on_after(system.limits.cancel_seconds):
            await _close_stream(stream)
        raise
    if not run.stopping:
        translator.finish()
        if not composer.output and composer.incomplete is None:
            _note_silence(handler, turn)


def _note_silence(handler: Handler, turn: Turn) -> None:
    """Log that the handler said nothing, once: who wrote it most likely forgot to, and sees an empty answer."""
    if handler not in _SILENT:
        _SILENT.add(handler)
        logger.warning(
            "turn %s of session %r is completed with an empty answer, as the handler said nothing; what it is to say "
            "it yields or returns. Further ones are not logged",
            turn.id,
            turn.key.session_id,
        )


def _resumed(run: TurnRun, system: Surroundings) -> Composer:
    """What a turn is written with that was begun before: it first closes what was open then."""
    composer = retold(run.log.events(), run.log, system.sources.uuid)
    composer.close_broken()
    composer.limit = system.limits.turn_bytes
    return composer


async def end_tasks(run: TurnRun, seconds: float) -> None:
    """Nothing that a framework started on its own outlives the turn. `seconds`: how long they may take to stop."""
    tasks = set(run.scope.tasks)
    for task in tasks:
        task.cancel()
    _, pending = await asyncio.wait(tasks, timeout=seconds)
    for task in pending:
        logger.error("turn %s left %r behind, which does not stop when cancelled", run.log.id, task)


async def _close_stream(stream: AsyncIterator[object]) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()
