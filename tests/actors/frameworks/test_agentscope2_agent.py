"""AgentScope 2.x agents and handlers, driven by a session's actor."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from kits.agentscope_line import require_line

require_line(2)

from agentscope.agent import Agent
from agentscope.credential import OpenAICredential
from agentscope.message import Msg
from agentscope.model import OpenAIChatModel
from agentscope.permission import PermissionBehavior, PermissionMode, PermissionRule
from agentscope.state import AgentState
from pydantic import SecretStr

from greenroom.actors.errors import HandlerError
from greenroom.actors.events import Terminal, TextDelta, TurnCancelled, TurnCompleted, TurnFailed
from greenroom.actors.frameworks.agentscope2 import AgentScope2Adapter
from greenroom.actors.handler import AgentHandler, QueryHandler
from greenroom.actors.messages import Data, Message, Text, ToolCall, ToolOutput, Usage
from greenroom.actors.system import ActorSystem
from greenroom.services.agent_state import InMemoryStateService
from greenroom.services.sessions.memory_store import InMemoryStore
from greenroom.services.store import TurnCommit, TurnRecord
from kits.agentscope2_agents import HANG, Said, agent, events_of, say, think, use, user
from kits.grammar import check_events
from kits.scripted_model import ScriptedModel
from kits.scripted_model_script import CallTool, Say, Think
from kits.scripted_model_script import Usage as ScriptedUsage
from kits.system import counting_sources, said, turn

pytestmark = pytest.mark.agentscope2


@asynccontextmanager
async def serving(
    function: Callable[..., Any], *, by_factory: bool = False, **kwargs: Any
) -> AsyncIterator[ActorSystem]:
    handler = (AgentHandler if by_factory else QueryHandler)(function, AgentScope2Adapter(), None)
    system = ActorSystem(handler, InMemoryStore(), sources=counting_sources(), **kwargs)
    await system.start()
    try:
        yield system
    finally:
        await system.stop()


async def ending_of(system: ActorSystem, text: str = "hello", **kwargs: Any) -> Terminal:
    """A turn's ending, its events checked."""
    messages = kwargs.pop("messages", None)
    asked = turn(text, **kwargs)
    if messages is not None:
        asked = replace(asked, request=replace(asked.request, input=messages))
    log = await system.submit(asked)
    events = [event async for event in log.read()]
    check_events(events)
    ending: Terminal = events[-1]  # type: ignore[assignment]
    return ending


def texts_asked(model: Said) -> list[str]:
    """What the last call of the model got, without AgentScope's notes."""
    return [text for msg in model.asked[-1] if (text := msg.get_text_content()) is not None]


# -- handlers ----------------------------------------------------------------------------------------------------------


async def test_a_handler_in_the_manner_of_the_tutorial() -> None:
    async with InMemoryStateService() as states:

        async def query(msgs: list[Msg], request: Any) -> AsyncIterator[Any]:
            model = Said([*think("hm", "m"), *say("You said ", msgs[0].get_text_content())])
            kept = await states.export_state(user_id=request.user_id, session_id=request.session_id)
            friday = agent(model, state=AgentState.model_validate(kept) if kept else None)
            async for event in friday.reply_stream(msgs):
                yield event
            await states.save_state(
                user_id=request.user_id,
                session_id=request.session_id,
                state=friday.state.model_dump(mode="json"),
            )

        async with serving(query) as system:
            first, second = [await ending_of(system, text) for text in ("one", "two")]
        state = await states.export_state("u", "s")
    assert isinstance(first, TurnCompleted)
    assert [item.kind for item in first.output] == ["reasoning", "message"]
    assert (said(first), said(second)) == ("You said one", "You said two")
    assert first.usage == first.output[1].usage == Usage(7, 5, 3)
    assert state is not None
    assert [msg["role"] for msg in state["context"]] == ["user", "assistant"] * 2


async def test_a_model_that_fails_fails_the_turn_and_keeps_no_state() -> None:
    model = Said(RuntimeError("the model is gone"), say("back"))
    async with serving(lambda: agent(model), by_factory=True) as system:
        failed = await ending_of(system, "one")
        completed = await ending_of(system, "two")
    assert isinstance(failed, TurnFailed)
    assert failed.error.code == "RuntimeError"
    assert (said(completed), texts_asked(model)) == ("back", ["You are Friday.", "two"])


# -- agents ------------------------------------------------------------------------------------------------------------


async def test_an_agent_is_kept_warm_and_saved() -> None:
    made: list[Said] = []

    def make() -> Agent:
        made.append(Said(say("one"), say("two")))
        return agent(made[-1])

    async with serving(make, by_factory=True) as system:
        assert said(await ending_of(system, "a")) == "one"
        assert said(await ending_of(system, "b")) == "two"
        assert len(made) == 1
        assert texts_asked(made[0]) == ["You are Friday.", "a", "one", "b"]


async def test_an_agent_made_anew_goes_on_from_the_saved_state() -> None:
    adapter = AgentScope2Adapter()
    before, after = Said(say("one")), Said(say("two"))
    driver = adapter.driver(agent(before))
    _ = [event async for event in driver.run([Message((Text("a"),))])]
    again = adapter.driver(agent(after))
    again.restore(driver.save())
    _ = [event async for event in again.run([Message((Text("b"),))])]
    assert texts_asked(after) == ["You are Friday.", "a", "one", "b"]


async def test_a_session_of_agentscope_1_goes_on_and_the_log_says_that_its_agent_forgot(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = turn(session="old")
    record = TurnRecord("before", "completed", 0.0, asked.request.input)
    state = b'{"memory":{"content":[]},"toolkit":{"active_groups":[]},"name":"Friday","_sys_prompt":"x"}'
    async with serving(lambda: agent(Said(say("one"), say("two"))), by_factory=True) as system:
        await system.store.commit(asked.key, TurnCommit(record, state))
        assert isinstance(await ending_of(system, session="old"), TurnCompleted)
        assert isinstance(await ending_of(system, session="old"), TurnCompleted)
    warned = [one.getMessage() for one in caplog.records if "begins anew" in one.getMessage()]
    assert len(warned) == 1
    assert "'old'" in warned[0]
    assert "AgentScope 1.x" in warned[0]


def test_what_is_saved_is_what_is_restored() -> None:
    adapter = AgentScope2Adapter()
    friday, fresh = agent(Said()), agent(Said())
    friday.state.permission_context.mode = PermissionMode.BYPASS
    friday.state.tool_context.activated_groups.append("maps")
    friday.state.middle_context["mine"] = {"count": 3}
    driver = adapter.driver(fresh)
    driver.restore(adapter.driver(friday).save())
    assert fresh.state == friday.state
    assert driver.save() == adapter.driver(friday).save()


async def test_restored_permissions_are_those_the_agent_goes_by() -> None:
    def erase() -> str:
        """Erase everything."""
        return "erased"

    def make(model: Said) -> Agent:
        return agent(model, erase, permission=None)

    adapter = AgentScope2Adapter()
    friday = make(Said())
    rule = PermissionRule(
        tool_name="erase", rule_content=None, behavior=PermissionBehavior.ALLOW, source="user"
    )
    friday.state.permission_context.allow_rules["erase"] = [rule]
    fresh = make(Said(use(("1", "erase", "{}")), say("done")))
    adapter.driver(fresh).restore(adapter.driver(friday).save())
    events = await events_of(fresh, user("go"))
    assert [event.delta for event in events if event.type == "TOOL_RESULT_TEXT_DELTA"] == ["erased"]


async def test_a_whole_conversation_as_input() -> None:
    model = Said(say("ok"))
    call = Data({"call_id": "c", "name": "clock", "arguments": "{}"})
    output = Data({"call_id": "c", "name": "clock", "output": '[{"type": "text", "text": "12:00"}]'})
    messages = (
        Message((Text("Be brief."),), "system"),
        Message((Text("What time is it?"),)),
        Message((call,), "assistant", "plugin_call"),
        Message((output,), "tool", "plugin_call_output"),
        Message((Text("Noon."),), "assistant"),
        Message((Text("Thanks."),)),
    )
    async with serving(lambda: agent(model), by_factory=True) as system:
        assert said(await ending_of(system, messages=messages)) == "ok"
    (asked,) = model.asked
    roles = [msg.role for msg in asked][:6]
    assert roles == ["system", "system", "user", "assistant", "assistant", "user"]
    assert texts_asked(model) == ["You are Friday.", "Be brief.", "What time is it?", "Noon.", "Thanks."]


async def test_who_writes_on_instead_of_confirming_is_heard() -> None:
    def erase() -> str:
        """Erase everything."""
        raise AssertionError("nobody confirmed this")

    model = Said(use(("1", "erase", "{}")), say("All right, I do not."))

    async with serving(lambda: agent(model, erase, permission=None), by_factory=True) as system:
        waiting = await ending_of(system, "erase it")
        assert isinstance(waiting, TurnCompleted)
        assert [item.kind for item in waiting.output] == ["tool_call", "message"]
        assert "erase({}) waits for your confirmation" in said(waiting)
        completed = await ending_of(system, "rather not")
    assert isinstance(completed, TurnCompleted)
    assert [item.kind for item in completed.output] == ["message"]
    assert said(completed) == "All right, I do not."


def test_what_is_no_agent_is_refused() -> None:
    with pytest.raises(HandlerError, match=r"returned a Said; .*agentscope\.agent\.Agent"):
        AgentScope2Adapter().driver(Said())


# -- cancelling --------------------------------------------------------------------------------------------------------


async def test_a_cancelled_turn_is_cancelled_though_agentscope_swallows_it() -> None:
    model = Said([*say("So f"), HANG], say("again"))
    async with serving(lambda: agent(model), by_factory=True) as system:
        log = await system.submit(turn("one"))
        await model.hanging.wait()
        await system.cancel(log.id, reason="enough")
        events = [event async for event in log.read()]
        check_events(events)
        ending: Any = events[-1]
        assert isinstance(ending, TurnCancelled)
        assert said(ending) == "So f"
        assert [item.complete for item in ending.output] == [False]
        assert said(await ending_of(system, "two")) == "again"
    assert texts_asked(model) == ["You are Friday.", "two"], "the cancelled turn left no trace in the state"


async def test_what_a_turn_is_cancelled_in_the_middle_of_is_not_complete() -> None:
    model = Said([*say("Let me look."), *use(("c", "look", '{"whe')), HANG])
    async with serving(lambda: agent(model), by_factory=True) as system:
        log = await system.submit(turn("one"))
        await model.hanging.wait()
        await system.cancel(log.id)
        ending = await log.ended()
    check_events(log.events())
    told = [(item.kind, item.complete) for item in ending.output]
    assert told == [("message", True), ("tool_call", False), ("tool_output", True)]


async def test_thoughts_a_turn_is_cancelled_in_are_not_complete() -> None:
    model = Said([*think("Hm, "), HANG])
    async with serving(lambda: agent(model), by_factory=True) as system:
        log = await system.submit(turn("one"))
        await model.hanging.wait()
        await system.cancel(log.id)
        ending = await log.ended()
    check_events(log.events())
    assert [(item.kind, item.complete) for item in ending.output] == [("reasoning", False)]


# -- with AgentScope's own model client --------------------------------------------------------------------------------


async def test_an_agent_on_a_model_server() -> None:
    def clock(zone: str) -> str:
        """Tell the time.

        Args:
            zone: where
        """
        return f"12:00 in {zone}"

    script = [
        [Think("I need the clock."), CallTool("clock", {"zone": "Paris"}, id="c1"), ScriptedUsage(10, 2)],
        [Say("It is noon in Paris.", chunk_size=4), ScriptedUsage(20, 6, cached=10)],
    ]
    async with ScriptedModel(script) as server:

        def make() -> Agent:
            credential = OpenAICredential(api_key=SecretStr("any"), base_url=server.base_url)
            return agent(OpenAIChatModel(credential, "scripted", max_retries=0), clock)

        async with serving(make, by_factory=True) as system:
            log = await system.submit(turn("What time is it?"))
            events = [event async for event in log.read()]
    check_events(events)
    ending: Any = events[-1]
    assert isinstance(ending, TurnCompleted)
    kinds = [item.kind for item in ending.output]
    assert kinds[-3:] == ["tool_call", "tool_output", "message"]
    call, output, message = (item.parts[0] for item in ending.output[-3:])
    assert isinstance(call, ToolCall)
    assert (call.name, call.arguments.replace(" ", "")) == ("clock", '{"zone":"Paris"}')
    assert output == ToolOutput("c1", "clock", (Text("12:00 in Paris"),))
    assert message == Text("It is noon in Paris.")
    assert ending.usage is not None
    assert (ending.usage.input_tokens, ending.usage.output_tokens, ending.usage.cached_tokens) == (30, 8, 10)
    assert (
        len(
            [event for event in events if isinstance(event, TextDelta) and event.item == ending.output[-1].id]
        )
        > 3
    )


async def test_sessions_run_beside_each_other() -> None:
    async def query(msgs: list[Msg]) -> AsyncIterator[Any]:
        friday = agent(Said(say("You are ", msgs[0].get_text_content())))
        async for event in friday.reply_stream(msgs):
            yield event

    async with serving(query) as system:
        names = [f"n{number}" for number in range(20)]
        endings = await asyncio.gather(*(ending_of(system, name, session=name) for name in names))
    assert [said(ending) for ending in endings] == [f"You are {name}" for name in names]
