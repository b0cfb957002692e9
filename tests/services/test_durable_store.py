"""Sessions on storages: the kits, and what is not the same on all."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from greenroom.services.durable_store import DurableSessions
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sqlite_storage import SqliteStorage
from greenroom.services.storage import Storage
from greenroom.services.store import SessionStore
from kits.durable_kit import DurableKit
from kits.store_kit import StoreKit


class TestSessionsInMemoryAsAStore(StoreKit):
    def store(self, turns_kept: int, states_kept: int) -> SessionStore:
        return DurableSessions(MemoryStorage(), turns_kept=turns_kept, states_kept=states_kept)


class TestSessionsInMemory(DurableKit):
    def clients(self) -> tuple[Storage, Storage]:
        storage = MemoryStorage()
        return storage, storage


class TestSessionsInAFile(DurableKit):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.files = (tmp_path / f"{number}.db" for number in itertools.count())

    def clients(self) -> tuple[Storage, Storage]:
        file = next(self.files)
        return SqliteStorage(file), SqliteStorage(file)
