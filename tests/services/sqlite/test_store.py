"""The store in a SQLite file: the kit, its bounds, and what it costs."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greenroom.actors.errors import ConfigurationError
from greenroom.actors.messages import SessionKey
from greenroom.services.sessions.memory_store import InMemoryStore
from greenroom.services.sqlite.folders import SWEPT_AT_ONCE
from greenroom.services.sqlite.store import SqliteStore
from greenroom.services.store import SessionRecord, SessionStore, TurnCommit
from kits.in_turn import Clock
from kits.store_kit import FORK, KEY, StoreKit, record


class TestSqliteStore(StoreKit):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.files = (tmp_path / f"{number}.db" for number in itertools.count())

    def store(self, turns_kept: int, states_kept: int) -> SessionStore:
        return SqliteStore(next(self.files), turns_kept=turns_kept, states_kept=states_kept)


async def test_a_session_without_a_turn_for_long_is_forgotten(tmp_path: Path) -> None:
    clock = Clock()
    store = SqliteStore(tmp_path / "friday.db", idle_seconds=100.0, now=clock)
    await store.start()
    idle, again = SessionKey("u", "idle"), SessionKey("u", "again")
    for key in (idle, again, KEY):
        await store.commit(key, TurnCommit(record(1), b"x"))
    for number in range(2, 5):
        clock.now += 60.0
        await store.commit(KEY, TurnCommit(record(number)))
    assert await store.load(idle) is None
    assert not await store.fork(idle, "turn-1", FORK)
    await store.commit(again, TurnCommit(record(9)))
    assert await store.load(again) == SessionRecord(again, 1, None, (record(9),))
    kept = await store.load(KEY)
    assert kept is not None
    assert kept.revision == 4
    await store.stop()
    assert (
        _count(store.path, "cells WHERE section = 'turn'") == 5
    )  # nothing of the idle one is left in the file
    assert _count(store.path, "cells WHERE section = 'state'") == 1


async def test_many_idle_sessions_are_forgotten_a_part_at_a_time(tmp_path: Path) -> None:
    clock = Clock()
    store = SqliteStore(tmp_path / "friday.db", idle_seconds=100.0, now=clock)
    await store.start()
    crowd = [SessionKey("u", str(number)) for number in range(SWEPT_AT_ONCE + 50)]
    await asyncio.gather(*(store.commit(key, TurnCommit(record(1))) for key in crowd))
    clock.now += 1_000.0
    left = []
    for number in range(3):
        await store.commit(KEY, TurnCommit(record(number)))
        left.append(_count(store.path, "folders") - 1)
    assert left == [50, 0, 0]
    await store.stop()


async def test_over_a_session_s_bytes_the_oldest_turns_go_but_never_the_newest(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "friday.db", session_bytes=1_200)
    await store.start()
    for number in range(4):
        await store.commit(KEY, TurnCommit(record(number, "x" * 200), b"state"))
    loaded = await store.load(KEY)
    assert loaded is not None
    assert [turn.at for turn in loaded.turns] == [2.0, 3.0]
    await store.commit(KEY, TurnCommit(record(4, "x" * 2_000)))
    assert await store.load(KEY) == SessionRecord(KEY, 5, b"state", (record(4, "x" * 2_000),))
    await store.stop()


STEPS = st.lists(
    st.tuples(st.integers(0, 60), st.none() | st.integers(0, 300), st.none() | st.integers(0, 12)),
    min_size=3,
    max_size=25,
)


@given(steps=STEPS, turns_kept=st.integers(1, 6), states_kept=st.integers(1, 4))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_its_bounds_are_those_of_the_store_in_memory(
    tmp_path: Path, steps: list[tuple[int, int | None, int | None]], turns_kept: int, states_kept: int
) -> None:
    """Each step commits a turn of some size, maybe with a state of some size, and maybe forks from a turn."""
    bounds: dict[str, Any] = {"turns_kept": turns_kept, "states_kept": states_kept, "session_bytes": 600}
    path = tmp_path / "friday.db"
    path.unlink(missing_ok=True)
    memory, store = InMemoryStore(**bounds), SqliteStore(path, **bounds)
    await memory.start()
    await store.start()
    for number, (said, state, turn) in enumerate(steps):
        commit = TurnCommit(record(number, "x" * said), None if state is None else b"%d" % number * state)
        for one in (memory, store):
            await one.commit(KEY, commit)
        assert await store.load(KEY) == await memory.load(KEY)
        if turn is not None:
            forked = await memory.fork(KEY, f"turn-{turn}", FORK)
            assert await store.fork(KEY, f"turn-{turn}", FORK) is forked
            assert await store.load(FORK) == await memory.load(FORK)
            for one in (memory, store):  # what was forked goes on, with the bounds of its own
                await one.commit(FORK, TurnCommit(record(99), b"fork"))
            assert await store.load(FORK) == await memory.load(FORK)
    await store.stop()


async def test_smaller_bounds_hold_from_the_next_turn_on(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "friday.db")
    await store.start()
    for number in range(10):
        await store.commit(KEY, TurnCommit(record(number), b"%d" % number))
    await store.stop()
    store = SqliteStore(store.path, turns_kept=3, states_kept=1)
    await store.start()
    await store.commit(KEY, TurnCommit(record(10), b"10"))
    kept = await store.load(KEY)
    assert kept is not None
    assert [turn.turn_id for turn in kept.turns] == ["turn-8", "turn-9", "turn-10"]
    assert not await store.fork(KEY, "turn-9", FORK)
    await store.stop()
    assert _count(store.path, "cells WHERE section = 'turn'") == 3
    assert _count(store.path, "cells WHERE section = 'earlier'") == 0


async def test_what_is_forgotten_leaves_nothing_in_the_file(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "friday.db")
    await store.start()
    for number in range(3):
        await store.commit(KEY, TurnCommit(record(number), b"%d" % number))
    assert await store.fork(KEY, "turn-1", FORK)
    assert await store.fork(KEY, "turn-0", KEY)  # what it was before is gone
    await store.forget(KEY)
    await store.forget(FORK)
    await store.stop()
    assert [_count(store.path, table) for table in ("folders", "cells", "names")] == [0] * 3


async def test_states_that_grow_take_little_more_than_the_newest(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "friday.db")
    await store.start()
    await store.stop()
    empty = store.path.stat().st_size
    await store.start()
    said = [f'{{"role":"user","text":"{number} {"x" * 1_000}"}}' for number in range(50)]
    for number in range(50):
        state = f'{{"id":"s","context":[{",".join(said[: number + 1])}],"reply":"{number}","tasks":[]}}'
        await store.commit(KEY, TurnCommit(record(number), state.encode()))
    await store.stop()
    assert store.path.stat().st_size - empty < 3 * 50 * 1_000


async def test_a_commit_costs_the_same_however_many_turns_there_are(tmp_path: Path) -> None:
    """Counted in steps of SQLite's machine."""
    store = SqliteStore(tmp_path / "friday.db", turns_kept=2_000, states_kept=2_000)
    await store.start()
    costs = [await _steps_of_committing(store, number) for number in range(1_001)]
    await store.stop()
    assert max(costs[990:]) <= max(costs[5:15]) * 1.1


async def test_the_file_is_its_user_s_alone_and_is_not_moved_by_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore("friday.db")
    await store.start()
    await store.stop()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    await store.start()
    await store.commit(KEY, TurnCommit(record(1)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "elsewhere",
        "friday.db",
        "friday.db-shm",
        "friday.db-wal",
    ]
    assert {path.stat().st_mode & 0o077 for path in tmp_path.glob("friday.db*")} == {0}
    await store.stop()
    assert [path.name for path in tmp_path.glob("friday.db*")] == ["friday.db"]
    assert repr(store) == f"<SqliteStore {tmp_path / 'friday.db'}>"


async def test_starting_and_stopping_twice_is_fine(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "friday.db")
    for _ in range(2):
        await store.start()
        await store.start()
        await store.commit(KEY, TurnCommit(record(1)))
        await store.stop()
        await store.stop()


async def test_what_is_under_way_when_it_stops_is_kept(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "friday.db")
    await store.start()
    commits = [asyncio.ensure_future(store.commit(KEY, TurnCommit(record(number)))) for number in range(20)]
    loading = asyncio.ensure_future(store.load(FORK))
    await asyncio.sleep(0)
    await store.stop()
    await asyncio.gather(*commits)
    assert await loading is None
    await store.start()
    kept = await store.load(KEY)
    assert kept is not None
    assert kept.revision == 20
    await store.stop()


@pytest.mark.parametrize(
    "bounds", [{"turns_kept": 0}, {"states_kept": 0}, {"busy_seconds": -1.0}, {"busy_seconds": float("inf")}]
)
def test_bounds_that_make_no_sense_are_refused(bounds: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(bounds))):
        SqliteStore("friday.db", **bounds)


def _count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return count


async def _steps_of_committing(store: SqliteStore, number: int) -> int:
    steps = itertools.count()
    thread = store.file._write_thread
    await thread.run(lambda db: db.set_progress_handler(lambda: next(steps) < 0, 1))
    await store.commit(KEY, TurnCommit(record(number, "x" * 100), b"%d" % number))
    await thread.run(lambda db: db.set_progress_handler(None, 0))
    return next(steps)
