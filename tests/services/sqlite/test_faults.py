"""What stands in the way of a file of sessions: the errors say so, and nothing is kept in part."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from greenroom.actors.errors import SessionDamaged, StoreUnavailable
from greenroom.actors.messages import SessionKey
from greenroom.services.sqlite.store import SqliteStore
from greenroom.services.store import TurnCommit
from kits.committing import committing, newest_kept, said
from kits.needs import needs_bubblewrap
from kits.store_kit import KEY, record


async def refused_at_start(path: Path) -> str:
    """Why it cannot be started with; where it lies is named, and there is nothing left to stop."""
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable) as refused:
        await store.start()
    assert str(path) in str(refused.value)
    await store.stop()
    return str(refused.value)


async def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    assert "that is a folder" in await refused_at_start(tmp_path)


async def test_no_folder_to_lie_in(tmp_path: Path) -> None:
    assert "make it" in await refused_at_start(tmp_path / "data" / "friday.db")
    assert not (tmp_path / "data").exists()


async def test_a_folder_where_it_cannot_be_made() -> None:
    """Nobody may make a file there, whatever rights he has."""
    why = await refused_at_start(Path("/proc/friday.db"))
    assert "folder" in why
    assert "--state sqlite:////" in why
    assert "--state memory" in why
    assert "operator" not in why


async def test_a_name_that_the_disk_does_not_take(tmp_path: Path) -> None:
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    for name in ("x" * 300, "x" * longest, "é" * (longest // 2), "x" * 300 + "/friday.db"):
        assert "name is too long for the disk" in await refused_at_start(tmp_path / name)
    assert not list(tmp_path.iterdir())
    store = SqliteStore(tmp_path / ("x" * (longest - len("-journal"))))
    await store.start()
    await store.commit(KEY, TurnCommit(record(1)))
    await store.stop()


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "friday.db"
    path.write_bytes(b"Dear Friday,\n" * 1_000)
    assert "damaged, or none" in await refused_at_start(path)
    assert path.read_bytes() == b"Dear Friday,\n" * 1_000


async def test_a_file_that_is_mended_can_be_started_with(tmp_path: Path) -> None:
    path = tmp_path / "friday.db"
    path.mkdir()
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable):
        await store.start()
    path.rmdir()
    await store.start()
    await store.commit(KEY, TurnCommit(record(1)))
    await store.stop()


async def test_a_damaged_file_is_said_to_be_one(tmp_path: Path) -> None:
    """Its first pages are whole: it is found out when a session is read."""
    store = SqliteStore(tmp_path / "friday.db")
    await store.start()
    for number in range(40):
        await store.commit(KEY, TurnCommit(record(number, "x" * 500), b"%d" % number * 5_000))
    await store.stop()
    damaged = bytearray(store.path.read_bytes())
    damaged[20 * 4_096 :] = b"\xff" * (len(damaged) - 20 * 4_096)
    store.path.write_bytes(damaged)
    await store.start()
    for call in (store.load(KEY), store.commit(KEY, TurnCommit(record(99), b"x"))):
        with pytest.raises(StoreUnavailable, match=r"damaged.*backup") as refused:
            await call
        assert str(tmp_path) not in str(refused.value)
    await store.stop()


async def test_a_turn_that_cannot_be_read_is_said_to_be_damaged(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "friday.db")
    await store.start()
    await store.commit(KEY, TurnCommit(record(1)))
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("UPDATE cells SET value = x'00' WHERE section = 'turn'")
        connection.commit()
    with pytest.raises(SessionDamaged, match="damaged"):
        await store.load(KEY)
    await store.stop()


async def test_a_disk_that_is_full_takes_what_fits_and_nothing_in_part(tmp_path: Path) -> None:
    """A disk of 2 MB; each commit brings 20 kB."""
    needs_bubblewrap()
    disk = tmp_path / "disk"
    disk.mkdir()
    small = ["bwrap", "--dev-bind", "/", "/", "--size", "2000000", "--tmpfs", str(disk), "--"]
    async with committing(disk / "friday.db", 2, 1_000, "s", prefix=small) as process:
        *kept, refusal, one, other = await said(process)
    assert refusal.startswith("refused store_unavailable")
    assert "disk with the file of sessions is full" in refusal
    assert str(tmp_path) not in refusal
    newest = newest_kept(kept)
    assert max(newest.values()) > 10
    for found in (one, other):  # the one whose commit was under way when the other's failed may have one more
        word, name, turn = found.split()
        assert word == "whole"
        assert newest[name] <= int(turn) <= newest[name] + 1


@pytest.mark.parametrize("there", [True, False])
async def test_a_disk_that_may_only_be_read(tmp_path: Path, there: bool) -> None:
    needs_bubblewrap()
    if there:
        async with committing(tmp_path / "friday.db", 1, 1, "s") as process:
            await said(process)
    shut = ["bwrap", "--dev-bind", "/", "/", "--ro-bind", str(tmp_path), str(tmp_path), "--"]
    async with committing(tmp_path / "friday.db", 1, 1, "s", prefix=shut) as process:
        lines = await said(process)
    assert len(lines) == 1
    assert lines[0].startswith("refused store_unavailable")
    assert "see to its rights" in lines[0]
    if there:
        async with committing(tmp_path / "friday.db", 1, 1, "s") as process:
            assert await said(process) == ["started", "kept s0 2"]


async def test_a_disk_that_fills_up_and_is_emptied(tmp_path: Path) -> None:
    """SQLite's own bound on a file stands for the disk's: the same store goes on afterwards."""
    store = SqliteStore(tmp_path / "friday.db")
    await store.start()
    await store.commit(KEY, TurnCommit(record(1), b"1"))
    before = await store.load(KEY)
    await _bound(store, 20)
    small = SessionKey("u", "small")
    calls = [
        store.commit(KEY, TurnCommit(record(2), os.urandom(200_000))),
        store.commit(small, TurnCommit(record(1))),
        store.commit(KEY, TurnCommit(record(3), os.urandom(200_000))),
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable, type(None), StoreUnavailable]
    assert "is full" in str(results[0])
    assert await store.load(KEY) == before
    assert await store.load(small) is not None  # what fits is kept, whatever else was in its group
    await _bound(store, 1_000_000)
    await store.commit(KEY, TurnCommit(record(2), b"2"))
    await store.stop()


async def _bound(store: SqliteStore, pages: int) -> None:
    await store.file._write_thread.run(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchall())
