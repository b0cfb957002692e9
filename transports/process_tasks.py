"""Turns in the background by `/process/task`, as AgentScope Runtime 1.1 has it: ask, get an id, look how it stands.

A task is a turn like any other of its session: what follows, cancels or shows turns does so with tasks, by the same id.
What is left of it when it has ended is kept as long as responses are.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web
from msgspec import Raw, structs

from greenroom.actors.events import TurnCancelled, TurnCompleted, TurnFailed
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import Disconnect, Turn
from greenroom.transports.idempotency import asked_key
from greenroom.transports.kept_turns import find_kept
from greenroom.transports.process_decode import decode_request
from greenroom.transports.process_object import response_object
from greenroom.transports.request_body import BodyReader
from greenroom.transports.transport import Host
from greenroom.transports.turn_request import TurnRequest

QUEUE = "stream_query"
"""What answers there call the queue. There is none: each session works off its own turns."""


class TaskRoutes:
    """`/process/task` and what belongs to it."""

    def __init__(self, host: Host, *, read_seconds: float) -> None:
        self._host = host
        self._body = BodyReader(None, read_seconds, "body_bytes")

    def routes(self, path: str = "/process") -> list[web.RouteDef]:
        """The routes below a path."""
        return [
            web.post(f"{path}/task", self.submit),
            web.get(f"{path}/task/{{id}}", self.show, allow_head=False),
        ]

    async def submit(self, request: TurnRequest) -> web.StreamResponse:
        """Begin a turn that nobody waits for; answers at once, also to a repeat of the request."""
        host = self._host
        principal = await host.authenticate(request.headers)
        body = await self._body.read(request)
        turn = decode_request(
            body, sources=host.sources, principal=principal, repeatable=True, key=asked_key(request.headers)
        )
        log = await host.submit(in_background(turn))
        return _json(
            {
                "task_id": log.id,
                "status": "submitted",
                "queue": QUEUE,
                "message": f"the turn is accepted; GET {request.path}/{log.id} says how it stands",
                "session_id": log.turn.key.session_id,
                "user_id": log.turn.key.user_id,
            }
        )

    async def show(self, request: web.Request) -> web.StreamResponse:
        """How a task stands, and when it has ended its result."""
        principal = await self._host.authenticate(request.headers)
        log = await find_kept(self._host, request.match_info["id"], principal)
        return _json({"task_id": log.id, **standing(log), "session_id": log.turn.key.session_id})


def in_background(turn: Turn) -> Turn:
    """The turn as one that nobody waits for: it runs whoever goes, and its result is kept."""
    return structs.replace(turn, background=True, stored=True, disconnect=Disconnect())


def standing(log: TurnLog) -> dict[str, Any]:
    """`status`: `pending`, `running`, `finished`, or `error`, which a cancelled turn has too, since clients of 1.1 wait
    for one of the last two. `result`: the response, or what went wrong in words; `response`: the response in any case.
    """
    match log.terminal:
        case None:
            status = "pending" if len(log) < 2 else "running"  # the first event says that it is accepted
            return {"status": status, "started_at": log.turn.created_at, "result": None}
        case TurnCompleted():
            whole = Raw(response_object(log))
            return {"status": "finished", "result": whole, "response": whole}
        case TurnFailed(error=error):
            result = error.message
        case TurnCancelled(reason=reason):
            result = f"the turn was cancelled: {reason}"
    return {"status": "error", "result": result, "response": Raw(response_object(log))}


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
