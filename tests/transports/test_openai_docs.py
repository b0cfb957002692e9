"""What docs/openai.md shows, run as it stands there: its Python, and its curl."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from greenroom import (
    AgentApp,
    AgentRequest,
    Data,
    ItemDone,
    ItemStarted,
    Message,
    PartDone,
    Session,
    ToolCall,
)
from kits.http_client import served
from kits.system import asked

DOCS = Path(__file__).parents[2] / "docs" / "openai.md"
URL = "http://127.0.0.1:8090"
EXPECTED = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(), re.DOTALL)


def friday() -> AgentApp:
    """Knows who spoke to it, and asks the client for the weather."""
    app = AgentApp("Friday")

    @app.query(framework="events", honours={"tools"})
    async def answer(msgs: list[Message], request: AgentRequest, session: Session) -> AsyncIterator[Any]:
        last = msgs[-1]
        if last.type == "function_call_output":
            [output] = last.content
            assert isinstance(output, Data)
            yield f"It is {output.data['output']}."
        elif request.tools:
            yield ItemStarted("a", "tool_call", call_id="c1", name="get_weather")
            yield PartDone(ToolCall("c1", "get_weather", '{"city": "Paris"}'), "a")
            yield ItemDone("a")
        elif name := re.search(r"name is (\w+)", asked(last)):
            yield f"Hello {name[1]}."
        else:
            before = [message for turn in await session.history() for message in turn.input]
            [*_, name] = re.findall(
                r"name is (\w+)", " ".join(asked(message) for message in [*before, *msgs])
            )
            yield f"You are {name}."

    return app


def run_all(url: str) -> tuple[list[str], list[str]]:
    """Run the page's Python, one block after the other; what it prints, and what it says it prints."""
    printed: list[str] = []
    names: dict[str, Any] = {"print": lambda *said: printed.append(" ".join(map(str, said)))}
    expected: list[str] = []
    try:
        for block in blocks("python"):
            exec(block.replace(URL, url), names)
            expected += EXPECTED.findall(block)
    finally:
        if "client" in names:
            names["client"].close()
    return printed, expected


async def test_the_pages_python_prints_what_it_says() -> None:
    async with served(friday()) as client:
        printed, expected = await asyncio.to_thread(run_all, client.url)
    assert printed == expected
    assert len(expected) >= 10


@pytest.mark.parametrize("number", range(len(blocks("sh"))))
async def test_the_pages_curl_gets_a_stream(number: int) -> None:
    async with served(friday()) as client:
        command = blocks("sh")[number].replace(URL, client.url)
        shell = await asyncio.create_subprocess_exec("bash", "-c", command, stdout=asyncio.subprocess.PIPE)
        answered, _ = await shell.communicate()
    assert shell.returncode == 0
    assert b"Hello Ada." in answered
    assert answered.endswith(b"data: [DONE]\n\n")
