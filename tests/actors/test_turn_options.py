"""What a request asks of one turn, as handlers without a framework get it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from greenroom.actors.composer import Composer
from greenroom.actors.errors import ConfigurationError
from greenroom.actors.frameworks.adapter import AgentDriver, Translator
from greenroom.actors.frameworks.plain import PlainAdapter
from greenroom.actors.handler import AgentHandler, QueryHandler
from greenroom.actors.messages import (
    AgentRequest,
    AnswerFormat,
    FunctionTool,
    Message,
    SessionKey,
    Text,
    TurnOptions,
)
from greenroom.actors.session import Session
from greenroom.actors.turn_options import request_with_options
from kits.system import asked, running_system, said, turn

WEATHER = FunctionTool(name="weather", description="Of a city", parameters={"type": "object"})
OPTIONS = TurnOptions(
    instructions="Be brief",
    tools=(WEATHER,),
    tool_choice="required",
    max_output_tokens=100,
    temperature=0.5,
    answer=AnswerFormat(kind="json_object"),
)


def roles(messages: Sequence[Message]) -> str:
    return ", ".join(f"{message.role}: {asked(message)}" for message in messages)


async def test_instructions_lead_the_messages_of_a_handler_and_enter_no_history() -> None:
    async def answer(msgs: Sequence[Message]) -> str:
        return roles(msgs)

    async with running_system(answer) as system:
        log = await system.submit(turn("Hello", options=TurnOptions(instructions="Be brief")))
        assert said(await log.ended()) == "system: Be brief, user: Hello"
        log = await system.submit(turn("And now?", options=TurnOptions(temperature=1.0)))
        assert said(await log.ended()) == "user: And now?"
        record = await system.store.load(SessionKey("u", "s"))
        assert record is not None
        assert [roles(one.input) for one in record.turns] == ["user: Hello", "user: And now?"]


async def test_instructions_lead_the_messages_of_an_agent_whether_it_is_new_or_warm() -> None:
    class Agent:
        async def reply(self, messages: Sequence[Message]) -> AsyncIterator[str]:
            yield roles(messages)

    async with running_system(Agent, agent=True) as system:
        for text in ("new", "warm"):
            log = await system.submit(turn(text, options=TurnOptions(instructions="Be brief")))
            assert said(await log.ended()) == f"system: Be brief, user: {text}"


async def test_a_framework_that_honours_instructions_gets_them_elsewhere() -> None:
    class Honouring:
        name = "honouring"
        honours = frozenset({"instructions", "tools"})

        def messages(self, messages: Sequence[Message]) -> Sequence[Message]:
            return messages

        def translator(self, composer: Composer) -> Translator:
            return PlainAdapter().translator(composer)

        def driver(self, agent: object) -> AgentDriver:
            return PlainAdapter().driver(agent)

    async def answer(msgs: Sequence[Message]) -> str:
        return roles(msgs)

    handler = QueryHandler(answer, Honouring(), None)
    assert handler.honours == {"instructions", "tools", "answer"}
    session = Session(SessionKey("u", "s"), None)  # type: ignore[arg-type]
    asking = turn("Hello", options=OPTIONS)
    assert [item async for item in await handler.answer(session, asking)] == ["user: Hello"]


async def test_a_handler_reads_what_is_asked_of_its_turn_from_the_session_or_the_request() -> None:
    async def answer(request: AgentRequest, session: Session) -> str:
        seen.append((request, session.options))
        return "seen"

    seen: list[tuple[Any, TurnOptions]] = []
    async with running_system(answer) as system:
        await (await system.submit(turn(options=OPTIONS, mine="x"))).ended()
        await (await system.submit(turn(mine="y"))).ended()
    request, options = seen[0]
    assert options == OPTIONS
    assert request.tools == [
        {
            "type": "function",
            "function": {"name": "weather", "description": "Of a city", "parameters": {"type": "object"}},
        }
    ]
    assert (request.temperature, request.max_tokens, request.top_p) == (0.5, 100, None)
    assert (request.instructions, request.tool_choice, request.mine) == ("Be brief", "required", "x")
    assert request.answer == {"kind": "json_object", "name": None, "schema": None, "strict": None}
    request, options = seen[1]
    assert options == TurnOptions()
    assert (request.tools, request.mine) == (None, "y")


def test_what_the_request_says_itself_stays() -> None:
    request = AgentRequest(
        input=(Message((Text("Hello"),)),), temperature=0.0, extra={"instructions": "mine"}
    )
    seen = request_with_options(request, OPTIONS)
    assert (seen.temperature, seen.instructions, seen.max_tokens) == (0.0, "mine", 100)
    assert request.max_tokens is None
    assert request_with_options(request, None) is request


async def answer(msgs: Any) -> str:
    return "hello"


def test_an_author_says_what_his_handler_does_itself() -> None:
    assert QueryHandler(answer, PlainAdapter(), None).honours == {"instructions", "answer"}
    for handler in (QueryHandler, AgentHandler):
        honours = handler(answer, PlainAdapter(), None, {"tools", "tool_choice"}).honours
        assert honours == {"instructions", "answer", "tools", "tool_choice"}


@pytest.mark.parametrize("honours", [{"tool"}, ["tools", "max_tokens"], "tools"])
def test_a_name_that_is_no_option_is_refused_with_those_that_are(honours: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"is no option of a turn.*'max_output_tokens'"):
        QueryHandler(answer, PlainAdapter(), None, honours)
