"""Items of conversations that turns took of which nothing is known any more, or not yet."""

from __future__ import annotations

import time

import pytest
from msgspec import structs

from greenroom.actors.messages import SessionKey
from greenroom.services.conversation_store import Conversation
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.transports.item_fates import LOOKS, PAUSE, left_of
from greenroom.transports.json_checks import owner
from kits.conversation_store_kit import FULL
from kits.memory_app import Memory
from kits.responses_http import responses_of

ITEM = {"type": "message", "role": "user", "content": "item"}


def taken_by(turn_id: str | None, before: Conversation | None) -> Conversation:
    """The conversation with its items taken by that turn."""
    assert before is not None
    pending = tuple(structs.replace(item, turn=turn_id) for item in before.pending)
    return structs.replace(before, pending=pending)


@pytest.mark.parametrize("shared", [False, True])
async def test_items_of_a_turn_that_died_before_it_was_accepted_wait_again(shared: bool) -> None:
    """Where processes share them, the turn may be about to be accepted by another, and is waited for a little."""
    app = Memory(state=DurableSessions(MemoryStorage()) if shared else None).app
    async with responses_of(app) as client:
        made = await client.ask("POST", "/conversations", json={"items": [ITEM]})
        key = SessionKey(owner(None, None, made["id"]), made["id"])
        assert app._runtime is not None
        store = app._runtime.conversations
        await store.change(key, lambda before: taken_by("turn_dead", before))
        began = time.monotonic()
        answer = await client.ask("POST", "/responses", json={"input": "said", "conversation": made["id"]})
        looked = time.monotonic() - began
        assert answer["status"] == "completed"
        assert answer["output"][0]["content"][0]["text"] == "item+said"
        if shared:
            assert looked >= (LOOKS - 1) * PAUSE


def test_items_that_were_taken_since_their_turns_were_looked_at_are_on_their_way() -> None:
    assert [item.turn for item in left_of(FULL, {})] == [None, "resp_1"]
    assert [item.turn for item in left_of(FULL, {"resp_1": "waiting"})] == [None, None]
    assert [item.id for item in left_of(FULL, {"resp_1": "arrived"})] == ["msg_1"]
