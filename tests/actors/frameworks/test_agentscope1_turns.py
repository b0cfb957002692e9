"""AgentScope 1.x agents in turns of a real actor: answered, cancelled, tools off the loop, usage counted."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from greenroom.actors.errors import HandlerError
from greenroom.actors.events import (
    Terminal,
    TextDelta,
    ToolProgress,
    TurnCancelled,
    TurnCompleted,
    TurnFailed,
)
from greenroom.actors.messages import Text, ToolCall, ToolOutput, Usage
from greenroom.services.sessions.memory_store import InMemoryStore
from kits.agentscope_line import require_line
from kits.grammar import check_events, texts
from kits.scripted_model import ScriptedModel
from kits.scripted_model_script import CallTool, Hang, Say, Think
from kits.scripted_model_script import Usage as Reports
from kits.system import turn

require_line(1)

from agentscope.agent import AgentBase
from agentscope.message import Msg
from agentscope.model import ChatModelBase
from agentscope.pipeline import stream_printing_messages
from agentscope.tool import Toolkit, ToolResponse

from greenroom.actors.frameworks.adapter import ForeignState
from greenroom.actors.frameworks.agentscope1 import AgentScope1Adapter
from kits.agentscope1_agents import Scripted, a_model, an_agent, ask, calls, says, serving, tool_says

pytestmark = pytest.mark.agentscope1


def said(ending: Terminal) -> list[str]:
    return texts(ending.output)


async def printed(agent: AgentBase, msgs: Any) -> AsyncIterator[Any]:
    """The tutorial's way to answer."""
    async for msg, last in stream_printing_messages([agent], agent(msgs)):
        yield msg, last


# -- answered ------------------------------------------------------------------------------------------------------


def weather(city: str) -> ToolResponse:
    """The weather.

    Args:
        city (str): where.
    """
    return tool_says(f"sunny in {city}")


async def test_a_real_agent_on_a_model_server_answers_with_a_tool() -> None:
    script = [
        [
            Think("Hm, the weather."),
            CallTool("weather", {"city": "Paris"}),
            Reports(10, 5, cached=4, reasoning=3),
        ],
        [Say("Sunny in Paris."), Reports(20, 7)],
    ]
    async with ScriptedModel(script) as model:

        async def answer(msgs: Any) -> AsyncIterator[Any]:
            async for item in printed(an_agent(a_model(model.base_url), weather), msgs):
                yield item

        async with serving(answer) as system:
            log = await system.submit(turn("weather?"))
            ending = await log.ended()
            items = check_events(log.events())
    assert isinstance(ending, TurnCompleted)
    assert [item.kind for item in items] == ["reasoning", "tool_call", "tool_output", "message"]
    call_id = items[1].parts[0].call_id  # type: ignore[union-attr]
    assert items[1].parts == (ToolCall(call_id, "weather", '{"city":"Paris"}'),)
    assert items[2].parts == (ToolOutput(call_id, "weather", (Text("sunny in Paris"),)),)
    assert said(ending) == ["Sunny in Paris."]
    assert len([event for event in log.events() if isinstance(event, TextDelta)]) > 4, "it streams"
    assert (items[1].usage, items[3].usage) == (Usage(10, 5, 4, 3), Usage(20, 7))
    assert ending.usage == Usage(30, 12, 4, 3)


async def test_an_agent_of_a_factory_is_kept_warm_restored_and_saved() -> None:
    store = InMemoryStore()
    models = []

    def make_agent() -> AgentBase:
        models.append(Scripted(says("one"), says("two")))
        return an_agent(models[-1])

    async with serving(make_agent, agent=True, store=store) as system:
        assert said(await ask(system, "a")) == ["one"]
        assert said(await ask(system, "b")) == ["two"]
    async with serving(make_agent, agent=True, store=store) as system:
        assert said(await ask(system, "c")) == ["one"]
    assert len(models) == 2
    user = [message["content"][0]["text"] for message in models[1].asked[0] if message["role"] == "user"]
    assert user == ["a", "b", "c"]


def test_a_state_that_agentscope_2_left_is_not_taken_for_none() -> None:
    driver = AgentScope1Adapter().driver(an_agent(Scripted(says("hi"))))
    driver.restore(driver.save())
    with pytest.raises(ForeignState, match=r"context, .*AgentScope 2\.x"):
        driver.restore(b'{"session_id":"s","summary":"","context":[],"reply_context":{}}')


async def test_a_state_that_is_no_json_fails_the_turn_by_name() -> None:
    def make_agent() -> AgentBase:
        agent = an_agent(Scripted(says("hi")))
        agent.register_state("model", custom_to_json=lambda model: model)
        return agent

    async with serving(make_agent, agent=True) as system:
        ending = await ask(system)
    assert isinstance(ending, TurnFailed)
    assert "register_state" in ending.error.message


def test_only_agents_are_driven() -> None:
    with pytest.raises(HandlerError, match="AgentBase"):
        AgentScope1Adapter().driver("no agent")


# -- ended ---------------------------------------------------------------------------------------------------------


async def test_cancelling_a_turn_ends_the_agent_and_its_model_call() -> None:
    agents = []
    async with ScriptedModel([[Say("Well, "), Hang()]]) as model:

        async def answer(msgs: Any) -> AsyncIterator[Any]:
            agents.append(an_agent(a_model(model.base_url)))
            async for item in printed(agents[0], msgs):
                yield item

        async with serving(answer) as system:
            log = await system.submit(turn("hello"))
            async for event in log.read():
                if isinstance(event, TextDelta):
                    await system.cancel(log.id)
            ending = await log.ended()
            await model.wait_aborted()
            assert isinstance(ending, TurnCancelled)
            assert said(ending) == ["Well, "]
            assert agents[0]._reply_task is None, "the agent's own task is over"
            check_events(log.events())


async def test_a_cancelled_turn_of_an_agent_leaves_the_state_of_the_last_good_one() -> None:
    models = [Scripted(says("one"), says("half"), hang=False), Scripted(says("three"))]
    made = iter(models)
    async with serving(lambda: an_agent(next(made)), agent=True) as system:
        await ask(system, "a")
        models[0].hang = True
        log = await system.submit(turn("b"))
        await models[0].hanging.wait()
        await system.cancel(log.id)
        assert isinstance(await log.ended(), TurnCancelled)
        assert said(await ask(system, "c")) == ["three"]
    prompt = [message["content"][0]["text"] for message in models[1].asked[0]]
    assert prompt == ["You help.", "a", "one", "c"]


@pytest.mark.parametrize("own_task", [True, False])
async def test_an_agent_that_takes_cancellation_for_a_wish_to_talk_does_not_go_on(own_task: bool) -> None:
    first, second = Scripted(says("half"), hang=True), Scripted(says("never"))

    async def one_after_the_other(msgs: Any) -> None:
        await an_agent(second)(await agent(msgs))

    async def answer(msgs: Any) -> AsyncIterator[Any]:
        if own_task:
            await one_after_the_other(msgs)
        async for item in stream_printing_messages([agent], one_after_the_other(msgs)):
            yield item

    agent = an_agent(first)
    async with serving(answer) as system:
        log = await system.submit(turn("hello"))
        await first.hanging.wait()
        await system.cancel(log.id)
        ending = await log.ended()
    assert isinstance(ending, TurnCancelled)
    assert not second.asked


async def test_a_handler_may_await_its_agent_itself() -> None:
    async def answer(msgs: Any) -> Any:
        return await an_agent(Scripted(says("hello"), usage=(3, 2)))(msgs)

    async with serving(answer) as system:
        ending = await ask(system)
    assert isinstance(ending, TurnCompleted)
    assert (said(ending), ending.usage) == (["hello"], Usage(3, 2))


async def test_interrupting_an_agent_is_not_cancelling_its_turn() -> None:
    model = Scripted(says("half"), hang=True)
    agent = an_agent(model)

    async def interrupt() -> None:
        await model.hanging.wait()
        await agent.interrupt()

    async def answer(msgs: Any) -> AsyncIterator[Any]:
        interrupting = asyncio.create_task(interrupt())
        async for item in printed(agent, msgs):
            yield item
        await interrupting

    async with serving(answer) as system:
        ending = await ask(system)
    assert isinstance(ending, TurnCompleted)
    assert sorted(said(ending)) == ["I noticed that you have interrupted me. What can I do for you?", "half"]


async def test_an_agent_called_after_its_turn_is_refused() -> None:
    late: list[asyncio.Task[Any]] = []
    over = asyncio.Event()

    async def later(msgs: Any) -> Any:
        await over.wait()
        return await an_agent(Scripted(says("late")))(msgs)

    async def answer(msgs: Any) -> str:
        late.append(asyncio.create_task(later(msgs)))
        return "done"

    async with serving(answer) as system:
        await ask(system)
        over.set()
        with pytest.raises(Exception, match="turn that has ended"):
            await late[0]


async def test_outside_of_turns_agents_behave_as_ever() -> None:
    AgentScope1Adapter()
    model = Scripted(says("half"), hang=True)
    task = asyncio.create_task(an_agent(model)(Msg("user", "hello", "user")))
    await model.hanging.wait()
    task.cancel()
    assert "interrupted" in (await task).get_text_content()


# -- tools off the loop --------------------------------------------------------------------------------------------

place: ContextVar[str] = ContextVar("place", default="nowhere")


async def with_tool(
    tool: Any, during: Any = None, toolkit: Toolkit | None = None
) -> tuple[Terminal, list[Any]]:
    """The ending of a turn whose agent calls the tool, and the turn's events. `during` runs on the loop meanwhile."""
    agent = an_agent(Scripted(calls("tool"), says("done")))
    if toolkit is not None:
        agent.toolkit = toolkit
    else:
        agent.toolkit.register_tool_function(tool, func_name="tool")

    async def answer(msgs: Any) -> AsyncIterator[Any]:
        place.set("here")
        async for item in printed(agent, msgs):
            yield item

    async with serving(answer) as system:
        log = await system.submit(turn("hello"))
        if during is not None:
            await during
        ending = await log.ended()
    return ending, list(log.events())


def output_of(ending: Terminal) -> list[str]:
    outputs = [item.parts[0] for item in ending.output if item.kind == "tool_output"]
    return ["".join(part.text for part in output.output) for output in outputs]  # type: ignore[union-attr]


def where() -> str:
    return "loop" if threading.current_thread() is threading.main_thread() else "thread"


async def test_a_synchronous_tool_leaves_the_loop_free_and_knows_its_context() -> None:
    loop, entered, leave = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def tool() -> ToolResponse:
        """A tool."""
        loop.call_soon_threadsafe(entered.set)
        assert leave.wait(10), "the loop was blocked: nobody could open the door"
        return tool_says(f"{place.get()} in a {where()}")

    async def open_the_door() -> None:
        await entered.wait()
        leave.set()

    ending, _ = await with_tool(tool, open_the_door())
    assert output_of(ending) == ["here in a thread"]


def generating() -> Generator[ToolResponse, None, None]:
    """A tool."""
    yield tool_says(where())
    yield tool_says(f"{where()} {where()}")


async def an_async_one() -> ToolResponse:
    """A tool."""
    return tool_says(where())


async def an_async_generator() -> AsyncGenerator[ToolResponse, None]:
    """A tool."""
    yield tool_says("so far", is_last=False)
    yield tool_says(where())


def returning_a_coroutine() -> Any:
    """A tool."""
    return an_async_one()


def returning_an_async_generator() -> Any:
    """A tool."""
    return an_async_generator()


@pytest.mark.parametrize(
    ("tool", "output", "progress"),
    [
        (generating, "thread thread", ["thread"]),
        (an_async_one, "loop", []),
        (partial(an_async_one), "loop", []),
        (an_async_generator, "loop", ["so far"]),
        (returning_a_coroutine, "loop", []),
        (returning_an_async_generator, "loop", ["so far"]),
    ],
)
async def test_tools_of_all_kinds(tool: Any, output: str, progress: list[str]) -> None:
    ending, events = await with_tool(tool)
    assert output_of(ending) == [output]
    shown = [event.output for event in events if isinstance(event, ToolProgress)]
    assert shown == [(Text(text),) for text in progress]


async def test_a_synchronous_tool_that_raises_tells_the_model() -> None:
    def tool() -> ToolResponse:
        """A tool."""
        raise ValueError("no luck")

    ending, _ = await with_tool(tool)
    assert isinstance(ending, TurnCompleted)
    assert output_of(ending) == ["Error: no luck"]


async def test_a_synchronous_postprocessing_is_off_the_loop_too() -> None:
    toolkit = Toolkit()

    def tool() -> ToolResponse:
        """A tool."""
        return tool_says("x")

    toolkit.register_tool_function(tool, postprocess_func=lambda call, response: tool_says(where()))
    ending, _ = await with_tool(None, toolkit=toolkit)
    assert output_of(ending) == ["thread"]


async def test_a_turn_is_cancelled_while_its_tool_is_in_a_thread() -> None:
    loop, entered, leave = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def tool() -> ToolResponse:
        """A tool."""
        loop.call_soon_threadsafe(entered.set)
        leave.wait(10)
        return tool_says("too late")

    agent = an_agent(Scripted(calls("tool"), says("never")), tool)
    async with serving(lambda msgs: printed(agent, msgs)) as system:
        log = await system.submit(turn("hello"))
        await entered.wait()
        await system.cancel(log.id)
        ending = await log.ended()
        leave.set()
    assert isinstance(ending, TurnCancelled)
    assert len(agent.model.asked) == 1


async def test_outside_of_turns_tools_run_where_they_always_did() -> None:
    seen: list[str] = []

    def tool() -> ToolResponse:
        """A tool."""
        seen.append(where())
        return tool_says("x")

    agent = an_agent(Scripted(calls("tool"), says("a"), calls("tool"), says("b")), tool)
    async with serving(lambda msgs: printed(agent, msgs)) as system:
        await ask(system)
    await agent(Msg("user", "hello", "user"))
    assert seen == ["thread", "loop"]


# -- usage ---------------------------------------------------------------------------------------------------------


async def test_the_usage_of_a_model_called_without_an_agent_counts() -> None:
    async def answer() -> AsyncIterator[str]:
        model = Scripted(says("a", "ab"), usage=(5, 3))
        async for response in await model([]):
            yield response.content[0]["text"]

    async with serving(answer) as system:
        ending = await ask(system)
    assert ending.usage == Usage(5, 3)


async def test_a_model_made_of_another_is_counted_once() -> None:
    class Outer(ChatModelBase):  # type: ignore[misc]
        def __init__(self, inner: ChatModelBase) -> None:
            super().__init__("outer", stream=True)
            self.inner = inner

        async def __call__(self, *args: Any, **kwargs: Any) -> Any:
            async def stream() -> AsyncIterator[Any]:
                async for response in await self.inner(*args, **kwargs):
                    yield response

            return stream()

    class Derived(Scripted):
        async def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return await super().__call__(*args, **kwargs)

    for model in (Outer(Scripted(says("a"), usage=(5, 3))), Derived(says("a"), usage=(5, 3))):
        async with serving(lambda msgs, model=model: printed(an_agent(model), msgs)) as system:
            ending = await ask(system)
        assert (said(ending), ending.usage, ending.output[0].usage) == (["a"], Usage(5, 3), Usage(5, 3))


async def test_making_adapters_wraps_agentscope_once() -> None:
    def wrapped() -> list[Any]:
        return [
            Toolkit.call_tool_function,
            AgentBase.__call__,
            ChatModelBase.__init_subclass__,
            Scripted.__call__,
        ]

    before = wrapped()
    AgentScope1Adapter()
    assert wrapped() == before


def a_tool(place: str, days: int = 3) -> ToolResponse:
    """Tell the weather.

    Args:
        place (str): Where.
        days (int): How far ahead.
    """
    return ToolResponse(content=[])


def test_a_tool_function_is_described_once_and_every_toolkit_has_its_own_copy() -> None:
    toolkits = [Toolkit(), Toolkit()]
    for toolkit in toolkits:
        toolkit.register_tool_function(a_tool)
    first, second = (toolkit.get_json_schemas()[0]["function"] for toolkit in toolkits)
    assert first == second
    assert set(first["parameters"]["properties"]) == {"place", "days"}
    first["parameters"]["properties"].clear()
    assert set(second["parameters"]["properties"]) == {"place", "days"}
