"""The conformance kit of services that follow a fork: what every `Forkable` must hold.

Subclass the kit and say how the service is written to and read::

    class TestForksOfStates(ForkKit):
        actions = ("save", "overwrite")
        def service(self, turns_kept): return InMemoryStateService(turns_kept=turns_kept)
        async def write(self, service, key, action, text): ...
        async def read(self, service, key): ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from greenroom.actors.messages import SessionKey
from greenroom.services.service import Forkable
from kits.in_turn import end, in_turn

KEY = SessionKey("u", "s")
FORK = SessionKey("u", "fork")
MODEL_TURNS = 4
MOST_ACTIONS = 4


class Step(Struct, frozen=True):
    """A turn's writes, each an action by its number and a text; or, without a turn, writes outside of any."""

    writes: tuple[tuple[int, str], ...]
    in_turn: bool = True
    commits: bool = True


WRITES = st.lists(st.tuples(st.integers(0, MOST_ACTIONS - 1), st.sampled_from("abc")), max_size=3).map(tuple)
TURNS = st.builds(Step, WRITES, commits=st.sampled_from([True, True, True, False]))
OUTSIDE = st.builds(Step, WRITES, st.just(False))
STEPS = st.lists(TURNS | OUTSIDE, min_size=1, max_size=12)


class ForkKit(ABC):
    """The laws for any service that follows a fork."""

    actions: ClassVar[Sequence[str]]
    final: ClassVar[Sequence[str]] = ()
    """Those that, outside of turns, leave nothing to fork."""

    @abstractmethod
    def service(self, turns_kept: int) -> Any:
        """A new service that knows how sessions were after so many turns, and has nothing from before."""

    @abstractmethod
    async def write(self, service: Any, key: SessionKey, action: str, text: str) -> None:
        """Do one of the `actions`."""

    @abstractmethod
    async def read(self, service: Any, key: SessionKey) -> object:
        """All that the service has of a session, which this must not change."""

    @asynccontextmanager
    async def started(self, turns_kept: int = 50) -> AsyncIterator[Any]:
        service = self.service(turns_kept)
        await service.start()
        try:
            yield service
        finally:
            await service.stop()

    async def turn(self, service: Any, number: int, *texts: str, key: SessionKey = KEY) -> None:
        """A turn that does the first action with each text."""
        with in_turn(f"turn-{number}") as work:
            for text in texts:
                await self.write(service, key, self.actions[0], text)
            await end(work)

    async def test_it_is_forkable(self) -> None:
        async with self.started() as service:
            assert isinstance(service, Forkable)

    async def test_a_fork_has_what_was_there_after_the_turn_and_is_on_its_own(self) -> None:
        turns = ["turn-1", "turn-2", "turn-3"]
        async with self.started() as service, self.started() as wanted:
            for number in (1, 2, 3):
                await self.turn(service, number, f"of turn {number}")
            for number in (1, 2):
                await self.turn(wanted, number, f"of turn {number}")
            before = await self.read(service, KEY)
            assert await service.fork(KEY, "turn-2", turns, FORK)
            assert await self.read(service, FORK) == await self.read(wanted, KEY)
            await self.turn(service, 4, "of the fork", key=FORK)
            assert await self.read(service, KEY) == before
            await self.turn(wanted, 4, "of the fork")
            await self.turn(service, 5, "of the source")
            assert await self.read(service, FORK) == await self.read(wanted, KEY)

    async def test_a_turn_that_wrote_nothing_leaves_what_the_one_before_had(self) -> None:
        turns = ["turn-0", "turn-1", "turn-2", "turn-3", "turn-4"]
        async with self.started() as service:
            empty = await self.read(service, KEY)
            await self.turn(service, 1, "one")
            one = await self.read(service, KEY)
            await self.turn(service, 2)
            await self.turn(service, 3, "three")
            three = await self.read(service, KEY)
            for turn_id, wanted in zip(turns, (empty, one, one, three, three), strict=True):
                assert await service.fork(KEY, turn_id, turns, FORK)
                assert await self.read(service, FORK) == wanted

    async def test_a_session_it_has_nothing_of_is_forked_to_nothing(self) -> None:
        async with self.started() as service:
            empty = await self.read(service, KEY)
            await self.turn(service, 9, "of an older fork", key=FORK)
            assert await service.fork(KEY, "turn-1", ["turn-1"], FORK)
            assert await self.read(service, FORK) == empty

    async def test_how_a_session_was_before_turns_it_does_not_know_any_more_is_refused(self) -> None:
        turns = [f"turn-{number}" for number in range(6)]
        async with self.started(turns_kept=2) as service:
            for number in range(6):
                await self.turn(service, number, str(number))
            for turn_id in turns[:4]:
                assert not await service.fork(KEY, turn_id, turns, FORK)
            for turn_id in turns[4:]:
                assert await service.fork(KEY, turn_id, turns, FORK)

    async def test_turns_long_before_those_that_are_known_count(self) -> None:
        async with self.started() as service:
            await self.turn(service, 1, "one")
            one = await self.read(service, KEY)
            await self.turn(service, 100, "hundred")
            assert await service.fork(KEY, "turn-98", ["turn-98", "turn-99", "turn-100"], FORK)
            assert await self.read(service, FORK) == one

    async def test_a_forgotten_session_has_nothing(self) -> None:
        async with self.started() as service:
            empty = await self.read(service, KEY)
            await self.turn(service, 1, "one")
            await service.forget(KEY)
            await service.forget(KEY)
            assert await self.read(service, KEY) == empty

    @given(steps=STEPS, data=st.data())
    @settings(suppress_health_check=[HealthCheck.differing_executors])
    async def test_a_fork_is_a_replay_of_the_first_turns(self, steps: list[Step], data: Any) -> None:
        """Also a fork of a fork; writes outside of turns count from the next turn that writes on."""
        await self.check_replay(steps, data)

    async def check_replay(self, steps: list[Step], data: Any) -> None:
        async with self.started() as service:
            await self.play(service, KEY, steps)
            turns = [f"turn-{number}" for number, step in enumerate(steps) if step.in_turn]
            if not turns:
                return
            after = data.draw(st.integers(0, len(turns) - 1))
            assert await service.fork(KEY, turns[after], turns, FORK)
            await self.assert_like(service, FORK, steps, turns[after])
            earlier = data.draw(st.integers(0, after))
            second = SessionKey("u", "fork of a fork")
            assert await service.fork(FORK, turns[earlier], turns[: after + 1], second)
            await self.assert_like(service, second, steps, turns[earlier])
            await self.play(service, second, [Step(((0, "z"),))], "more")
            await self.assert_like(service, FORK, steps, turns[after])

    async def assert_like(self, service: Any, key: SessionKey, steps: list[Step], turn_id: str) -> None:
        """The session is as one in a new service is after the steps that count after that turn."""
        async with self.started() as fresh:
            await self.play(fresh, KEY, steps[: _counting(steps, int(turn_id.partition("-")[2]))])
            assert await self.read(service, key) == await self.read(fresh, KEY)

    async def play(self, service: Any, key: SessionKey, steps: list[Step], name: str = "turn") -> None:
        for number, step in enumerate(steps):
            if step.in_turn:
                with in_turn(f"{name}-{number}") as work:
                    await self._writes(service, key, step)
                    await end(work, "commit" if step.commits else "roll_back")
            else:
                await self._writes(service, key, step)

    async def _writes(self, service: Any, key: SessionKey, step: Step) -> None:
        for number, text in step.writes:
            action = self.actions[number % len(self.actions)]
            if step.in_turn or action not in self.final:
                await self.write(service, key, action, text)


def _counting(steps: list[Step], turn: int) -> int:
    """How many of the steps count after that turn: up to the last turn until then that wrote. If none has, those up to
    the first that writes: what is there before turns write belongs to none of them."""
    wrote = [number for number, step in enumerate(steps) if step.in_turn and step.commits and step.writes]
    before = [number for number in wrote if number <= turn]
    if before:
        return before[-1] + 1
    return wrote[0] if wrote else len(steps)
