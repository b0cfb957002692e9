"""The tools of sandboxes in AgentScope 2.x: as `FunctionTool`s, in turns and outside of them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from greenroom.actors.errors import SandboxLost
from greenroom.actors.events import TurnCancelled, TurnCompleted
from greenroom.actors.handler import QueryHandler
from greenroom.actors.messages import ToolOutput
from greenroom.actors.system import ActorSystem
from greenroom.sandbox import BrowserSandbox, ToolResult
from greenroom.sandbox.image.tool_schemas import TOOLS
from greenroom.sandbox.leases import LeaseKey
from greenroom.services.sessions.memory_store import InMemoryStore
from kits.agentscope_line import require_line
from kits.fake_keeper import PICTURE, FakeKeeper
from kits.grammar import texts
from kits.system import counting_sources, turn

require_line(2)

from agentscope.agent import Agent
from agentscope.formatter import OpenAIChatFormatter
from agentscope.message import ToolCallBlock, ToolResultState
from agentscope.permission import PermissionBehavior, PermissionContext, PermissionEngine
from agentscope.state import AgentState
from agentscope.tool import FunctionTool, ToolChunk, Toolkit, ToolResponse

from greenroom.actors.frameworks.agentscope2 import AgentScope2Adapter
from kits.agentscope2_agents import Said, events_of, say, use, user

pytestmark = pytest.mark.agentscope2

KEY = LeaseKey("u", "s", "browser")
URL = '{"url": "https://example.com/"}'


def browsing(box: BrowserSandbox, model: Said) -> Agent:
    return Agent("Friday", "You help.", model, toolkit=Toolkit(tools=box.tools()))


async def outcome(toolkit: Toolkit, name: str, given: str = "{}") -> list[Any]:
    call = ToolCallBlock(id="c", name=name, input=given)
    return [chunk async for chunk in toolkit.call_tool(call, AgentState())]


def test_every_tool_is_described_as_its_schema_says() -> None:
    tools = {tool.name: tool for tool in BrowserSandbox().tools()}
    assert set(tools) == set(TOOLS)
    for name, tool in tools.items():
        assert " ".join(tool.description.split()) == TOOLS[name]["description"]
        wanted = TOOLS[name]["parameters"]
        found = tool.input_schema
        assert len(found.get("required", [])) == len(wanted["required"])
        described = [" ".join(given["description"].split()) for given in found.get("properties", {}).values()]
        assert described == [given["description"] for given in wanted["properties"].values()]


async def test_what_runs_in_a_sandbox_need_not_be_asked_for() -> None:
    tools = {tool.name: tool for tool in BrowserSandbox().tools(ask=["run_shell_command"])}
    read_only = {name for name, tool in tools.items() if tool.is_read_only}
    assert read_only == {
        "browser_snapshot",
        "browser_wait_for",
        "browser_console_messages",
        "browser_network_requests",
        "browser_tab_list",
    }
    assert not any(tool.is_concurrency_safe for tool in tools.values())
    engine = PermissionEngine(PermissionContext())
    behaviors = {name: (await engine.check_permission(tool, {})).behavior for name, tool in tools.items()}
    assert behaviors.pop("run_shell_command") == PermissionBehavior.ASK
    assert set(behaviors.values()) == {PermissionBehavior.ALLOW}


@pytest.mark.parametrize("wrapped", ["by tools()", "by hand"])
async def test_called_outside_of_a_turn(wrapped: str) -> None:
    keeper = FakeKeeper()
    box = BrowserSandbox.leased(keeper, KEY)
    tools = box.tools("browser_navigate") if wrapped == "by tools()" else [FunctionTool(box.browser_navigate)]
    chunk, response = await outcome(Toolkit(tools=tools), "browser_navigate", URL)
    assert isinstance(chunk, ToolChunk)
    assert isinstance(response, ToolResponse)
    assert [block.text for block in response.content] == ["browser_navigate {'url': 'https://example.com/'}"]
    assert response.state == ToolResultState.SUCCESS


async def test_a_screenshot_is_an_image_block() -> None:
    keeper = FakeKeeper()
    told = {"type": "text", "text": "- Page URL: https://example.com/"}
    keeper.answers["browser_take_screenshot"] = ToolResult(meta=None, content=[PICTURE, told], isError=False)
    toolkit = Toolkit(tools=BrowserSandbox.leased(keeper, KEY).tools())
    _, response = await outcome(toolkit, "browser_take_screenshot")
    picture, text = response.content
    assert (picture.source.media_type, picture.source.data) == ("image/png", PICTURE["data"])
    assert text.text == told["text"]


async def test_what_goes_wrong_is_told_to_the_model() -> None:
    keeper = FakeKeeper()
    keeper.answers["browser_navigate"] = SandboxLost("the browser is gone")
    keeper.answers["browser_click"] = ToolResult.of_text("there is no e9", is_error=True)
    toolkit = Toolkit(tools=BrowserSandbox.leased(keeper, KEY).tools())
    _, response = await outcome(toolkit, "browser_navigate", URL)
    assert (response.state, response.content[0].text) == (ToolResultState.ERROR, "the browser is gone")
    _, response = await outcome(toolkit, "browser_click", '{"element": "x", "ref": "e9"}')
    assert (response.state, response.content[0].text) == (ToolResultState.ERROR, "there is no e9")


async def test_cancelled_outside_of_a_turn() -> None:
    keeper = FakeKeeper()
    keeper.gates["browser_navigate"] = asyncio.Event()
    box = BrowserSandbox.leased(keeper, KEY)
    task = asyncio.create_task(outcome(Toolkit(tools=box.tools()), "browser_navigate", URL))
    await keeper.begun.wait()
    task.cancel()
    chunk, _ = await task  # AgentScope says it in its own words and goes on
    assert chunk.state == ToolResultState.INTERRUPTED
    assert keeper.done == [("browser_navigate", "cancelled")]


async def test_an_agent_browses_outside_of_a_turn() -> None:
    keeper = FakeKeeper()
    model = Said(
        use(("1", "browser_navigate", URL), ("2", "browser_snapshot", "{}")), say("It says Example.")
    )
    events = await events_of(browsing(BrowserSandbox.leased(keeper, KEY), model), user("go"))
    assert [tool for tool, _ in keeper.done] == ["browser_navigate", "browser_snapshot"]
    assert [event.state for event in events if event.type == "TOOL_RESULT_END"] == ["success", "success"]


async def test_an_agent_browses_in_a_turn() -> None:
    keeper = FakeKeeper()
    keeper.answers["browser_take_screenshot"] = ToolResult(meta=None, content=[PICTURE], isError=False)
    model = Said(
        use(("1", "browser_navigate", URL), ("2", "browser_snapshot", "{}")),
        use(("3", "browser_take_screenshot", "{}")),
        say("It says Example."),
    )

    async def answer(msgs: Any) -> AsyncIterator[Any]:
        async for event in browsing(BrowserSandbox.leased(keeper, KEY), model).reply_stream(msgs):
            yield event

    async with serving(answer) as system:
        ending = await (await system.submit(turn("browse"))).ended()
    assert isinstance(ending, TurnCompleted), ending
    assert texts(ending.output)[-1] == "It says Example."
    assert [tool for tool, _ in keeper.done] == [
        "browser_navigate",
        "browser_snapshot",
        "browser_take_screenshot",
    ]
    outputs = [part for item in ending.output for part in item.parts if isinstance(part, ToolOutput)]
    assert len(outputs) == 3
    assert PICTURE["data"] in str(outputs[2].output)


async def test_a_model_that_takes_no_pictures_is_told_of_them_and_no_file_is_left() -> None:
    keeper = FakeKeeper()
    keeper.answers["browser_take_screenshot"] = ToolResult(meta=None, content=[PICTURE], isError=False)
    model = Said(use(("1", "browser_take_screenshot", "{}")), say("Seen."))
    prompts: list[Any] = []

    async def answer(msgs: Any) -> AsyncIterator[Any]:
        async for event in browsing(BrowserSandbox.leased(keeper, KEY), model).reply_stream(msgs):
            yield event
        formatter = OpenAIChatFormatter(input_types=["text/plain"])
        prompts.extend(await formatter.format(model.asked[-1]))

    async with serving(answer) as system:
        ending = await (await system.submit(turn("browse"))).ended()
    assert isinstance(ending, TurnCompleted), ending
    (told,) = [prompt["content"] for prompt in prompts if prompt["role"] == "tool"]
    assert "[image/png, 0 kB; it was made, but cannot be shown to you]" in str(told)


async def test_a_turn_cancelled_in_a_tool_cancels_the_tool() -> None:
    keeper = FakeKeeper()
    keeper.gates["browser_navigate"] = asyncio.Event()
    model = Said(use(("1", "browser_navigate", URL)), say("never"))

    async def answer(msgs: Any) -> AsyncIterator[Any]:
        async for event in browsing(BrowserSandbox.leased(keeper, KEY), model).reply_stream(msgs):
            yield event

    async with serving(answer) as system:
        log = await system.submit(turn("browse", id="t1"))
        await keeper.begun.wait()
        await system.cancel("t1")
        ending = await log.ended()
    assert isinstance(ending, TurnCancelled)
    assert keeper.done == [("browser_navigate", "cancelled")]


class serving:  # noqa: N801 - used as a function
    """A system that serves an AgentScope 2.x handler."""

    def __init__(self, function: Any) -> None:
        handler = QueryHandler(function, AgentScope2Adapter(), None)
        self.system = ActorSystem(handler, InMemoryStore(), sources=counting_sources())

    async def __aenter__(self) -> ActorSystem:
        await self.system.start()
        return self.system

    async def __aexit__(self, *_: object) -> None:
        await self.system.stop()
