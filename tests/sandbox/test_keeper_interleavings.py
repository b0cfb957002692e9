"""Whatever happens in whatever order, law 8 holds, every call comes to an end, and nothing is left."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import anyio
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.errors import SandboxError, SandboxUnavailable
from greenroom.sandbox.keeper import Keeper
from greenroom.sandbox.leases import LeaseKey
from greenroom.sandbox.result import ToolResult
from kits.fake_backend import FakeBox
from kits.keeping import World
from kits.virtual_time import VirtualTimeLoop

KEYS: Final = (
    LeaseKey("u", "s", "browser"),
    LeaseKey("u", "t", "browser"),
    LeaseKey("u", "s", "base"),
)
IDLE_SECONDS: Final = 20.0

Step: TypeAlias = tuple[str, int, int, float]
"""What is done, by which keeper, to which key, and how long it takes."""

STEPS: Final = st.tuples(
    st.sampled_from(
        [
            "call",
            "call",
            "browse",
            "look",
            "hold",
            "person",
            "release",
            "put away",
            "cancel",
            "die",
            "wait",
            "engine",
            "hand over",
            "expect",
            "kill",
        ]
    ),
    st.integers(0, 1),
    st.integers(0, 2),
    st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, 30.0]),
)


@dataclass
class Story:
    """What is under way in a world with two keepers."""

    world: World
    keepers: Sequence[Keeper]
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    holds: Counter[tuple[int, LeaseKey]] = field(default_factory=Counter)

    def begin(self, work: Coroutine[Any, Any, object]) -> None:
        self.tasks.append(asyncio.create_task(self._outcome(work)))

    async def _outcome(self, work: Coroutine[Any, Any, object]) -> None:
        with contextlib.suppress(SandboxError):  # the only errors that callers meet
            await work

    def take(self, step: Step) -> None:
        """Begin what the step says."""
        what, number, key_number, seconds = step
        keeper, key = self.keepers[number], KEYS[key_number]
        told: dict[str, Callable[[], object]] = {
            "call": lambda: self.begin(keeper.call(key, "work", {"seconds": seconds})),
            "browse": lambda: self.begin(keeper.call(key, "browser_click", {"seconds": seconds})),
            "look": lambda: self.begin(look(keeper, key, seconds)),
            "hold": lambda: self.begin(self.hold(number, key, seconds)),
            "person": lambda: self.begin(person(keeper, key, seconds)),
            "release": lambda: self.begin(keeper.release(key)),
            "put away": lambda: self.begin(keeper.release(key, lost="put away")),
            "cancel": lambda: self.tasks and self.tasks[len(self.tasks) // (key_number + 1) - 1].cancel(),
            "die": lambda: self.begin(self.die(key_number)),
            "hand over": lambda: self.begin(keeper.hand_over(key)),
            "expect": lambda: keeper.expect(key),
            "kill": lambda: self.kill(number, key_number),
            "engine": lambda: self.trouble(key_number, seconds),
        }
        told.get(what, bool)()

    async def hold(self, number: int, key: LeaseKey, seconds: float) -> None:
        with self.keepers[number].hold(key):
            self.holds[number, key] += 1
            try:
                await anyio.sleep(seconds)
            finally:
                self.holds[number, key] -= 1

    def kill(self, number: int, last: int) -> None:
        """One process is taken for dead, and goes on nevertheless, as one that was stopped for a while. Only where
        leases are shared, and only one, so that somebody lives."""
        if self.keepers[number].sharing and last == 0 and "dead" not in self.world.owners.values():
            self.world.die(self.keepers[number])

    async def die(self, number: int) -> None:
        living = self.world.engine.living()
        if living:
            await living[number % len(living)].die()

    def trouble(self, what: int, seconds: float) -> None:
        """The engine is away, or refuses to make or to remove; for a while."""
        engine = self.world.engine
        if what == 0:
            engine.away = True
        elif what == 1:
            engine.refuses = SandboxUnavailable("no")
        else:
            engine.keeps = SandboxUnavailable("busy")
        asyncio.get_running_loop().call_later(seconds, self.calm)

    def calm(self) -> None:
        engine = self.world.engine
        engine.away, engine.refuses, engine.keeps = False, None, None

    def removing(self, lease: str) -> None:
        """No box is taken away for being idle during a turn."""
        for number, keeper in enumerate(self.keepers):
            box = keeper._boxes.get(lease)
            key = box.lease.key if box is not None and "not used" in box.why else None
            if key and self.holds[number, key]:
                self.world.wrong.append("reaped during a turn")


async def look(keeper: Keeper, key: LeaseKey, seconds: float) -> None:
    async with keeper.client(key, looking=True):
        await anyio.sleep(seconds)


async def person(keeper: Keeper, key: LeaseKey, seconds: float) -> None:
    await keeper.take_over(key)
    try:
        await anyio.sleep(seconds)
    finally:
        keeper.hand_back(key)


async def work(box: FakeBox, arguments: dict[str, Any]) -> ToolResult:
    await anyio.sleep(arguments["seconds"])
    return ToolResult.of_text("done")


async def told(steps: Sequence[tuple[Step, float]], warm: int, boxes: int, shared: bool) -> None:
    """Live through it."""
    world = World(create_seconds=0.7, remove_seconds=0.4)
    world.engine.tools.update(work=work, browser_click=work)
    keepers = [
        world.keeper(shared=shared, warm=warm, boxes=boxes, idle_seconds=IDLE_SECONDS, wait_seconds=5.0)
        for _ in range(2)
    ]
    story = Story(world, keepers)
    world.engine.removing = story.removing
    for keeper in keepers:
        await keeper.start()
    for step, pause in steps:
        story.take(step)
        await anyio.sleep(pause)
        world.check()
    story.calm()
    with anyio.fail_after(300):
        await asyncio.gather(*story.tasks, return_exceptions=True)
    problems = [task.exception() for task in story.tasks if not task.cancelled() and task.exception()]
    assert not problems, problems
    await anyio.sleep(3 * IDLE_SECONDS)  # what is unused is gone, but for the warm
    assert all(keeper.statistics().waiting == 0 for keeper in keepers)
    assert all(lease.key is None for lease in world.leases.now.values())
    assert all(not keeper._tenants.all() for keeper in keepers)
    with anyio.fail_after(60):
        for keeper in keepers:
            await keeper.stop()
    world.nothing_left()


@given(
    st.lists(st.tuples(STEPS, st.sampled_from([0.0, 0.0, 0.05, 0.5, 2.0])), max_size=25),
    st.integers(0, 1),
    st.integers(1, 3),
    st.booleans(),
)
def test_law_8_holds_in_every_order(
    steps: Sequence[tuple[Step, float]], warm: int, boxes: int, shared: bool
) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(told(steps, warm, boxes, shared))
