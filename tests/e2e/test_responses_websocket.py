"""openai-python's `responses.connect()`: the same responses over one WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from kits.responses_rules import ENDINGS, check_stream, validate_types
from kits.scripted_model_script import Gate, Say, user_texts
from kits.sdk_clients import Wire, sdk_now
from kits.stage import Stage

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def connection(client: Any) -> AsyncIterator[Any]:
    async with client.responses.connect() as connection:
        yield connection


async def response(connection: Any, **options: Any) -> list[dict[str, Any]]:
    """Ask for a response, and read its events."""
    await connection.send({"type": "response.create", "model": "m", **options})
    return await ending(connection)


async def ending(connection: Any) -> list[dict[str, Any]]:
    """Events up to the next that ends something."""
    events = []
    while True:
        message = await connection.recv_bytes()
        events.append(json.loads(message))
        assert connection.parse_event(message).type == events[-1]["type"]
        if events[-1]["type"] in (*ENDINGS, "error"):
            return events


async def test_responses_one_after_the_other(stage: Stage, connection: Any, wire: Wire) -> None:
    stage.play(lambda request: Say(", ".join(user_texts(request))))
    first = await response(connection, input="one")
    check_stream(first)
    validate_types(first)
    assert first[-1]["response"]["output"][0]["content"][0]["text"] == "one"
    second = await response(connection, input="two", previous_response_id=first[-1]["response"]["id"])
    check_stream(second)
    assert second[-1]["response"]["output"][0]["content"][0]["text"] == "one, two"


async def test_a_response_made_here_is_found_by_http(stage: Stage, client: Any, connection: Any) -> None:
    stage.play(["Here."])
    made = (await response(connection, input="Where?"))[-1]["response"]
    assert (await client.responses.retrieve(made["id"])).output_text == "Here."


async def test_bad_input_is_an_error_and_the_connection_stays(stage: Stage, connection: Any) -> None:
    (error,) = await response(connection, input="hello", temperature=9)
    assert (error["type"], error["status"]) == ("error", 400)
    assert error["error"]["param"] == "temperature"
    assert (await response(connection, input="Who are you?"))[-1]["type"] == "response.completed"


async def test_one_response_at_a_time(stage: Stage, connection: Any) -> None:
    stage.play([["half ", Gate("busy socket"), "whole"]])
    await connection.send({"type": "response.create", "model": "m", "input": "one"})
    await stage.model.wait_at("busy socket")
    await connection.send({"type": "response.create", "model": "m", "input": "two"})
    seen = await ending(connection)
    assert seen[-1]["type"] == "error"
    stage.model.open("busy socket")
    rest = await ending(connection)
    check_stream([*seen[:-1], *rest])
    assert rest[-1]["response"]["output"][0]["content"][0]["text"] == "half whole"


async def test_the_synchronous_client_connects(stage: Stage, wire: Wire) -> None:
    def run() -> list[str]:
        with sdk_now(stage.process.url, wire) as client, client.responses.connect() as connection:
            connection.response.create(model="m", input="Who are you?")
            kinds = []
            for event in connection:
                kinds.append(event.type)
                if event.type == "response.completed":
                    assert event.response.output[0].content[0].text == "I'm Friday, a helpful assistant."
                    return kinds
            raise AssertionError("the connection ended")

    assert (await asyncio.to_thread(run))[0] == "response.created"
