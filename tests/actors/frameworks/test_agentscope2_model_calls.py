"""What a turn's options do to the model calls of AgentScope 2.x, call by call."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from kits.agentscope_line import require_line

require_line(2)

from agentscope.agent import Agent, ReActConfig
from agentscope.credential import DeepSeekCredential, OpenAICredential
from agentscope.message import Msg, SystemMsg, UserMsg
from agentscope.model import (
    ChatModelBase,
    ChatResponse,
    DeepSeekChatModel,
    OpenAIChatModel,
    OpenAIResponseModel,
)
from pydantic import BaseModel, SecretStr

from greenroom.actors.events import Terminal, TurnCompleted, TurnFailed
from greenroom.actors.frameworks.agentscope2 import AgentScope2Adapter
from greenroom.actors.handler import AgentHandler, QueryHandler
from greenroom.actors.messages import AnswerFormat, Text, TurnOptions
from greenroom.actors.system import ActorSystem
from greenroom.services.sessions.memory_store import InMemoryStore
from greenroom.services.store import SessionStore
from kits.agentscope2_agents import Said, agent, say, think, use
from kits.grammar import check_events, texts
from kits.options_kit import CITY, LOCATE, kinds, outputs
from kits.system import counting_sources, turn

pytestmark = pytest.mark.agentscope2

PIRATE = "Speak like a pirate."


class Overheard:
    """What the models of a test were asked: the arguments of each call, with the parameters at that time."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def listening(self, model: ChatModelBase, *replies: Any) -> ChatModelBase:
        """The model, which answers with the replies and calls no service."""
        said = Said(*replies)

        class Listening(type(model)):  # type: ignore[misc]
            async def _call_api(self, model_name: str, messages: list[Msg], *args: Any, **kwargs: Any) -> Any:
                overheard.calls.append({"messages": messages, "parameters": self.parameters, **kwargs})
                return await said._call_api(model_name, messages)

        overheard = self
        model.__class__ = Listening
        return model

    def told(self, number: int = -1) -> str:
        """The system prompt of a call."""
        return str(self.calls[number]["messages"][0].get_text_content())


def openai(**parameters: Any) -> OpenAIChatModel:
    return OpenAIChatModel(
        OpenAICredential(api_key=SecretStr("any")), "m", OpenAIChatModel.Parameters(**parameters)
    )


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


async def ask(system: ActorSystem, **options: Any) -> Terminal:
    """A turn with these options, to its ending; its events are checked."""
    log = await system.submit(replace(turn(), options=TurnOptions(**options)))
    ending = await log.ended()
    check_events(log.events())
    return ending


async def ending_with(model: ChatModelBase, *tools: Callable[..., Any], **options: Any) -> Terminal:
    """A turn of an agent on this model."""
    async with serving(lambda: agent(model, *tools), by_factory=True) as system:
        return await ask(system, **options)


def clock() -> str:
    """Tell the time."""
    return "noon"


# -- words -------------------------------------------------------------------------------------------------------------


async def test_instructions_are_in_no_state() -> None:
    store = InMemoryStore()
    model = Said(use(("1", "clock", "{}")), say("Noon."))
    async with serving(lambda: agent(model, clock), by_factory=True, store=store) as system:
        await ask(system, instructions=PIRATE)
        record = await store.load(turn().key)
    assert record is not None
    assert record.state is not None
    assert b"Noon." in record.state
    assert PIRATE.encode() not in record.state
    assert [PIRATE in str(asked[0].get_text_content()) for asked in model.asked] == [True, True]


async def test_a_model_that_the_handler_asks_itself_hears_the_instructions() -> None:
    model = Said(say("Arr."))

    async def query(msgs: list[Msg]) -> AsyncIterator[Any]:
        async for response in await model(msgs):
            yield "" if response.is_last else response.content[0].text

    async with serving(query) as system:
        ending = await ask(system, instructions=PIRATE)
    assert texts(ending.output) == ["Arr."]
    assert [msg.role for msg in model.asked[0]] == ["system", "user"]


async def test_outside_of_a_turn_nothing_is_changed() -> None:
    AgentScope2Adapter()
    overheard = Overheard()
    model = overheard.listening(openai(temperature=1.5), say("Hi."))
    reply = await agent(model).reply(UserMsg("user", "hello"))
    assert reply.get_text_content() == "Hi."
    assert overheard.told() == "You are Friday."
    assert overheard.calls[0]["parameters"].temperature == 1.5


# -- parameters --------------------------------------------------------------------------------------------------------


async def test_parameters_are_those_of_the_call_and_not_of_the_model() -> None:
    overheard = Overheard()
    model = overheard.listening(openai(max_tokens=20, temperature=1.5), say("Hi."))
    await ending_with(model, temperature=0.5, top_p=0.25, reasoning_effort="high", max_output_tokens=100)
    (used,) = [call["parameters"] for call in overheard.calls]
    assert (used.temperature, used.top_p, used.max_tokens) == (0.5, 0.25, 20), (
        "the model's own bound is lower"
    )
    assert (used.reasoning_effort, used.thinking_enable) == ("high", True)
    assert (model.parameters.temperature, model.parameters.thinking_enable) == (1.5, False)


async def test_what_a_model_does_not_take_is_not_given_to_it() -> None:
    overheard = Overheard()
    credential = DeepSeekCredential(api_key=SecretStr("any"))
    model = overheard.listening(DeepSeekChatModel(credential, "m"), say("Hi."))
    ending = await ending_with(model, temperature=0.5, reasoning_effort="minimal", answer=None)
    assert texts(ending.output) == ["Hi."]
    (used,) = [call["parameters"] for call in overheard.calls]
    assert (used.temperature, used.reasoning_effort) == (0.5, None)
    assert texts((await ending_with(Said(say("Hi.")), temperature=0.5)).output) == ["Hi."]


# -- tools -------------------------------------------------------------------------------------------------------------


async def test_a_demanded_call_that_is_not_made_fails_the_turn() -> None:
    ending = await ending_with(Said(say("I would rather not.")), clock, tool_choice="required")
    assert isinstance(ending, TurnFailed)
    assert "demands a call of a tool" in ending.error.message


async def test_a_call_that_is_not_made_for_want_of_iterations_fails_the_turn() -> None:
    model = Said(use(("1", "clock", "{}")), say("That is all."))
    made = agent(model, clock, react_config=ReActConfig(max_iters=1))
    async with serving(lambda: made, by_factory=True) as system:
        ending = await ask(system, tools=(LOCATE,), forced_tool="locate")
    assert isinstance(ending, TurnFailed)
    assert "demands a call of the tool 'locate'" in ending.error.message


async def test_text_goes_on_after_a_call_that_may_not_be_made() -> None:
    model = Said([*say("Well, "), *use(("1", "clock", "{}")), *say("no.")])
    ending = await ending_with(model, clock, tool_choice="none")
    assert [item.parts for item in ending.output] == [(Text("Well, no."),)]


async def test_of_the_clients_tools_one_must_be_called() -> None:
    overheard = Overheard()
    model = overheard.listening(openai(), use(("1", "clock", "{}")), use(("2", "locate", "{}")))
    ending = await ending_with(model, clock, tools=(LOCATE,), tool_choice="required")
    assert kinds(ending) == ["tool_call", "tool_output", "tool_call"]
    assert [call["tool_choice"].mode for call in overheard.calls] == ["required", "required"]


async def test_tools_that_no_agent_was_offered_fail_the_turn() -> None:
    model = Said(say("Hi."))

    async def query(msgs: list[Msg]) -> AsyncIterator[Any]:
        async for response in await model(msgs):
            yield "" if response.is_last else response.content[0].text

    async with serving(query) as system:
        ending = await ask(system, tools=(LOCATE,))
    assert isinstance(ending, TurnFailed)
    assert "no agent of this application can call them" in ending.error.message


async def test_a_tool_choice_is_not_for_agents_that_tools_run() -> None:
    overheard = Overheard()

    async def consult() -> str:
        """Ask a colleague."""
        colleague = agent(overheard.listening(openai(), say("I am a colleague.")))
        return (await colleague.reply(UserMsg("user", "well?"))).get_text_content() or ""

    model = overheard.listening(openai(), use(("1", "consult", "{}")), say('{"city": "Paris"}'))
    ending = await ending_with(model, consult, forced_tool="consult", answer=CITY, instructions=PIRATE)
    assert isinstance(ending, TurnCompleted)
    first, colleagues, last = overheard.calls
    assert (first["tool_choice"].mode, colleagues["tool_choice"], last["tool_choice"]) == (
        "consult",
        None,
        None,
    )
    assert "response_format" not in colleagues
    assert ["JSON" in overheard.told(number) for number in range(3)] == [True, False, True]
    assert all(PIRATE in overheard.told(number) for number in range(3))


# -- the budget --------------------------------------------------------------------------------------------------------


class Quiet(Said):
    """A model that reports no usage."""

    async def _stream(self, chunks: Any) -> AsyncIterator[ChatResponse]:  # type: ignore[override]
        for chunk in chunks:
            yield ChatResponse(content=list(chunk), is_last=False)


async def test_a_model_that_reports_no_usage_is_measured() -> None:
    ending = await ending_with(Quiet(say("Once upon a time there was ", "a king.")), max_output_tokens=8)
    assert isinstance(ending, TurnCompleted)
    assert ending.incomplete == "max_output_tokens"
    ending = await ending_with(Quiet(say("Hi.")), max_output_tokens=8)
    assert isinstance(ending, TurnCompleted)
    assert ending.incomplete is None


async def test_the_agents_of_tools_spend_from_the_same_budget() -> None:
    async def consult() -> str:
        """Ask a colleague."""
        reply = await agent(Said(say("Five tokens."))).reply(UserMsg("user", "well?"))
        return reply.get_text_content() or ""

    model = Said(use(("1", "consult", "{}")))  # 5 tokens each; it is not asked a second time
    ending = await ending_with(model, consult, max_output_tokens=10)
    assert isinstance(ending, TurnCompleted)
    assert (kinds(ending)[:2], ending.incomplete) == (["tool_call", "tool_output"], "max_output_tokens")
    assert len(model.asked) == 1


async def test_a_turn_that_is_cut_while_it_thinks() -> None:
    model = Said(think("Hm, let me think"))
    ending = await ending_with(model, max_output_tokens=5)
    assert isinstance(ending, TurnCompleted)
    assert (kinds(ending), ending.incomplete) == (["reasoning"], "max_output_tokens")


async def test_a_call_made_with_the_last_tokens_is_told_as_not_made() -> None:
    model = Said(use(("1", "clock", "{}"), ("2", "locate", "{}")))
    ending = await ending_with(model, clock, tools=(LOCATE,), max_output_tokens=5)
    assert isinstance(ending, TurnCompleted)
    assert ending.incomplete == "max_output_tokens"
    assert outputs(ending) == ["clock"]
    assert "interrupted before it was called" in repr(ending.output)


# -- the answer's form -------------------------------------------------------------------------------------------------


async def test_the_form_as_each_api_of_openai_takes_it() -> None:
    overheard = Overheard()
    credential = OpenAICredential(api_key=SecretStr("any"))
    await ending_with(overheard.listening(OpenAIResponseModel(credential, "m"), say("{}")), answer=CITY)
    await ending_with(overheard.listening(openai(), say("{}")), answer=replace(CITY, strict=True))
    ours, theirs = overheard.calls
    assert ours["text"] == {"format": {"type": "json_schema", "name": "city", "schema": CITY.schema}}
    assert theirs["response_format"]["json_schema"]["strict"] is True


async def test_a_model_without_a_parameter_for_it_is_told_in_words() -> None:
    model = Said(say('{"city": "Paris"}'))
    ending = await ending_with(model, answer=CITY)
    assert texts(ending.output) == ['{"city": "Paris"}']
    assert '"required":["city"]' in str(model.asked[0][0].get_text_content())


async def test_structured_output_of_a_handler_is_the_answer() -> None:
    class City(BaseModel):
        city: str

    overheard = Overheard()

    async def query(msgs: list[Msg]) -> AsyncIterator[Any]:
        given = use(("1", "GenerateStructuredOutput", '{"city": "Paris"}'))
        made: Agent = agent(overheard.listening(openai(), given), clock)
        async for event in made.reply_stream(msgs, structured_schema=City, yield_final_msg=True):
            yield event

    async with serving(query) as system:
        ending = await ask(system, answer=CITY)
        without = await ask(system, answer=CITY, tool_choice="none")
    assert texts(ending.output) == ['{"city":"Paris"}']
    assert texts(without.output) == ['{"city":"Paris"}'], "its tool is none that the client knows of"
    assert overheard.calls[1]["tool_choice"].tools == ["GenerateStructuredOutput"]


async def test_what_is_said_first_is_not_the_answer() -> None:
    async def query(msgs: list[Msg]) -> AsyncIterator[Any]:
        yield "One moment."
        async for event in agent(Said(say("{", "}"))).reply_stream(msgs, yield_final_msg=True):
            yield event

    async with serving(query) as system:
        ending = await ask(system, answer=AnswerFormat(kind="json_object"))
    assert (kinds(ending), texts(ending.output)) == (["reasoning", "message"], ["{}"])
    assert ending.output[1].usage is not None


async def test_a_prompt_that_has_no_system_message() -> None:
    model = Said(say("Arr."))

    async def query(msgs: list[Msg]) -> AsyncIterator[Any]:
        response = await model([SystemMsg("system", ""), *msgs])
        async for piece in response:
            yield "" if piece.is_last else piece.content[0].text

    async with serving(query) as system:
        await ask(system, instructions=PIRATE)
    assert model.asked[0][0].get_text_content() == PIRATE
