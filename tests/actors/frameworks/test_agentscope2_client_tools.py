"""Tools that the client runs, with agents of AgentScope 2.x: what the options' kit does not ask of every framework."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from kits.agentscope_line import require_line

require_line(2)

from agentscope.agent import Agent
from agentscope.event import RequireExternalExecutionEvent
from agentscope.message import Msg, UserMsg
from agentscope.tool import FunctionTool as OwnTool
from agentscope.tool import Toolkit

from greenroom.actors.events import Terminal, TurnCompleted, TurnFailed
from greenroom.actors.frameworks.agentscope2 import AgentScope2Adapter
from greenroom.actors.frameworks.agentscope2_history import AgentScopeSessionHistoryMiddleware
from greenroom.actors.handler import AgentHandler, QueryHandler
from greenroom.actors.messages import FunctionTool, Message, TurnOptions
from greenroom.actors.system import ActorSystem
from greenroom.services.session_history import InMemorySessionHistoryService
from greenroom.services.sessions.memory_store import InMemoryStore
from greenroom.services.store import SessionStore
from kits.agentscope2_agents import ALLOW, Said, a_model, agent, say, use
from kits.grammar import check_events
from kits.options_kit import DIAL, LOCATE, call, calls, kinds, output, outputs, user
from kits.scripted_model import ScriptedModel
from kits.system import counting_sources, said, turn

pytestmark = pytest.mark.agentscope2

OFFER = TurnOptions(tools=(LOCATE,))
WHERE = ("c1", "locate", "{}")


@asynccontextmanager
async def serving(
    function: Callable[..., Any], *, by_factory: bool = False, store: SessionStore | None = None
) -> AsyncIterator[ActorSystem]:
    handler = (AgentHandler if by_factory else QueryHandler)(function, AgentScope2Adapter(), None)
    system = ActorSystem(handler, store or InMemoryStore(), sources=counting_sources())
    await system.start()
    try:
        yield system
    finally:
        await system.stop()


async def ask(
    system: ActorSystem, *messages: Message | str, options: TurnOptions | None = OFFER, **kwargs: Any
) -> Terminal:
    """A turn's ending, its events checked."""
    given = tuple(user(message) if isinstance(message, str) else message for message in messages)
    asked = turn(**kwargs)
    asked = replace(asked, request=replace(asked.request, input=given), options=options)
    log = await system.submit(asked)
    ending = await log.ended()
    check_events(log.events())
    return ending


def results_asked(model: Said) -> list[tuple[str, str, str]]:
    """The tools' results in the model's last prompt: call, state and text."""
    return [
        (block.id, str(block.state), block.output if isinstance(block.output, str) else block.output[0].text)
        for msg in model.asked[-1]
        for block in msg.get_content_blocks("tool_result")
    ]


# -- offered -----------------------------------------------------------------------------------------------------------


async def test_a_toolkit_shared_by_sessions_knows_nothing_of_the_clients_tools() -> None:
    shared = Toolkit()
    entered, leave = asyncio.Event(), asyncio.Event()

    async def query(msgs: list[Msg], request: Any) -> AsyncIterator[Any]:
        friday = Agent("Friday", "You help.", Said(say("ok")), toolkit=shared)
        async for event in friday.reply_stream(msgs):
            yield event
        yield f" {len(await shared.get_tool_schemas())}"
        if request.session_id == "first":
            entered.set()
            await leave.wait()

    async with serving(query) as system:
        first = asyncio.create_task(ask(system, "hi", session="first"))
        await entered.wait()
        second = await ask(system, "hi", session="second", options=None)
        leave.set()
        assert said(await first).endswith(" 1")
    assert said(second).endswith(" 0")
    assert await shared.get_tool_schemas() == []
    assert shared.tool_groups[0].tools == []


async def test_what_the_model_writes_goes_to_the_client_as_it_is() -> None:
    model = Said(use(("c1", "locate", '{"precise": "maybe'), ("c2", "dial", '["no", "object"]')))
    options = TurnOptions(tools=(FunctionTool(name="locate", parameters={"required": ["precise"]}), DIAL))
    async with serving(lambda: agent(model), by_factory=True) as system:
        ending = await ask(system, "where?", options=options)
    assert isinstance(ending, TurnCompleted)
    arguments = [part.arguments for item in ending.output for part in item.parts]  # type: ignore[union-attr]
    assert arguments == ['{"precise": "maybe', '["no", "object"]']


async def test_a_tool_of_the_clients_keeps_its_name() -> None:
    name = "mcp__maps__locate"  # so AgentScope calls tools of an MCP server of its own
    async with serving(lambda: agent(Said(use(("c1", name, "{}")))), by_factory=True) as system:
        ending = await ask(system, "where?", options=TurnOptions(tools=(FunctionTool(name=name),)))
    assert calls(ending) == [("c1", name)]


async def test_agents_that_tools_run_do_not_get_the_clients_tools() -> None:
    seen: list[list[str]] = []

    class Watching(Said):
        async def _call_api(self, model_name: str, messages: list[Msg], *args: Any, **kwargs: Any) -> Any:
            seen.append([tool["function"]["name"] for tool in kwargs["tools"]])
            return await super()._call_api(model_name, messages, *args, **kwargs)

    async def consult() -> str:
        """Ask a colleague."""
        colleague = agent(Watching(use(WHERE), say("I cannot tell.")), permission=None)
        reply = await colleague.reply(UserMsg("user", "where?"))
        return reply.get_text_content() or ""

    model = Watching(use(("c0", "consult", "{}")), use(WHERE))
    async with serving(lambda: agent(model, consult), by_factory=True) as system:
        ending = await ask(system, "where?")
    assert seen == [["consult", "locate"], [], [], ["consult", "locate"]]
    assert isinstance(ending, TurnCompleted)
    assert calls(ending) == [("c0", "consult"), ("c1", "locate")]
    assert "I cannot tell." in repr(ending.output)


# -- parked ------------------------------------------------------------------------------------------------------------


async def test_a_handler_that_asks_for_the_message_alone_tells_the_call() -> None:
    async def query(msgs: list[Msg]) -> AsyncIterator[Any]:
        yield await agent(Said(use(WHERE))).reply(msgs)

    async with serving(query) as system:
        ending = await ask(system, "where?")
    assert isinstance(ending, TurnCompleted)
    assert (kinds(ending), calls(ending)) == (["tool_call"], [("c1", "locate")])


async def test_a_handler_hears_agentscopes_own_event() -> None:
    heard: list[str] = []

    async def query(msgs: list[Msg]) -> AsyncIterator[Any]:
        async for event in agent(Said(use(WHERE))).reply_stream(msgs):
            if isinstance(event, RequireExternalExecutionEvent):
                heard.extend(call.id for call in event.tool_calls)
            yield event

    async with serving(query) as system:
        await ask(system, "where?")
    assert heard == ["c1"]


@pytest.mark.parametrize("concurrent", [True, False])
async def test_the_agents_own_tools_are_run_whatever_their_order(concurrent: bool) -> None:
    def look(where: str) -> str:
        """Look somewhere."""
        return f"looked {where}"

    wanted = use(("a", "look", '{"where": "up"}'), WHERE, ("b", "look", '{"where": "down"}'))
    model = Said(wanted, say("Here."))
    async with serving(lambda: agent(model, look, concurrent=concurrent), by_factory=True) as system:
        ending = await ask(system, "where?")
        assert calls(ending) == [("a", "look"), ("c1", "locate"), ("b", "look")]
        assert outputs(ending) == ["look", "look"]
        assert said(await ask(system, output("c1", "Paris"))) == "Here."
    assert sorted(results_asked(model)) == [
        ("a", "success", "looked up"),
        ("b", "success", "looked down"),
        ("c1", "success", "Paris"),
    ]


async def test_a_confirmation_that_is_not_given_with_the_output_is_refused() -> None:
    def erase() -> str:
        """Erase everything."""
        raise AssertionError("nobody confirmed this")

    model = Said(use(("e", "erase", "{}"), WHERE), say("Not erased."))
    async with serving(lambda: agent(model, erase, permission=None), by_factory=True) as system:
        ending = await ask(system, "erase it here")
        assert calls(ending) == [("e", "erase"), ("c1", "locate")]
        assert "waits for your confirmation" in said(ending)
        assert said(await ask(system, output("c1", "Paris"))) == "Not erased."
    states = {call_id: state for call_id, state, _ in results_asked(model)}
    assert states == {"e": "interrupted", "c1": "success"}


# -- answered ----------------------------------------------------------------------------------------------------------


async def test_an_agent_made_anew_resumes_where_the_old_one_stopped() -> None:
    store = InMemoryStore()
    async with serving(lambda: agent(Said(use(WHERE))), by_factory=True, store=store) as system:
        await ask(system, "where?")
    model = Said(say("Paris."))
    async with serving(lambda: agent(model), by_factory=True, store=store) as system:
        ending = await ask(system, output("c1", "48.85 N"), options=None)
    assert (kinds(ending), said(ending)) == (["message"], "Paris.")
    assert [msg.role for msg in model.asked[-1]][:3] == ["system", "user", "assistant"]
    assert results_asked(model) == [("c1", "success", "48.85 N")]


async def test_a_history_alone_is_enough_to_resume() -> None:
    models: list[Said] = []
    async with InMemorySessionHistoryService() as histories:

        async def query(msgs: list[Msg], request: Any) -> AsyncIterator[Any]:
            models.append(Said(say("Paris.") if models else use(WHERE)))
            memory = AgentScopeSessionHistoryMiddleware(
                service=histories, session_id=request.session_id, user_id=request.user_id
            )
            async for event in agent(models[-1], middlewares=[memory]).reply_stream(msgs):
                yield event

        async with serving(query) as system:
            await ask(system, "where?")
            ending = await ask(system, output("c1", "48.85 N"))
    assert (kinds(ending), said(ending)) == (["message"], "Paris.")
    assert results_asked(models[-1]) == [("c1", "success", "48.85 N")]
    assert [msg.role for msg in models[-1].asked[-1]] == ["system", "user", "assistant"], "the reply went on"


async def test_a_turn_that_fails_leaves_the_call_waiting() -> None:
    model = Said(use(WHERE), RuntimeError("the model is gone"), say("Paris."))
    async with serving(lambda: agent(model), by_factory=True) as system:
        await ask(system, "where?")
        assert isinstance(await ask(system, output("c1", "48.85 N")), TurnFailed)
        assert said(await ask(system, output("c1", "48.85 N"))) == "Paris."
    assert results_asked(model) == [("c1", "success", "48.85 N")]


@pytest.mark.parametrize("late", [False, True], ids=["never called", "given up"])
async def test_an_output_that_nobody_waits_for_fails_the_turn(late: bool) -> None:
    model = Said(use(WHERE), say("Fine."), say("Still here."))
    async with serving(lambda: agent(model), by_factory=True) as system:
        await ask(system, "where?")
        await ask(system, "never mind")
        ending = await ask(system, output("c1" if late else "c9", "Paris"))
        assert isinstance(ending, TurnFailed)
        assert ending.error.code == "invalid_request"
        assert "waits for an output" in ending.error.message
        assert said(await ask(system, "hello?")) == "Still here."


async def test_an_output_that_comes_too_late_is_told_in_words_beside_what_is_new() -> None:
    """Else one that was put into a conversation would fail all its turns."""
    model = Said(use(WHERE), say("Fine."), say("Paris, then."))
    async with serving(lambda: agent(model), by_factory=True) as system:
        await ask(system, "where?")
        await ask(system, "never mind")
        assert said(await ask(system, output("c1", "Paris"), "so where?")) == "Paris, then."
    assert [text for _, _, text in results_asked(model)] == [
        "<system-reminder>The tool call has been interrupted by the user.</system-reminder>"
    ]
    words = [block.text for msg in model.asked[-1][-2:] for block in msg.get_content_blocks("text")]
    assert words == ["Output of an earlier call of a tool (c1):", "Paris", "so where?"]


@pytest.mark.parametrize("text", ["[]", "", '{"a": 1}'])
async def test_what_an_output_says_is_kept_as_it_is(text: str) -> None:
    model = Said(use(WHERE), say("Paris."))
    async with serving(lambda: agent(model), by_factory=True) as system:
        await ask(system, "where?")
        await ask(system, output("c1", text))
    assert results_asked(model) == [("c1", "success", text)]


async def test_a_call_that_is_sent_back_with_its_output_is_known() -> None:
    model = Said(use(WHERE), say("Paris."))
    async with serving(lambda: agent(model), by_factory=True) as system:
        await ask(system, "where?")
        assert said(await ask(system, call("c1", "locate"), output("c1", "48.85 N"))) == "Paris."
    assert results_asked(model) == [("c1", "success", "48.85 N")]
    assert len([block for msg in model.asked[-1] for block in msg.get_content_blocks("tool_call")]) == 1


async def test_calls_made_at_once_stay_so_in_a_conversation_that_is_handed_back() -> None:
    history = (
        user("Call a taxi."),
        call("c1", "locate"),
        call("c2", "dial"),
        output("c1", "Paris"),
        output("c2", "busy"),
    )
    async with ScriptedModel(["Nobody answers."]) as server:  # it refuses calls without outputs

        def make() -> Agent:
            return agent(a_model(server.base_url))

        async with serving(make, by_factory=True) as system:
            assert said(await ask(system, *history)) == "Nobody answers."


@pytest.mark.parametrize(
    ("history", "told"),
    [
        ((call("c1", "locate"),), ["c1: lost"]),
        ((call("c1", "locate"), call("c2", "dial"), output("c2", "busy")), ["c1: lost", "c2: busy"]),
        ((call("c1", "locate"), user("quick"), output("c1", "Paris")), ["c1: Paris"]),
        (
            (call("c1", "locate"), user("quick"), call("c1", "locate"), output("c1", "Paris")),
            ["c1: lost", "c1: Paris"],
        ),
    ],
    ids=["none", "one of two", "late", "the id again"],
)
async def test_a_call_without_its_output_next_to_it_can_be_handed_back(
    history: tuple[Message, ...], told: list[str]
) -> None:
    async with ScriptedModel(["Fine.", "Still here."]) as server:  # it refuses calls without outputs

        def make() -> Agent:
            return agent(a_model(server.base_url))

        async with serving(make, by_factory=True) as system:
            assert said(await ask(system, "Call a taxi.", *history, "never mind")) == "Fine."
            assert said(await ask(system, "hello?")) == "Still here."
        results = [message for message in server.requests[0]["messages"] if message["role"] == "tool"]
    outcomes = [
        "lost" if "interrupted" in str(result["content"]) else result["content"] for result in results
    ]
    assert [
        f"{result['tool_call_id']}: {text}" for result, text in zip(results, outcomes, strict=True)
    ] == told


async def test_a_call_that_ends_what_is_handed_back_is_closed() -> None:
    async with ScriptedModel(["Fine."]) as server:

        def make() -> Agent:
            return agent(a_model(server.base_url))

        async with serving(make, by_factory=True) as system:
            assert said(await ask(system, "Call a taxi.", call("c1", "locate"))) == "Fine."


async def test_a_tool_of_the_applications_that_runs_elsewhere_is_answered_too() -> None:
    def pay(amount: int) -> str:
        """Pay."""
        raise AssertionError("it runs elsewhere")

    tool = OwnTool(pay, permission=ALLOW)
    tool.is_external_tool = True
    model = Said(use(("p", "pay", '{"amount": 3}')), say("Paid."))
    made = Agent("Friday", "You help.", model, toolkit=Toolkit(tools=[tool]))
    async with serving(lambda: made, by_factory=True) as system:
        assert calls(await ask(system, "pay", options=None)) == [("p", "pay")]
        assert said(await ask(system, output("p", "done"), options=None)) == "Paid."
    assert results_asked(model) == [("p", "success", "done")]
