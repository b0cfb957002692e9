"""Folders in a SQLite file and what may happen to it: processes that are killed, that share it, a disk that is full."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from greenroom.actors.errors import StoreUnavailable
from greenroom.services.sqlite.storage import SqliteStorage
from greenroom.services.storage import Cell, OwnerGone, Span
from kits.committing import said
from kits.needs import needs_bubblewrap
from kits.storage_kit import KEY, OTHER, change
from kits.until import until_answered
from kits.writing import newest_wrote, number_of, writing

KILLS = 12
PAIRS = 4
FOREVER = 1_000_000


@pytest.mark.slow
async def test_a_process_killed_while_it_writes_loses_nothing_and_leaves_nothing_in_part(
    tmp_path: Path,
) -> None:
    path = tmp_path / "friday.db"
    storage = SqliteStorage(path)
    for kill in range(1, KILLS + 1):
        async with writing(path, PAIRS, FOREVER, f"owner {kill}") as process:
            lines = await said(process, 1 + 23 * kill)
            process.kill()
            lines += await said(process)
        promised = newest_wrote(lines)
        assert promised
        await storage.start()
        for pair, number in promised.items():
            assert (
                number <= await number_of(storage, pair) <= number + 1
            )  # the one under way may be there or not
        await storage.stop()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_what_a_killed_process_had_open_is_an_orphan_when_its_time_is_over(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "friday.db")
    await storage.start()
    async with writing(storage.path, 1, FOREVER, "killed") as process:
        await said(process, 2)
        process.kill()
        await process.wait()

        async def it_is_gone() -> bool:
            return len(await storage.orphans("one", 9)) == 1

        await until_answered(it_is_gone)
    with pytest.raises(OwnerGone):
        await storage.renew("killed", 10.0)
    (orphan,) = await storage.orphans("one", 9)
    assert (orphan.owner, orphan.owner_state) == ("killed", "gone")
    (fence,) = await storage.write([change(orphan.key, expected=orphan.fence, take=True, owner="me")])
    assert fence.epoch > orphan.fence.epoch
    await storage.stop()


@pytest.mark.slow
async def test_processes_that_write_the_same_folders_lose_no_write(tmp_path: Path) -> None:
    """They make the file together, too."""
    path = tmp_path / "friday.db"
    async with writing(path, 2, 40, "a") as one, writing(path, 2, 40, "b") as other:
        lines = [*(await said(one)), *(await said(other))]
        assert [await one.wait(), await other.wait()] == [0, 0]
    wrote = [line for line in lines if line.startswith("wrote")]
    assert len(wrote) == len(set(wrote)) == 160
    storage = SqliteStorage(path)
    await storage.start()
    assert [await number_of(storage, pair) for pair in range(2)] == [80, 80]
    await storage.stop()


async def test_a_disk_that_is_full_takes_what_fits_and_nothing_in_part(tmp_path: Path) -> None:
    """A disk of 4 MB; what a write brings in the write-ahead log is 120 kB."""
    needs_bubblewrap()
    disk = tmp_path / "disk"
    disk.mkdir()
    small = ["bwrap", "--dev-bind", "/", "/", "--size", "4000000", "--tmpfs", str(disk), "--"]
    copied = [*small, "sh", "-c", f'"$@"; cp {disk}/friday.db* {tmp_path}', "sh"]
    async with writing(disk / "friday.db", 2, 1_000, "me", prefix=copied) as process:
        *lines, refusal = await said(process)
    assert refusal.startswith("refused store_unavailable")
    assert "disk with the file of sessions is full" in refusal
    assert str(tmp_path) not in refusal
    storage = SqliteStorage(tmp_path / "friday.db")
    await storage.start()
    newest = newest_wrote(lines)
    assert max(newest.values()) > 5
    for pair, number in newest.items():
        assert number <= await number_of(storage, pair) <= number + 1
    await storage.write([change()])
    await storage.stop()


async def test_a_disk_that_fills_up_and_is_emptied(tmp_path: Path) -> None:
    """SQLite's own bound on a file stands for the disk's: the same storage goes on, and its owner lives."""
    storage = SqliteStorage(tmp_path / "friday.db")
    await storage.start()
    await storage.renew("me", 1_000.0)
    (fence,) = await storage.write([change(head=b"1", owner="me")])
    await _bound(storage, 30)
    large = change(OTHER, head=os.urandom(500_000))
    both = [change(expected=fence, head=b"2"), large]
    results = await asyncio.gather(storage.write(both), storage.write([large]), return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 2
    assert "is full" in str(results[0])
    assert str(tmp_path) not in str(results[0])
    found = await storage.read(KEY)
    assert found is not None
    assert (found.head.fence, found.head.body, found.head.owner_state) == (fence, b"1", "serving")
    assert await storage.read(OTHER) is None
    await _bound(storage, 1_000_000)
    await storage.write(both)
    await storage.renew("me", 1_000.0)
    await storage.stop()


async def test_a_damaged_file_is_said_to_be_one(tmp_path: Path) -> None:
    """Its first pages are whole: it is found out when a folder is read."""
    storage = SqliteStorage(tmp_path / "friday.db")
    await storage.start()
    for number in range(40):
        await storage.write(
            [change(KEY._replace(session_id=str(number)), put=[(Cell("a", 1), b"%d" % number * 5_000)])]
        )
    await storage.stop()
    damaged = bytearray(storage.path.read_bytes())
    damaged[22 * 4_096 :] = b"\xff" * (len(damaged) - 22 * 4_096)
    storage.path.write_bytes(damaged)
    await storage.start()
    last = KEY._replace(session_id="39")
    for call in (storage.read(last, [Span("a")]), storage.write([change(last, put=[(Cell("a", 1), b"x")])])):
        with pytest.raises(StoreUnavailable, match=r"damaged.*backup") as refused:
            await call
        assert str(tmp_path) not in str(refused.value)
    await storage.stop()


async def test_who_writes_for_too_long_is_waited_for_within_a_bound(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "friday.db", busy_seconds=0.05)
    await storage.start()
    (fence,) = await storage.write([change()])
    other = await asyncio.to_thread(_begin_writing, storage.path)
    calls = [storage.write([change()]), storage.renew("me", 1.0), storage.note("me", b"")]
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, StoreUnavailable)
        assert "another process" in error.message
        assert error.retry_after == 1.0
    found = await storage.read(KEY)  # a reader waits for no writer
    assert found is not None
    assert found.head.fence == fence
    other.rollback()
    other.close()
    await storage.write([change(expected=fence)])
    await storage.stop()


async def _bound(storage: SqliteStorage, pages: int) -> None:
    await storage._write_thread.run(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchall())


def _begin_writing(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection
