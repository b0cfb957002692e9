"""Conversations: sessions, as the Responses API speaks of them. Their items are those of their turns and, after them,
those that were put into the conversation and wait for a turn to take them to the agent.

Deleting an item hides it from lists. The agent is not made to forget what it has read: its state is its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import structs

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.messages import SessionKey, Turn
from greenroom.services.conversation_store import Conversation, ConversationStore, PendingItem
from greenroom.services.store import SessionRecord
from greenroom.transports.item_fates import Fates, left_of
from greenroom.transports.responses_decode import Settings
from greenroom.transports.responses_errors import ConversationNotFound, ItemNotFound
from greenroom.transports.responses_items import Context, ReadItems, filled, read_items
from greenroom.transports.responses_params import named_item
from greenroom.transports.responses_parts import Listed
from greenroom.transports.session_items import session_items
from greenroom.transports.transport import Host

ITEMS_AT_ONCE = 20
CALLS = frozenset({"function_call", "custom_tool_call"})
OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})


class Conversations:
    """What is done with conversations. `principal`: who asks; his conversations only are found."""

    def __init__(self, host: Host, store: ConversationStore, settings: Settings) -> None:
        self._host = host
        self._store = store
        self._settings = settings
        self._fates = Fates(host)

    # -- the conversation itself -----------------------------------------------------------------------------------

    async def create(self, key: SessionKey, metadata: dict[str, str], items: list[Any]) -> Conversation:
        """A new conversation with these items in it."""
        fresh = Conversation(
            created_at=self._host.sources.now(), metadata=metadata, pending=self._pending(items, [])[0]
        )
        made = await self._store.change(key, lambda before: before or fresh)
        return made or fresh

    async def show(self, key: SessionKey) -> Conversation:
        """The conversation. Raises `ConversationNotFound`."""
        kept = await self._store.get(key)
        return kept or self._found(key, await self._host.session(key))

    async def describe(self, key: SessionKey, metadata: dict[str, str]) -> Conversation:
        """Give it this metadata. Raises `ConversationNotFound`."""
        there = await self.show(key)
        described = await self._store.change(
            key, lambda before: structs.replace(before or there, metadata=metadata)
        )
        return described or there

    async def delete(self, key: SessionKey) -> None:
        """Delete it and its session. Raises `ConversationNotFound`."""
        await self.show(key)
        await self._host.forget(key)
        # Last: until then whoever was not answered can ask for it again.
        await self._store.change(key, lambda _: None)

    async def noted(self, key: SessionKey) -> None:
        """Somebody speaks in it: from now on it is there, also before its first turn has ended."""
        now = self._host.sources.now()
        await self._store.change(key, lambda before: before or Conversation(created_at=now))

    def _found(self, key: SessionKey, record: SessionRecord | None) -> Conversation:
        if record is None:
            raise ConversationNotFound(
                f"there is no conversation {key.session_id!r}: nothing was said in it and it was not created; a "
                "session of a user's own is found with its user_id"
            )
        return Conversation(created_at=record.turns[0].at if record.turns else self._host.sources.now())

    # -- its items -------------------------------------------------------------------------------------------------

    async def items(self, key: SessionKey, principal: str | None) -> list[dict[str, Any]]:
        """All there are, oldest first. Raises `ConversationNotFound`."""
        conversation = await self._store.get(key)
        record = await self._host.session(key)
        if conversation is None:
            conversation = self._found(key, record)
        said = session_items(record.turns, self._settings) if record is not None else []
        fates = await self._fates.of(conversation, record, principal)
        waiting = [msgspec.json.decode(item.body) for item in left_of(conversation, fates)]
        return [item for item in [*said, *waiting] if item["id"] not in conversation.hidden]

    async def items_if_any(self, key: SessionKey, principal: str | None) -> list[dict[str, Any]]:
        """The same; none where there is no conversation."""
        try:
            return await self.items(key, principal)
        except ConversationNotFound:
            return []

    async def item(self, key: SessionKey, item_id: str, principal: str | None) -> dict[str, Any]:
        """One of them. Raises `ConversationNotFound` and `ItemNotFound`."""
        for item in await self.items(key, principal):
            if item["id"] == item_id:
                return item
        raise ItemNotFound(f"conversation {key.session_id!r} has no item {item_id!r}")

    async def add(self, key: SessionKey, items: list[Any], principal: str | None) -> list[dict[str, Any]]:
        """Put items into it, which its next turn takes to the agent. Raises as `items`, and `InvalidRequest`."""
        there = await self.items(key, principal)
        base = await self.show(key)
        pending, added = self._pending(items, there)
        await self._store.change(key, lambda before: _with_pending(before or base, pending))
        return added

    async def hide(self, key: SessionKey, item_id: str, principal: str | None) -> Conversation:
        """Delete an item. Raises `ConversationNotFound` and `ItemNotFound`."""
        await self.item(key, item_id, principal)
        base, record = await self.show(key), await self._host.session(key)
        fates = await self._fates.of(base, record, principal)

        def take_out(before: Conversation | None) -> Conversation:
            there = before or base
            waits = any(item.id == item_id and item.turn is None for item in left_of(there, fates))
            return _without(there, item_id, waits)

        after = await self._store.change(key, take_out)
        return after or base

    # -- on their way to the agent ---------------------------------------------------------------------------------

    async def taking(self, turn: Turn) -> Turn:
        """The turn, which takes the items that wait in its conversation before its own input. `submitted` follows."""
        conversation = await self._store.get(turn.key)
        if conversation is None or not conversation.pending:
            return turn
        record = await self._host.session(turn.key)
        fates = await self._fates.of(conversation, record, turn.principal)
        taken: list[PendingItem] = []

        def take(before: Conversation | None) -> Conversation | None:
            if before is None:
                return None
            left = left_of(before, fates)
            taken[:] = [item for item in left if item.turn is None]
            claimed = tuple(structs.replace(item, turn=item.turn or turn.id) for item in left)
            return structs.replace(before, pending=claimed)

        there = await self.items(turn.key, turn.principal)
        self._fates.submitting(turn.id)
        await self._store.change(turn.key, take)
        if not taken:
            return turn
        context = Context()
        context.add(there)
        items = [msgspec.json.decode(item.body) for item in taken]
        read = filled(read_items(items, "items", self._host.sources.uuid, self._settings.label), context)
        request = structs.replace(turn.request, input=(*read.messages, *turn.request.input))
        return structs.replace(turn, request=request)

    def submitted(self, turn: Turn) -> None:
        """The turn is accepted or refused; items of a refused one wait for the next."""
        self._fates.submitted(turn.id)

    def _pending(
        self, items: list[Any], there: Sequence[dict[str, Any]]
    ) -> tuple[tuple[PendingItem, ...], list[dict[str, Any]]]:
        if len(items) > ITEMS_AT_ONCE:
            raise InvalidRequest(
                f"items has {len(items)} items; {ITEMS_AT_ONCE} may be added at once", field="items"
            )
        if not items:
            return (), []
        context = Context()
        context.add(there)
        read = filled(read_items(items, "items", self._host.sources.uuid, self._settings.label), context)
        self._check(read, there)
        known = {item["id"] for item in there}
        for place, item in enumerate(read.listed):
            if item["id"] in known:
                raise InvalidRequest(
                    f"items[{place}] has the id {item['id']!r}, which an item of the conversation has already; "
                    "leave the id out to get a new one",
                    field=f"items[{place}].id",
                )
            known.add(item["id"])
        listed = list(read.listed)
        return tuple(PendingItem(item["id"], msgspec.json.encode(item)) for item in listed), listed

    def _check(self, read: ReadItems, there: Sequence[Listed]) -> None:
        """Raises `InvalidRequest` for items that no turn could take to the agent: they would wait for ever, and fail
        each turn that tries."""
        check_outputs(there, read.listed)
        try:
            self._host.check_input(read.messages)
        except InvalidRequest as error:
            ids = [message.id for message in read.messages]
            raise InvalidRequest(
                error.message, field=named_item(error.field, ids, read.listed, "items")
            ) from error


def check_outputs(there: Sequence[Listed], added: Sequence[Listed]) -> None:
    """Raises `InvalidRequest` for an output of a call that has one. `there`: what the conversation has already."""
    waiting: set[str] = set()
    for number, item in enumerate((*there, *added), -len(there)):
        if item["type"] in CALLS:
            waiting.add(item["call_id"])
        elif item["type"] in OUTPUTS and item["call_id"] in waiting:
            waiting.remove(item["call_id"])
        elif item["type"] in OUTPUTS and number >= 0:
            raise InvalidRequest(
                f"items[{number}] answers the call {item['call_id']!r}, which has its output already",
                field=f"items[{number}].call_id",
            )


def _with_pending(conversation: Conversation, more: tuple[PendingItem, ...]) -> Conversation:
    return structs.replace(conversation, pending=(*conversation.pending, *more))


def _without(conversation: Conversation, item_id: str, waits: bool) -> Conversation:
    """An item that has come to stand in a turn, or will, is hidden; one that only `waits` is gone."""
    if waits:
        pending = tuple(item for item in conversation.pending if item.id != item_id)
        return structs.replace(conversation, pending=pending)
    return structs.replace(conversation, hidden=conversation.hidden | {item_id})
