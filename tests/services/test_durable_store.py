"""Sessions on storages: the kits."""

from __future__ import annotations

from greenroom.services.durable_store import DurableSessions
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.store import SessionStore
from kits.store_kit import StoreKit


class TestSessionsInMemory(StoreKit):
    def store(self, turns_kept: int, states_kept: int) -> SessionStore:
        return DurableSessions(MemoryStorage(), turns_kept=turns_kept, states_kept=states_kept)
