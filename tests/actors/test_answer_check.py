"""Answers that must be JSON of some form: a turn that gives another one fails, and changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from greenroom.actors.answer_check import ANSWER_CHARS, QUICK_CHARS, check_answer
from greenroom.actors.composer import Composer
from greenroom.actors.errors import AnswerMismatch
from greenroom.actors.events import Item, ItemStarted, Part, PartDone, TurnCompleted, TurnFailed
from greenroom.actors.frameworks.adapter import Translator
from greenroom.actors.frameworks.plain import PlainAdapter
from greenroom.actors.handler import QueryHandler
from greenroom.actors.messages import (
    AnswerFormat,
    Data,
    FunctionTool,
    Message,
    Refusal,
    SessionKey,
    Text,
    ToolCall,
    TurnOptions,
)
from greenroom.actors.system import ActorSystem
from greenroom.services.sessions.memory_store import InMemoryStore
from kits.system import asked, running_system, said, turn

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
ANY_OBJECT = AnswerFormat(kind="json_object")
WITH_SCHEMA = AnswerFormat(kind="json_schema", name="number", schema=SCHEMA)


class Echo:
    """An agent that says what it is told, and remembers it."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def reply(self, messages: Sequence[Message]) -> AsyncIterator[object]:
        self.heard.append(asked(messages[-1]))
        yield self.heard[-1]

    def state_dict(self) -> list[str]:
        return self.heard

    def load_state_dict(self, state: list[str]) -> None:
        self.heard = list(state)


def message(*parts: Part) -> Item:
    return Item("m", "message", "assistant", parts)


def call(name: str) -> Item:
    return Item("c", "tool_call", "assistant", (ToolCall("1", name, "{}"),))


async def mismatch(answer: AnswerFormat, *output: Item, tools: tuple[str, ...] = ()) -> str | None:
    try:
        await check_answer(answer, output, tools)
    except AnswerMismatch as error:
        return error.message
    return None


@pytest.mark.parametrize(
    ("answer", "text", "why"),
    [
        (ANY_OBJECT, '{"a": 1}', None),
        (ANY_OBJECT, ' {"a": 1}\n', None),
        (ANY_OBJECT, "[1]", "answer is an array, and must be of type object"),
        (ANY_OBJECT, "Sure! {}", "what the agent wrote is none"),
        (ANY_OBJECT, "", "what the agent wrote is none"),
        (WITH_SCHEMA, '{"n": 1}', None),
        (WITH_SCHEMA, '{"n": "1"}', 'answer.n is "1", and must be of type integer'),
        (WITH_SCHEMA, "{}", "answer lacks 'n'"),
        (WITH_SCHEMA, '{"n": 1', "what the agent wrote is none"),
        (WITH_SCHEMA, "[" * 100_000, "what the agent wrote is none"),
        (AnswerFormat(kind="json_schema", schema=None), "7", None),
    ],
)
async def test_texts(answer: AnswerFormat, text: str, why: str | None) -> None:
    found = await mismatch(answer, message(Text(text)))
    assert found is why if why is None else why in str(found)


async def test_the_last_message_counts_and_its_texts_are_one() -> None:
    thinking = message(Text("Let me see."))
    assert await mismatch(WITH_SCHEMA, thinking, message(Text('{"n":'), Text(" 1}"))) is None
    assert "none" in str(await mismatch(WITH_SCHEMA, message(Text('{"n": 1}')), thinking))
    reasoning = Item("r", "reasoning", "assistant", (Text("hm"),))
    assert await mismatch(WITH_SCHEMA, message(Text('{"n": 1}')), reasoning) is None
    assert await mismatch(WITH_SCHEMA, message(Data({"n": 1}))) is None
    assert "lacks" in str(await mismatch(WITH_SCHEMA, message(Data({}))))


async def test_who_stops_at_a_call_or_declines_is_not_looked_at() -> None:
    assert await mismatch(WITH_SCHEMA, call("weather"), tools=("weather",)) is None
    assert await mismatch(WITH_SCHEMA, message(Text("Wait")), call("weather"), tools=("weather",)) is None
    assert await mismatch(WITH_SCHEMA, message(Refusal("No."))) is None
    assert "gave none" in str(await mismatch(WITH_SCHEMA, call("own_tool"), tools=("weather",)))
    assert "gave none" in str(await mismatch(WITH_SCHEMA))


async def test_long_answers_are_checked_off_the_loop_and_too_long_ones_not_at_all() -> None:
    long = '{"n": 1, "x": "' + "x" * QUICK_CHARS + '"}'
    assert await mismatch(WITH_SCHEMA, message(Text(long))) is None
    assert "lacks" in str(await mismatch(WITH_SCHEMA, message(Text(long.replace('"n"', '"m"')))))
    assert "more than can be checked" in str(
        await mismatch(ANY_OBJECT, message(Text("x" * (ANSWER_CHARS + 1))))
    )


async def test_a_check_that_would_not_end_fails_the_turn_and_lets_others_run() -> None:
    branching: dict[str, Any] = {
        "properties": {"a": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}},
        "required": ["a"],
    }
    answer = AnswerFormat(kind="json_schema", schema=branching)
    text = '{"a":' * 30 + "{}" + "}" * 30
    check = asyncio.create_task(mismatch(answer, message(Text(text))))
    steps = 0
    while not check.done():
        await asyncio.sleep(0)
        steps += 1
    assert "would take too long" in str(await check)
    assert steps > 10


async def test_a_turn_with_the_wrong_answer_fails_and_its_state_is_the_one_before() -> None:
    options = TurnOptions(answer=WITH_SCHEMA)
    async with running_system(Echo, agent=True) as system:
        good = await (await system.submit(turn('{"n": 1}', options=options))).ended()
        assert isinstance(good, TurnCompleted)
        bad = await (await system.submit(turn('{"n": "one"}', options=options))).ended()
        assert isinstance(bad, TurnFailed)
        assert bad.error.code == "answer_mismatch"
        assert 'answer.n is "one", and must be of type integer' in bad.error.message
        assert said(bad) == '{"n": "one"}'
        record = await system.store.load(SessionKey("u", "s"))
        assert record is not None
        assert record.state == b'["{\\"n\\": 1}"]'
        assert [one.status for one in record.turns] == ["completed", "failed"]
        free = await (await system.submit(turn("Hello"))).ended()
        assert isinstance(free, TurnCompleted)


class Breaking(PlainAdapter):
    """Answers are cut short when they have been said."""

    def translator(self, composer: Composer) -> Translator:
        composer.cut_short("max_output_tokens")
        return super().translator(composer)


async def test_an_answer_that_was_cut_short_is_not_failed() -> None:
    async def answer(msgs: Any) -> str:
        return '{"n": '

    system = ActorSystem(QueryHandler(answer, Breaking(), None), InMemoryStore())
    await system.start()
    log = await system.submit(turn(options=TurnOptions(answer=WITH_SCHEMA)))
    ending = await log.ended()
    await system.stop()
    assert isinstance(ending, TurnCompleted)
    assert (ending.incomplete, said(ending)) == ("max_output_tokens", '{"n": ')


async def test_a_turn_that_stops_at_a_client_s_tool_is_not_failed() -> None:
    async def answer(session: Any) -> AsyncIterator[object]:
        yield ItemStarted("c", "tool_call", call_id="1", name="weather")
        yield PartDone(ToolCall("1", "weather", '{"city": "Paris"}'), "c")

    tool = FunctionTool(name="weather")
    async with running_system(answer) as system:
        for tools, ending in (((tool,), TurnCompleted), ((), TurnFailed)):
            options = TurnOptions(answer=WITH_SCHEMA, tools=tools)
            log = await system.submit(turn(options=options))
            assert isinstance(await log.ended(), ending)
