"""What it costs to keep sessions where they outlive the process: turns of the real actor system, in memory and in each
store that there is here.

A cost is the CPU time of this process, all its threads, and not that of a server. What is compared takes turns in one
run, and of the rounds the median counts.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from statistics import median

from benchmarks.rows import Row, at_least, at_most, plain, skipped, spread
from benchmarks.servers import ROOT
from benchmarks.store_places import Place, new_file, new_in_memory, places
from greenroom.actors.frameworks.plain import PlainAdapter
from greenroom.actors.handler import AgentHandler, Handler, QueryHandler
from greenroom.actors.limits import Limits
from greenroom.actors.messages import AgentRequest, Message, SessionKey, Text, Turn
from greenroom.actors.system import ActorSystem
from greenroom.services.durable import Acceptance
from greenroom.services.sessions.joining import Join
from greenroom.services.sqlite.store import SqliteStore
from greenroom.services.store import SessionStore

SESSIONS = 100
TEXT = "x" * 500
ALONE = 400
"""Turns of one session, one after the other."""
CROWD = 30
"""Turns of each of many sessions."""
SOME = 40
"""Turns that count as a session's 10th, or its 1000th: those around it."""
KEPT = 200
"""Turns of a session that is activated."""
WAITING = 10
"""Turns of each session that wait while the first does not end."""

_ids = count(1)


class Agent:
    """Says something and has a state of 2 KB that changes with each turn. `begun`: when its last turn did."""

    turns = 0
    begun = 0.0

    async def reply(self, messages: Sequence[Message]) -> str:
        Agent.begun = time.perf_counter()
        self.turns += 1
        return TEXT

    def state_dict(self) -> dict[str, object]:
        return {"turns": self.turns, "context": TEXT * 4}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.turns = state["turns"]


def store_rows(rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Files lie in the checkout: a folder for temporary files may be in memory."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-")))
        rows: list[Row] = []
        for place in places(folder, stack):
            if place.new is None:
                rows.append(skipped(_over_memory(place), f"≤ {place.goal:g} ms", place.missing))
            else:
                rows += _cost_rows(place, place.new, rounds, say)
        say("stores: the first event, acceptances")
        rows += _first_event_rows(folder, rounds)
        rows.append(_acceptance_row(folder, rounds))
        say("stores: a session's 1000th turn, and one that is activated")
        rows.append(_length_row(folder, rounds))
        rows.append(_activation_row(new_file(folder), rounds))
    return rows


# ------------------------------------------------------------------------------------------------------ what it costs


def _cost_rows(
    place: Place, new: Callable[[], SessionStore], rounds: int, say: Callable[[str], None]
) -> list[Row]:
    alone: list[float] = []
    crowd: list[float] = []
    speed: list[float] = []
    for number in range(rounds):
        say(f"stores {place.where}, round {number + 1} of {rounds}")
        for sessions, turns, costs in ((1, ALONE, alone), (SESSIONS, CROWD, crowd)):
            kept, fast = asyncio.run(_cost(new(), sessions, turns))
            in_memory, _ = asyncio.run(_cost(new_in_memory(), sessions, turns))
            costs.append(kept - in_memory)
        speed.append(fast)
    what = _over_memory(place)
    return [
        at_most(f"{what}, one session", place.goal, median(alone), spread(alone, " ms"), " ms"),
        at_most(f"{what}, {SESSIONS} sessions", place.goal, median(crowd), spread(crowd, " ms"), " ms"),
        _speed_row(place, speed),
    ]


def _speed_row(place: Place, speed: Sequence[float]) -> Row:
    what = f"turns/s {place.where}, {SESSIONS} sessions"
    if place.speed is None:
        return plain(what, f"{median(speed):,.0f}", spread(speed))
    return at_least(what, place.speed, median(speed), spread(speed))


def _over_memory(place: Place) -> str:
    return f"CPU of a turn {place.where}, over one in memory"


async def _cost(store: SessionStore, sessions: int, turns: int) -> tuple[float, float]:
    """CPU of a turn in milliseconds, and turns a second."""
    async with _running(store) as system:
        await _talk(system, "warm", 5)
        cpu, clock = time.process_time(), time.perf_counter()
        await asyncio.gather(*(_talk(system, str(number), turns) for number in range(sessions)))
        total = sessions * turns
        return (time.process_time() - cpu) / total * 1000, total / (time.perf_counter() - clock)


# ------------------------------------------------------------------------------------------------- what is waited for


class _Accepting(SqliteStore):
    """Notes when the last turn was written down, and how long that took, in seconds."""

    accepted = 0.0
    took = 0.0

    async def accept(self, turn: Turn, join: Join | None = None) -> Acceptance:
        asked = time.perf_counter()
        answer = await super().accept(turn, join)
        self.accepted = time.perf_counter()
        self.took = self.accepted - asked
        return answer


def _first_event_rows(folder: Path, rounds: int) -> list[Row]:
    in_memory: list[float] = []
    whole: list[float] = []
    after: list[float] = []
    writes: list[float] = []
    for _ in range(rounds):
        in_memory += [seconds for seconds, _, _ in asyncio.run(_first_events(new_in_memory()))]
        for seconds, since, took in asyncio.run(_first_events(_Accepting(new_file(folder)))):
            whole.append(seconds)
            after.append(since)
            writes.append(took)
    memory, write = median(in_memory), median(writes)
    return [
        at_most(
            "time to the handler's first event in a SQLite file, over in memory and one acceptance",
            1.1,
            median(whole) / (memory + write),
            f"from `submit` to the event in the turn's log: {_us(median(whole))} against {_us(memory)} and, for the "
            f"acceptance, {_us(write)}; from its end on {_us(median(after))}",
        ),
        plain(
            "acceptance of a turn in a SQLite file",
            f"{write * 1000:.2f} ms",
            f"until it is on the disk; {_us(min(writes))} at least",
        ),
    ]


async def _first_events(store: SessionStore) -> list[tuple[float, float, float]]:
    """Of each turn, the seconds until its first event, those of them since its acceptance, and what that took."""
    heard = 0.0

    async def answer() -> AsyncIterator[str]:
        nonlocal heard
        yield TEXT
        heard = time.perf_counter()  # the event is in the log
        yield TEXT

    found = []
    async with _running(store, QueryHandler(answer, PlainAdapter(), None)) as system:
        await _talk(system, "s", 20)
        for _ in range(ALONE):
            turn = _turn("s")
            asked = time.perf_counter()
            log = await system.submit(turn)
            await log.ended()
            accepted, took = (store.accepted, store.took) if isinstance(store, _Accepting) else (asked, 0.0)
            found.append((heard - asked, heard - accepted, took))
    return found


def _acceptance_row(folder: Path, rounds: int) -> Row:
    speed = [asyncio.run(_acceptances(SqliteStore(new_file(folder)))) for _ in range(rounds)]
    return at_least(
        f"turns accepted/s in a SQLite file, {SESSIONS} sessions, {WAITING} turns of each",
        1_000,
        median(speed),
        f"{spread(speed)}; none of them ends meanwhile",
    )


async def _acceptances(store: SessionStore) -> float:
    """Turns a second that are written down."""
    go_on = asyncio.Event()

    async def answer() -> AsyncIterator[str]:
        await go_on.wait()
        yield TEXT

    async def fill(system: ActorSystem, session: str) -> None:
        for _ in range(WAITING):
            await system.submit(_turn(session))

    async with _running(store, QueryHandler(answer, PlainAdapter(), None)) as system:
        start = time.perf_counter()
        await asyncio.gather(*(fill(system, str(number)) for number in range(SESSIONS)))
        seconds = time.perf_counter() - start
        go_on.set()
        await system.drain(60)
    return SESSIONS * WAITING / seconds


# ----------------------------------------------------------------------------------------------------- long sessions


def _length_row(folder: Path, rounds: int) -> Row:
    costs = [asyncio.run(_early_and_late(SqliteStore(new_file(folder)))) for _ in range(rounds)]
    early, late = median(early for early, _ in costs), median(late for _, late in costs)
    return at_most(
        "CPU of a session's 1000th turn in a SQLite file, over its 10th",
        1.1,
        late / early,
        f"{late:.2f} against {early:.2f} ms; {SOME} turns around each",
    )


async def _early_and_late(store: SessionStore) -> tuple[float, float]:
    """CPU of a session's 10th turn and of its 1000th, in milliseconds."""

    async def cost() -> float:
        cpu = time.process_time()
        await _talk(system, "s", SOME)
        return (time.process_time() - cpu) / SOME * 1000

    async with _running(store) as system:
        await _talk(system, "warm", 2 * SOME)
        early = await cost()
        await _talk(system, "s", 1_000 - 3 * SOME // 2)
        return early, await cost()


def _activation_row(path: Path, rounds: int) -> Row:
    asyncio.run(_fill(path))
    passivated, active = asyncio.run(_activations(path, 4 * rounds))
    elsewhere = [asyncio.run(_activated_anew(path)) for _ in range(2 * rounds)]
    return at_most(
        f"activating a passivated session of {KEPT} turns in a SQLite file",
        5,
        median(passivated),
        f"from its turn's acceptance to its agent: {spread(passivated, ' ms')}; in another process than the one that "
        f"had it {spread(elsewhere, ' ms')}; of a session that is active {spread(active, ' ms')}",
        " ms",
    )


async def _fill(path: Path) -> None:
    async with _running(SqliteStore(path)) as system:
        await _talk(system, "s", KEPT)


async def _activations(path: Path, times: int) -> tuple[list[float], list[float]]:
    """Milliseconds to the agent of a session that is not active, and of one that is."""
    passivated, active = [], []
    store = _Accepting(path)
    async with _running(store, limits=Limits(active_sessions=1)) as system:
        for _ in range(times):
            await _talk(system, "other", 1)
            passivated.append(await _to_the_agent(system, store))
            active.append(await _to_the_agent(system, store))
    return passivated, active


async def _activated_anew(path: Path) -> float:
    store = _Accepting(path)
    async with _running(store) as system:
        await _talk(system, "other", 5)
        return await _to_the_agent(system, store)


async def _to_the_agent(system: ActorSystem, store: _Accepting) -> float:
    """Milliseconds from the acceptance of a turn to its agent."""
    await _talk(system, "s", 1)
    return (Agent.begun - store.accepted) * 1000


# ------------------------------------------------------------------------------------------------------------ turns


@asynccontextmanager
async def _running(
    store: SessionStore, handler: Handler | None = None, limits: Limits | None = None
) -> AsyncIterator[ActorSystem]:
    system = ActorSystem(handler or AgentHandler(Agent, PlainAdapter(), None), store, limits=limits)
    await system.start()
    try:
        yield system
    finally:
        await system.stop()


async def _talk(system: ActorSystem, session: str, turns: int) -> None:
    """So many turns, one after the other."""
    for _ in range(turns):
        log = await system.submit(_turn(session))
        await log.ended()


def _turn(session: str) -> Turn:
    request = AgentRequest(input=(Message((Text("What do we know of it?"),)),))
    return Turn(
        id=f"response_{next(_ids)}", key=SessionKey("u", session), request=request, created_at=time.time()
    )


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} us"
