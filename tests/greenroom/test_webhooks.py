"""Webhooks of an application: asked for with a request, told by a real server to a real receiver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from greenroom import AgentApp, ConfigurationError
from greenroom.transports.idempotency import HEADER
from kits.http_client import HttpClient, body, completed_text, served
from kits.transport_kit import Script
from kits.until import until_answered
from kits.webhook_receiver import LOOPBACK, SECRET, Received, Receiver, a_receiver

BASE = "/compatible-mode/v1"


@asynccontextmanager
async def stage(**options: Any) -> AsyncIterator[tuple[Script, HttpClient, Receiver]]:
    """An application with webhooks, a client of it, and a receiver."""
    async with a_receiver() as receiver:
        script = Script(**{"webhook_secret": SECRET, "webhook_private": LOOPBACK, **options})
        async with served(script.app) as client:
            yield script, client, receiver


async def ask(client: HttpClient, path: str, request: Any, **headers: str) -> bytes:
    async with client.http.post(client.url + path, json=request, headers=headers) as response:
        answer = await response.read()
        assert response.status == 200, answer
        return answer


def told(received: Received) -> tuple[str, str, str]:
    """What ended, in which session, and how."""
    received.check()
    event = received.event
    return event["data"]["id"], event["data"]["session_id"], event["type"]


@pytest.mark.parametrize(
    ("path", "request_of"),
    [
        ("/process", lambda hook: body("hello", "s", webhook=hook)),
        ("/process", lambda hook: body("hello", "s", webhook=hook, stream=False)),
        ("/process/task", lambda hook: body("hello", "s", webhook=hook)),
        (f"{BASE}/responses", lambda hook: {"input": "hello", "session_id": "s", "webhook": hook}),
        (
            f"{BASE}/responses",
            lambda hook: {"input": "hello", "session_id": "s", "webhook": hook, "background": True},
        ),
        (
            f"{BASE}/chat/completions",
            lambda hook: {
                "messages": [{"role": "user", "content": "hello"}],
                "session_id": "s",
                "webhook": hook,
            },
        ),
    ],
)
async def test_a_request_may_name_who_is_told(path: str, request_of: Any) -> None:
    async with stage() as (_, client, receiver):
        await ask(client, path, request_of(receiver.url))
        (received,) = await receiver.have(1)
        turn_id, session, kind = told(received)
        assert (session, kind) == ("s", "response.completed")
        status, response = await client.json("GET", received.event["data"]["url"])
        assert (status, response["id"], completed_text(response)) == (200, turn_id, "hello")
        assert b"hello" not in received.body


async def test_what_an_sdk_makes_of_it() -> None:
    async with stage() as (_, client, receiver):
        sdk = openai.AsyncOpenAI(api_key="any", base_url=client.url + BASE, webhook_secret=SECRET)
        async with sdk:
            created = await sdk.responses.create(
                model="m", input="hello", background=True, extra_body={"webhook": receiver.url}
            )
            (received,) = await receiver.have(1)
            event = sdk.webhooks.unwrap(received.body, dict(received.headers))
            assert event.type == "response.completed"
            assert event.data.id == created.id
            assert (await sdk.responses.retrieve(event.data.id)).output_text == "hello"


async def test_how_a_turn_ended_is_told_whatever_it_was() -> None:
    async with stage() as (script, client, receiver):
        await ask(client, "/process", body("fail", "one", webhook=receiver.url))
        exchange = await client.ask("wait", "two", webhook=receiver.url, disconnect="cancel")
        await exchange.next_text()
        await exchange.leave()
        waiting = await client.ask("wait", "three", webhook=receiver.url)
        queued = await client.ask("one", "three", webhook=receiver.url)
        await client.cancel(queued.id)
        await receiver.have(3)
        script.gate.set()
        await waiting.rest()
        await receiver.have(4)
        assert sorted(told(received)[1:] for received in receiver.received) == [
            ("one", "response.failed"),
            ("three", "response.cancelled"),
            ("three", "response.completed"),
            ("two", "response.cancelled"),
        ]


@pytest.mark.parametrize("state", ["memory", "file"])
async def test_a_flood_of_turns_with_webhooks_is_refused(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greenroom.services.webhooks.delivery.WAITING", 3)
    options = {} if state == "memory" else {"state": f"sqlite:///{tmp_path}/sessions.db"}
    async with stage(**options) as (script, client, receiver):
        asked = [
            client.json("POST", "/process/task", json=body("wait", webhook=receiver.url)) for _ in range(6)
        ]
        statuses = sorted([status for status, _ in await asyncio.gather(*asked)])
        assert statuses == [200, 200, 200, 503, 503, 503]
        async with client.http.post(
            f"{client.url}/process", json=body("one", webhook=receiver.url)
        ) as refused:
            assert (refused.status, (await refused.json())["error"]["code"]) == (503, "overloaded")
            assert int(refused.headers["Retry-After"]) > 0
        await ask(client, "/process", body("one", "without"))
        script.gate.set()
        await receiver.have(3)

        async def taken() -> bool:
            request = body("one", webhook=receiver.url)
            return (await client.json("POST", "/process/task", json=request))[0] == 200

        await until_answered(taken)


async def test_a_repeat_is_told_once() -> None:
    async with stage() as (_, client, receiver):
        request = body("hello", "s", webhook=receiver.url)
        for _ in range(3):
            await ask(client, "/process", request, **{HEADER: "k"})
        await ask(client, "/process", body("other", "s", webhook=receiver.url))
        await receiver.have(2)
        assert len({received.id for received in receiver.received}) == len(receiver.received) == 2


async def test_a_receiver_that_is_down_is_told_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greenroom.services.webhooks.delivery.FIRST_PAUSE", 0.05)
    async with stage() as (_, client, receiver):
        receiver.answers = [500, 503]
        await ask(client, "/process", body("hello", "s", webhook=receiver.url))
        received = await receiver.have(3)
        assert len({told(one) for one in received}) == len({one.id for one in received}) == 1


async def test_turns_that_end_with_the_server_are_told() -> None:
    async with stage(drain_seconds=0.05) as (script, client, receiver):
        exchange = await client.ask("wait", "s", webhook=receiver.url)
        await exchange.next_text()
        stopping = asyncio.create_task(script.app.stop())
        assert (await exchange.ending())[0] == "cancelled"
        await stopping
        (received,) = receiver.received
        assert told(received)[1:] == ("s", "response.cancelled")


# -- what is refused ---------------------------------------------------------------------------------------------------

ROUTES = [
    ("/process", body("hello")),
    ("/process/task", body("hello")),
    (f"{BASE}/responses", {"input": "hello"}),
    (f"{BASE}/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
]


@pytest.mark.parametrize(("path", "request_"), ROUTES)
@pytest.mark.parametrize(
    ("options", "hook", "words"),
    [
        ({"webhook_secret": None}, "https://example.com/", "nothing to sign webhooks with"),
        ({"webhook_private": ()}, "http://127.0.0.1:8000/hook", "a loopback address"),
        ({}, "http://169.254.169.254/", "a cloud's metadata"),
        ({}, "ftp://example.com", "it must begin with https://"),
        ({}, "", "it must begin with https://"),
        ({}, "https://example.com/" + "x" * 2048, "2048"),
        ({}, 5, "must be a string"),
    ],
)
async def test_what_cannot_be_told_is_refused_before_there_is_a_turn(
    path: str, request_: dict[str, Any], options: dict[str, Any], hook: Any, words: str
) -> None:
    async with stage(**options) as (script, client, receiver):
        status, answer = await client.json("POST", path, json={**request_, "webhook": hook})
        assert status == 400
        assert words in answer["error"]["message"]
        assert "webhook" in (answer["error"].get("field"), answer["error"].get("param"))
        assert script.asked == []
        assert receiver.received == []


async def test_null_is_no_webhook() -> None:
    async with stage(webhook_secret=None) as (script, client, _):
        await ask(client, "/process", body("hello", webhook=None))
        assert script.asked == ["hello"]


async def test_the_environment_may_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENROOM_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("GREENROOM_WEBHOOK_PRIVATE", "10.0.0.0/8, 127.0.0.1")
    async with stage(webhook_secret=None, webhook_private=()) as (_, client, receiver):
        await ask(client, "/process", body("hello", "s", webhook=receiver.url))
        (received,) = await receiver.have(1)
        received.check()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"webhook_secret": "not one"}, "whsec_"),
        ({"webhook_private": ["nowhere"]}, "webhook_private has 'nowhere'"),
    ],
)
async def test_settings_that_are_wrong_are_said_at_the_start(options: dict[str, Any], words: str) -> None:
    app = AgentApp(**options)
    app.query()(Script().answer)
    with pytest.raises(ConfigurationError, match=words):
        await app.start()
