"""What an actor knows of its system."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from anyio import CapacityLimiter

from greenroom.actors.commit import Keeper
from greenroom.actors.limits import Limits
from greenroom.actors.messages import Overlap
from greenroom.actors.session import Sandboxes
from greenroom.actors.turn import TurnRun

if TYPE_CHECKING:
    from greenroom.actors.actor import SessionActor


class Surroundings(Keeper, Protocol):
    """The system, as its actors see it."""

    limits: Limits
    overlap: Overlap
    debug: bool
    loop: asyncio.AbstractEventLoop
    worker_threads: CapacityLimiter
    sandboxes: Sandboxes | None

    def turn_ended(self, run: TurnRun) -> None:
        """A turn has its ending."""
        ...

    def turn_lost(self, run: TurnRun) -> None:
        """A turn has no ending here: another process has it."""
        ...

    def actor_idle(self, actor: SessionActor) -> None:
        """The actor's mailbox is empty and nothing runs."""
        ...
