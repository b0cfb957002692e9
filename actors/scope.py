"""The turn that code runs in, for adapters and tools far down the call stack.

A context variable, so that every task and worker thread that a handler starts knows its turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet
from contextvars import ContextVar

from greenroom.actors.messages import SessionKey, TurnOptions, Usage

NO_TASKS: AbstractSet[asyncio.Task[object]] = frozenset()
"""Most turns start none, and a set of one's own takes 216 bytes in every open stream."""


class TurnScope:
    """One running turn. Adapters put here the tasks a framework starts on its own, which must not outlive the turn.

    `options`: what the request asks of this turn's models and agents. `own`: the task that runs the handler, which
    needs no adopting. `closed`: the handler is done, nothing may start. `usage`: what model calls reported, each with
    its response's id, until the turn's translator takes it. `output_tokens`: what they made, counted where a bound
    was asked for (`model_options`).
    """

    __slots__ = ("closed", "key", "options", "output_tokens", "own", "tasks", "turn_id", "usage")

    def __init__(self, key: SessionKey, turn_id: str, options: TurnOptions | None = None) -> None:
        self.key = key
        self.turn_id = turn_id
        self.options = options
        self.own: asyncio.Task[None] | None = None
        self.tasks: AbstractSet[asyncio.Task[object]] = NO_TASKS
        self.closed = False
        self.usage: list[tuple[str, Usage]] = []
        self.output_tokens = 0

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
