"""Inside a turn, AgentScope 2.x's synchronous tools run off the loop, and nothing it starts outlives the turn."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from kits.agentscope_line import require_line

require_line(2)

from agentscope.agent import Agent
from agentscope.event import ToolResultStartEvent, ToolResultTextDeltaEvent
from agentscope.message import TextBlock
from agentscope.tool import FunctionTool, ToolBase, ToolChunk, Toolkit

from greenroom.actors.frameworks.agentscope2 import AgentScope2Adapter
from greenroom.actors.frameworks.agentscope2_tools import install
from greenroom.actors.messages import SessionKey
from greenroom.actors.scope import TurnScope, current_turn
from kits.agentscope2_agents import ALLOW, Said, agent, events_of, say, use, user

pytestmark = pytest.mark.agentscope2

WHO: ContextVar[str] = ContextVar("who", default="nobody")
CALL = ("1", "tool", "{}")


@pytest.fixture(autouse=True)
def _adapter() -> None:
    AgentScope2Adapter()


@contextmanager
def turn() -> Iterator[TurnScope]:
    scope = TurnScope(SessionKey("u", "s"), "t")
    token = current_turn.set(scope)
    try:
        yield scope
    finally:
        current_turn.reset(token)


def on_the_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def output_of(tools: Agent) -> str:
    """What the agent's tool gave back, and whether it went well."""
    ends = [event for event in await events_of(tools, user("go")) if hasattr(event, "tool_call_id")]
    texts = [event.delta for event in ends if event.type == "TOOL_RESULT_TEXT_DELTA"]
    return "".join(texts) + f" ({ends[-1].state})"


async def test_a_synchronous_tool_does_not_block_the_loop() -> None:
    waiting, go_on = threading.Event(), threading.Event()

    def tool() -> str:
        """Wait for the loop: on the loop, this would be for ever."""
        waiting.set()
        return "went on" if go_on.wait(30) else "never"

    async def let_go() -> None:
        await asyncio.to_thread(waiting.wait, 30)
        go_on.set()

    with turn():
        said, _ = await asyncio.gather(output_of(agent(Said(use(CALL), say("ok")), tool)), let_go())
    assert said == "went on (success)"


async def test_context_variables_reach_the_thread() -> None:
    def tool() -> str:
        """Tell who calls."""
        scope = current_turn.get()
        return f"{WHO.get()} {scope.turn_id if scope else None} {on_the_loop()}"

    WHO.set("alice")
    with turn():
        assert await output_of(agent(Said(use(CALL), say("ok")), tool)) == "alice t False (success)"


async def test_outside_of_a_turn_agentscope_behaves_as_ever() -> None:
    def tool() -> str:
        """Tell where it runs."""
        return f"on the loop: {on_the_loop()}"

    assert await output_of(agent(Said(use(CALL), say("ok")), tool)) == "on the loop: True (success)"


async def test_the_steps_of_a_synchronous_generator_run_in_threads() -> None:
    def tool() -> Iterator[str]:
        """Tell where it runs, twice."""
        yield f"{on_the_loop()} "
        yield f"{on_the_loop()}"

    with turn():
        assert await output_of(agent(Said(use(CALL), say("ok")), tool)) == "False False (success)"
    assert await output_of(agent(Said(use(CALL), say("ok")), tool)) == "True True (success)"


async def test_asynchronous_tools_stay_on_the_loop() -> None:
    async def tool() -> str:
        """Tell where it runs."""
        return f"{on_the_loop()}"

    async def stream() -> AsyncIterator[str]:
        """Tell where it runs."""
        yield f"{on_the_loop()}"

    class Callable:
        async def __call__(self) -> str:
            """Tell where it runs."""
            return f"{on_the_loop()}"

    functions: list[Any] = [tool, stream, Callable()]
    with turn():
        for function in functions:
            it = FunctionTool(function, name="tool", permission=ALLOW)
            friday = Agent("Friday", "", Said(use(CALL), say("ok")), toolkit=Toolkit(tools=[it]))
            assert await output_of(friday) == "True (success)"


async def test_a_synchronous_function_may_return_something_to_await() -> None:
    async def later() -> str:
        return f"{on_the_loop()}"

    def tool() -> Any:
        """Tell later."""
        return later()

    with turn():
        assert await output_of(agent(Said(use(CALL), say("ok")), tool)) == "True (success)"


async def test_a_tool_that_raises_tells_the_agent() -> None:
    def tool() -> str:
        """Break."""
        raise ValueError("no such city")

    with turn():
        assert await output_of(agent(Said(use(CALL), say("ok")), tool)) == "no such city (error)"


class _Plain(ToolBase):  # type: ignore[misc]  # its types are not followed
    """A tool whose own `__call__` is synchronous, which AgentScope calls on the loop."""

    name, description = "tool", "Tells where it runs."
    input_schema: dict[str, Any] = {"type": "object", "properties": {}}  # noqa: RUF012 - AgentScope's declaration
    is_concurrency_safe = is_read_only = True

    async def check_permissions(self, *args: Any, **kwargs: Any) -> Any:
        return ALLOW


class _Whole(_Plain):
    def __call__(self, **kwargs: Any) -> Any:
        return ToolChunk(content=[TextBlock(text=f"{on_the_loop()}")])


class _Stepwise(_Plain):
    def __call__(self, **kwargs: Any) -> Any:
        for _ in range(2):
            yield ToolChunk(content=[TextBlock(text=f"{on_the_loop()} ")])


@pytest.mark.parametrize(("tool", "words"), [(_Whole, 1), (_Stepwise, 2)])
async def test_tools_with_a_synchronous_call_run_in_threads(tool: type[_Plain], words: int) -> None:
    async def run() -> list[str]:
        friday = Agent("Friday", "", Said(use(CALL), say("ok")), toolkit=Toolkit(tools=[tool()]))
        return (await output_of(friday)).split()

    with turn():
        assert await run() == ["False"] * words + ["(success)"]
    assert await run() == ["True"] * words + ["(success)"]


def test_wrapping_twice_wraps_once() -> None:
    before = FunctionTool.call, Toolkit.call_tool, Agent._into_queue
    install()
    assert (FunctionTool.call, Toolkit.call_tool, Agent._into_queue) == before


class Stuck:
    """A tool that waits until it is cancelled."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.stopped = 0

    async def tool(self) -> str:
        """Wait."""
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped += 1
        return "never"


async def settled() -> None:
    """Let the loop close what was dropped: a generator a round, and AgentScope's stand one inside the other."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_tasks_of_concurrent_calls_end_with_the_turn() -> None:
    stuck = Stuck()
    friday = agent(Said(use(CALL, ("2", "tool", "{}"))), stuck.tool)
    before = asyncio.all_tasks()
    with turn() as scope:
        async with aclosing(friday.reply_stream(user("go"))) as events:
            async for event in events:
                if isinstance(event, ToolResultStartEvent):
                    await stuck.started.wait()
                    break
        assert len(scope.tasks) == 2, "AgentScope leaves them behind when its stream is closed"
        tasks = set(scope.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    await settled()
    assert (stuck.stopped, asyncio.all_tasks() - before) == (2, set())


async def test_a_cancelled_reply_leaves_nothing_behind() -> None:
    stuck = Stuck()
    friday = agent(Said(use(CALL, ("2", "tool", "{}"))), stuck.tool)
    before = asyncio.all_tasks()
    with turn() as scope:
        task = asyncio.create_task(events_of(friday, user("go")))
        await stuck.started.wait()
        task.cancel()
        events = await task
    assert events[-1].finished_reason == "interrupted"
    assert (stuck.stopped, scope.tasks, asyncio.all_tasks() - before) == (2, set(), set())


async def test_closing_the_stream_while_a_tool_speaks_raises_nothing() -> None:
    async def tool() -> AsyncIterator[str]:
        """Speak on and on."""
        while True:
            yield "and on "
            await asyncio.sleep(0)

    faults: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(context))
    with turn():
        friday = agent(Said(use(CALL)), tool, concurrent=False)
        async with aclosing(friday.reply_stream(user("go"))) as events:
            async for event in events:
                if isinstance(event, ToolResultTextDeltaEvent):
                    break
        del events, friday
    await settled()
    gc.collect()
    assert not faults
