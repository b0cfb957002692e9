"""The memory of an idle session: `python -m benchmarks.sessions COUNT` prints the bytes one takes.

So many sessions each have one turn, a question and an answer, in this process. They keep no agent warm, so what is left
of one is what the store has.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from benchmarks.own_process import memory
from benchmarks.plans import DELTA
from greenroom.actors.frameworks.plain import PlainAdapter
from greenroom.actors.handler import QueryHandler
from greenroom.actors.ids import Sources
from greenroom.actors.messages import AgentRequest, Message, SessionKey, Text, Turn
from greenroom.actors.system import ActorSystem
from greenroom.services.sessions.memory_store import InMemoryStore

WARM_UP = 2000
"""Turns before the first look: as many logs of ended turns as are kept, and more, so that they count for nobody."""
AT_ONCE = 500


async def answer() -> AsyncIterator[str]:
    yield DELTA


async def talk(system: ActorSystem, count: int) -> None:
    """So many new sessions, one turn each."""
    for start in range(0, count, AT_ONCE):
        logs = [await system.submit(_turn(system.sources)) for _ in range(start, min(count, start + AT_ONCE))]
        for log in logs:
            await log.ended()


def _turn(sources: Sources) -> Turn:
    session = sources.uuid()
    request = AgentRequest(input=(Message((Text("What do we know of it?"),)),))
    key = SessionKey(session, session)
    return Turn(id=f"response_{sources.uuid()}", key=key, request=request, created_at=sources.now())


async def bytes_each(count: int) -> float:
    handler = QueryHandler(answer, PlainAdapter(), None)
    system = ActorSystem(handler, InMemoryStore(max_sessions=count + WARM_UP))
    await system.start()
    await talk(system, WARM_UP)
    before = memory()
    await talk(system, count)
    grown = memory() - before
    now = system.statistics()
    assert now.idle_sessions + now.passivated_sessions == count + WARM_UP
    await system.stop()
    return grown / count


if __name__ == "__main__":
    print(asyncio.run(bytes_each(int(sys.argv[1]))))
