"""The store in memory: the kit, and its bounds."""

import gc
import itertools
import tracemalloc

from greenroom.actors.messages import SessionKey
from greenroom.services.sessions.memory_store import InMemoryStore
from greenroom.services.store import SessionStore, TurnCommit
from kits.in_turn import Clock
from kits.store_kit import FORK, KEY, StoreKit, record


class TestInMemoryStore(StoreKit):
    def store(self, turns_kept: int, states_kept: int) -> SessionStore:
        return InMemoryStore(turns_kept=turns_kept, states_kept=states_kept)


async def test_idle_sessions_are_forgotten_and_used_ones_are_not() -> None:
    clock = Clock()
    store = InMemoryStore(idle_seconds=100.0, monotonic=clock)
    await store.start()
    idle = SessionKey("u", "idle")
    await store.commit(idle, TurnCommit(record(1), b"x"))
    await store.commit(KEY, TurnCommit(record(1), b"x"))
    for _ in range(3):
        clock.now += 60.0
        assert await store.load(KEY) is not None
    assert await store.load(idle) is None
    assert "1 sessions" in repr(store)


async def test_over_a_session_s_bytes_the_oldest_turns_go_but_never_the_newest() -> None:
    store = InMemoryStore(session_bytes=1_200)
    await store.start()
    for number in range(4):
        await store.commit(KEY, TurnCommit(record(number, "x" * 200), b"state"))
    loaded = await store.load(KEY)
    assert loaded is not None
    assert [turn.at for turn in loaded.turns] == [2.0, 3.0]
    await store.commit(KEY, TurnCommit(record(4, "x" * 2_000)))
    loaded = await store.load(KEY)
    assert loaded is not None
    assert [turn.at for turn in loaded.turns] == [4.0]
    assert loaded.state == b"state"
    assert loaded.revision == 5


async def test_a_state_counts_once() -> None:
    store = InMemoryStore(turns_kept=1)
    await store.start()
    for size in (1_000, 500, 2_000, 100):
        await store.commit(KEY, TurnCommit(record(1), b"x" * size))
    with_state = repr(store)
    await store.forget(KEY)
    assert "0 sessions, 0 bytes" in repr(store)
    await store.commit(KEY, TurnCommit(record(1), b"x" * 100))
    assert repr(store) == with_state


async def test_earlier_states_go_before_turns_and_the_newest_state_never() -> None:
    store = InMemoryStore(session_bytes=3_000)
    await store.start()
    for number in range(5):
        await store.commit(KEY, TurnCommit(record(number), bytes([number]) * 1_000))
    loaded = await store.load(KEY)
    assert loaded is not None
    assert len(loaded.turns) == 5
    assert loaded.state == b"\4" * 1_000
    assert await store.fork(KEY, "turn-3", FORK)
    assert not await store.fork(KEY, "turn-1", FORK)


async def test_states_that_grow_take_little_more_than_the_newest() -> None:
    store = InMemoryStore(turns_kept=50)
    await store.start()
    said = [f'{{"role":"user","text":"{number} {"x" * 1_000}"}}' for number in range(50)]
    for number in range(50):
        state = f'{{"id":"s","context":[{",".join(said[: number + 1])}],"reply":"{number}","tasks":[]}}'
        await store.commit(KEY, TurnCommit(record(number), state.encode()))
    size = int(repr(store).split()[3])
    assert size < 2 * 50 * 1_000
    assert await store.fork(KEY, "turn-10", FORK)
    forked = await store.load(FORK)
    assert forked is not None
    assert forked.state is not None
    assert b'"10 x' in forked.state
    assert b'"11 x' not in forked.state


async def test_a_state_that_stays_as_it_is_is_kept_once() -> None:
    store = InMemoryStore(turns_kept=1_000, states_kept=1_000)
    await store.start()
    turns = [int(repr(store).split()[3])]
    await store.commit(KEY, TurnCommit(record(0), b"x" * 1_000))
    for state in (None, b"x" * 1_000, None):
        turns.append(int(repr(store).split()[3]))
        await store.commit(KEY, TurnCommit(record(1), state))
    first, *others = [after - before for before, after in itertools.pairwise(turns)]
    assert max(others) <= first - 1_000 + 1
    assert await store.fork(KEY, "turn-0", FORK)


async def test_what_a_fork_takes_is_counted_and_given_back() -> None:
    store = InMemoryStore()
    await store.start()
    for number in range(4):
        await store.commit(KEY, TurnCommit(record(number), b"%d" % number * 1_000))
    alone = repr(store)
    assert await store.fork(KEY, "turn-2", FORK)
    assert await store.fork(KEY, "turn-2", FORK)
    await store.commit(FORK, TurnCommit(record(9), b"x" * 1_000))
    await store.forget(FORK)
    assert repr(store) == alone
    await store.forget(KEY)
    assert "0 sessions, 0 bytes" in repr(store)


async def test_over_the_bounds_of_all_the_sessions_used_longest_ago_go() -> None:
    for store in (InMemoryStore(max_sessions=2), InMemoryStore(max_bytes=1_200)):
        await store.start()
        for name in ("a", "b", "a", "c"):
            await store.commit(SessionKey("u", name), TurnCommit(record(1, "x" * 100), None))
        left = [name for name in ("a", "b", "c") if await store.load(SessionKey("u", name)) is not None]
        assert left == ["a", "c"]


async def test_an_idle_session_of_two_short_messages_takes_600_bytes_and_no_time_of_the_collector() -> None:
    sessions = 10_000
    store = InMemoryStore()
    await store.start()
    gc.collect()
    objects = len(gc.get_objects())
    tracemalloc.start()
    try:
        for number in range(sessions):
            turn = record(number, "What is the capital of France?")
            await store.commit(SessionKey(f"user-{number}", f"session-{number}"), TurnCommit(turn))
        gc.collect()
        each = tracemalloc.get_traced_memory()[0] / sessions
    finally:
        tracemalloc.stop()
    assert each <= 600
    assert len(gc.get_objects()) - objects < 100


async def test_a_commit_costs_the_same_however_many_turns_there_are() -> None:
    store = InMemoryStore()
    await store.start()
    peaks = [await _peak_of_committing(store, number) for number in range(220)]
    pointers = 8 * 220
    assert peaks[-1] < peaks[1] + 2 * pointers


async def _peak_of_committing(store: SessionStore, number: int) -> int:
    """Bytes allocated at once by one commit."""
    turn = TurnCommit(record(number, "x" * 10_000), b"state")
    tracemalloc.start()
    try:
        await store.commit(KEY, turn)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
