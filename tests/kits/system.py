"""An actor system for tests: ids that count, a clock that stands still, and turns in one line."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from greenroom.actors.events import Item, Terminal
from greenroom.actors.frameworks.plain import PlainAdapter
from greenroom.actors.handler import AgentHandler, QueryHandler
from greenroom.actors.ids import Sources
from greenroom.actors.limits import Limits
from greenroom.actors.messages import (
    AgentRequest,
    Disconnect,
    Message,
    Overlap,
    SessionKey,
    Text,
    Turn,
    TurnOptions,
)
from greenroom.actors.system import ActorSystem
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.response_store import ResponseStore
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.memory_store import InMemoryStore
from greenroom.services.store import SessionStore

EPOCH = 1_795_000_000.0
kind: Literal["memory", "shared"] = "memory"
"""Of the stores that systems are made with when nothing is said."""


def new_store() -> SessionStore:
    """A store of that kind."""
    return InMemoryStore() if kind == "memory" else DurableSessions(MemoryStorage())


def counting_sources(
    first: int = 1, now: Callable[[], float] | None = None, chance: Callable[[], float] = random.random
) -> Sources:
    """Ids 1, 2, 3 …, or from another number on; the time is always `EPOCH` if it is not said."""
    numbers = itertools.count(first)
    return Sources(now=now or (lambda: EPOCH), uuid=lambda: str(next(numbers)), chance=chance)


@asynccontextmanager
async def running_system(
    function: Callable[..., Any],
    *,
    agent: bool = False,
    store: SessionStore | None = None,
    limits: Limits | None = None,
    overlap: Overlap = "queue",
    debug: bool = False,
    responses: ResponseStore | None = None,
    idempotent: bool = False,
    first_id: int = 1,
    now: Callable[[], float] | None = None,
    chance: Callable[[], float] = random.random,
) -> AsyncIterator[ActorSystem]:
    """A system with a plain handler (or, with `agent`, a factory), started and stopped."""
    handler = (AgentHandler if agent else QueryHandler)(function, PlainAdapter(), None, idempotent=idempotent)
    system = ActorSystem(
        handler,
        store or new_store(),
        limits=limits,
        sources=counting_sources(first_id, now, chance),
        overlap=overlap,
        debug=debug,
        responses=responses,
    )
    await system.start()
    try:
        yield system
    finally:
        await system.stop()


_turns = itertools.count(1)


def turn(
    text: str = "hello",
    *,
    session: str = "s",
    user: str = "u",
    id: str | None = None,
    overlap: Overlap | None = None,
    disconnect: Disconnect | None = None,
    principal: str | None = None,
    options: TurnOptions | None = None,
    after: str | None = None,
    kept: bool = True,
    stored: bool = False,
    **extra: Any,
) -> Turn:
    """A turn with one user message."""
    turn_id = id or f"turn-{next(_turns)}"
    request = AgentRequest(
        input=(Message((Text(text),)),), session_id=session, user_id=user, id=turn_id, extra=extra
    )
    return Turn(
        id=turn_id,
        key=SessionKey(user, session),
        request=request,
        overlap=overlap,
        disconnect=disconnect or Disconnect(),
        principal=principal,
        created_at=EPOCH,
        options=options,
        after=after,
        kept=kept,
        stored=stored,
    )


def said(ending: Terminal | tuple[Item, ...]) -> str:
    """The text of all messages of an output."""
    output = ending if isinstance(ending, tuple) else ending.output
    parts = [part for item in output if item.kind == "message" for part in item.parts]
    return "".join(part.text for part in parts if isinstance(part, Text))


def asked(message: Message) -> str:
    """The text of a message."""
    return "".join(part.text for part in message.content if isinstance(part, Text))
