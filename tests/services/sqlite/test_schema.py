"""Versions of the file of sessions: from the first to the newest, and those that are not ours."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest

from greenroom.actors.errors import StoreUnavailable
from greenroom.actors.messages import SessionKey
from greenroom.services.sessions.head import (
    EARLIER,
    ENTRY,
    STATE,
    TURN,
    SessionHead,
    decode_head,
    folder_of,
)
from greenroom.services.sqlite.schema import MIGRATIONS, migrate, read_version
from greenroom.services.sqlite.storage import SqliteStorage
from greenroom.services.sqlite.store import SqliteStore
from greenroom.services.storage import Change, Fence, Span
from greenroom.services.store import SessionRecord, TurnCommit
from kits.in_turn import TRICKY_KEYS
from kits.store_kit import FORK, KEY, RICH, record

T = TypeVar("T")

VERSION_1 = Path(__file__).with_name("version_1.sql")
USED = 1_795_000_000.0
"""When its session was used."""
IN_IT = (record(1, status="failed"), record(2), RICH, record(3, status="cancelled"))
STATES = (None, b'{"context":["Hello"]}', *[b'{"context":["Hello","again"]}'] * 2)


async def test_a_file_of_version_1_is_read_and_goes_on(tmp_path: Path) -> None:
    """Its rows, and the bytes of its turns and states."""
    path = tmp_path / "friday.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1.read_text(encoding="utf-8"))
    store = SqliteStore(path, idle_seconds=float("inf"))
    await store.start()
    assert await store.load(KEY) == SessionRecord(KEY, 4, STATES[-1], IN_IT)
    for count, (turn, state) in enumerate(zip(IN_IT, STATES, strict=True), 1):
        assert await store.fork(KEY, turn.turn_id, FORK)
        assert await store.load(FORK) == SessionRecord(FORK, count, state, IN_IT[:count])
    await store.commit(KEY, TurnCommit(record(4), b"new"))
    assert await store.load(KEY) == SessionRecord(KEY, 5, b"new", (*IN_IT, record(4)))
    await store.stop()
    assert await asyncio.to_thread(_on, path, read_version) == len(MIGRATIONS)
    await _new(tmp_path / "new.db")
    assert _on(path, _tables) == _on(tmp_path / "new.db", _tables)


async def test_sessions_of_version_1_become_folders(tmp_path: Path) -> None:
    path = tmp_path / "friday.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1.read_text(encoding="utf-8"))
        for number, ids in enumerate(TRICKY_KEYS, 10):
            columns = [text.encode() for text in ids]
            connection.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, 0, 1, 1, 0, ?)", (number, *columns, USED + number)
            )
        connection.commit()
    storage = SqliteStorage(path, idle_seconds=1_000.0, now=lambda: USED + 100.0)
    await storage.start()
    found = await storage.read(folder_of(KEY), [Span(TURN), Span(EARLIER), Span(STATE), Span(ENTRY)])
    assert found is not None
    assert found.head.fence == Fence(1, 4)
    assert decode_head(found.head.body) == SessionHead(commits=4, size=1_716)
    assert [[number for number, _ in cells] for cells in found.spans] == [[1, 2, 3, 4], [1, 2, 3], [0], []]
    for ids in TRICKY_KEYS:
        assert await storage.read(folder_of(SessionKey(*ids))) is not None
    (fence,) = await storage.write([Change(key=folder_of(FORK))])
    assert fence.epoch > 10 + len(TRICKY_KEYS) - 1
    await storage.stop()
    later = SqliteStorage(
        path, idle_seconds=1_000.0, now=lambda: USED + 1_030.0
    )  # when they were used is known
    await later.start()
    assert await later.read(folder_of(KEY)) is None
    assert await later.read(folder_of(SessionKey(*TRICKY_KEYS[-1]))) is not None
    await later.stop()


def test_each_migration_is_run_once_in_order(tmp_path: Path) -> None:
    ran: list[int] = []
    later: list[Callable[[sqlite3.Connection], None]] = [
        *MIGRATIONS,
        lambda connection: ran.append(1),
        lambda connection: ran.append(2),
    ]
    path = tmp_path / "friday.db"
    for count in (1, len(MIGRATIONS), len(MIGRATIONS) + 1, len(MIGRATIONS) + 1, len(later)):
        _on(path, lambda connection, known=count: migrate(connection, 5.0, later[:known]))  # type: ignore[misc]
    assert ran == [1, 2]
    assert _on(path, read_version) == len(later)


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    def fails(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE folders ADD COLUMN tenant INTEGER NOT NULL DEFAULT 0")
        connection.execute("DROP TABLE cells")
        raise ZeroDivisionError

    path = tmp_path / "friday.db"
    _on(path, lambda connection: migrate(connection, 0.0))
    before = _on(path, _tables)
    with pytest.raises(ZeroDivisionError):
        _on(path, lambda connection: migrate(connection, 0.0, [*MIGRATIONS, fails]))
    assert _on(path, _tables) == before
    with pytest.raises(ZeroDivisionError):
        _on(tmp_path / "new.db", lambda connection: migrate(connection, 0.0, [*MIGRATIONS, fails]))
    assert _on(tmp_path / "new.db", _tables) == []


async def test_a_newer_file_is_refused_with_what_to_do_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "friday.db"
    await _new(path)
    _on(path, _as_a_newer_one_does)
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="newer Greenroom") as refused:
        await SqliteStore(path).start()
    assert str(path) in str(refused.value)
    assert "run the newer one" in str(refused.value)
    assert path.read_bytes() == before


async def test_a_file_that_a_newer_process_migrates_under_way_is_written_no_more(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "friday.db")
    await store.start()
    await store.commit(KEY, TurnCommit(record(1)))
    _on(store.path, _as_a_newer_one_does)
    for call in (store.commit(KEY, TurnCommit(record(2))), store.forget(KEY)):
        with pytest.raises(StoreUnavailable, match="newer Greenroom") as refused:
            await call
        assert str(tmp_path) not in str(refused.value)
    kept = await store.load(KEY)
    assert kept is not None
    assert kept.turns == (record(1),)
    await store.stop()


async def test_a_database_of_something_else_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    _on(path, lambda connection: connection.execute("CREATE TABLE schema_versions (version INTEGER)"))
    before = _on(path, _tables)
    with pytest.raises(StoreUnavailable, match="of something else"):
        await SqliteStore(path).start()
    assert _on(path, _tables) == before


async def test_an_empty_file_becomes_one(tmp_path: Path) -> None:
    path = tmp_path / "friday.db"
    path.touch()
    await _new(path)
    assert await asyncio.to_thread(_on, path, read_version) == len(MIGRATIONS)


async def _new(path: Path) -> None:
    store = SqliteStore(path)
    await store.start()
    assert await store.load(SessionKey("u", "nobody")) is None
    await store.stop()


def _on(path: Path, do: Callable[[sqlite3.Connection], T]) -> T:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return do(connection)


def _as_a_newer_one_does(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO schema_versions VALUES (?, 0)", (len(MIGRATIONS) + 1,))


def _tables(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
    return [(name, " ".join(sql.split())) for name, sql in rows]
