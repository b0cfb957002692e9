"""The storage in a SQLite file: the kit, groups of writes, what is in the file, and what it costs."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Coroutine, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from greenroom.actors.errors import ConfigurationError, StoreUnavailable
from greenroom.services.boot_clock import BootClock, boot_clock
from greenroom.services.memory_storage import MemoryStorage
from greenroom.services.sqlite import folders
from greenroom.services.sqlite.batch import Batch
from greenroom.services.sqlite.folders import SWEPT_AT_ONCE
from greenroom.services.sqlite.owners import OWNERS, SLACK, Owners
from greenroom.services.sqlite.schema import migrate
from greenroom.services.sqlite.storage import SqliteStorage
from greenroom.services.storage import (
    NOT_THERE,
    Cell,
    Change,
    Conflict,
    Fence,
    Named,
    OwnerGone,
    Span,
    Storage,
)
from kits.in_turn import Clock
from kits.storage_kit import KEY, OTHER, StorageKit, change
from kits.storage_machine import CHANGES, MACHINE_KEYS, SECTIONS


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


# ---------------------------------------------------------------------------------------------------- groups of writes

FENCES = st.none() | st.just(NOT_THERE) | st.builds(Fence, st.integers(1, 9), st.integers(1, 4))
EXPECTING = st.tuples(CHANGES, FENCES).map(lambda both: _expecting(*both))
WRITES = st.lists(EXPECTING, min_size=1, max_size=3, unique_by=lambda one: one.key)


@given(groups=st.lists(st.lists(WRITES, min_size=1, max_size=8), min_size=1, max_size=6))
@settings(max_examples=30)
def test_writes_of_a_group_do_as_one_after_the_other_in_memory(groups: list[list[list[Change]]]) -> None:
    """Of one folder too, which is made, deleted and made again; the fences are the same."""
    memory, owners = MemoryStorage(), Owners(BootClock("", Clock()))
    with asyncio.Runner() as runner, closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        runner.run(memory.start())
        migrate(db, 0.0)
        for group in groups:
            batch = _batch(db, owners)
            batch.load(group)
            for write in group:
                result, error = batch.write(write)
                (wanted,) = runner.run(_outcome(memory.write(write)))
                assert _told(error or result) == _told(wanted)
            batch.flush()
            for key in MACHINE_KEYS:
                spans = [Span(section) for section in SECTIONS]
                assert folders.read(db, owners, key, spans, -1.0) == runner.run(memory.read(key, spans))
            for name in (b"n", b"m", b"\x00"):
                assert folders.lookup(db, name, -1.0) == runner.run(memory.lookup(name))
            for kind in ("session", "log"):
                assert folders.orphans(db, owners, kind, 9) == runner.run(memory.orphans(kind, 9))


def _batch(db: sqlite3.Connection, owners: Owners) -> Batch:
    epoch: int = db.execute("SELECT epoch FROM counter").fetchone()[0]
    opened: int = db.execute("SELECT coalesce(max(opened), 0) FROM folders").fetchone()[0]
    return Batch(db, owners, epoch=epoch, opened=opened, now=0.0, horizon=-1.0, grain=1.0)


def _expecting(one: Change, expected: Fence | None) -> Change:
    return replace(one, expected=expected)


async def _outcome(call: Coroutine[Any, Any, Any]) -> Any:
    return await asyncio.gather(call, return_exceptions=True)


def _told(result: Any) -> Any:
    return (type(result), vars(result)) if isinstance(result, Exception) else result


async def test_a_refused_write_takes_no_other_with_it_and_costs_no_transaction(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "friday.db")
    await storage.start()
    await storage.renew("went", 100.0, "gone")
    statements: list[str] = []
    await storage._write_thread.run(lambda db: db.set_trace_callback(statements.append))
    held = asyncio.ensure_future(storage.write([change()]))  # the others go together into the next one
    await asyncio.sleep(0)
    calls: Sequence[Any] = [
        storage.write([change(OTHER, names=[(b"n", b"")])]),
        storage.write([change(KEY._replace(session_id="third"), names=[(b"n", b"")])]),
        storage.write([change(OTHER, expected=NOT_THERE)]),
        storage.renew("went", 100.0),
        storage.note("went", b""),
        storage.write([change(OTHER)]),
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    await held
    kinds = [type(result).__name__ for result in results]
    assert kinds == ["tuple", "NameTaken", "Conflict", "OwnerGone", "bool", "tuple"]
    assert statements.count("COMMIT") == 2
    assert "ROLLBACK" not in statements
    await storage.stop()


async def test_a_write_that_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "friday.db")
    await storage.start()
    await storage._write_thread.run(lambda db: db.execute("PRAGMA max_page_count = 40").fetchall())
    calls = [
        storage.write([change(head=b"x" * 500_000, names=[(b"n", b"")])]),
        storage.write([change(OTHER, names=[(b"n", b"")])]),
        storage.write([change(head=b"x" * 500_000)]),
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable, tuple, StoreUnavailable]
    assert "is full" in str(results[0])
    assert await storage.read(KEY) is None
    assert await storage.lookup(b"n") is not None
    await storage.stop()


# ------------------------------------------------------------------------------------------------- what is in the file


async def test_many_idle_folders_are_forgotten_a_part_at_a_time_and_leave_nothing(tmp_path: Path) -> None:
    clock = Clock()
    storage = SqliteStorage(tmp_path / "friday.db", idle_seconds=100.0, now=clock)
    await storage.start()
    crowd = [KEY._replace(session_id=str(number)) for number in range(SWEPT_AT_ONCE + 50)]
    await storage.write(
        [change(key, put=[(Cell("a", 1), b"1")], names=[(key.session_id.encode(), b"")]) for key in crowd]
    )
    clock.now += 1_000.0
    left = []
    for _ in range(3):
        await storage.write([change(put=[(Cell("a", 1), b"1")], names=[(b"n", b"")])])
        left.append([_count(storage.path, table) - 1 for table in ("folders", "cells", "names")])
    assert left == [[50] * 3, [0] * 3, [0] * 3]
    await storage.stop()


async def test_an_idle_folder_is_not_there_also_before_its_rows_go(tmp_path: Path) -> None:
    """They go in the order in which folders were used, so those of this one come last."""
    clock = Clock()
    storage = SqliteStorage(tmp_path / "friday.db", idle_seconds=100.0, now=clock)
    await storage.start()
    crowd = [KEY._replace(session_id=str(number)) for number in range(3 * SWEPT_AT_ONCE)]
    await storage.write([change(key) for key in crowd])
    clock.now += 10.0
    names = [(b"n", b"1"), (b"m", b"1")]
    (before,) = await storage.write([change(head=b"1", owner="me", put=[(Cell("a", 1), b"1")], names=names)])
    clock.now += 1_000.0
    assert await storage.read(KEY, [Span("a")]) is None
    assert await storage.lookup(b"n") is None
    assert len(await storage.sessions("session", "u")) == 0
    with pytest.raises(Conflict) as refused:
        await storage.write([change(expected=before)])
    assert refused.value.found is None
    await storage.write([change(OTHER, names=[(b"n", b"2")])])
    assert _count(storage.path, "folders") > SWEPT_AT_ONCE
    (fence,) = await storage.write([change(expected=NOT_THERE)])
    assert fence.epoch > before.epoch
    found = await storage.read(KEY, [Span("a")])
    assert found is not None
    assert (found.head.body, found.head.owner, found.spans) == (b"", "", ((),))
    assert await storage.lookup(b"n") == Named(OTHER, b"2")
    assert await storage.lookup(b"m") is None
    await storage.stop()


async def test_what_is_deleted_leaves_nothing_in_the_file(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "friday.db")
    await storage.start()
    full = change(head=b"1", open=True, put=[(Cell("a", 1), b"1"), (Cell("b", 1), b"1")], names=[(b"n", b"")])
    await storage.write([full])
    await storage.write([change(delete=True, take=True, put=[(Cell("a", 2), b"2")])])
    assert [_count(storage.path, table) for table in ("folders", "cells", "names")] == [1, 1, 0]
    await storage.write([change(delete=True)])
    await asyncio.gather(storage.write([full]), storage.write([change(delete=True)]))
    assert [_count(storage.path, table) for table in ("folders", "cells", "names")] == [0, 0, 0]
    await storage.stop()


async def test_when_a_folder_was_used_is_written_a_few_times_an_idle_period(tmp_path: Path) -> None:
    """Else each write would change an index."""
    clock = Clock()
    storage = SqliteStorage(tmp_path / "friday.db", idle_seconds=6_400.0, now=clock)
    await storage.start()
    seen = set()
    for _ in range(40):
        clock.now += 10.0
        await storage.write([change()])
        seen.add(_value(storage.path, "SELECT used FROM folders"))
    assert seen == {1_010.0, 1_110.0, 1_210.0, 1_310.0}
    clock.now -= 10_000.0  # somebody sets the clock back: it does not stay as of then
    await storage.write([change()])
    assert _value(storage.path, "SELECT used FROM folders") == clock.now
    await storage.stop()


async def test_the_file_is_its_user_s_alone_and_is_not_moved_by_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = SqliteStorage("friday.db")
    await storage.start()
    await storage.stop()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    await storage.start()
    await storage.write([change()])
    names = ["elsewhere", "friday.db", "friday.db-shm", "friday.db-wal"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert {path.stat().st_mode & 0o077 for path in tmp_path.glob("friday.db*")} == {0}
    await storage.stop()
    assert [path.name for path in tmp_path.glob("friday.db*")] == ["friday.db"]
    assert repr(storage) == f"<SqliteStorage {tmp_path / 'friday.db'}>"


def test_each_commit_is_on_the_disk(tmp_path: Path) -> None:
    """2 stands for FULL."""

    async def ask() -> list[tuple[Any, ...]]:
        storage = SqliteStorage(tmp_path / "friday.db")
        await storage.start()
        try:
            return await storage._write_thread.run(
                lambda db: [*db.execute("PRAGMA synchronous"), *db.execute("PRAGMA journal_mode")]
            )
        finally:
            await storage.stop()

    assert asyncio.run(ask()) == [(2,), ("wal",)]


# -------------------------------------------------------------------------------------------------------- its clients


async def test_clients_that_start_together_share_it_until_the_last_has_stopped(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "friday.db")
    await asyncio.gather(*(storage.start() for _ in range(5)))
    await asyncio.gather(*(storage.stop() for _ in range(4)))
    await storage.write([change()])
    await asyncio.gather(storage.stop(), storage.start())
    await storage.write([change()])
    await storage.stop()
    with pytest.raises(ConfigurationError):
        await storage.read(KEY)


async def test_a_start_that_fails_does_not_count(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "data" / "friday.db")
    results = await asyncio.gather(storage.start(), storage.start(), return_exceptions=True)
    assert {type(result) for result in results} == {StoreUnavailable}
    (tmp_path / "data").mkdir()
    await storage.start()
    await storage.write([change()])
    await storage.stop()
    with pytest.raises(ConfigurationError):
        await storage.read(KEY)


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_a_time_to_wait_that_makes_no_sense_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="busy_seconds"):
        SqliteStorage("friday.db", busy_seconds=seconds)


# ------------------------------------------------------------------------------------------------------------- owners


async def test_owners_of_another_start_of_the_machine_are_gone(tmp_path: Path) -> None:
    clock = Clock()
    before = SqliteStorage(tmp_path / "friday.db", clock=BootClock("one", clock))
    await before.start()
    await before.renew("me", 1_000.0)
    await before.note("me", b"1")
    await before.write([change(owner="me", open=True)])
    await before.stop()
    after = SqliteStorage(tmp_path / "friday.db", clock=BootClock("other", clock))
    await after.start()
    assert [head.owner_state for head in await after.orphans("session", 9)] == ["gone"]
    with pytest.raises(OwnerGone):
        await after.renew("me", 1_000.0)
    await after.renew("you", 1_000.0)
    assert _value(after.path, "SELECT name FROM owners") == "you"
    assert _count(after.path, "notes") == 0
    await after.stop()


def test_the_machine_s_clock_says_which_start_it_counts_from_where_that_is_known(tmp_path: Path) -> None:
    (tmp_path / "boot_id").write_text("4ac2\n")
    known, unknown = boot_clock(tmp_path / "boot_id"), boot_clock(tmp_path / "nothing")
    assert (known.boot, unknown.boot) == ("4ac2", "")
    assert boot_clock() == boot_clock()
    assert known.now() <= unknown.now()


async def test_where_no_start_is_known_a_renewal_in_the_future_is_of_another(tmp_path: Path) -> None:
    clock = Clock()
    storage = SqliteStorage(tmp_path / "friday.db", clock=BootClock("", clock))
    await storage.start()
    await storage.renew("me", 1_000.0)
    await storage.write([change(owner="me", open=True)])
    clock.now -= SLACK - 1
    assert await storage.orphans("session", 9) == ()
    clock.now = 10.0
    assert len(await storage.orphans("session", 9)) == 1
    assert not await storage.note("me", b"")
    await storage.stop()


async def test_owners_that_are_gone_are_remembered_within_a_bound(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "friday.db")
    await storage.start()
    await storage.renew("lives", 1e6)
    await asyncio.gather(*(storage.renew(str(number), 0.0) for number in range(50)))
    more = (
        f"WITH RECURSIVE many (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM many WHERE n < {OWNERS}) "
        "INSERT INTO owners SELECT 'old ' || n, 'gone', boot, renewed, n - 1e9 FROM owners, many WHERE name = 'lives'"
    )
    await storage._write_thread.run(lambda db: db.execute(more).fetchall())
    await storage.renew("new", 1e6)
    assert _count(storage.path, "owners") <= OWNERS + 1
    assert await storage.note("lives", b"still")
    with pytest.raises(OwnerGone):
        await storage.renew("49", 1.0)
    await storage.stop()


# ------------------------------------------------------------------------------------------------------- what it costs


def test_a_write_costs_the_same_however_much_there_is() -> None:
    """Counted in steps of SQLite's machine."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db, 0.0)
        costs = [_steps_of_writing(db, number) for number in range(1_001)]
    assert costs[1_000] <= costs[10] + 2


def _steps_of_writing(db: sqlite3.Connection, number: int) -> int:
    steps = itertools.count()
    batch = _batch(db, Owners(BootClock("", Clock())))
    write = [
        change(head=b"1", open=True, put=[(Cell("a", number), b"x" * 100)], names=[(b"%d" % number, b"")])
    ]
    db.set_progress_handler(lambda: next(steps) < 0, 1)
    batch.load([write])
    batch.write(write)
    batch.flush()
    db.set_progress_handler(None, 0)
    return next(steps)


def _count(path: Path, table: str) -> int:
    count: int = _value(path, f"SELECT count(*) FROM {table}")
    return count


def _value(path: Path, question: str) -> Any:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(question).fetchone()[0]
