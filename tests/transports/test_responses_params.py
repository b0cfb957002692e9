"""What an agent cannot do, found out when it was asked: refused like all else, by the name the request has for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from greenroom import AgentApp
from greenroom.actors.errors import InvalidRequest
from greenroom.actors.messages import Message
from kits.memory_app import words
from kits.responses_http import responses_of

THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": []}
USED = {
    "type": "mcp_call",
    "id": "mcp_1",
    "server_label": "elsewhere",
    "name": "look",
    "arguments": "{}",
    "output": "seen",
}
SHOWN = {"role": "user", "content": [{"type": "input_image", "image_url": "data:,x"}]}
CALLED = {"type": "function_call", "call_id": "c1", "name": "locate", "arguments": "{}"}
ANSWERED = {"type": "function_call_output", "call_id": "c1", "output": "Paris"}


def said(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def refusing() -> AgentApp:
    """An application that refuses what its last message names, first saying what stands before a bar."""
    app = AgentApp("Refusing", drain_seconds=0)

    @app.query()
    async def refuse(msgs: list[Message]) -> AsyncIterator[str]:
        spoken, _, field = words(msgs[-1:]).rpartition("|")
        if spoken:
            yield spoken
        raise InvalidRequest("that cannot be", field=field)

    return app


@pytest.mark.parametrize(
    ("before", "field", "param"),
    [
        ([], "tool_choice", "tool_choice"),
        ([], "tools[0].name", "tools[0].name"),
        ([], "input", "input"),
        ([said("x")], "input[0].content[0]", "input"),  # text alone is nothing to look at one by one
        ([SHOWN], "input[0].content[0].image_url", "input[0].content[0].image_url"),
        ([THOUGHT, said("x")], "input[0].content[0]", "input[1].content[0]"),
        ([USED, said("x")], "input[1].content[0].data.output", "input[0].output"),
        ([USED, said("x")], "input[2].content[0]", "input[1].content[0]"),
        ([CALLED, ANSWERED], "input[1].content[0].data.output", "input[1].output"),
    ],
)
async def test_it_is_a_400_that_names_the_parameter(before: list[Any], field: str, param: str) -> None:
    async with responses_of(refusing()) as client:
        answer = await client.create([*before, said(field)])
        assert (answer.status, answer.error["param"], answer.error["code"]) == (400, param, "invalid_request")
        assert answer.error["message"].startswith("that cannot be")


async def test_an_item_that_waited_in_the_conversation_is_not_taken_for_one_of_the_request() -> None:
    async with responses_of(refusing()) as client:
        made = await client.ask("POST", "/conversations", json={"items": [said("waits")]})
        for place, param in ((0, "input"), (1, "input[0].content[0]")):
            text = {"type": "input_text", "text": f"input[{place}].content[0]"}
            said_now = [{"role": "user", "content": [text], "metadata": None}]
            answer = await client.create(said_now, conversation=made["id"])
            assert answer.error["param"] == param


async def test_what_has_begun_to_answer_has_failed_and_names_it() -> None:
    async with responses_of(refusing()) as client:
        answer = await client.create("well|tools[0].name")
        assert (answer.status, answer["status"], answer.text) == (200, "failed", "well")
        assert (answer["error"]["code"], answer["error"]["param"]) == ("invalid_prompt", "tools[0].name")
        found = await client.get(f"/responses/{answer['id']}")
        assert found["error"] == answer["error"]


async def test_other_protocols_name_it_too() -> None:
    async with responses_of(refusing()) as client:
        for field, param in (("tools[1].name", "tools[1].function.name"), ("input[0].content", "messages")):
            chat = {"messages": [said(field)]}
            answer = await client.ask("POST", "/chat/completions", json=chat)
            assert (answer.status, answer.error["param"]) == (400, param)
        plain = {"input": [said("input[0].content[1]")], "stream": False}
        _, response = await client.plain.json("POST", "/process", json=plain)
        assert response["error"]["field"] == "input[0].content[1]"


async def test_an_output_of_a_call_that_has_one_is_no_item_of_a_conversation() -> None:
    async with responses_of(refusing()) as client:
        made = await client.ask("POST", "/conversations", json={"items": [CALLED, ANSWERED]})
        again = {"items": [CALLED, ANSWERED, ANSWERED]}
        for body in (again, {"items": [ANSWERED]}):
            answer = await client.ask("POST", f"/conversations/{made['id']}/items", json=body)
            assert answer.status == 400, json.dumps(answer.body)
            assert answer.error["param"] == f"items[{len(body['items']) - 1}].call_id"
        answer = await client.ask(
            "POST", f"/conversations/{made['id']}/items", json={"items": again["items"][:2]}
        )
        assert answer.status == 200, "some services use an id again"
