"""An application whose turns count, in services as the tutorial has them: in the SQLite file or on the Redis server
that `COUNTING_AT` names."""

import os
from typing import Any

from greenroom import (
    AgentApp,
    AgentRequest,
    Limits,
    Message,
    RedisSessionHistoryService,
    RedisStateService,
    SqliteSessionHistoryService,
    SqliteStateService,
)

app = AgentApp("Counting", "Says how many turns its session had", limits=Limits(recovery_seconds=0.3))


@app.init
async def init(self: Any) -> None:
    place = os.environ["COUNTING_AT"]
    if place.startswith("unix:"):
        self.state_service = RedisStateService(place, ttl_seconds=3600)
        self.session_service = RedisSessionHistoryService(place, ttl_seconds=3600)
    else:
        self.state_service = SqliteStateService(place)
        self.session_service = SqliteSessionHistoryService(place)
    await self.state_service.start()
    await self.session_service.start()


@app.shutdown
async def shutdown(self: Any) -> None:
    await self.state_service.stop()
    await self.session_service.stop()


@app.query("text")
async def count(self: Any, msgs: list[Message], request: AgentRequest) -> str:
    ids = {"user_id": request.user_id or "", "session_id": request.session_id or ""}
    state = await self.state_service.export_state(**ids) or {"turns": 0}
    history = await self.session_service.get_session(**ids) or await self.session_service.create_session(
        **ids
    )
    await self.session_service.append_message(history, msgs)
    await self.state_service.save_state(**ids, state={"turns": state["turns"] + 1})
    return f"{state['turns'] + 1} {len(history.messages)}"
