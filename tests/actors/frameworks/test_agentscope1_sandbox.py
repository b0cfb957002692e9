"""The tools of sandboxes in AgentScope 1.x: registered as they are, in turns and outside of them."""

import asyncio
import glob
import os
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import anyio.to_thread
import pytest

from greenroom.actors.errors import SandboxLost
from greenroom.actors.events import TurnCancelled, TurnCompleted
from greenroom.actors.messages import ToolOutput
from greenroom.sandbox import BrowserSandbox, ToolResult
from greenroom.sandbox.image.tool_schemas import TOOLS
from greenroom.sandbox.leases import LeaseKey
from kits.agentscope_line import require_line
from kits.fake_keeper import PICTURE, FakeKeeper
from kits.grammar import texts
from kits.system import turn

require_line(1)

from agentscope.formatter import OpenAIChatFormatter
from agentscope.pipeline import stream_printing_messages
from agentscope.tool import Toolkit, ToolResponse

from kits.agentscope1_agents import Scripted, an_agent, ask, calls, says, serving

pytestmark = pytest.mark.agentscope1

KEY = LeaseKey("u", "s", "browser")
NAVIGATE = ("browser_navigate", {"url": "https://example.com/"})


def registered(box: BrowserSandbox) -> Toolkit:
    toolkit = Toolkit()
    for tool in box.tools():
        toolkit.register_tool_function(tool)
    return toolkit


async def outcome(toolkit: Toolkit, name: str, given: dict[str, Any]) -> list[ToolResponse]:
    call = {"type": "tool_use", "id": "c", "name": name, "input": given}
    return [chunk async for chunk in await toolkit.call_tool_function(call)]


def test_every_tool_is_described_as_its_schema_says() -> None:
    schemas = {
        schema["function"]["name"]: schema["function"]
        for schema in registered(BrowserSandbox()).get_json_schemas()
    }
    assert set(schemas) == set(TOOLS)
    for name, schema in schemas.items():
        assert " ".join(schema["description"].split()) == TOOLS[name]["description"]
        wanted = TOOLS[name]["parameters"]
        found = schema["parameters"]
        assert len(found["properties"]) == len(wanted["properties"])
        assert [len(part) for part in (found.get("required", []), wanted["required"])].count(
            len(wanted["required"])
        ) == 2
        described = [" ".join(given["description"].split()) for given in found["properties"].values()]
        assert described == [given["description"] for given in wanted["properties"].values()]


async def test_called_outside_of_a_turn() -> None:
    keeper = FakeKeeper()
    (chunk,) = await outcome(registered(BrowserSandbox.leased(keeper, KEY)), *NAVIGATE)
    assert isinstance(chunk, ToolResponse)
    assert chunk.content == [{"type": "text", "text": "browser_navigate {'url': 'https://example.com/'}"}]
    assert keeper.calls == [NAVIGATE]


async def test_a_screenshot_is_an_image_block() -> None:
    keeper = FakeKeeper()
    told = {"type": "text", "text": "- Page URL: https://example.com/"}
    keeper.answers["browser_take_screenshot"] = ToolResult(meta=None, content=[PICTURE, told], isError=False)
    (chunk,) = await outcome(registered(BrowserSandbox.leased(keeper, KEY)), "browser_take_screenshot", {})
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE["data"]}
    assert chunk.content == [{"type": "image", "source": source}, told]


async def test_the_parts_of_a_command_are_told_apart() -> None:
    keeper = FakeKeeper()
    parts = [("stdout", "hello"), ("stderr", "oh"), ("returncode", "3")]
    content = [{"type": "text", "text": text, "description": kind} for kind, text in parts]
    keeper.answers["run_shell_command"] = ToolResult(meta=None, content=content, isError=True)
    keeper.answers["run_ipython_cell"] = ToolResult(meta=None, content=[], isError=False)
    toolkit = registered(BrowserSandbox.leased(keeper, KEY))
    (chunk,) = await outcome(toolkit, "run_shell_command", {"command": "x"})
    assert chunk.content == [{"type": "text", "text": "hello\nstderr:\noh\nexit code: 3"}]
    (chunk,) = await outcome(toolkit, "run_ipython_cell", {"code": "x"})
    assert chunk.content == [{"type": "text", "text": "(no output)"}]


async def test_what_goes_wrong_is_told_to_the_model() -> None:
    keeper = FakeKeeper()
    keeper.answers["browser_navigate"] = SandboxLost("the browser is gone")
    box = BrowserSandbox.leased(keeper, KEY)
    toolkit = registered(box)
    (chunk,) = await outcome(toolkit, *NAVIGATE)
    assert chunk.content == [{"type": "text", "text": "SandboxLost: the browser is gone"}]
    box.end("it was stopped")
    (chunk,) = await outcome(toolkit, *NAVIGATE)
    assert chunk.content == [{"type": "text", "text": "Error: it was stopped"}]


async def test_cancelled_outside_of_a_turn() -> None:
    keeper = FakeKeeper()
    keeper.gates["browser_navigate"] = asyncio.Event()
    toolkit = registered(BrowserSandbox.leased(keeper, KEY))
    task = asyncio.create_task(outcome(toolkit, *NAVIGATE))
    await keeper.begun.wait()
    task.cancel()
    (chunk,) = await task  # AgentScope 1.x says it in its own words and goes on
    assert chunk.is_interrupted
    assert keeper.done == [("browser_navigate", "cancelled")]


async def browse(keeper: FakeKeeper, msgs: Any, model: Scripted) -> AsyncIterator[Any]:
    """The tutorial's way to answer, with a browser."""
    box = BrowserSandbox.leased(keeper, KEY)
    tools = (box.browser_navigate, box.browser_snapshot, box.browser_take_screenshot)
    agent = an_agent(model, *tools)
    async for msg, last in stream_printing_messages([agent], agent(msgs)):
        yield msg, last


async def test_an_agent_browses_in_a_turn() -> None:
    keeper = FakeKeeper()
    keeper.answers["browser_take_screenshot"] = ToolResult(meta=None, content=[PICTURE], isError=False)

    model = Scripted(
        calls("browser_navigate", "c1", url="https://example.com/"),
        calls("browser_snapshot", "c2"),
        calls("browser_take_screenshot", "c3"),
        says("It says Example."),
    )

    async def answer(msgs: Any) -> AsyncIterator[Any]:
        async for item in browse(keeper, msgs, model):
            yield item

    async with serving(answer) as system:
        ending = await ask(system)
    assert isinstance(ending, TurnCompleted)
    assert texts(ending.output)[-1] == "It says Example."
    assert [tool for tool, _ in keeper.done] == [
        "browser_navigate",
        "browser_snapshot",
        "browser_take_screenshot",
    ]
    outputs = [part for item in ending.output for part in item.parts if isinstance(part, ToolOutput)]
    assert len(outputs) == 3
    assert "browser_navigate {'url'" in str(outputs[0].output)
    assert PICTURE["data"] in str(
        outputs[2].output
    )  # clients are shown it; a model that takes no pictures is told
    assert model.asked[-1][-1]["content"] == "[image/png, 0 kB; it was made, but cannot be shown to you]"


@pytest.mark.blocks_loop  # AgentScope's formatter reads the file there
async def test_a_formatter_that_passes_pictures_on_leaves_no_file_behind() -> None:
    keeper = FakeKeeper()
    keeper.answers["browser_take_screenshot"] = ToolResult(meta=None, content=[PICTURE], isError=False)
    shoot = calls("browser_take_screenshot")
    model = Scripted(shoot, calls("browser_snapshot", "c2"), says("Seen."))
    before = await pictures()

    async def answer(msgs: Any) -> AsyncIterator[Any]:
        box = BrowserSandbox.leased(keeper, KEY)
        agent = an_agent(model, box.browser_take_screenshot, box.browser_snapshot)
        agent.formatter = OpenAIChatFormatter(promote_tool_result_images=True)
        async for msg, last in stream_printing_messages([agent], agent(msgs)):
            yield msg, last
        assert len(await pictures() - before) == 1, "one picture, though two prompts contain it"

    async with serving(answer) as system:
        ending = await ask(system)
    assert isinstance(ending, TurnCompleted), ending
    for prompt in model.asked[1:]:
        shown = [part for message in prompt for part in message["content"] or () if isinstance(part, dict)]
        assert f"data:image/png;base64,{PICTURE['data']}" in str(shown)
    async with asyncio.timeout(20):
        while await pictures() - before:  # noqa: ASYNC110 - a thread removes it
            await asyncio.sleep(0.01)


async def pictures() -> set[str]:
    """Files that were written for pictures. A thread may be removing them: `glob`, other than `Path.glob`, bears it."""
    everywhere = os.path.join(tempfile.gettempdir(), "greenroom-pictures-*", "*.png")  # noqa: PTH118
    return set(await anyio.to_thread.run_sync(glob.glob, everywhere))


async def test_a_turn_cancelled_in_a_tool_cancels_the_tool() -> None:
    keeper = FakeKeeper()
    keeper.gates["browser_navigate"] = asyncio.Event()

    async def answer(msgs: Any) -> AsyncIterator[Any]:
        model = Scripted(calls("browser_navigate", url="https://example.com/"), says("never"))
        async for item in browse(keeper, msgs, model):
            yield item

    async with serving(answer) as system:
        log = await system.submit(turn("browse", id="t1"))
        await keeper.begun.wait()
        await system.cancel("t1")
        ending = await log.ended()
    assert isinstance(ending, TurnCancelled)
    assert keeper.done == [("browser_navigate", "cancelled")]
