"""A file of sessions and several processes: one after the other, killed at any moment, and at once."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from greenroom.actors.errors import StoreUnavailable
from greenroom.actors.messages import SessionKey
from greenroom.services.sqlite.store import SqliteStore
from greenroom.services.store import TurnCommit
from kits.committing import committing, is_whole, newest_kept, said
from kits.store_kit import KEY, record

KILLS = 8
SESSIONS = 4
FOREVER = 1_000_000


async def test_what_was_committed_is_there_after_the_process_and_its_forks_can_be_made(
    tmp_path: Path,
) -> None:
    path = tmp_path / "friday.db"
    async with committing(path, 1, 5, "s") as process:
        assert await said(process) == ["started", *(f"kept s0 {turn}" for turn in range(1, 6))]
        assert await process.wait() == 0
    store = SqliteStore(path)
    await store.start()
    kept = await store.load(SessionKey("u", "s0"))
    assert kept is not None
    assert kept.revision == 5
    assert is_whole(kept)
    assert await store.fork(SessionKey("u", "s0"), "turn-2", KEY)
    kept = await store.load(KEY)
    assert kept is not None
    assert is_whole(kept)
    await store.stop()


@pytest.mark.slow
async def test_a_process_killed_while_it_commits_loses_nothing_and_keeps_nothing_in_part(
    tmp_path: Path,
) -> None:
    path = tmp_path / "friday.db"
    store = SqliteStore(path)
    for kill in range(1, KILLS + 1):
        async with committing(path, SESSIONS, FOREVER) as process:
            lines = await said(process, 1 + 37 * kill)
            process.kill()
            lines += await said(process)
        promised = newest_kept(lines)
        assert promised
        await store.start()
        for name, turn in promised.items():
            kept = await store.load(SessionKey("u", name))
            assert kept is not None
            assert turn <= kept.revision <= turn + 1  # the one under way may be there or not
            assert is_whole(kept)
        await store.stop()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.slow
async def test_two_processes_write_one_file(tmp_path: Path) -> None:
    """They even make it together."""
    path = tmp_path / "friday.db"
    async with committing(path, 3, 50, "a") as one, committing(path, 3, 50, "b") as other:
        lines = [*(await said(one)), *(await said(other))]
        assert [await one.wait(), await other.wait()] == [0, 0]
    assert not [line for line in lines if line.startswith("refused")]
    assert set(newest_kept(lines)) == {f"{name}{number}" for name in "ab" for number in range(3)}
    store = SqliteStore(path)
    await store.start()
    for name in newest_kept(lines):
        kept = await store.load(SessionKey("u", name))
        assert kept is not None
        assert kept.revision == 50
        assert is_whole(kept)
    await store.stop()


async def test_two_stores_commit_to_one_session(tmp_path: Path) -> None:
    stores = [SqliteStore(tmp_path / "friday.db") for _ in range(2)]
    await asyncio.gather(*(store.start() for store in stores))
    await asyncio.gather(
        *(stores[number % 2].commit(KEY, TurnCommit(record(number), b"%d" % number)) for number in range(100))
    )
    one, other = [await store.load(KEY) for store in stores]
    assert one is not None
    assert one == other
    assert one.revision == 100
    assert {turn.turn_id for turn in one.turns} == {f"turn-{number}" for number in range(100)}
    assert one.state == one.turns[-1].turn_id.removeprefix("turn-").encode()
    for store in stores:
        await store.stop()


async def test_who_writes_for_too_long_is_waited_for_within_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "friday.db"
    store = SqliteStore(path, busy_seconds=0.05)
    await store.start()
    await store.commit(KEY, TurnCommit(record(1), b"1"))
    before = await store.load(KEY)
    other = await asyncio.to_thread(_begin_writing, path)
    commits = [store.commit(KEY, TurnCommit(record(number), b"2")) for number in range(2, 20)]
    for error in await asyncio.gather(*commits, return_exceptions=True):
        assert isinstance(error, StoreUnavailable)
        assert "another process" in error.message
        assert str(tmp_path) not in error.message
        assert error.retry_after == 1.0
    assert await store.load(KEY) == before  # a reader waits for no writer
    other.rollback()
    other.close()
    await store.commit(KEY, TurnCommit(record(2), b"2"))
    await store.stop()


async def test_a_file_that_another_process_writes_all_the_time_is_not_started_with(tmp_path: Path) -> None:
    path = tmp_path / "friday.db"
    store = SqliteStore(path, busy_seconds=0.05)
    await store.start()
    await store.stop()
    other = await asyncio.to_thread(_begin_writing, path)
    with pytest.raises(StoreUnavailable, match="another process"):
        await store.start()
    other.close()
    await store.start()
    await store.stop()


def _begin_writing(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection
