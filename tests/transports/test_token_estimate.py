"""Counting tokens without a tokenizer: what the estimate says it does."""

from __future__ import annotations

from typing import Any

import pytest

from greenroom.transports.token_estimate import estimated_tokens, text_tokens
from kits.memory_app import Memory
from kits.responses_http import ResponsesClient, responses_of


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("four", 1), ("five!", 2), ("你好", 2), ("ab 你好", 3), ("😀", 1)]
)
def test_four_ascii_characters_are_a_token_and_each_other_one_is(text: str, tokens: int) -> None:
    assert text_tokens(text) == tokens


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        ({"type": "input_text", "text": "four"}, 1),
        ({"type": "input_image", "image_url": "data:image/png;base64," + "A" * 10_000}, 765),
        ({"type": "input_file", "file_data": "A" * 4_000}, 750),
    ],
)
def test_parts_count_by_what_they_are(part: dict[str, Any], tokens: int) -> None:
    item = {"type": "message", "id": "msg_1", "role": "user", "status": "completed", "content": [part]}
    assert estimated_tokens([item]) == 4 + tokens


async def counted(client: ResponsesClient, **fields: Any) -> int:
    answer = await client.ask("POST", "/responses/input_tokens", json={"input": "Hello", **fields})
    assert answer.status == 200, answer
    count: int = answer["input_tokens"]
    return count


async def test_all_that_the_model_would_read_counts() -> None:
    tool = {"type": "function", "name": "weather", "parameters": {"properties": {"city": {}}}}
    async with responses_of(Memory().app) as client:
        made = await client.create("some words", conversation="c")
        plain = await counted(client)
        assert plain == 4 + 2
        assert await counted(client, instructions="Be brief.") == plain + 3
        assert await counted(client, tools=[tool]) > plain + len("weather city") // 4
        before = plain + 2 * (4 + 3)
        assert await counted(client, conversation="c") == before
        assert await counted(client, previous_response_id=made["id"]) == before
        body = {"model": "m", "previous_response_id": made["id"]}
        packed = (await client.ask("POST", "/responses/compact", json=body))["output"]
        assert await counted(client, input=[*packed, {"role": "user", "content": "Hello"}]) == before


async def test_what_cannot_be_counted() -> None:
    async with responses_of(Memory().app) as client:
        for fields, param in (
            ({"tools": "x"}, "tools"),
            ({"tools": [3]}, "tools[0]"),
            ({"input": 3}, "input"),
        ):
            answer = await client.ask("POST", "/responses/input_tokens", json={"input": "x"} | fields)
            assert (answer.status, answer.error["param"]) == (400, param)
