"""Being inside a turn, and outside of it, for tests of what takes part in the unit of work."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, TypeVar

from greenroom.services.work import Work, current_work

T = TypeVar("T")

TRICKY_KEYS = (
    ("a", "b_c"),
    ("a_b", "c"),
    ("a", "b"),
    ("ab", "c"),
    ("a", "bc"),
    ("1:a", "b"),
    ("1", ":ab"),
    ("", "a"),
    ("ä", "\U0001f600"),
    ("a\x00b", "c"),
    ("a", "\x00bc"),
    ("a/b", "../c"),
)
"""Ids that meet each other when they are joined carelessly."""


@contextmanager
def in_turn(turn_id: str = "turn-1") -> Iterator[Work]:
    """Run the block inside a turn. The test commits or rolls back; code after that is late."""
    work = Work(turn_id)
    token = current_work.set(work)
    try:
        yield work
    finally:
        current_work.reset(token)


async def end(work: Work, ending: str = "commit") -> None:
    """End the turn as a session's actor does: what lies in storages is written before the turn is committed."""
    if ending == "commit":
        await work.write_elsewhere(None)
        work.commit()
    else:
        work.roll_back()


async def outside(call: Coroutine[Any, Any, T]) -> T:
    """What somebody who is in no turn gets."""
    return await asyncio.create_task(call, context=Context())


class Clock:
    """Monotonic time that a test moves by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now
