"""What it costs to keep sessions in a SQLite file: turns of an application, and calls of the store."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.rows import Row, at_least, at_most, spread
from benchmarks.servers import ROOT
from greenroom import AgentApp
from greenroom.actors.events import Item, TurnAccepted, TurnCompleted, TurnStarted
from greenroom.actors.messages import AgentRequest, Message, SessionKey, Text, Turn
from greenroom.services.durable import Ending
from greenroom.services.memory_store import InMemoryStore
from greenroom.services.sqlite_store import SqliteStore
from greenroom.services.store import SessionStore, TurnRecord

SESSIONS = 100
TEXT = "x" * 500
STATE = b"s" * 2_000
KEY = SessionKey("u", "s")


class Agent:
    """Says something and has a state of 2 KB that changes with each turn."""

    turns = 0

    async def reply(self, messages: Sequence[Message]) -> str:
        self.turns += 1
        return TEXT

    def state_dict(self) -> dict[str, object]:
        return {"turns": self.turns, "context": TEXT * 4}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.turns = state["turns"]


def store_rows(rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Files lie in the checkout: a folder for temporary files may be in memory."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
        return [*_turns(Path(folder), rounds, say), *asyncio.run(_store(Path(folder) / "store.db"))]


def _turns(folder: Path, rounds: int, say: Callable[[str], None]) -> list[Row]:
    alone, crowd, speed = [], [], []
    for number in range(rounds):
        say(f"stores, round {number + 1} of {rounds}")
        in_file = asyncio.run(_serve(SqliteStore(folder / f"{number}-1.db"), 1, 500))
        alone.append(in_file[0] - asyncio.run(_serve(InMemoryStore(), 1, 500))[0])
        in_file = asyncio.run(_serve(SqliteStore(folder / f"{number}-100.db"), SESSIONS, 30))
        crowd.append(in_file[0] - asyncio.run(_serve(InMemoryStore(), SESSIONS, 30))[0])
        speed.append(in_file[1])
    what = "CPU of a turn in a SQLite file, over one in memory"
    return [
        at_most(f"{what}, one session", 1, median(alone), spread(alone, " ms"), " ms"),
        at_most(f"{what}, {SESSIONS} sessions", 1, median(crowd), spread(crowd, " ms"), " ms"),
        at_least(f"turns/s in a SQLite file, {SESSIONS} sessions", 1_000, median(speed), spread(speed)),
    ]


async def _serve(store: SessionStore, sessions: int, turns: int) -> tuple[float, float]:
    """CPU of a turn in milliseconds, and turns a second."""

    async def talk(session_id: str) -> None:
        for _ in range(turns):
            await app.process("What do we know of it?", session_id=session_id).result()

    app = AgentApp(state=store)
    app.agent(framework="text")(Agent)
    async with app:
        await app.process("Hello", session_id="warm").result()
        cpu, clock = time.process_time(), time.perf_counter()
        await asyncio.gather(*(talk(str(number)) for number in range(sessions)))
        count = sessions * turns
        return (time.process_time() - cpu) / count * 1000, count / (time.perf_counter() - clock)


async def _store(path: Path) -> list[Row]:
    """A turn is measured in CPU: how long the disk takes depends on who else uses it."""
    store = SqliteStore(path)
    await store.start()
    turns = [await _timed(partial(_turn, store, number), time.process_time) for number in range(1_020)]
    loads = [await _timed(partial(store.load, KEY), time.perf_counter) for _ in range(20)]
    await store.stop()
    early, late = median(turns[1:40]), median(turns[-40:])
    return [
        at_most(
            "CPU of a session's 1000th turn in the store, over its 10th",
            1.5,
            late / early,
            f"{early:.2f} and {late:.2f} ms",
        ),
        at_most("load of a session with 200 turns", 5, median(loads), spread(loads, " ms"), " ms"),
    ]


async def _timed(call: Callable[[], Awaitable[object]], clock: Callable[[], float]) -> float:
    start = clock()
    await call()
    return (clock() - start) * 1000


async def _turn(store: SqliteStore, number: int) -> None:
    """Its acceptance and its ending."""
    asked = (Message((Text(TEXT),)),)
    turn_id = f"turn-{number}"
    await store.accept(Turn(id=turn_id, key=KEY, request=AgentRequest(input=asked), created_at=float(number)))
    output = (Item(f"msg_{number}", "message", "assistant", (Text(TEXT),)),)
    record = TurnRecord(turn_id, "completed", float(number), asked, output)
    events = [TurnAccepted(turn_id, 0.0), TurnStarted(), TurnCompleted(1.0, output)]
    await store.finish(
        KEY, Ending(turn_id=turn_id, record=record, state=b"%d" % number + STATE, events=events)
    )
