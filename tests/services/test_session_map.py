"""Sessions in memory, within bounds: against a model that looks at everything each time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from greenroom.actors.messages import SessionKey
from greenroom.services.session_map import SWEPT_AT_ONCE, Bounds, Resident, SessionMap, flatten, unflatten
from kits.in_turn import TRICKY_KEYS, Clock

IDS = st.text(alphabet=st.characters(), max_size=5)
KEYS = st.sampled_from([SessionKey("u", str(number)) for number in range(6)])
BOUNDS = Bounds(max_sessions=4, max_bytes=100, idle_seconds=64.0)


class SessionMapMachine(RuleBasedStateMachine):
    """The model: key to (size, time of last use), in the order of use. The clock moves in whole grains."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.held: set[SessionKey] = set()
        self.map: SessionMap[Resident] = SessionMap(BOUNDS, self.clock, self.held.remove)
        self.model: dict[SessionKey, tuple[int, float]] = {}

    def expire(self) -> None:
        last = self.clock.now - BOUNDS.idle_seconds - 1.0
        self.model = {key: (size, used) for key, (size, used) in self.model.items() if used > last}

    @rule(key=KEYS, size=st.integers(0, 60))
    def keep(self, key: SessionKey, size: int) -> None:
        self.map.keep(key, self.map.find(key) or Resident(), size)
        self.held.add(key)
        self.expire()
        self.model.pop(key, None)
        self.model[key] = (size, self.clock.now)
        while (
            len(self.model) > BOUNDS.max_sessions
            or sum(size for size, _ in self.model.values()) > BOUNDS.max_bytes
        ):
            del self.model[next(iter(self.model))]

    @rule(key=KEYS)
    def find(self, key: SessionKey) -> None:
        found = self.map.find(key)
        self.expire()
        assert (found is not None) == (key in self.model)
        if found is not None:
            size, _ = self.model.pop(key)
            assert found.size == size
            self.model[key] = (size, self.clock.now)

    @rule(key=KEYS)
    def drop(self, key: SessionKey) -> None:
        self.map.drop(key)
        self.model.pop(key, None)

    @rule(seconds=st.integers(1, 70))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds
        self.map.find(SessionKey("nobody", ""))
        self.expire()

    @invariant()
    def agree(self) -> None:
        assert len(self.map) == len(self.model)
        assert self.held == self.model.keys()
        assert self.map.size == sum(size for size, _ in self.model.values())


TestSessionMap = SessionMapMachine.TestCase


@given(user=IDS, session=IDS)
def test_a_key_is_flattened_and_back(user: str, session: str) -> None:
    assert unflatten(flatten(SessionKey(user, session))) == (user, session)


def test_keys_do_not_meet() -> None:
    assert len({flatten(SessionKey(*key)) for key in TRICKY_KEYS}) == len(TRICKY_KEYS)


@pytest.mark.parametrize("crowd", [1, SWEPT_AT_ONCE, 3 * SWEPT_AT_ONCE + 1])
def test_a_crowd_that_went_idle_leaves_in_pieces_and_is_not_found_before(crowd: int) -> None:
    clock = Clock()
    sessions: SessionMap[Resident] = SessionMap(Bounds(idle_seconds=64.0), clock)
    keys = [SessionKey("u", str(number)) for number in range(crowd)]
    for key in keys:
        sessions.keep(key, Resident(), 1)
    clock.now += 65.0
    assert sessions.find(keys[-1]) is None
    uses = 1
    while len(sessions):
        before = len(sessions)
        sessions.find(SessionKey("nobody", ""))
        uses += 1
        assert 0 < before - len(sessions) <= SWEPT_AT_ONCE
    assert uses <= crowd // SWEPT_AT_ONCE + 1
    assert sessions.size == 0


def test_without_an_idle_time_nobody_goes() -> None:
    clock = Clock()
    sessions: SessionMap[Resident] = SessionMap(Bounds(idle_seconds=float("inf")), clock)
    sessions.keep(SessionKey("u", "s"), Resident(), 1)
    clock.now += 1e9
    assert sessions.find(SessionKey("u", "s")) is not None
