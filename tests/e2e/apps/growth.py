"""Says what it is told, and keeps state and history as the tutorial does. What is idle for IDLE seconds may go.

`GET /statistics` tells what is in memory.
"""

import gc
import os
import re

import msgspec

from greenroom import (
    AgentApp,
    InMemorySessionHistoryService,
    InMemoryStateService,
    InMemoryStore,
    Limits,
    Message,
    Text,
)
from greenroom.services.session_history import Session

IDLE = float(os.environ.get("IDLE", "3600"))

store = InMemoryStore(idle_seconds=IDLE)
app = AgentApp("Growth", state=store, limits=Limits(idle_seconds=IDLE, kept_seconds=IDLE))


@app.init
async def start(self):
    self.state_service = InMemoryStateService(idle_seconds=IDLE)
    self.session_service = InMemorySessionHistoryService(idle_seconds=IDLE)
    await self.state_service.start()
    await self.session_service.start()


@app.shutdown
async def stop(self):
    await self.state_service.stop()
    await self.session_service.stop()


@app.query()
async def answer(self, msgs, request):
    ids = {"user_id": request.user_id, "session_id": request.session_id}
    state = await self.state_service.export_state(**ids) or {"turns": 0}
    session = Session(
        request.session_id, request.user_id
    )  # to add to it; reading it would take the longer the more there is
    text = msgs[-1].content[0].text
    yield text
    await self.session_service.append_message(session, [*msgs, Message((Text(text),), "assistant")])
    await self.state_service.save_state(**ids, state={"turns": state["turns"] + 1, "last": text})


def held(service):
    """How many sessions a service holds."""
    return int(re.search(r"(\d+) sessions", repr(service))[1])


@app.endpoint("/statistics", methods=["GET"])
async def statistics():
    gc.collect()  # what waits for the collector is not kept
    return {
        **msgspec.to_builtins(app.statistics()),
        "states": held(app.state_service),
        "histories": held(app.session_service),
        "stored": held(store),
    }


@app.endpoint("/rounds", methods=["GET"])
async def rounds(session: str, to: int):
    """Which rounds of a session's state are kept, and how many messages."""
    ids = {"user_id": session, "session_id": session}
    kept = [
        number for number in range(1, to + 1) if await app.state_service.export_state(**ids, round_id=number)
    ]
    history = await app.session_service.get_session(**ids)
    return {"rounds": kept, "messages": len(history.messages)}
