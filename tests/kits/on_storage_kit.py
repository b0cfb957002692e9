"""The kits of services that keep what they have in a storage, for any storage.

Subclass each and say where, with a storage that has nothing in it, not yet started::

    class TestStates(StatesOnStorage):
        def storage(self): return MemoryStorage()
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from greenroom.actors.messages import SessionKey
from greenroom.sandbox.leases import SharedLeases
from greenroom.services.agent_state import StateService
from greenroom.services.conversation_store import ConversationStore
from greenroom.services.durable import Ending, TurnAccepted
from greenroom.services.durable_conversations import DurableConversations
from greenroom.services.durable_history import DurableSessionHistoryService
from greenroom.services.durable_leases import DurableLeases
from greenroom.services.durable_responses import DurableResponses
from greenroom.services.durable_state import DurableStateService
from greenroom.services.response_store import ResponseRecord, ResponseStore
from greenroom.services.session_history import Session, SessionHistoryService
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.storage import Storage
from greenroom.services.store import TurnRecord
from kits.conversation_store_kit import ConversationStoreKit
from kits.fork_kit import STEPS, ForkKit, Step
from kits.history_kit import STEPS as HISTORY_STEPS
from kits.history_kit import HistoryKit, said
from kits.history_kit import Step as HistoryStep
from kits.leases_kit import SharedLeasesKit
from kits.response_store_kit import TurnResponsesKit
from kits.state_kit import STEPS as STATE_STEPS
from kits.state_kit import StateKit
from kits.state_kit import Step as StateStep


class OnStorage(ABC):
    """Something on a storage."""

    @abstractmethod
    def storage(self) -> Storage:
        """A new one with nothing in it, not started."""


class StatesOnStorage(OnStorage, StateKit):
    """With fewer examples, as each has a new storage."""

    @given(steps=STATE_STEPS)
    @settings(max_examples=10, suppress_health_check=[HealthCheck.differing_executors])
    async def test_it_does_what_a_dict_does(self, steps: list[StateStep]) -> None:
        await self.check_steps(steps)

    def service(self, rounds_kept: int) -> StateService:
        return DurableStateService(self.storage(), rounds_kept=rounds_kept)


class HistoriesOnStorage(OnStorage, HistoryKit):
    """With fewer examples, as each has a new storage."""

    @given(steps=HISTORY_STEPS)
    @settings(max_examples=10, suppress_health_check=[HealthCheck.differing_executors])
    async def test_it_does_what_a_dict_of_lists_does(self, steps: list[HistoryStep]) -> None:
        await self.check_steps(steps)

    def service(self, messages_kept: int) -> SessionHistoryService:
        return DurableSessionHistoryService(self.storage(), messages_kept=messages_kept)


class ConversationsOnStorage(OnStorage, ConversationStoreKit):
    def store(self) -> ConversationStore:
        return DurableConversations(self.storage())


class ForksOnStorage(OnStorage, ForkKit):
    """With fewer examples, as each has several new storages."""

    @given(steps=STEPS, data=st.data())
    @settings(max_examples=4, suppress_health_check=[HealthCheck.differing_executors])
    async def test_a_fork_is_a_replay_of_the_first_turns(self, steps: list[Step], data: Any) -> None:
        await self.check_replay(steps, data)


class ForksOfStatesOnStorage(ForksOnStorage):
    actions: ClassVar = ("save", "overwrite")

    def service(self, turns_kept: int) -> Any:
        return DurableStateService(self.storage(), turns_kept=turns_kept, rounds_kept=3)

    async def write(self, service: Any, key: SessionKey, action: str, text: str) -> None:
        latest = await service.save_state(key.user_id, {"text": text}, key.session_id)
        if action == "overwrite":
            await service.save_state(key.user_id, {"again": text}, key.session_id, round_id=latest)

    async def read(self, service: Any, key: SessionKey) -> object:
        rounds = range(1, 40)
        return [await service.export_state(key.user_id, key.session_id, number) for number in rounds]


class ForksOfHistoriesOnStorage(ForksOnStorage):
    actions: ClassVar = ("append", "replace", "create", "delete")
    final: ClassVar = ("delete",)

    def service(self, turns_kept: int) -> Any:
        return DurableSessionHistoryService(self.storage(), turns_kept=turns_kept, messages_kept=3)

    async def write(self, service: Any, key: SessionKey, action: str, text: str) -> None:
        session = Session(key.session_id, key.user_id)
        if action == "append":
            await service.append_message(session, [said(text), said(text * 2)])
        elif action == "replace":
            await service.replace_messages(session, [said(text)])
        elif action == "create":
            await service.create_session(key.user_id, key.session_id)
        else:
            await service.delete_session(key.user_id, key.session_id)

    async def read(self, service: Any, key: SessionKey) -> object:
        listed = {session.id for session in await service.list_sessions(key.user_id)}
        if key.session_id not in listed:
            return None
        session = await service.get_session(key.user_id, key.session_id)
        return session.messages


async def end_so(store: DurableSessions, record: ResponseRecord) -> None:
    """Have a turn accepted and ended."""
    turn = structs.replace(record.turn, key=record.key)
    assert isinstance(await store.accept(turn), TurnAccepted)
    kept = TurnRecord(turn.id, "completed", 2.0, turn.request.input)
    ending = Ending(turn_id=turn.id, principal=turn.principal, record=kept, events=record.events)
    await store.finish(turn.key, ending)


class Responses(DurableResponses):
    """They start and stop their store, as an application does."""

    def __init__(self, storage: Storage) -> None:
        self.sessions = DurableSessions(storage)
        super().__init__(self.sessions)

    async def start(self) -> None:
        await self.sessions.start()
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        await self.sessions.stop()


class ResponsesOnStorage(OnStorage, TurnResponsesKit):
    def store(self) -> ResponseStore:
        return Responses(self.storage())

    async def keep(self, store: ResponseStore, record: ResponseRecord) -> None:
        assert isinstance(store, Responses)
        await end_so(store.sessions, record)
        await store.put(record)


class LeasesOnStorage(OnStorage, SharedLeasesKit):
    """Leases of one folder are in one storage, as processes share it; each has a client of its own."""

    @abstractmethod
    def client(self, place: str) -> Storage:
        """One more client, not started, of the storage at this place; the first one finds nothing there."""

    @pytest.fixture(autouse=True)
    def none_yet(self) -> None:
        self.places: dict[Path, str] = {}

    def leases(self, folder: Path) -> SharedLeases:
        return DurableLeases(self.client(self.places.setdefault(folder, uuid.uuid4().hex)))

    async def test_processes_share_the_place_and_no_client(self, tmp_path: Path) -> None:
        first, second = self.leases(tmp_path), self.leases(tmp_path)
        assert isinstance(first, DurableLeases)
        assert isinstance(second, DurableLeases)
        assert first.storage is not second.storage
        async with self.sharing(tmp_path) as one, self.sharing(tmp_path) as other:
            assert one.place == other.place
