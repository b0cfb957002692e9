"""What has become of the items of a conversation that turns have taken: the turn may run, or have ended, anywhere.

A turn takes items before it is accepted. One that is known nowhere was refused, or its process died before it was
accepted; its items wait again. Where processes share the conversations, another one may be about to have it accepted,
so one that is not there is looked for a few times before it is given up.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from msgspec import structs

from greenroom.actors.errors import TurnNotFound
from greenroom.actors.events import TurnCompleted
from greenroom.services.conversation_store import Conversation, PendingItem
from greenroom.services.durable_conversations import DurableConversations
from greenroom.services.store import SessionRecord
from greenroom.transports.transport import Host

Fate: TypeAlias = Literal["waiting", "on its way", "arrived"]

OURS: Final = 10_000
"""Turns of this process that took items and are remembered."""
LOOKS: Final = 5
"""Looks for a turn of another process that is known nowhere."""
PAUSE: Final = 0.2
"""Between two of them, seconds."""


class Fates:
    """By the ids of turns that took items, what has become of these."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._submitting: set[str] = set()
        self._ours: OrderedDict[str, None] = OrderedDict()

    def submitting(self, turn_id: str) -> None:
        """A turn of this process takes items, and is not accepted yet."""
        self._submitting.add(turn_id)
        self._ours[turn_id] = None
        if len(self._ours) > OURS:
            self._ours.popitem(last=False)

    def submitted(self, turn_id: str) -> None:
        """It is accepted or refused."""
        self._submitting.discard(turn_id)

    async def of(
        self, conversation: Conversation, record: SessionRecord | None, principal: str | None
    ) -> dict[str, Fate]:
        """Those of the conversation's turns. `record`: its session's."""
        turns = dict.fromkeys(item.turn for item in conversation.pending if item.turn is not None)
        return {turn_id: await self._fate(turn_id, record, principal) for turn_id in turns}

    async def _fate(self, turn_id: str, record: SessionRecord | None, principal: str | None) -> Fate:
        if turn_id in self._submitting:
            return "on its way"
        for turn in record.turns if record is not None else ():
            if turn.turn_id == turn_id:
                return "arrived" if turn.status == "completed" else "waiting"
        shared = isinstance(self._host.conversations, DurableConversations) and turn_id not in self._ours
        for look in range(LOOKS if shared else 1):
            if look:
                await asyncio.sleep(PAUSE)
            try:
                log = await self._host.locate(turn_id, principal)
            except TurnNotFound:
                continue
            if log.terminal is None:
                return "on its way"
            return "arrived" if isinstance(log.terminal, TurnCompleted) else "waiting"
        return "waiting"


def left_of(conversation: Conversation, fates: Mapping[str, Fate]) -> tuple[PendingItem, ...]:
    """The items that no turn has brought to the agent. Those of a turn that did not go well wait again.

    A turn that is not among those looked at has taken its items since.
    """
    left: list[PendingItem] = []
    for item in conversation.pending:
        fate = "waiting" if item.turn is None else fates.get(item.turn, "on its way")
        if fate != "arrived":
            left.append(item if fate == "on its way" else structs.replace(item, turn=None))
    return tuple(left)
