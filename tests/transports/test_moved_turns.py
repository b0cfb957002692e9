"""Turns that were accepted and go on in another process, as theirs stops: who asked for one is told so, and where it
is, and nothing that makes him begin it once more."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from greenroom.actors.errors import TurnMoved
from greenroom.transports.inprocess import TurnStream
from kits.app_pair import app_pair
from kits.http_client import body
from kits.responses_http import BASE_PATH
from kits.until import until_answered

V1 = BASE_PATH

REQUESTS = [
    pytest.param("/process", body("hi", "s", stream=False), "/process/response_", id="process"),
    pytest.param(
        f"{V1}/responses", {"input": "hi", "conversation": "s"}, f"{V1}/responses/resp_", id="responses"
    ),
    pytest.param(
        f"{V1}/responses",
        {"input": "hi", "conversation": "s", "store": False},
        "/process/resp_",
        id="not stored",
    ),
    pytest.param(
        f"{V1}/chat/completions",
        {"messages": [{"role": "user", "content": "hi"}], "session_id": "s"},
        "/process/chatcmpl-",
        id="chat",
    ),
]


@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "named"])
@pytest.mark.parametrize(("path", "asked", "where"), REQUESTS)
async def test_who_waits_for_a_turn_that_is_handed_over_is_told_where_it_is(
    path: str, asked: dict[str, Any], where: str, named: bool, tmp_path: Path
) -> None:
    headers = {"Idempotency-Key": "k"} if named else {}
    async with app_pair(tmp_path) as (here, there):
        running = await here.client.plain.ask("wait", "s")
        asking = asyncio.create_task(here.ask(path, json=asked, headers=headers))
        await here.has_open(2)
        await here.memory.app.stop()
        answer = await asking
        await running.leave()
        assert (answer.status, answer.body["error"]["code"]) == (503 if named else 424, "turn_moved")
        assert answer.headers["Location"].startswith(where)
        assert ("Retry-After" in answer.headers) == named
        assert answer.headers["Location"].rpartition("/")[2] in answer.body["error"]["message"]

        async def is_over() -> bool:
            found = await there.ask(answer.headers["Location"])
            return bool(found.status == 200 and found["status"] == "completed")

        await until_answered(is_over)
        if named:
            assert (await there.ask(path, json=asked, headers=headers)).status == 200
        assert there.memory.runs == {"hi": 1}


async def test_a_websocket_says_so_too(tmp_path: Path) -> None:
    async with app_pair(tmp_path) as (here, _):
        running = await here.client.plain.ask("wait", "s")
        async with here.client.http.ws_connect(f"{here.client.url}/responses") as socket:
            await socket.send_json({"type": "response.create", "input": "hi", "conversation": "s"})
            assert (await socket.receive_json())["type"] == "response.created"
            await here.has_open(2)
            stopping = asyncio.create_task(here.memory.app.stop())
            while (said := await socket.receive_json())["type"] != "error":
                pass
            assert said["error"]["code"] == "turn_moved"
            assert said["status"] == 424
        await stopping
        await running.leave()


async def test_who_asked_in_process_is_told_so_too(tmp_path: Path) -> None:
    async with app_pair(tmp_path) as (here, there):
        running, waiting, followed = (
            here.memory.app.process(text, session_id="s") for text in ("wait", "a", "b")
        )
        running_out = asyncio.create_task(_read(running))
        await here.has_open(1)
        asked, read = asyncio.create_task(waiting.result()), asyncio.create_task(_read(followed))
        await here.has_open(3)
        await here.memory.app.stop()
        for task, stream in ((asked, waiting), (read, followed)):
            with pytest.raises(TurnMoved) as moved:
                await task
            assert moved.value.turn_id == stream.id
        await running_out

        async def are_over() -> bool:
            return there.memory.runs == {"a": 1, "b": 1}

        await until_answered(are_over)


async def _read(stream: TurnStream) -> None:
    async for _ in stream:
        pass
