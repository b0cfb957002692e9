"""The conformance kit of response stores: what every `ResponseStore` must hold.

Subclass the kit and give it the store, not yet started::

    class TestInMemoryResponseStore(ResponseStoreKit):
        def store(self): return InMemoryResponseStore()

A store that shows turns which are written anyway takes `TurnResponsesKit`, and says how a turn gets there.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec import structs

from greenroom.actors.errors import ConfigurationError
from greenroom.actors.events import (
    Event,
    Item,
    ItemDone,
    ItemStarted,
    TextDelta,
    TurnAccepted,
    TurnCompleted,
    TurnStarted,
)
from greenroom.actors.messages import AgentRequest, Message, SessionKey, Text, Turn, TurnOptions
from greenroom.services.response_store import ResponseRecord, ResponseStore


def response(turn_id: str = "resp_1", principal: str | None = None, text: str = "Hi") -> ResponseRecord:
    """A turn that said one text, in a session it was forked to."""
    item = Item(f"msg_{turn_id}", "message", "assistant", (Text(text),))
    events: tuple[Event, ...] = (
        TurnAccepted(turn_id, 1.0),
        TurnStarted(),
        ItemStarted(item.id),
        TextDelta(text, item.id),
        ItemDone(item.id, item),
        TurnCompleted(2.0, (item,)),
    )
    turn = Turn(
        id=turn_id,
        key=SessionKey("u", "s"),
        request=AgentRequest(input=(Message((Text("Hello"),)),), extra={"metadata": {"a": "b"}}),
        principal=principal,
        created_at=1.0,
        options=TurnOptions(instructions="Be brief"),
        stored=True,
        background=True,
    )
    return ResponseRecord(turn=turn, key=SessionKey("u", "forked"), events=events, background=True)


class TurnResponsesKit(ABC):
    """The laws for any response store."""

    @abstractmethod
    def store(self) -> ResponseStore:
        """A new store with nothing in it, and room for some dozens."""

    @abstractmethod
    async def keep(self, store: ResponseStore, record: ResponseRecord) -> None:
        """Have a turn end so."""

    @asynccontextmanager
    async def started(self) -> AsyncIterator[ResponseStore]:
        store = self.store()
        await store.start()
        try:
            yield store
        finally:
            await store.stop()

    async def test_it_is_used_between_start_and_stop(self) -> None:
        store = self.store()
        with pytest.raises(ConfigurationError, match="not started"):
            await store.get(None, "resp_1")
        await store.start()
        await store.stop()
        for call in (store.put(response()), store.delete(None, "resp_1")):
            with pytest.raises(ConfigurationError, match="not started"):
                await call

    async def test_a_response_comes_back_as_it_was(self) -> None:
        async with self.started() as store:
            await self.keep(store, response())
            kept = await store.get(None, "resp_1")
            assert kept is not None
            wanted = response()
            turn = structs.replace(wanted.turn, key=kept.turn.key)  # as asked for, or as of the fork
            assert (kept.turn, kept.key, list(kept.events), kept.background) == (
                turn,
                wanted.key,
                list(wanted.events),
                True,
            )

    async def test_what_was_never_put_is_none(self) -> None:
        async with self.started() as store:
            assert await store.get(None, "resp_1") is None
            assert not await store.delete(None, "resp_1")

    async def test_nobody_gets_or_deletes_another_principal_s(self) -> None:
        async with self.started() as store:
            for principal in ("ada", "bob", None):
                await self.keep(store, response(principal=principal, text=str(principal)))
            assert not await store.delete("eve", "resp_1")
            assert await store.get("eve", "resp_1") is None
            assert await store.delete("ada", "resp_1")
            assert await store.get("ada", "resp_1") is None
            for principal in ("bob", None):
                kept = await store.get(principal, "resp_1")
                assert kept is not None
                assert kept.turn.principal == principal

    async def test_many_keep_apart(self) -> None:
        async with self.started() as store:
            for number in range(30):
                await self.keep(store, response(f"resp_{number}", text=str(number)))
            for number in range(30):
                kept = await store.get(None, f"resp_{number}")
                assert kept is not None
                assert list(kept.events) == list(response(f"resp_{number}", text=str(number)).events)


class ResponseStoreKit(TurnResponsesKit):
    """The laws for a response store that responses are put into."""

    async def keep(self, store: ResponseStore, record: ResponseRecord) -> None:
        await store.put(record)

    async def test_the_newest_of_one_id_is_kept(self) -> None:
        async with self.started() as store:
            await self.keep(store, response(text="old"))
            await self.keep(store, response(text="new"))
            kept = await store.get(None, "resp_1")
            assert kept is not None
            assert list(kept.events) == list(response(text="new").events)
            assert await store.delete(None, "resp_1")
            assert not await store.delete(None, "resp_1")
