"""Services in a SQLite file keep the laws."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from greenroom.services.sqlite.storage import SqliteStorage
from greenroom.services.storage import Storage
from kits.on_storage_kit import (
    ConversationsOnStorage,
    ForksOfHistoriesOnStorage,
    ForksOfStatesOnStorage,
    HistoriesOnStorage,
    OnStorage,
    ResponsesOnStorage,
    StatesOnStorage,
)


class InFiles(OnStorage):
    """Each storage has a file of its own."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.files = (tmp_path / f"{number}.db" for number in itertools.count())

    def storage(self) -> Storage:
        return SqliteStorage(next(self.files))


class TestStatesInFiles(InFiles, StatesOnStorage): ...


class TestForksOfStatesInFiles(InFiles, ForksOfStatesOnStorage): ...


class TestHistoriesInFiles(InFiles, HistoriesOnStorage): ...


class TestForksOfHistoriesInFiles(InFiles, ForksOfHistoriesOnStorage): ...


class TestConversationsInFiles(InFiles, ConversationsOnStorage): ...


class TestResponsesInFiles(InFiles, ResponsesOnStorage): ...
