"""The turn that code runs in, for adapters and tools far down the call stack.

A context variable, so that every task and worker thread that a handler starts knows its turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet
from contextvars import ContextVar

from anyio import CapacityLimiter
from msgspec import Struct, field

from greenroom.actors.events import Incompleteness
from greenroom.actors.messages import SessionKey, TurnOptions, Usage

NO_TASKS: AbstractSet[asyncio.Task[object]] = frozenset()
"""Most turns start none, and a set of one's own takes 216 bytes in every open stream."""


class TurnScope(Struct, eq=False):
    """One running turn. Adapters put here the tasks a framework starts on its own, which must not outlive the turn.

    `options`: what the request asks of this turn's models and agents. `worker_threads`: those of its application; none:
    anyio's own. `own`: the task that runs the handler, which needs no adopting. `closed`: the handler is done, nothing
    may start. `usage`: what model calls reported, each with its response's id, until the turn's translator takes it.
    `output_tokens`: what they made, counted where a bound was asked for (`model_options`). `cut`: what cut the last of
    them short, where that is heard (`model_endings`).
    """

    key: SessionKey
    turn_id: str
    options: TurnOptions | None = None
    worker_threads: CapacityLimiter | None = None
    own: asyncio.Task[None] | None = None
    tasks: AbstractSet[asyncio.Task[object]] = NO_TASKS
    closed: bool = False
    usage: list[tuple[str, Usage]] = field(default_factory=list)
    output_tokens: int = 0
    cut: Incompleteness | None = None

    def __repr__(self) -> str:
        return f"<TurnScope {self.turn_id} of session {self.key.session_id!r}>"

    def adopt(self, task: asyncio.Task[object]) -> None:
        """Make a task end with the turn: it is cancelled and awaited when the turn's handler is done with."""
        if task is not self.own and task not in self.tasks:
            tasks = self.tasks if isinstance(self.tasks, set) else set()
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            self.tasks = tasks


current_turn: ContextVar[TurnScope | None] = ContextVar("greenroom_turn", default=None)
