"""The storage in a SQLite file: the kit, what is in the file, and what it costs."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from greenroom.services.boot_clock import BootClock
from greenroom.services.sqlite_storage import SqliteStorage
from greenroom.services.storage import Storage
from kits.storage_kit import StorageKit


class TestSqliteStorage(StorageKit):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.files = (tmp_path / f"{number}.db" for number in itertools.count())

    def clients(self, idle_seconds: float) -> tuple[Storage, Storage]:
        path, clock = next(self.files), BootClock("this", self.clock)
        one, other = (
            SqliteStorage(path, idle_seconds=idle_seconds, now=self.clock, clock=clock) for _ in range(2)
        )
        return one, other
