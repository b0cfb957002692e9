"""The tutorial's steps 2 and 3 as written there, and the examples made of them: a browser, its service, an agent that
browses. Only the model is another, and www.example.com is on this machine."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from kits.engine import OwnEngine
from kits.example_site import URL, example_site
from kits.needs import needs_bubblewrap
from kits.scripted_model_script import CallTool, Reply, Request, text_of, tool_names
from kits.server_process import APPS
from kits.stage import Stage, for_installed_line, stage_of
from kits.tutorial import the_tutorial
from kits.wire_grammar import check_stream, data, texts

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
OURS = "from greenroom import compat; compat.install()\n"
"""What lets a script find `agentscope_runtime`; `greenroom serve` does it by itself."""
OF_THE_SANDBOX = """
from agentscope_runtime.engine.services.sandbox import SandboxService
from agentscope_runtime.sandbox import BrowserSandbox
"""
"""Step 1's imports, as far as step 2 needs them: those of AgentScope 1.x are not there with 2.x."""


Env: TypeAlias = Mapping[str, str]


@pytest.fixture(params=["local", "docker"])
def where(request: pytest.FixtureRequest) -> Env:
    """Where sandboxes come from, in the environment's words."""
    if request.param == "local":
        needs_bubblewrap()
        return {"GREENROOM_SANDBOX": "local"}
    engine: OwnEngine = request.getfixturevalue("docker_engine")
    return {
        "GREENROOM_SANDBOX": "docker",
        "DOCKER_HOST": engine.url,
        "GREENROOM_SANDBOX_IMAGE": engine.image,
    }


# -- step 2: a script --------------------------------------------------------------------------------------------------


async def script(code: str, env: Env, given: str = "") -> tuple[str, str]:
    """Run it as a reader would; what it printed, and what it wrote to the error output. `given`: its input."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **env},
    )
    printed, errors = (piece.decode() for piece in await process.communicate(given.encode()))
    assert process.returncode == 0, errors
    return printed, errors


async def test_step_2_prints_the_tools_the_page_and_a_snapshot(tmp_path: Path, where: Env) -> None:
    tutorial = the_tutorial()
    async with example_site(tmp_path) as site:
        printed, errors = await script(OURS + OF_THE_SANDBOX + tutorial.code(2), {**site.env, **where})
    assert "browser_navigate(url): Load a web address" in printed
    assert printed.count("- Page Title: Example Domain") == 2
    assert re.search(r'textbox "Your name"[^\n]*\[ref=\w+\]', printed)
    # Once by `with BrowserSandbox()`, once by the service's sandbox, whose calls nobody awaits.
    assert site.asked.count("/") == 2
    assert "never awaited" not in errors
    assert "Traceback" not in errors


IN_A_NOTEBOOK = """
import asyncio, sys
from jupyter_client.manager import start_new_async_kernel

async def run(code):
    manager, client = await start_new_async_kernel()
    try:
        shown = lambda message: print(message["content"].get("text", ""))
        reply = await client.execute_interactive(code, timeout=100, output_hook=shown)
        print(reply["content"]["status"], reply["content"].get("evalue", ""))
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)

asyncio.run(run(sys.stdin.read()))
"""


async def test_step_2_in_a_notebook_whose_loop_runs(tmp_path: Path) -> None:
    needs_bubblewrap()
    with_box, _ = the_tutorial().cells(2)
    async with example_site(tmp_path) as site:
        code = OURS + OF_THE_SANDBOX + with_box
        printed, _ = await script(IN_A_NOTEBOOK, site.env, code)
    assert printed.count("- Page Title: Example Domain") == 2
    assert printed.split()[-1] == "ok"


# -- step 3: an agent that browses -------------------------------------------------------------------------------------


def browsing(request: Request) -> Reply:
    """A model that looks at the page, fills its form, and answers from what it says."""
    told = [text_of(message) for message in request["messages"] if message["role"] == "tool"]
    steps: list[Any] = [
        lambda: CallTool("browser_navigate", {"url": URL}),
        lambda: CallTool("browser_snapshot", {}),
        lambda: CallTool(
            "browser_type",
            {"element": "name field", "ref": ref_of('textbox "Your name"', told[1]), "text": "Alice"},
        ),
        lambda: CallTool("browser_click", {"element": "button", "ref": ref_of('button "Greet me"', told[1])}),
        lambda: CallTool("browser_take_screenshot", {}),
    ]
    if len(told) < len(steps):
        reply: Reply = steps[len(told)]()
        return reply
    found = re.search(r"Hello \w+, your number is \d+", told[3])
    return f"The page says: {found[0] if found else told[3]}."


def looking(request: Request) -> Reply:
    """A model that only looks."""
    last = request["messages"][-1]
    return text_of(last) if last["role"] == "tool" else CallTool("browser_snapshot", {})


def ref_of(element: str, snapshot: str) -> str:
    found = re.search(re.escape(element) + r"[^\n]*\[ref=(\w+)\]", snapshot)
    assert found, snapshot
    return found[1]


async def answer(stage: Stage, text: str, session: str) -> dict[str, Any]:
    """The whole response to a request like the tutorial's."""
    content = [{"type": "text", "text": text}]
    body = {"input": [{"role": "user", "content": content}], "session_id": session, "user_id": "ann"}
    exchange = await stage.client.post(body)
    return check_stream(await exchange.rest())


@asynccontextmanager
async def served(app: Path, env: Env) -> AsyncIterator[Stage]:
    async with stage_of(str(app), **env) as stage:
        stage.begin()
        stage.play(browsing)
        yield stage
        await stage.end()


async def check_browsing(stage: Stage) -> None:
    ending = await answer(stage, "What does the page say to Alice?", "s1")
    assert ending["status"] == "completed", ending
    assert texts(ending)[-1] == "The page says: Hello Alice, your number is 42."
    outputs = data(ending, "plugin_call_output")
    assert len(outputs) == 5
    assert "Example Domain" in outputs[0]["output"]
    shown = re.search(r'"data": ?"([A-Za-z0-9+/=]+)"', outputs[4]["output"])
    assert shown, outputs[4]
    assert base64.b64decode(shown[1]).startswith((b"\xff\xd8", b"\x89PNG"))


@pytest.mark.agentscope1
async def test_the_whole_tutorial_is_served_as_written(tmp_path: Path, where: Env) -> None:
    tutorial = the_tutorial()
    app = tmp_path / "tutorial.py"
    app.write_text(tutorial.code(1, 2, 3, 4), encoding="utf-8")
    async with (
        example_site(tmp_path) as site,
        served(app, {**site.env, **where, "PYTHONPATH": str(APPS)}) as stage,
    ):
        assert site.asked.count("/") == 2  # step 2, when the file was loaded
        await check_browsing(stage)
        assert site.asked.count("/") == 3
        # The browser is the session's: in its next turn it is still on the page, and another session has another.
        stage.play(looking)
        assert "Hello Alice, your number is 42" in texts(await answer(stage, "And now?", "s1"))[-1]
        assert "Hello Alice" not in texts(await answer(stage, "And now?", "s2"))[-1]
        assert site.asked.count("/") == 3


def own_file(folder: Path) -> Env:
    """Where Friday keeps its sessions."""
    return {"FRIDAY_DATABASE": str(folder / "friday.db")}


async def test_friday_browses(tmp_path: Path, where: Env) -> None:
    app = EXAMPLES / for_installed_line("friday_{}.py").replace("_1", "")
    async with (
        example_site(tmp_path) as site,
        served(app, {**site.env, **where, **own_file(tmp_path)}) as stage,
    ):
        await check_browsing(stage)
        assert site.asked.count("/") == 1


async def test_friday_says_so_where_no_sandbox_can_run(tmp_path: Path) -> None:
    app = EXAMPLES / for_installed_line("friday_{}.py").replace("_1", "")
    nowhere = {"GREENROOM_SANDBOX": "docker", "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    async with served(app, {**nowhere, **own_file(tmp_path), "GREENROOM_STATE": str(tmp_path)}) as stage:
        stage.play(lambda request: f"I have {', '.join(tool_names(request))}.")
        ending = await answer(stage, "Look at a page.", "s1")
        assert texts(ending) == ["I have execute_python_code."]
        assert "You cannot open web pages here" in json.dumps(stage.model.requests[0]["messages"])
        assert "Friday has no browser: " in stage.process.log
