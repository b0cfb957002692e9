"""Responses that are the turns of a durable store: the kit, and what is no response."""

from __future__ import annotations

from msgspec import structs

from greenroom.actors.messages import SessionKey
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.response_store import is_at_once, is_fed_by_turns
from greenroom.services.storage import Storage
from kits.on_storage_kit import Responses, ResponsesOnStorage, end_so
from kits.response_store_kit import response


class TestResponsesInMemory(ResponsesOnStorage):
    def storage(self) -> Storage:
        return MemoryStorage()


async def test_a_turn_that_is_no_response_is_neither_found_nor_deleted() -> None:
    responses = Responses(MemoryStorage())
    await responses.start()
    record = response()
    await end_so(responses.sessions, structs.replace(record, turn=structs.replace(record.turn, stored=False)))
    assert await responses.get(None, "resp_1") is None
    assert not await responses.delete(None, "resp_1")
    assert await responses.sessions.find("resp_1", None) is not None
    await responses.stop()


async def test_a_turn_that_has_not_ended_is_no_response_yet() -> None:
    responses = Responses(MemoryStorage())
    await responses.start()
    await responses.sessions.accept(response().turn)
    assert await responses.get(None, "resp_1") is None
    assert not await responses.delete(None, "resp_1")
    entry = await responses.sessions.find("resp_1", None)
    assert entry is not None
    assert entry.status == "running"
    await responses.stop()


async def test_what_is_deleted_stays_in_its_session_s_history() -> None:
    responses = Responses(MemoryStorage())
    await responses.start()
    await end_so(responses.sessions, response())
    assert await responses.delete(None, "resp_1")
    record = await responses.sessions.load(SessionKey("u", "forked"))
    assert record is not None
    assert [turn.turn_id for turn in record.turns] == ["resp_1"]
    await responses.stop()


def test_nothing_is_left_to_do_when_a_turn_has_ended() -> None:
    responses = Responses(MemoryStorage())
    assert is_at_once(responses)
    assert is_fed_by_turns(responses)
