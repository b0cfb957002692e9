"""What grows with use, and must not: the time of a turn, and the memory of the process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from statistics import median

import pytest

from kits.scripted_model_script import Say
from kits.stage import Stage, for_installed_line, show, stage_of

pytestmark = pytest.mark.slow

MEGABYTE = 1024 * 1024
TURNS = 200
WINDOW = 20


async def seconds_of(stage: Stage, text: str, session: str | None) -> float:
    started = time.perf_counter()
    assert (await (await stage.client.ask(text, session)).rest())[-1]["status"] == "completed"
    return time.perf_counter() - started


async def how_much_slower(stage: Stage, first: Sequence[int]) -> float:
    """How much slower the last turns of a long session are than those of the numbers `first`.

    Both are measured against turns of new sessions in between, so that it does not matter what else the machine does.
    """
    last = range(TURNS - WINDOW, TURNS)
    long: list[float] = []
    fresh: dict[int, float] = {}
    for number in range(TURNS):
        text = f"{number} " + "x" * 2048
        long.append(await seconds_of(stage, text, "long"))
        if number in first or number in last:
            fresh[number] = await seconds_of(stage, text, None)
    early, late = (
        median(long[number] for number in numbers) / median(fresh[number] for number in numbers)
        for numbers in (first, last)
    )
    show(
        f"a turn takes {median(long[number] for number in first) * 1000:.1f} ms, after {TURNS} turns "
        f"{median(long[number] for number in last) * 1000:.1f} ms; against new sessions {early:.2f} and {late:.2f}"
    )
    return late / early


async def test_a_long_session_is_as_fast_as_a_short_one() -> None:
    async with stage_of("growth.py") as stage:
        slower = await how_much_slower(stage, range(WINDOW))
        _, kept = await stage.client.json("GET", "/rounds", params={"session": "long", "to": str(TURNS)})
    assert kept == {"rounds": list(range(TURNS - 19, TURNS + 1)), "messages": 2 * TURNS}, "rounds are bounded"
    assert slower < 2.0


async def test_an_agents_long_session_is_as_fast_once_its_memory_is_full() -> None:
    """The prompt is bounded, as it grows by its nature: so nothing else may."""
    async with stage_of(for_installed_line("workshop_for_{}.py") + ":tutorial", MESSAGES_KEPT="20") as stage:
        stage.play(lambda request: Say("y" * 2048))
        slower = await how_much_slower(stage, range(WINDOW, 2 * WINDOW))
        kept = await stage.kept("long")
        assert kept["turns"] == TURNS
        assert len(kept["said"]) <= 20
    assert slower < 2.0


# -- memory ------------------------------------------------------------------------------------------------------------


async def resident_bytes(stage: Stage) -> int:
    """What the server's process takes of memory."""
    command = ("ps", "-o", "rss=", "-p", str(stage.process.process.pid))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    return int(printed) * 1024


async def batch(stage: Stage, requests: int) -> int:
    """Turns without a session id, 20 KB each, some at once; then wait until they are idle. The memory it takes then."""
    at_once = asyncio.Semaphore(10)

    async def one(number: int) -> None:
        async with at_once:
            await seconds_of(stage, f"{number} " + "x" * 20_000, None)

    await asyncio.gather(*map(one, range(requests)))
    async with asyncio.timeout(30):
        while await still_held(stage):
            pass
    await seconds_of(stage, "a use, at which services look for what is idle", None)
    return await resident_bytes(stage)


async def still_held(stage: Stage) -> bool:
    memory = await memory_of(stage)
    return memory["kept_turns"] > 0 or memory["active_sessions"] > 0


async def memory_of(stage: Stage) -> dict[str, int]:
    status, statistics = await stage.client.json("GET", "/statistics")
    assert status == 200
    return dict(statistics)


async def test_idle_sessions_leave_memory() -> None:
    async with stage_of("growth.py", IDLE="0.4") as stage:
        sizes = [await batch(stage, 400) for _ in range(4)]
        memory = await memory_of(stage)
    show(f"MB after each 400 turns: {[size // MEGABYTE for size in sizes]}")
    assert memory["accepted_turns"] == 4 * 401
    for held in ("states", "histories", "stored", "active_sessions", "kept_turns"):
        assert memory[held] <= 1, f"{memory}: the last one may still be there"
    # Kept, in states, histories, logs and the store, they would take 64 MB a batch, in each look from then on. What the
    # process has given back to the system differs from look to look.
    assert min(sizes[2:]) - max(sizes[:2]) < 20 * MEGABYTE


@pytest.mark.parametrize("level", ["tutorial", "actor"])
async def test_idle_agents_leave_memory(level: str) -> None:
    async with stage_of(for_installed_line("workshop_for_{}.py") + f":{level}", IDLE="0.4") as stage:
        stage.play(lambda request: Say("y" * 20_000, chunk_size=5_000))
        sizes = [await batch(stage, 50) for _ in range(3)]
        memory = await memory_of(stage)
    show(f"MB after each 50 turns at the level of the {level}: {[size // MEGABYTE for size in sizes]}")
    assert memory["active_sessions"] <= 1
    assert sizes[-1] - sizes[0] < 6 * MEGABYTE, "kept, they would take three times as much"
