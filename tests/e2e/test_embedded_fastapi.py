"""Embedded under FastAPI: the same loop, its own server, streams behind its middleware."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from greenroom import AgentApp, TextDelta, TurnCompleted
from kits.system import said
from kits.transport_kit import Script

pytestmark = pytest.mark.slow


def api_around(app: AgentApp, turns: list[str]) -> FastAPI:
    """An API whose one route streams a turn's text."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with app:
            yield

    api = FastAPI(lifespan=lifespan)

    @api.middleware("http")
    async def middleware(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        return await call_next(request)

    @api.post("/ask")
    async def ask(text: str, session: str) -> StreamingResponse:
        stream = app.process(text, session_id=session)
        turns.append(stream.id)

        async def words() -> AsyncIterator[str]:
            async for event in stream:
                if isinstance(event, TextDelta):
                    yield event.text

        return StreamingResponse(words(), media_type="text/plain")

    return api


@asynccontextmanager
async def uvicorn_server(api: FastAPI) -> AsyncIterator[str]:
    """Serve in this loop."""
    server = uvicorn.Server(uvicorn.Config(api, port=0, log_level="error", lifespan="on"))
    started = asyncio.Event()
    startup = server.startup

    async def startup_and_tell(*arguments: Any, **options: Any) -> None:
        await startup(*arguments, **options)
        started.set()

    server.startup = startup_and_tell  # type: ignore[method-assign]
    serving = asyncio.create_task(server.serve())
    await started.wait()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


async def test_turns_stream_through_fastapi_in_order() -> None:
    script = Script()
    async with uvicorn_server(api_around(script.app, [])) as url, httpx.AsyncClient(base_url=url) as http:
        params = {"text": "count", "session": "s"}
        answers = await asyncio.gather(*(http.post("/ask", params=params) for _ in range(10)))
    assert sorted(int(answer.text) for answer in answers) == list(range(1, 11))


async def test_a_client_that_drops_behind_middleware_stops_nothing() -> None:
    script = Script()
    turns: list[str] = []
    async with uvicorn_server(api_around(script.app, turns)) as url, httpx.AsyncClient(base_url=url) as http:
        async with http.stream("POST", "/ask", params={"text": "wait", "session": "s"}) as answer:
            assert await anext(answer.aiter_text()) == "waiting"
        script.gate.set()
        events = [event async for event in script.app.follow(turns[0])]
        assert isinstance(events[-1], TurnCompleted)
        assert said(events[-1]) == "waiting no more"
        history = await http.post("/ask", params={"text": "count", "session": "s"})
        assert history.text == "1"
