"""What goes in comes out: pictures, sound, films, and text that is taken back; and what of it a model gets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from kits.agentscope_line import installed_line
from kits.stage import Stage, for_installed_line, stage_of
from kits.wire_grammar import check_stream, texts

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAgD4AAAB9AAACABAAZGF0YQAAAAA="

PARTS: list[dict[str, Any]] = [
    {"type": "text", "text": "Look: 图片 🎈"},
    {"type": "image", "image_url": f"data:image/png;base64,{PNG}"},
    {"type": "image", "image_url": "https://example.com/cat.png"},
    {"type": "audio", "data": WAV, "format": "wav"},
    {"type": "video", "video_url": "https://example.com/film.mp4"},
    {"type": "video", "video_url": "data:video/mp4;base64,AAAAIGZ0eXA="},
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def speaker() -> AsyncIterator[Stage]:
    """An agent that says what it is sent."""
    async with stage_of(for_installed_line("workshop_for_{}.py") + ":speaker") as stage:
        yield stage


def question(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": list(parts)}]}


def same(sent: dict[str, Any], got: dict[str, Any]) -> bool:
    return all(got[name] == value for name, value in sent.items())


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part['type']} {str(part)[-12:-2]}")
async def test_a_part_goes_in_and_comes_out(speaker: Stage, part: dict[str, Any]) -> None:
    exchange = await speaker.client.post(question(part))
    ending = check_stream(await exchange.rest())
    assert ending["status"] == "completed"
    (message,) = ending["output"]
    (content,) = message["content"]
    assert same(part, content), content


async def test_parts_of_all_kinds_keep_their_order(speaker: Stage) -> None:
    exchange = await speaker.client.post(question(*PARTS))
    ending = check_stream(await exchange.rest())
    contents = [content for message in ending["output"] for content in message["content"]]
    assert [content["type"] for content in contents] == [part["type"] for part in PARTS]
    assert all(same(part, content) for part, content in zip(PARTS, contents, strict=True))


async def test_text_that_is_taken_back_ends_as_what_was_said_last(speaker: Stage) -> None:
    exchange = await speaker.client.ask("Hello wor|Goodbye")
    events = await exchange.rest()
    assert (events[-1]["status"], texts(events[-1])) == ("completed", ["Goodbye"])
    completed = [event for event in events if event["object"] == "content" and event["status"] == "completed"]
    assert [event["text"] for event in completed] == ["Goodbye"]


@pytest.mark.skipif(installed_line() == 2, reason="needs AgentScope 1.x: 2.x says deltas, not all so far")
async def test_text_that_is_taken_back_twice_and_grows(speaker: Stage) -> None:
    exchange = await speaker.client.ask("He|Hello|Hello wor|Good|Goodbye|Goodbye!")
    events = await exchange.rest()
    assert texts(events[-1]) == ["Goodbye!"]


async def test_a_model_gets_pictures_and_sound_as_they_were_sent(stage: Stage) -> None:
    picture, sound = PARTS[1], PARTS[3]
    request = question({"type": "text", "text": "What is my name?"}, picture, sound) | {"session_id": "media"}
    assert check_stream(await (await stage.client.post(request)).rest())["status"] == "completed"
    await (await stage.client.ask("And now?", "media")).rest()
    for prompt in stage.model.requests:  # the second has it from the history
        parts = [
            part
            for message in prompt["messages"]
            if message["role"] == "user" and isinstance(message["content"], list)
            for part in message["content"]
        ]
        assert {"url": picture["image_url"]} in [part.get("image_url") for part in parts]
        assert {"data": WAV, "format": "wav"} in [part.get("input_audio") for part in parts]
