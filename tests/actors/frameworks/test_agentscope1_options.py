"""AgentScope 1.x: what a turn may be asked for besides its input, with the real library on the scripted model."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from greenroom.actors.events import Terminal, TurnCompleted, TurnFailed
from greenroom.actors.handler import AgentHandler, Handler, QueryHandler
from greenroom.actors.messages import Message, TurnOptions
from greenroom.services.session_history import InMemorySessionHistoryService
from kits.agentscope_line import require_line
from kits.grammar import texts
from kits.options_kit import CITY, LOCATE, Level, OptionsKit, kinds, output, outputs, user
from kits.options_kit import calls as called
from kits.system import turn

require_line(1)

from agentscope.agent import AgentBase, ReActAgent
from agentscope.message import Msg
from agentscope.pipeline import stream_printing_messages
from agentscope.token import CharTokenCounter
from agentscope.tool import ToolResponse
from pydantic import BaseModel

from greenroom.actors.frameworks.agentscope1 import AgentScope1Adapter
from greenroom.actors.frameworks.agentscope1_memory import AgentScopeSessionHistoryMemory
from kits.agentscope1_agents import Scripted, a_model, an_agent, calls, says, serving, tool_says

pytestmark = pytest.mark.agentscope1


def weather(city: str) -> ToolResponse:
    """The weather.

    Args:
        city (str): where.
    """
    return tool_says(f"sunny in {city}")


def tutorial(base_url: str) -> Any:
    """A handler as the tutorial writes it: the agent is made, loaded and saved in each turn."""
    states: dict[str, Any] = {}

    async def answer(msgs: Any, request: Any) -> AsyncIterator[Any]:
        agent = an_agent(a_model(base_url), weather)
        if request.session_id in states:
            agent.load_state_dict(states[request.session_id])
        async for msg, last in stream_printing_messages([agent], agent(msgs)):
            yield msg, last
        states[request.session_id] = agent.state_dict()

    return answer


class TestOptions(OptionsKit):
    def handler(self, level: Level, base_url: str) -> Handler:
        if level == "query":
            return QueryHandler(tutorial(base_url), AgentScope1Adapter(), None)
        return AgentHandler(lambda: an_agent(a_model(base_url), weather), AgentScope1Adapter(), None)


async def ask(
    function: Callable[..., Any], *said: str | Message, options: TurnOptions | None = None
) -> Terminal:
    """One turn of a handler, to its ending."""
    async with serving(function) as system:
        messages = tuple(user(part) if isinstance(part, str) else part for part in said)
        asked = turn()
        asked = replace(asked, request=replace(asked.request, input=messages), options=options)
        return await (await system.submit(asked)).ended()


def printing(agent: AgentBase, **kwargs: Any) -> Callable[..., Any]:
    """A handler that shows what the agent prints."""

    async def answer(msgs: Any) -> AsyncIterator[Any]:
        async for msg, last in stream_printing_messages([agent], agent(msgs, **kwargs)):
            yield msg, last

    return answer


def named(name: str, call_id: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": {}}


async def memory_of(agent: Any) -> list[str]:
    """The kinds of blocks in an agent's memory."""
    return [block["type"] for msg in await agent.memory.get_memory() for block in msg.get_content_blocks()]


class Asked(Scripted):
    """A model that remembers which tools it was offered, and the tool choice."""

    def __init__(self, *replies: Any) -> None:
        super().__init__(*replies)
        self.offers: list[tuple[list[str], str | None]] = []

    async def __call__(self, prompt: Any, *args: Any, **kwargs: Any) -> Any:
        tools = [tool["function"]["name"] for tool in kwargs.get("tools") or ()]
        self.offers.append((tools, kwargs.get("tool_choice")))
        return await super().__call__(prompt, *args, **kwargs)


ASKS = TurnOptions(tools=(LOCATE,))

# -- a client's tools in other agents than the tutorial's -------------------------------------------------------------


async def test_a_handler_that_returns_its_agents_reply_shows_the_call() -> None:
    agent = an_agent(Scripted(calls("locate")))

    async def answer(msgs: Any) -> Any:
        return await agent(msgs)

    ending = await ask(answer, "where am I?", options=ASKS)
    assert (kinds(ending), called(ending)) == (["tool_call"], [("c1", "locate")])
    assert await memory_of(agent) == ["text", "tool_use"], "no result, and nothing twice"


async def test_a_call_parks_an_agent_that_has_gone_round_as_often_as_it_may() -> None:
    agent = an_agent(Scripted([[named("locate", "c1"), named("weather", "c2")]]), weather, max_iters=1)
    ending = await ask(printing(agent), "where am I?", options=ASKS)
    assert kinds(ending) == ["tool_call", "tool_call", "tool_output"]
    assert len(agent.model.asked) == 1, "it was not told to sum up"
    assert await memory_of(agent) == ["text", "tool_use", "tool_use", "tool_result"]


class Place(BaseModel):
    city: str


@pytest.mark.parametrize("beside", [[], [named("weather", "c2")]])
async def test_a_call_parks_an_agent_that_is_to_give_structured_output(beside: list[Any]) -> None:
    agent = an_agent(Scripted([[named("locate", "c1"), *beside]]), weather)
    ending = await ask(printing(agent, structured_model=Place), "where?", options=ASKS)
    assert isinstance(ending, TurnCompleted)
    assert called(ending)[0] == ("c1", "locate")
    assert len(agent.model.asked) == 1
    assert "text" not in (await memory_of(agent))[1:], "no hint is left behind"


async def test_structured_output_needs_its_tool_although_no_other_may_be_called() -> None:
    finish = [{**named("generate_response", "c1"), "input": {"city": "Paris"}}]
    model = Asked([[named("weather", "c0"), *finish]], says("Done."))
    options = TurnOptions(tool_choice="none")
    ending = await ask(printing(an_agent(model, weather), structured_model=Place), "where?", options=options)
    assert isinstance(ending, TurnCompleted)
    assert called(ending) == [("c1", "generate_response")]
    assert model.offers == [(["generate_response"], "required"), (["weather", "generate_response"], "none")]


async def test_services_that_know_no_tool_choice_are_told_in_words() -> None:
    class DashScopeChatModel(Asked):
        """By its name, one that takes `required` for `auto`."""

    class OllamaChatModel(Asked):
        """By its name, one that takes no choice."""

        options = None

    for kind, choice in ((DashScopeChatModel, "auto"), (OllamaChatModel, None)):
        model = kind(calls("weather", city="Paris"), says("Sunny."))
        await ask(printing(an_agent(model, weather)), "hi", options=TurnOptions(tool_choice="required"))
        assert model.offers == [(["weather"], choice), (["weather"], None)]
        assert ["must call a tool" in repr(prompt) for prompt in model.asked] == [True, False]
    model = OllamaChatModel(says("No."))
    await ask(printing(an_agent(model, weather)), "hi", options=TurnOptions(tool_choice="none"))
    assert model.offers == [([], None)]


async def test_an_agent_that_reasons_its_own_way_is_parked_too() -> None:
    class Careful(ReActAgent):  # type: ignore[misc]
        async def _reasoning(self, *args: Any, **kwargs: Any) -> Any:
            return await super()._reasoning(*args, **kwargs)

    model = an_agent(Scripted(calls("locate"))).model
    agent = Careful("Friday", "You help.", model, an_agent(model).formatter)
    ending = await ask(printing(agent), "where am I?", options=ASKS)
    assert (kinds(ending), len(model.asked)) == (["tool_call"], 1)


async def test_an_agent_that_a_tool_calls_is_not_offered_the_clients_tools() -> None:
    expert = an_agent(Scripted(calls("locate"), says("Paris.")))

    async def ask_expert() -> ToolResponse:
        """Ask an expert."""
        reply = await expert(Msg("Friday", "where?", "user"))
        return tool_says(reply.get_text_content())

    agent = an_agent(Scripted(calls("ask_expert", "c0"), says("In Paris.")), ask_expert)
    ending = await ask(printing(agent), "where am I?", options=ASKS)
    assert texts(ending.output) == ["In Paris."]
    assert len(expert.model.asked) == 2, "it was told that there is no such tool"
    assert outputs(ending) == ["ask_expert"]


async def test_the_history_service_keeps_the_open_call() -> None:
    service = InMemorySessionHistoryService()
    await service.start()
    models = [Scripted(calls("locate")), Scripted(says("Paris."))]
    made = iter(models)

    async def answer(msgs: Any) -> AsyncIterator[Any]:
        memory = AgentScopeSessionHistoryMemory(service, "u", "s")
        async for printed in printing(an_agent(next(made), memory=memory))(msgs):
            yield printed

    await ask(answer, "where am I?", options=ASKS)
    ending = await ask(answer, output("c1", "Paris"), options=ASKS)
    assert texts(ending.output) == ["Paris."]
    assert [message["role"] for message in models[1].asked[0]] == ["system", "user", "assistant", "tool"]
    await service.stop()


async def test_tools_that_no_agent_could_call_fail_the_turn() -> None:
    async def answer() -> AsyncIterator[str]:
        async for response in await Scripted(says("hi"))([]):
            yield response.content[0]["text"]

    ending = await ask(answer, "hello", options=ASKS)
    assert isinstance(ending, TurnFailed)
    assert "tools" in ending.error.message
    assert isinstance(await ask(answer, "hello", options=TurnOptions(temperature=0.5)), TurnCompleted)


@pytest.mark.parametrize(
    "options", [TurnOptions(tool_choice="required"), replace(ASKS, forced_tool="locate")]
)
async def test_a_model_that_does_not_call_what_it_must_fails_the_turn(options: TurnOptions) -> None:
    ending = await ask(printing(an_agent(Scripted(says("No.")), weather)), "hello", options=options)
    assert isinstance(ending, TurnFailed)
    assert "tool_choice" in ending.error.message


async def test_a_client_that_demands_a_call_means_its_own_tools() -> None:
    agent = an_agent(Scripted(calls("weather", "c0", city="Paris"), calls("locate")), weather)
    options = replace(ASKS, tool_choice="required")
    ending = await ask(printing(agent), "where am I?", options=options)
    assert called(ending) == [("c0", "weather"), ("c1", "locate")]


# -- words, tokens -----------------------------------------------------------------------------------------------------


async def test_a_summary_of_the_memory_is_made_without_the_requests_words() -> None:
    class Summing(Scripted):
        structured: list[Any]

        async def __call__(self, prompt: Any, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("structured_model") is None:
                return await super().__call__(prompt, *args, **kwargs)
            self.structured = prompt
            return self._stream(says("{}"))

    model = Summing(says("hi"))
    compression = ReActAgent.CompressionConfig(
        enable=True, agent_token_counter=CharTokenCounter(), trigger_threshold=1, keep_recent=1
    )
    agent = an_agent(model, compression_config=compression)
    ending = await ask(printing(agent), "one", "two", options=TurnOptions(instructions="Whisper."))
    assert texts(ending.output) == ["hi"]
    assert "Whisper." in repr(model.asked[0])
    assert "Whisper." not in repr(model.structured)


async def test_the_tokens_of_a_model_that_reports_none_are_estimated() -> None:
    agent = an_agent(Scripted(says("four and twenty blackbirds")))
    ending = await ask(printing(agent), "sing", options=TurnOptions(max_output_tokens=5))
    assert isinstance(ending, TurnCompleted)
    assert ending.incomplete == "max_output_tokens"


async def test_out_of_tokens_an_agent_that_goes_round_stops_and_others_are_silent() -> None:
    first = an_agent(Scripted(calls("weather", city="Paris"), usage=(1, 20)), weather)
    second = an_agent(Scripted())

    async def answer(msgs: Any) -> AsyncIterator[Any]:
        async for printed in printing(first)(msgs):
            yield printed
        async for printed in printing(second)(msgs):
            yield printed
        async for response in await second.model([]):
            yield str(response)

    ending = await ask(answer, "hello", options=TurnOptions(max_output_tokens=16))
    assert isinstance(ending, TurnCompleted)
    assert (kinds(ending), outputs(ending)) == (["tool_call", "tool_output"], ["weather"])
    assert not second.model.asked
    assert await memory_of(first) == ["text", "tool_use", "tool_result"]


# -- the answer's form -------------------------------------------------------------------------------------------------


async def test_of_several_agents_the_last_one_answers() -> None:
    first, second = an_agent(Scripted(says("{", "{}"))), an_agent(Scripted(says('{"city": "Rome"}')))

    async def answer(msgs: Any) -> AsyncIterator[Any]:
        for agent in (first, second):
            async for printed in printing(agent)(msgs):
                yield printed

    ending = await ask(answer, "which?", options=TurnOptions(answer=CITY))
    assert texts(ending.output) == ['{"city": "Rome"}']
    assert texts(ending.output, "reasoning") == ["{}"]
