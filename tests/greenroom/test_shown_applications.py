"""The applications that README.md and docs/applications.md show, as they stand there."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from greenroom import AgentApp, Image, Message, Text, TurnCompleted
from kits.http_client import completed_text, served
from kits.scripted_model import ScriptedModel

ROOT = Path(__file__).parents[2]
PICTURE = {"type": "image", "image_url": "https://example.org/a.png"}


def shown(page: str, containing: str) -> AgentApp:
    """The application of the page's only block that has this."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    [block] = [block for block in found if containing in block]
    names: dict[str, Any] = {}
    exec(block, names)
    app: AgentApp = names["app"]
    return app


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("hello there", "hello there "),
        ([PICTURE, {"type": "text", "text": "a picture"}], "a picture "),
        ([PICTURE], "nothing "),
        ([], "nothing "),
        (None, "nothing "),
    ],
)
async def test_the_readmes_application_answers_whatever_clients_send(content: Any, said: str) -> None:
    async with served(shown("README.md", "# app.py")) as client:
        asked = {"input": [{"role": "user", "content": content}], "stream": False}
        _, answer = await client.json("POST", "/process", json=asked)
    assert (answer["status"], completed_text(answer)) == ("completed", said)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ((), None),
        ((Image("https://example.org/a.png"),), None),
        ((Text(""),), ""),
        ((Image("https://example.org/a.png"), Text("one"), Text("two")), "one\ntwo"),
    ],
)
def test_a_message_says_its_text(content: Any, text: str | None) -> None:
    assert Message(content).get_text_content() == text
    assert Message((Text("one"), Text("two"))).get_text_content(" ") == "one two"


async def asks_the_model(monkeypatch: pytest.MonkeyPatch, containing: str) -> None:
    """Serve the agent that docs/applications.md shows, and have it answer a turn with the model."""
    async with ScriptedModel(["I am Friday."]) as model:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", model.base_url)
        app = await asyncio.to_thread(shown, "docs/applications.md", containing)
        async with app:
            ending = await app.process("Who are you?", session_id="s").result()
        assert isinstance(ending, TurnCompleted), ending
        assert len(model.requests) == 1


@pytest.mark.agentscope1
async def test_the_agent_shown_for_agentscope_1_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    await asks_the_model(monkeypatch, "import ReActAgent\n")


@pytest.mark.agentscope2
async def test_the_agent_shown_for_agentscope_2_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    await asks_the_model(monkeypatch, "import Agent\n")
