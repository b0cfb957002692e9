"""`/process/task`: turns that nobody waits for, as clients of AgentScope Runtime 1.1 ask for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from greenroom import Limits
from greenroom.compat_app import AgentApp as AppAsThere
from greenroom.transports.idempotency import HEADER
from kits.http_client import HttpClient, HttpExchange, body, completed_text, served
from kits.transport_kit import Script
from kits.wire_grammar import check_stream


@asynccontextmanager
async def script(**options: Any) -> AsyncIterator[tuple[Script, HttpClient]]:
    played = Script(**options)
    async with served(played.app) as client:
        yield played, client


async def begin(client: HttpClient, text: str, session: str = "s", **more: Any) -> dict[str, Any]:
    headers = more.pop("headers", None)
    status, task = await client.json(
        "POST", "/process/task", json=body(text, session, **more), headers=headers
    )
    assert status == 200, task
    return task


async def standing(client: HttpClient, task: dict[str, Any]) -> dict[str, Any]:
    status, shown = await client.json("GET", f"/process/task/{task['task_id']}")
    assert status == 200
    assert shown["task_id"] == task["task_id"]
    return shown


async def ended(client: HttpClient, task: dict[str, Any]) -> dict[str, Any]:
    """How it stands after its end, which its stream tells."""
    exchange = await client.rejoin(task["task_id"])
    assert isinstance(exchange, HttpExchange)
    check_stream(await exchange.rest())
    return await standing(client, task)


async def test_a_task_is_answered_at_once_and_tells_how_it_stands() -> None:
    async with script() as (played, client):
        task = await begin(client, "wait")
        assert {name: task[name] for name in ("status", "queue", "session_id")} == {
            "status": "submitted",
            "queue": "stream_query",
            "session_id": "s",
        }
        waiting = await begin(client, "one two")
        assert (await standing(client, waiting))["status"] == "pending"
        shown = await standing(client, task)
        assert (shown["status"], shown["result"]) == ("running", None)
        assert shown["started_at"] > 0
        played.gate.set()
        shown = await ended(client, task)
        assert shown["status"] == "finished"
        assert completed_text(shown["result"]) == "waiting no more"
        assert shown["result"] == shown["response"]
        assert completed_text((await ended(client, waiting))["result"]) == "onetwo"


async def test_a_task_that_fails_says_so_in_words_and_keeps_the_inside_inside() -> None:
    async with script() as (_, client):
        shown = await ended(client, await begin(client, "fail"))
        assert shown["status"] == "error"
        assert "the agent failed (ValueError)" in shown["result"]
        assert "internal matter" not in repr(shown)
        assert shown["response"]["status"] == "failed"
        assert completed_text(shown["response"]) == "so far"


async def test_a_task_is_cancelled_as_any_turn_is() -> None:
    async with script() as (_, client):
        task = await begin(client, "wait")
        await client.cancel(task["task_id"])
        shown = await ended(client, task)
        assert (shown["status"], shown["response"]["status"]) == ("error", "canceled")
        assert shown["result"] == "the turn was cancelled: cancelled on request"


async def test_no_client_that_goes_ends_a_task() -> None:
    async with script() as (played, client):
        task = await begin(client, "wait", disconnect="cancel")
        exchange = await client.rejoin(task["task_id"])
        await exchange.next_text()
        await exchange.leave()
        await client.json("GET", "/health")
        played.gate.set()
        assert (await ended(client, task))["status"] == "finished"


async def test_a_task_and_a_turn_of_its_session_run_one_after_the_other() -> None:
    async with script() as (played, client):
        await begin(client, "count")
        exchange = await client.ask("count", "s")
        assert await exchange.ending() == ("completed", "2")
        assert played.asked == ["count", "count"]


async def test_the_result_is_kept_when_logs_are_no_more() -> None:
    async with script(limits=Limits(kept_turns=1)) as (_, client):
        task = await begin(client, "one two")
        exchange = await client.ask("three", "s")
        await exchange.rest()
        await (await client.ask("four", "s")).rest()
        shown = await standing(client, task)
        assert (shown["status"], completed_text(shown["result"])) == ("finished", "onetwo")
        status, response = await client.json("GET", f"/process/{task['task_id']}")
        assert (status, response) == (200, shown["result"])
        again = await client.rejoin(task["task_id"])
        assert await again.ending() == ("completed", "onetwo")
        await client.cancel(task["task_id"])
        status, _ = await client.json("GET", f"/process/{exchange.id}")
        assert status == 404


async def test_a_repeat_is_the_same_task() -> None:
    async with script() as (played, client):
        first = await begin(client, "hello", headers={HEADER: "k"})
        assert await begin(client, "hello", headers={HEADER: "k"}) == first
        again = await client.http.post(
            f"{client.url}/process", json=body("hello", "s"), headers={HEADER: "k"}
        )
        assert first["task_id"].encode() in await again.read()
        named = await begin(client, "hello", id="mine")
        assert named["task_id"] == "mine"
        status, refused = await client.json("POST", "/process/task", json=body("other", "s", id="mine"))
        assert (status, refused["error"]["code"]) == (409, "turn_exists")
    assert played.asked == ["hello", "hello"]


async def test_what_is_wrong_with_a_task_is_said_before_it_is_one() -> None:
    async with script() as (played, client):
        status, refused = await client.json("POST", "/process/task", json={"input": []})
        assert (status, refused["error"]["field"]) == (400, "input")
        status, refused = await client.json("GET", "/process/task/never")
        assert (status, refused["error"]["code"]) == (404, "turn_not_found")
    assert played.asked == []


def by_header(headers: Any) -> str | None:
    name: str | None = headers.get("X-User")
    return name


async def test_a_task_is_its_principals() -> None:
    async with script(authenticate=by_header) as (_, client):
        status, task = await client.json(
            "POST", "/process/task", json=body("hello"), headers={"X-User": "ann"}
        )
        assert (status, task["user_id"]) == (200, "ann")
        for name, wanted in (("ann", 200), ("bob", 404)):
            status, _ = await client.json("GET", f"/process/task/{task['task_id']}", headers={"X-User": name})
            assert status == wanted


async def test_applications_of_1_1_say_that_they_have_tasks() -> None:
    app = AppAsThere(
        enable_stream_task=True, stream_task_queue="stream_query", endpoint_path="/chat", drain_seconds=0
    )
    app.query(framework="text")(Script().answer)
    async with served(app) as client:
        for path in ("/process/task", "/chat/task"):
            status, task = await client.json("POST", path, json=body("hello", "s"))
            assert (status, task["status"]) == (200, "submitted")
            assert (await ended(client, task))["status"] == "finished"
            status, _ = await client.json("GET", f"{path}/{task['task_id']}")
            assert status == 200
        status, document = await client.json("GET", "/openapi.json")
        assert {"/chat", "/chat/task", "/chat/task/{id}"} <= set(document["paths"])
