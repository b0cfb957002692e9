"""The response store in memory: the kit, and its bounds."""

from typing import Any

from msgspec import structs

from greenroom.actors.events import Event, TextDelta, TurnAccepted
from greenroom.actors.messages import AgentRequest, Data, Message, Turn
from greenroom.services.memory_responses import InMemoryResponseStore, estimated_size
from greenroom.services.response_store import ResponseRecord, ResponseStore
from kits.in_turn import Clock
from kits.response_store_kit import ResponseStoreKit, response


class TestInMemoryResponseStore(ResponseStoreKit):
    def store(self) -> ResponseStore:
        return InMemoryResponseStore()


async def kept(store: InMemoryResponseStore, *names: str) -> list[str]:
    return [name for name in names if await store.get(None, name) is not None]


async def test_over_the_count_the_oldest_goes() -> None:
    store = InMemoryResponseStore(max_responses=2)
    await store.start()
    for name in ("a", "b", "a", "c"):
        await store.put(response(name))
    assert await kept(store, "a", "b", "c") == ["a", "c"]
    assert "2 responses" in repr(store)


async def test_over_the_bytes_the_oldest_go_and_what_is_larger_than_all_is_not_kept() -> None:
    store = InMemoryResponseStore(max_bytes=100_000)
    await store.start()
    for name in ("a", "b", "c"):
        await store.put(response(name, text="x" * 10_000))
    assert await kept(store, "a", "b", "c") == ["b", "c"]
    await store.put(response("huge", text="x" * 200_000))
    assert await kept(store, "b", "c", "huge") == ["b", "c"]


async def test_nothing_is_kept_longer_than_it_may_be() -> None:
    clock = Clock()
    store = InMemoryResponseStore(keep_seconds=100.0, monotonic=clock)
    await store.start()
    await store.put(response("old"))
    clock.now += 60.0
    await store.put(response("new"))
    assert await kept(store, "old", "new") == ["old", "new"]
    clock.now += 60.0
    assert await kept(store, "old", "new") == ["new"]
    clock.now += 60.0
    assert not await store.delete(None, "new")
    assert repr(store) == "<InMemoryResponseStore: 0 responses, 0 bytes>"


def test_sizes_count_texts_wherever_they_are() -> None:
    plain = estimated_size(response(), 1 << 30)
    assert estimated_size(response(text="x" * 1_000), 1 << 30) > plain + 2_900
    turn = response().turn
    asked = AgentRequest(input=(Message((Data({"a": [{"b": "x" * 5_000}]}),)),))
    of_input = ResponseRecord(turn=_with(turn, asked), key=turn.key, events=())
    assert estimated_size(of_input, 1 << 30) > 5_000


def test_a_text_size_that_is_known_spares_looking_at_the_deltas() -> None:
    said = response(text="x" * 1_000)
    known = structs.replace(said, text_size=1_000)
    counted, estimated = estimated_size(said, 1 << 30), estimated_size(known, 1 << 30)
    assert (
        estimated_size(structs.replace(said, events=(), text_size=0), 1 << 30) + 2_000 < estimated < counted
    )


def test_an_echo_that_turns_share_is_counted_once() -> None:
    shown = {"model": "x" * 1_000}
    record = response()
    record = structs.replace(record, turn=structs.replace(record.turn, echo=shown))
    alone, shared = (estimated_size(record, 1 << 30, shared=other) for other in ({**shown}, shown))
    assert alone > shared + 1_000


def test_counting_ends_when_it_is_enough_and_in_what_contains_itself() -> None:
    events: list[Event] = [TurnAccepted("1", 0.0), *[TextDelta("x" * 100)] * 100_000]
    turn = response().turn
    assert estimated_size(ResponseRecord(turn=turn, key=turn.key, events=events), 10_000) < 20_000
    data: dict[str, Any] = {"text": "x" * 1_000}
    data["self"] = data
    loop = ResponseRecord(
        turn=_with(turn, AgentRequest(input=(Message((Data(data),)),))), key=turn.key, events=()
    )
    assert 1_000 < estimated_size(loop, 1 << 30) < 10_000


def _with(turn: Turn, request: AgentRequest) -> Turn:
    return structs.replace(turn, request=request)
