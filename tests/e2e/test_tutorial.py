"""The tutorial's steps 4 to 7, as written there: the application served unchanged, asked with curl and OpenAI's SDK."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kits.scripted_model_script import CallTool, rules
from kits.sdk_clients import Wire, sdk, sdk_now
from kits.server_process import APPS
from kits.stage import Stage, for_installed_line, stage_of
from kits.wire_grammar import check_stream, data, texts

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = ["the tutorial's", "the example"]

STEP_5 = """{
    "input": [
      {
        "role": "user",
        "content": [
          { "type": "text", "text": "What is the capital of France?" }
        ]
      }
    ]
  }"""


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=FILES)
async def friday(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """The tutorial's application, for the line that is installed, and the example made of it."""
    app = str(APPS / for_installed_line("friday_for_{}.py")) if request.param == FILES[0] else example()
    async with stage_of(app, FRIDAY_DATABASE=str(tmp_path_factory.mktemp("friday") / "friday.db")) as stage:
        yield stage


def example() -> str:
    """The example of the line that is installed."""
    return str(EXAMPLES / for_installed_line("friday_{}.py").replace("_1", ""))


async def curl(url: str, body: str) -> str:
    """The tutorial's command; what it printed."""
    program = shutil.which("curl")
    assert program, "curl is needed: apt-get install curl"
    command = ["-N", "-X", "POST", url, "-H", "Content-Type: application/json", "-d", body]
    process = await asyncio.create_subprocess_exec(program, "-sS", *command, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


async def answer(stage: Stage, body: str) -> dict[str, Any]:
    """What curl gets: `data:` lines, the last of them `[DONE]`, the one before it the whole response."""
    printed = await curl(f"{stage.process.url}/process", body)
    lines = [line.removeprefix("data: ") for line in printed.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return check_stream([json.loads(line) for line in lines])


def saying(text: str, session: str) -> str:
    content = [{"type": "text", "text": text}]
    return json.dumps({"input": [{"role": "user", "content": content}], "session_id": session})


async def test_step_5_the_stream_says_paris(friday: Stage) -> None:
    friday.begin()
    printed = await curl(f"{friday.process.url}/process", STEP_5)
    assert "Paris" in printed
    assert printed.endswith("data: [DONE]\n\n")
    ending = await answer(friday, STEP_5)
    assert (ending["status"], texts(ending)) == ("completed", ["The capital of France is Paris."])
    assert ending["usage"]["total_tokens"] > 0
    await friday.end()


async def test_step_6_two_turns_remember(friday: Stage) -> None:
    friday.begin()
    assert texts(await answer(friday, saying("My name is Alice.", "s6"))) == ["Nice to meet you, Alice."]
    assert texts(await answer(friday, saying("What is my name?", "s6"))) == ["Your name is Alice."]
    other = await answer(friday, saying("What is my name?", "another"))
    assert texts(other) == ["You have not told me your name."]
    assert friday.prompts[1] == ["My name is Alice.", "What is my name?"]
    await friday.end()


async def test_step_7_the_openai_sdk_is_told_who_it_is(friday: Stage, wire: Wire) -> None:
    friday.begin()

    def step_7() -> str:
        with sdk_now(friday.process.url, wire) as client:
            resp = client.responses.create(model="any_name", input="Who are you?")
            text: str = resp.response["output"][0]["content"][0]["text"]
            assert resp.output_text == text
            return text

    assert await asyncio.to_thread(step_7) == "I'm Friday, a helpful assistant."
    await friday.end()


async def test_the_openai_sdk_goes_on_from_any_response(friday: Stage, wire: Wire) -> None:
    friday.begin()
    async with sdk(friday.process.url, wire) as client:
        create, model = client.responses.create, "any_name"
        first = await create(model=model, input="My name is Alice.")
        second = await create(model=model, input="My name is Bob.", previous_response_id=first.id)
        asked = {"model": model, "input": "What is my name?"}
        assert (await create(**asked, previous_response_id=first.id)).output_text == "Your name is Alice."
        assert (await create(**asked, previous_response_id=second.id)).output_text == "Your name is Bob."
        assert (await create(**asked)).output_text == "You have not told me your name."
    await friday.end()


async def test_the_example_remembers_after_a_restart(tmp_path: Path, wire: Wire) -> None:
    env = {"FRIDAY_DATABASE": str(tmp_path / "friday.db")}
    async with stage_of(example(), **env) as stage, sdk(stage.process.url, wire) as client:
        stage.begin()
        first = await client.responses.create(model="friday", input="My name is Alice.")
        await answer(stage, saying("My name is Alice.", "kept"))
        assert "InMemory" not in stage.process.log
        await stage.end()
    async with stage_of(example(), **env) as stage, sdk(stage.process.url, wire) as client:
        stage.begin()
        await client.responses.create(model="friday", input="What is my name?", previous_response_id=first.id)
        await answer(stage, saying("What is my name?", "kept"))
        assert stage.prompts == [["My name is Alice.", "What is my name?"]] * 2
        await stage.end()


async def test_its_tool_runs_code(friday: Stage) -> None:
    friday.begin()
    friday.play(rules({"6 by 7": CallTool("execute_python_code", {"code": "print(6 * 7)"})}))
    ending = await answer(friday, saying("What is 6 by 7?", "tool"))
    (told,) = data(ending, "plugin_call_output")
    assert "42" in told["output"]
    assert "42" in texts(ending)[0]
    await friday.end()


async def test_one_object_instead_of_a_stream(friday: Stage) -> None:
    friday.begin()
    body = json.dumps({**json.loads(STEP_5), "stream": False})
    response = json.loads(await curl(f"{friday.process.url}/process", body))
    assert texts(response) == ["The capital of France is Paris."]
    await friday.end()


async def test_what_it_is_called(friday: Stage) -> None:
    status, about = await friday.client.json("GET", "/")
    assert (status, about["name"]) == (200, "Friday")
