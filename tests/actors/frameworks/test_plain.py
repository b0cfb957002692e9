"""Handlers without a framework: the kit, and canonical events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from greenroom.actors.errors import HandlerError
from greenroom.actors.events import (
    ArgumentsDelta,
    ItemDone,
    ItemStarted,
    PartDone,
    TextDelta,
    ToolProgress,
    TurnCompleted,
    UsageReported,
)
from greenroom.actors.frameworks.adapter import FrameworkAdapter
from greenroom.actors.frameworks.plain import PlainAdapter
from greenroom.actors.messages import Image, Text, ToolCall, ToolOutput, Usage
from kits.framework_kit import AgentFrameworkKit, Heard
from kits.system import running_system, said, turn


class TestPlain(AgentFrameworkKit):
    def adapter(self) -> FrameworkAdapter:
        return PlainAdapter()

    def speech(self, pieces: Sequence[str]) -> Sequence[object]:
        return list(pieces)

    def unknown(self) -> object:
        return 42

    def thought(self, thought: Sequence[str], answer: Sequence[str]) -> Sequence[object]:
        return [
            ItemStarted("thought", "reasoning"),
            *(TextDelta(piece, "thought") for piece in thought),
            ItemDone("thought"),
            *(TextDelta(piece) for piece in answer),
        ]

    def tool_round(self, call: ToolCall, output: ToolOutput) -> Sequence[object]:
        return [
            ItemStarted(f"call {call.call_id}", "tool_call", "assistant", call.call_id, call.name),
            ArgumentsDelta(call.arguments, f"call {call.call_id}"),
            PartDone(call, f"call {call.call_id}"),
            ItemStarted(f"output {call.call_id}", "tool_output", "tool", call.call_id, call.name),
            ToolProgress(f"output {call.call_id}", output.output[:1]),
            PartDone(output, f"output {call.call_id}"),
        ]


def test_text_parts_and_events_mix() -> None:
    heard = Heard(PlainAdapter())
    heard.feed(
        ["see ", Text("this: "), Image("https://x/cat.png"), TextDelta("nice?"), Usage(3, 4), Usage(1, 1)]
    )
    (message,) = heard.finish()
    assert message.parts == (Text("see this: "), Image("https://x/cat.png"), Text("nice?"))
    assert heard.composer.usage == Usage(4, 5)


def test_a_rewritten_part_ends_as_what_was_said_last() -> None:
    heard = Heard(PlainAdapter())
    heard.feed([ItemStarted("m"), TextDelta("Hello wor", "m"), PartDone(Text("Goodbye"), "m"), ItemDone("m")])
    heard.translator.finish()
    assert heard.composer.output[0].parts == (Text("Goodbye"),)


def test_usage_belongs_to_its_message() -> None:
    heard = Heard(PlainAdapter())
    heard.feed([ItemStarted("m"), TextDelta("x", "m"), UsageReported(Usage(7, 8), "m")])
    (message,) = heard.finish()
    assert message.usage == Usage(7, 8)


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([TextDelta("x", "nobody")], "nobody"),
        ([ItemStarted("m"), ItemStarted("m")], "twice"),
        ([ItemStarted("c", "tool_call")], "call_id"),
        ([ItemStarted("m"), ArgumentsDelta("{", "m")], "message"),
        ([ItemStarted("m"), ItemDone("m"), TextDelta("x", "m")], "after it was done"),
        (
            [ItemStarted("c", "tool_call", "assistant", "1", "f"), PartDone(ToolOutput("1", "f"), "c")],
            "cannot hold",
        ),
    ],
)
def test_events_out_of_order_are_refused_in_words(events: list[object], words: str) -> None:
    with pytest.raises(HandlerError, match=words):
        Heard(PlainAdapter()).feed(events)


async def test_an_agent_may_be_any_callable() -> None:
    async def factory() -> Any:
        def agent(messages: Any) -> str:
            return f"{len(messages)} message"

        return agent

    async with running_system(factory, agent=True) as system:
        ending = await (await system.submit(turn())).ended()
    assert isinstance(ending, TurnCompleted)
    assert said(ending) == "1 message"
