"""The conformance kit of stores: what every `SessionStore` must hold.

Subclass the kit and give it the store, not yet started::

    class TestInMemoryStore(StoreKit):
        def store(self, turns_kept, states_kept):
            return InMemoryStore(turns_kept=turns_kept, states_kept=states_kept)
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greenroom.actors.errors import ConfigurationError, HandlerError
from greenroom.actors.events import Item, TurnStatus
from greenroom.actors.messages import (
    Audio,
    Data,
    File,
    Image,
    Message,
    Refusal,
    SessionKey,
    Text,
    ToolCall,
    ToolOutput,
    Usage,
    Video,
)
from greenroom.services.store import SessionRecord, SessionStore, TurnCommit, TurnRecord
from kits.in_turn import TRICKY_KEYS

KEY = SessionKey("u", "s")
FORK = SessionKey("u", "fork")
EVERY_PART = (
    Text("ä\x00\U0001f600"),
    Data({"a": [1, 2.5, None, True, {"b": "c"}]}),
    Image("https://example.org/cat.png"),
    Audio("UklGRg==", "wav"),
    Video("https://example.org/cat.mp4"),
    File(file_id="1", filename="cat.pdf"),
    Refusal("no"),
)
RICH = TurnRecord(
    "response_1",
    "cancelled",
    1_795_328_012.25,
    (
        Message(EVERY_PART, "user", "message", "msg_1", {"trace": ["x"]}, "Ada"),
        Message((), "system"),
        Message((Data({"call_id": "1"}),), "tool", "plugin_call_output"),
    ),
    (
        Item("1", "reasoning", "assistant", (Text("hm"),), Usage(1, 2, 3, 4), {"n": 1}),
        Item("2", "message", "assistant", EVERY_PART),
        Item("3", "tool_call", "assistant", (ToolCall("c", "search", '{"q": 1}', "web"),)),
        Item("4", "tool_output", "tool", (ToolOutput("c", "search", EVERY_PART),), complete=False),
    ),
)

BROKEN: list[tuple[TurnRecord, str]] = [
    (
        TurnRecord("1", "completed", 0.0, (Message(metadata={"x": [object()]}),)),
        "turn.input[0].metadata.x[0]",
    ),
    (
        TurnRecord("1", "completed", 0.0, (), (Item("1", "message", "assistant", (Data({"x": object()}),)),)),
        "turn.output[0].parts[0].data.x",
    ),
    (TurnRecord("1", "finished", 0.0), "turn.status"),  # type: ignore[arg-type]
    (TurnRecord("1", "completed", "noon"), "turn.at"),  # type: ignore[arg-type]
]

KEYS = st.sampled_from([SessionKey("a", "b_c"), SessionKey("a_b", "c"), SessionKey("a", "b")])
STATUSES = st.sampled_from(["completed", "failed", "cancelled"])
STATES = st.none() | st.binary(max_size=5)
TEXTS = st.text(max_size=5)
STEPS = st.lists(
    st.tuples(st.just("commit"), KEYS, STATUSES, STATES, TEXTS)
    | st.tuples(st.sampled_from(["load", "forget", "restart"]), KEYS, STATUSES, st.none(), st.just("")),
    min_size=5,
    max_size=40,
)
MODEL_TURNS = 3
MODEL_STATES = 2
FORKS = st.lists(
    st.tuples(st.just("commit"), st.integers(0, 2), STATUSES, STATES, st.just(0))
    | st.tuples(st.just("fork"), st.integers(0, 2), STATUSES, st.none(), st.integers(0, 12)),
    min_size=5,
    max_size=40,
)


def record(number: int, text: str = "Hello", status: TurnStatus = "completed") -> TurnRecord:
    """A turn of two short messages."""
    said = Item(f"msg_{number}", "message", "assistant", (Text(text),))
    return TurnRecord(f"turn-{number}", status, float(number), (Message((Text(text),)),), (said,))


class Kept(NamedTuple):
    """A session as the model has it: its last turns, and the states after the last of those."""

    commits: int = 0
    turns: tuple[TurnRecord, ...] = ()
    states: tuple[bytes | None, ...] = ()

    def after(self, commit: TurnCommit) -> Kept:
        before = self.states[-1] if self.states else None
        state = before if commit.state is None else commit.state
        turns = (*self.turns, commit.record)[-MODEL_TURNS:]
        return Kept(self.commits + 1, turns, (*self.states, state)[-MODEL_STATES:])

    def fork(self, turn_id: str) -> Kept | None:
        ids = [turn.turn_id for turn in self.turns]
        later = len(ids) - 1 - ids.index(turn_id) if turn_id in ids else MODEL_STATES
        if later >= len(self.states):
            return None
        kept = len(self.states) - later
        return Kept(self.commits - later, self.turns[: len(ids) - later], self.states[:kept])


class StoreKit(ABC):
    """The laws for any store."""

    @abstractmethod
    def store(self, turns_kept: int, states_kept: int) -> SessionStore:
        """A new store that keeps so many turns of a session and the states after so many, and nothing from before."""

    @asynccontextmanager
    async def started(self, turns_kept: int = 100, states_kept: int = 100) -> AsyncIterator[SessionStore]:
        store = self.store(turns_kept, states_kept)
        await store.start()
        try:
            yield store
        finally:
            await store.stop()

    async def test_it_is_used_between_start_and_stop(self) -> None:
        store = self.store(10, 10)
        with pytest.raises(ConfigurationError, match="not started"):
            await store.load(KEY)
        await store.start()
        await store.stop()
        for call in (store.commit(KEY, TurnCommit(record(1))), store.forget(KEY)):
            with pytest.raises(ConfigurationError, match="not started"):
                await call

    async def test_what_was_never_committed_is_none(self) -> None:
        async with self.started() as store:
            assert await store.load(KEY) is None

    async def test_a_turn_comes_back_as_it_was(self) -> None:
        async with self.started() as store:
            await store.commit(KEY, TurnCommit(RICH, b"\x00state"))
            assert await store.load(KEY) == SessionRecord(KEY, 1, b"\x00state", (RICH,))

    async def test_what_is_loaded_has_the_public_types(self) -> None:
        async with self.started() as store:
            await store.commit(KEY, TurnCommit(RICH))
            loaded = await store.load(KEY)
            assert loaded is not None
            assert type(loaded.key) is SessionKey
            assert {type(message) for message in loaded.turns[0].input} == {Message}
            assert {type(item) for item in loaded.turns[0].output} == {Item}

    async def test_no_state_leaves_the_one_before_it_and_an_empty_one_does_not(self) -> None:
        async with self.started() as store:
            await store.commit(KEY, TurnCommit(record(1)))
            assert await _state(store) is None
            await store.commit(KEY, TurnCommit(record(2), b"good"))
            await store.commit(KEY, TurnCommit(record(3, status="failed")))
            assert await _state(store) == b"good"
            await store.commit(KEY, TurnCommit(record(4), b""))
            assert await _state(store) == b""

    async def test_the_newest_turns_are_kept_and_all_commits_counted(self) -> None:
        async with self.started(turns_kept=3) as store:
            for number in range(5):
                await store.commit(KEY, TurnCommit(record(number), b"%d" % number))
            turns = tuple(record(number) for number in (2, 3, 4))
            assert await store.load(KEY) == SessionRecord(KEY, 5, b"4", turns)

    async def test_a_forgotten_session_starts_anew(self) -> None:
        async with self.started() as store:
            await store.commit(KEY, TurnCommit(record(1), b"old"))
            await store.forget(KEY)
            await store.forget(KEY)
            assert await store.load(KEY) is None
            await store.commit(KEY, TurnCommit(record(2)))
            assert await store.load(KEY) == SessionRecord(KEY, 1, None, (record(2),))

    async def test_keys_do_not_meet(self) -> None:
        async with self.started() as store:
            for number, key in enumerate(TRICKY_KEYS):
                await store.commit(SessionKey(*key), TurnCommit(record(number), b"%d" % number))
            for number, key in enumerate(TRICKY_KEYS):
                wanted = SessionRecord(SessionKey(*key), 1, b"%d" % number, (record(number),))
                assert await store.load(SessionKey(*key)) == wanted

    @pytest.mark.parametrize(("broken", "path"), BROKEN)
    async def test_a_commit_that_fails_changes_nothing(self, broken: TurnRecord, path: str) -> None:
        async with self.started() as store:
            await store.commit(KEY, TurnCommit(record(1), b"good"))
            before = await store.load(KEY)
            with pytest.raises(HandlerError) as refused:
                await store.commit(KEY, TurnCommit(broken, b"bad"))
            assert refused.value.field == path
            assert await store.load(KEY) == before
            with pytest.raises(HandlerError):
                await store.commit(SessionKey("u", "new"), TurnCommit(broken, b"bad"))
            assert await store.load(SessionKey("u", "new")) is None

    async def test_nothing_is_shared_with_the_caller(self) -> None:
        async with self.started() as store:
            data: dict[str, Any] = {"list": [1]}
            message = Message((Data(data),))
            await store.commit(KEY, TurnCommit(TurnRecord("1", "completed", 0.0, (message,))))
            data["list"].append(2)
            loaded = await store.load(KEY)
            assert loaded is not None
            assert loaded.turns[0].input == (Message((Data({"list": [1]}),)),)

    async def test_a_fork_has_the_turns_and_the_state_up_to_a_turn(self) -> None:
        async with self.started() as store:
            for number in range(4):
                await store.commit(KEY, TurnCommit(record(number), b"%d" % number))
            before = await store.load(KEY)
            assert await store.fork(KEY, "turn-1", FORK)
            turns = (record(0), record(1))
            assert await store.load(FORK) == SessionRecord(FORK, 2, b"1", turns)
            assert await store.load(KEY) == before

    async def test_a_fork_from_the_newest_turn_is_a_copy(self) -> None:
        async with self.started() as store:
            await store.commit(KEY, TurnCommit(RICH, b"state"))
            assert await store.fork(KEY, RICH.turn_id, FORK)
            assert await store.load(FORK) == SessionRecord(FORK, 1, b"state", (RICH,))

    async def test_a_fork_after_a_turn_that_failed_has_the_last_good_state(self) -> None:
        async with self.started() as store:
            await store.commit(KEY, TurnCommit(record(0, status="failed")))
            await store.commit(KEY, TurnCommit(record(1), b"good"))
            await store.commit(KEY, TurnCommit(record(2, status="failed")))
            await store.commit(KEY, TurnCommit(record(3), b"newest"))
            for number, state in enumerate((None, b"good", b"good", b"newest")):
                assert await store.fork(KEY, f"turn-{number}", FORK)
                assert await _state(store, FORK) == state

    async def test_two_branches_do_not_see_each_other(self) -> None:
        async with self.started() as store:
            for number in range(3):
                await store.commit(KEY, TurnCommit(record(number), b"%d" % number))
            assert await store.fork(KEY, "turn-0", FORK)
            await store.commit(FORK, TurnCommit(record(10), b"fork"))
            await store.commit(KEY, TurnCommit(record(3), b"3"))
            assert await store.load(FORK) == SessionRecord(FORK, 2, b"fork", (record(0), record(10)))
            await store.forget(KEY)
            assert await _state(store, FORK) == b"fork"
            other = SessionKey("u", "other")
            assert await store.fork(FORK, "turn-0", other)
            assert await _state(store, other) == b"0"
            assert not await store.fork(FORK, "turn-2", other)

    async def test_what_is_not_kept_cannot_be_forked(self) -> None:
        async with self.started(turns_kept=4, states_kept=2) as store:
            assert not await store.fork(KEY, "turn-0", FORK)
            for number in range(6):
                await store.commit(KEY, TurnCommit(record(number), b"%d" % number))
            for unknown in ("turn-1", "turn-3", "turn-9", ""):
                assert not await store.fork(KEY, unknown, FORK)
            assert await store.load(FORK) is None
            assert await store.fork(KEY, "turn-4", FORK)
            assert await _state(store, FORK) == b"4"
            assert await store.fork(KEY, "turn-5", FORK)

    @given(
        states=st.lists(st.none() | st.lists(st.sampled_from([b"ab", b"a", b"bc"])).map(b"".join), min_size=1)
    )
    @settings(suppress_health_check=[HealthCheck.differing_executors])
    async def test_every_state_that_is_kept_comes_back_as_it_was(self, states: list[bytes | None]) -> None:
        async with self.started() as store:
            wanted: list[bytes | None] = []
            for number, state in enumerate(states):
                await store.commit(KEY, TurnCommit(record(number), state))
                wanted.append(state if state is not None else wanted[-1] if wanted else None)
            for number, state in enumerate(wanted):
                assert await store.fork(KEY, f"turn-{number}", FORK)
                assert await _state(store, FORK) == state

    @given(steps=FORKS)
    @settings(suppress_health_check=[HealthCheck.differing_executors])
    async def test_a_fork_is_a_replay_of_the_first_turns(
        self, steps: list[tuple[str, int, TurnStatus, bytes | None, int]]
    ) -> None:
        """Forks of forks, into new sessions and over those there are."""
        model: dict[SessionKey, Kept] = {}
        async with self.started(MODEL_TURNS, MODEL_STATES) as store:
            for number, (action, place, status, state, turn) in enumerate(steps):
                key = SessionKey("u", str(place))
                if action == "commit":
                    commit = TurnCommit(record(number, status=status), state)
                    await store.commit(key, commit)
                    model[key] = model.get(key, Kept()).after(commit)
                else:
                    target = SessionKey("u", str((place + 1) % 3))
                    forked = model.get(key, Kept()).fork(f"turn-{turn}")
                    assert await store.fork(key, f"turn-{turn}", target) is (forked is not None)
                    if forked is not None:
                        model[target] = forked
                for one, kept in model.items():
                    wanted = SessionRecord(one, kept.commits, kept.states[-1], kept.turns)
                    assert await store.load(one) == wanted

    async def test_many_tasks_lose_nothing(self) -> None:
        async def work(store: SessionStore, number: int) -> None:
            key = SessionKey("u", f"s{number % 5}")
            await store.commit(key, TurnCommit(record(number), b"%d" % number))
            await asyncio.sleep(0)
            assert await store.load(key) is not None

        async with self.started() as store:
            await asyncio.gather(*(work(store, number) for number in range(100)))
            for session in range(5):
                loaded = await store.load(SessionKey("u", f"s{session}"))
                assert loaded is not None
                assert loaded.revision == 20
                assert {turn.turn_id for turn in loaded.turns} == {
                    f"turn-{n}" for n in range(session, 100, 5)
                }
                assert loaded.state == loaded.turns[-1].turn_id.removeprefix("turn-").encode()

    @given(steps=STEPS)
    @settings(suppress_health_check=[HealthCheck.differing_executors])
    async def test_it_does_what_a_dict_does(
        self, steps: list[tuple[str, SessionKey, TurnStatus, bytes | None, str]]
    ) -> None:
        model: dict[SessionKey, SessionRecord] = {}
        async with self.started(MODEL_TURNS) as store:
            for number, (action, key, status, state, text) in enumerate(steps):
                if action == "commit":
                    turn = record(number, text, status)
                    await store.commit(key, TurnCommit(turn, state))
                    before = model.get(key) or SessionRecord(key, 0, None, ())
                    kept = before.state if state is None else state
                    turns = (*before.turns, turn)[-MODEL_TURNS:]
                    model[key] = SessionRecord(key, before.revision + 1, kept, turns)
                elif action == "forget":
                    await store.forget(key)
                    model.pop(key, None)
                elif action == "restart":
                    await store.stop()
                    await store.start()
                assert await store.load(key) == model.get(key)


async def _state(store: SessionStore, key: SessionKey = KEY) -> bytes | None:
    loaded = await store.load(key)
    assert loaded is not None
    return loaded.state
