"""The conformance kit of state services: what every `StateService` must hold.

Subclass the kit and give it the service, not yet started::

    class TestInMemoryStateService(StateKit):
        def service(self, rounds_kept): return InMemoryStateService(rounds_kept=rounds_kept)
"""

import asyncio
import datetime as dt
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greenroom.actors.errors import ConfigurationError, HandlerError, TurnOver
from greenroom.services.agent_state import StateService
from greenroom.services.work import Work, current_work
from kits.in_turn import TRICKY_KEYS, end, in_turn, outside

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
STATES = st.dictionaries(st.text(), JSON, max_size=4)
KEYS = st.sampled_from([("a", "b_c"), ("a_b", "c"), ("a", None)])
ROUNDS = st.none() | st.integers(0, 8)
Step: TypeAlias = tuple[str, tuple[str, str | None], int | None, dict[str, Any]]
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(st.just("save"), KEYS, ROUNDS, STATES)
    | st.tuples(st.just("export"), KEYS, ROUNDS, st.just({}))
    | st.tuples(st.sampled_from(["begin", "commit", "roll_back"]), KEYS, st.none(), st.just({})),
    min_size=5,
    max_size=40,
)
MODEL_ROUNDS = 3

NOT_JSON: list[tuple[object, str]] = [
    ({"memory": [{"at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}]}, "state.memory[0].at"),
    ({"a": {"b c": {1, 2}}}, "state.a['b c']"),
    ({"a": (1, object())}, "state.a[1]"),
    ({"a": b"bytes"}, "state.a"),
    ({"a": float("nan")}, "state.a"),
    ({"a": [float("inf")]}, "state.a[0]"),
    ({"a": {1: "x"}}, "state.a"),
    ({"a": "\ud800"}, "state.a"),
    (["no", "dict"], "state"),
]


class StateModel:
    """The service as a dict, and one turn as a copy of it."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str | None], dict[int, dict[str, Any]]] = {}
        self.turn: dict[tuple[str, str | None], dict[int, dict[str, Any]]] | None = None

    def rounds(self, key: tuple[str, str | None]) -> dict[int, dict[str, Any]]:
        view = self.kept if self.turn is None else self.turn
        return view.setdefault(key, {})

    def save(self, key: tuple[str, str | None], state: dict[str, Any], number: int | None) -> int | None:
        """The round; none when it is refused."""
        rounds = self.rounds(key)
        if number is None:
            number = max(rounds, default=0) + 1
        elif number not in rounds and len(rounds) == MODEL_ROUNDS and number < min(rounds):
            return None
        rounds[number] = state
        if len(rounds) > MODEL_ROUNDS:
            del rounds[min(rounds)]
        return number

    def begin(self) -> None:
        self.turn = {key: dict(rounds) for key, rounds in self.kept.items()}

    def end(self, commit: bool) -> None:
        if commit and self.turn is not None:
            self.kept = self.turn
        self.turn = None


class StateKit(ABC):
    """The laws for any state service."""

    @abstractmethod
    def service(self, rounds_kept: int) -> StateService:
        """A new service that keeps so many rounds of a session, and nothing from before."""

    @asynccontextmanager
    async def started(self, rounds_kept: int = 20) -> AsyncIterator[StateService]:
        service = self.service(rounds_kept)
        await service.start()
        try:
            yield service
        finally:
            await service.stop()

    async def test_lifecycle(self) -> None:
        service = self.service(20)
        assert not await service.health()
        with pytest.raises(ConfigurationError, match="not started"):
            await service.save_state("u", {})
        await service.start()
        await service.start()
        assert await service.health()
        assert await service.save_state("u", {"a": 1}) == 1
        await service.stop()
        await service.stop()
        assert not await service.health()
        with pytest.raises(ConfigurationError, match="not started"):
            await service.export_state("u")

    async def test_rounds_count_from_one_and_the_latest_is_exported(self) -> None:
        async with self.started() as service:
            assert await service.export_state("u", "s") is None
            assert [await service.save_state("u", {"n": n}, session_id="s") for n in range(3)] == [1, 2, 3]
            assert await service.export_state("u", "s") == {"n": 2}
            assert await service.export_state(user_id="u", session_id="s", round_id=1) == {"n": 0}
            assert await service.export_state("u", "s", 9) is None

    async def test_rounds_may_be_given_and_overwritten(self) -> None:
        async with self.started() as service:
            assert await service.save_state("u", {"n": 1}, "s", round_id=7) == 7
            assert await service.save_state("u", {"n": 2}, "s", round_id=3) == 3
            assert await service.export_state("u", "s") == {"n": 1}
            assert await service.save_state("u", {"n": 3}, "s") == 8
            assert await service.save_state("u", {"n": 4}, "s", round_id=7) == 7
            assert await service.export_state("u", "s", 7) == {"n": 4}

    async def test_a_user_may_have_a_state_without_a_session(self) -> None:
        async with self.started() as service:
            await service.save_state("u", {"who": "user"})
            await service.save_state("u", {"who": "session"}, "s")
            assert await service.export_state("u") == {"who": "user"}

    async def test_keys_do_not_meet(self) -> None:
        async with self.started() as service:
            for number, (user, session) in enumerate(TRICKY_KEYS):
                assert await service.save_state(user, {"n": number}, session) == 1
            for number, (user, session) in enumerate(TRICKY_KEYS):
                assert await service.export_state(user, session) == {"n": number}

    async def test_nothing_is_shared_with_the_caller(self) -> None:
        async with self.started() as service:
            state: dict[str, Any] = {"list": [1]}
            await service.save_state("u", state, "s")
            state["list"].append(2)
            exported = await service.export_state("u", "s")
            assert exported is not None
            assert exported == {"list": [1]}
            exported["list"].append(3)
            assert await service.export_state("u", "s") == {"list": [1]}

    async def test_tuples_come_back_as_lists(self) -> None:
        async with self.started() as service:
            await service.save_state("u", {"pair": (1, ("a", "b"))}, "s")
            assert await service.export_state("u", "s") == {"pair": [1, ["a", "b"]]}

    @pytest.mark.parametrize(("state", "path"), NOT_JSON)
    async def test_a_state_that_is_no_json_is_refused_by_its_path(self, state: Any, path: str) -> None:
        async with self.started() as service:
            await service.save_state("u", {"good": True}, "s")
            with pytest.raises(HandlerError) as refused:
                await service.save_state("u", state, "s")
            assert refused.value.field == path
            assert await service.export_state("u", "s") == {"good": True}

    async def test_a_state_that_contains_itself_is_refused(self) -> None:
        async with self.started() as service:
            state: dict[str, Any] = {"a": []}
            state["a"].append(state)
            with pytest.raises(HandlerError, match="contains itself"):
                await service.save_state("u", state, "s")

    async def test_the_newest_rounds_are_kept_and_older_ones_refused(self) -> None:
        async with self.started(rounds_kept=3) as service:
            for number in range(5):
                await service.save_state("u", {"n": number}, "s")
            assert await service.export_state("u", "s", 2) is None
            assert await service.export_state("u", "s", 3) == {"n": 2}
            with pytest.raises(HandlerError, match="older than the 3 rounds") as refused:
                await service.save_state("u", {}, "s", round_id=1)
            assert refused.value.field == "round_id"

    async def test_a_turn_reads_its_own_rounds_and_others_after_its_commit(self) -> None:
        async with self.started() as service:
            await service.save_state("u", {"n": 1}, "s")
            with in_turn() as work:
                assert await service.save_state("u", {"n": 2}, "s") == 2
                assert await service.save_state("u", {"n": 3}, "s") == 3
                assert await service.export_state("u", "s") == {"n": 3}
                assert await service.export_state("u", "s", 1) == {"n": 1}
                assert await outside(service.export_state("u", "s")) == {"n": 1}
                await end(work)
            assert await service.export_state("u", "s") == {"n": 3}

    async def test_a_turn_that_fails_leaves_the_state_before_it(self) -> None:
        async with self.started() as service:
            await service.save_state("u", {"n": 1}, "s")
            with in_turn() as work:
                await service.save_state("u", {"n": 2}, "s")
                await service.save_state("u", {"n": 0}, "s", round_id=1)
                work.roll_back()
            assert await service.export_state("u", "s") == {"n": 1}
            assert await service.export_state("u", "s", 2) is None

    @pytest.mark.parametrize("ending", ["commit", "roll_back"])
    async def test_late_code_of_a_turn_may_read_but_not_write(self, ending: str) -> None:
        async with self.started() as service:
            await service.save_state("u", {"n": 1}, "s")
            with in_turn() as work:
                await end(work, ending)
                with pytest.raises(TurnOver):
                    await service.save_state("u", {"n": 2}, "s")
                assert await service.export_state("u", "s") == {"n": 1}
            assert await service.export_state("u", "s") == {"n": 1}

    async def test_many_turns_at_once_keep_apart(self) -> None:
        async def turn(service: StateService, number: int) -> None:
            with in_turn(f"turn-{number}") as work:
                await service.save_state("u", {"n": number}, f"s{number}")
                await asyncio.sleep(0)
                assert await service.export_state("u", f"s{number}") == {"n": number}
                await asyncio.sleep(0)
                if number % 2:
                    work.roll_back()
                else:
                    await end(work)

        async with self.started() as service:
            await asyncio.gather(*(turn(service, number) for number in range(50)))
            for number in range(50):
                wanted = None if number % 2 else {"n": number}
                assert await service.export_state("u", f"s{number}") == wanted

    @given(steps=STEPS)
    @settings(suppress_health_check=[HealthCheck.differing_executors])
    async def test_it_does_what_a_dict_does(self, steps: list[Step]) -> None:
        await self.check_steps(steps)

    async def check_steps(self, steps: list[Step]) -> None:
        model = StateModel()
        current_work.set(None)
        async with self.started(MODEL_ROUNDS) as service:
            for action, (user, session), number, state in steps:
                if action == "save":
                    await _save(service, model, (user, session), state, number)
                elif action == "export":
                    rounds = model.rounds((user, session))
                    wanted = rounds.get(max(rounds, default=0) if number is None else number)
                    assert await service.export_state(user, session, number) == wanted
                else:
                    await _turn(action, model)
            await _turn("roll_back", model)


async def _save(
    service: StateService,
    model: StateModel,
    key: tuple[str, str | None],
    state: dict[str, Any],
    number: int | None,
) -> None:
    user, session = key
    saved = model.save(key, state, number)
    if saved is not None:
        assert await service.save_state(user, state, session, number) == saved
    else:
        with pytest.raises(HandlerError):
            await service.save_state(user, state, session, number)


async def _turn(action: str, model: StateModel) -> None:
    """Begin a turn, or end the one that runs, in the service's world and the model's."""
    work = current_work.get()
    if action == "begin" and work is None:
        model.begin()
        current_work.set(Work("turn"))
    elif action != "begin" and work is not None:
        await end(work, action)
        model.end(commit=action == "commit")
        current_work.set(None)
