"""Telling the process that runs a turn that somebody follows it here, for it to judge by (`disconnects`), and to leave
the ending where it is found from here, if nothing is to be kept of the turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import anyio
from msgspec import field

from greenroom.actors.errors import SessionDamaged, StoreUnavailable
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Turn
from greenroom.services.durable import DurableStore

HOLDS_SECONDS: Final = 15.0
"""For so long it holds that somebody follows a turn here, if it is not said again."""
AGAIN_SECONDS: Final = HOLDS_SECONDS / 3
"""After so long it is."""
RETRY_SECONDS: Final = 1.0
"""After so long it is tried again, where nobody could be told: the turn is being taken over, or the store is away."""


class FollowedLog(TurnLog):
    """The log of another process's turn that wants to hear of it (`wants_to_hear`).

    `stirred`: somebody has come, or gone. `left`: nobody was there when the last one went, which is still to be said.
    `promised`: its ending will be left for who follows it here.
    """

    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    left: bool = False
    promised: bool = False

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher`, from the loop, after each burst of new events; the turn's process is told of the first."""
        if not self.watched:
            self.stirred.set()
        super().watch(watcher)

    def client_left(self) -> None:
        """The last client has gone."""
        self.left = True
        self.stirred.set()


def wants_to_hear(turn: Turn) -> bool:
    """Whether who follows the turn in other processes is of interest where it runs."""
    return turn.disconnect.policy != "continue" or _leaves_nothing(turn)


def _leaves_nothing(turn: Turn) -> bool:
    """Whether nothing leads to the turn when it has ended."""
    return not turn.kept and turn.idempotency_key is None


async def tell_of_followers(store: DurableStore, log: FollowedLog) -> None:
    """Tell the turn's process who follows its log here, until this is cancelled."""
    pause: float | None = None
    while True:
        with anyio.move_on_after(pause):
            await log.stirred.wait()
        log.stirred.clear()
        pause = await _tell(store, log)


async def _tell(store: DurableStore, log: FollowedLog) -> float | None:
    """Say how things stand. Gives after how many seconds that is to be done again; none: when they change.

    Who stops following without having been a client says nothing: what was said runs out.
    """
    here = log.watched
    if not here and not log.left:
        return None
    log.left = False
    try:
        if here and not log.promised and _leaves_nothing(log.turn):
            await store.leave_ending(log.id, log.turn.principal)
            log.promised = True
        if log.turn.disconnect.policy == "continue":
            return None
        told = await store.tell_followed(log.id, log.turn.principal, HOLDS_SECONDS if here else 0.0)
    except (StoreUnavailable, SessionDamaged):  # who fills the log finds the same, and says so
        log.left = log.left or not here
        return RETRY_SECONDS
    if not here:  # where it had nobody to be told, whoever takes the turn over knows of no client
        return None
    return AGAIN_SECONDS if told else RETRY_SECONDS
