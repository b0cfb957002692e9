"""AgentScope 1.x: its messages as events, against the real library's `Msg`."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.errors import HandlerError
from greenroom.actors.events import ArgumentsDelta, ItemDone, ItemStarted, TextDelta, ToolProgress
from greenroom.actors.frameworks.adapter import FrameworkAdapter
from greenroom.actors.messages import Audio, Image, Text, ToolCall, ToolOutput, Video
from kits.agentscope_line import require_line
from kits.framework_kit import PIXEL, AgentFrameworkKit, Heard
from kits.grammar import check_items, texts

require_line(1)

from agentscope.message import Msg

from greenroom.actors.frameworks.agentscope1 import AgentScope1Adapter

pytestmark = pytest.mark.agentscope1

PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
WAV = {"type": "base64", "media_type": "audio/wav", "data": "UklGRg=="}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def thinking(words: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": words}


def tool_use(
    raw: str | None = None, call_id: str = "c1", name: str = "search", **given: Any
) -> dict[str, Any]:
    block = {"type": "tool_use", "id": call_id, "name": name, "input": given}
    return block if raw is None else {**block, "raw_input": raw}


def tool_result(output: object, call_id: str = "c1", name: str = "search") -> dict[str, Any]:
    return {"type": "tool_result", "id": call_id, "name": name, "output": output}


class Printed:
    """One message as an agent prints it: each time whole, under one id."""

    count = 0

    def __init__(self, role: str = "assistant", name: str = "Friday") -> None:
        Printed.count += 1
        self.id = f"printed{Printed.count}"
        self.role, self.name = role, name

    def msg(self, *blocks: Any) -> Msg:
        msg = Msg(self.name, blocks[0] if isinstance(blocks[0], str) else list(blocks), self.role)
        msg.id = self.id
        return msg

    def __call__(self, *blocks: Any, last: bool = False) -> tuple[Msg, bool]:
        return self.msg(*blocks), last


def growing(pieces: Sequence[str]) -> list[str]:
    return ["".join(pieces[: end + 1]) for end in range(len(pieces))]


class TestAgentScope1Adapter(AgentFrameworkKit):
    def adapter(self) -> FrameworkAdapter:
        return AgentScope1Adapter()

    def speech(self, pieces: Sequence[str]) -> Sequence[object]:
        msg = Printed()
        return [*(msg(text(whole)) for whole in growing(pieces)), msg(text("".join(pieces)), last=True)]

    def unknown(self) -> object:
        return 42

    def thought(self, thought: Sequence[str], answer: Sequence[str]) -> Sequence[object]:
        msg = Printed()
        first = [msg(thinking(whole)) for whole in growing(thought)]
        then = [msg(thinking("".join(thought)), text(whole)) for whole in growing(answer)]
        return [*first, *then, msg(thinking("".join(thought)), text("".join(answer)), last=True)]

    def tool_round(self, call: ToolCall, output: ToolOutput) -> Sequence[object]:
        asks, answers = Printed(), Printed("system", "system")
        blocks = [
            text(part.text) if isinstance(part, Text) else {"type": "image", "source": PNG}
            for part in output.output
        ]
        half = call.arguments[: len(call.arguments) // 2]
        return [
            asks(tool_use(half, call.call_id, call.name)),
            asks(tool_use(call.arguments, call.call_id, call.name), last=True),
            answers(tool_result(blocks, output.call_id, output.name), last=True),
        ]


def heard(*items: object) -> Heard:
    turn = Heard(AgentScope1Adapter())
    turn.feed(items)
    return turn


def kinds(turn: Heard) -> list[str]:
    return [item.kind for item in turn.finish()]


# -- text ----------------------------------------------------------------------------------------------------------


def test_a_string_a_bare_msg_and_content_that_is_a_string() -> None:
    turn = heard(
        "Hel", "lo.", Msg("Friday", "Whole.", "assistant"), (Msg("Friday", "Last.", "assistant"), True)
    )
    assert texts(turn.finish()) == ["Hello.", "Whole.", "Last."]


def test_a_bare_msg_may_grow() -> None:
    msg = Printed()
    turn = heard(msg.msg("Hel"), msg.msg("Hello"), Printed().msg("Next"))
    assert texts(turn.finish()) == ["Hello", "Next"]


def test_more_text_is_sent_as_it_comes() -> None:
    msg = Printed()
    turn = heard(msg(text("Hel")), msg(text("Hello")), msg(text("Hello")), msg(text("Hello"), last=True))
    assert [event.text for event in turn.events if isinstance(event, TextDelta)] == ["Hel", "lo"]
    assert isinstance(turn.events[-1], ItemDone), "the message is complete with its last chunk"


def test_rewritten_text_ends_as_the_agent_said_it_last() -> None:
    msg = Printed()
    turn = heard(msg(text("Hello wor")), msg(text("Goodbye")), msg(text("Goodbye"), last=True))
    turn.translator.finish()
    assert texts(check_items(turn.events, rewrites=True)) == ["Goodbye"]


def test_text_rewritten_and_taken_back() -> None:
    msg = Printed()
    turn = heard(msg(text("Hello")), msg(text("Bye")), msg(text("Hello")), msg(text("Hello you"), last=True))
    turn.translator.finish()
    assert texts(check_items(turn.events, rewrites=True)) == ["Hello you"]


def test_an_empty_message_is_none() -> None:
    msg = Printed()
    assert kinds(heard(msg(text("")), msg(text(""), last=True), (Msg("Friday", [], "assistant"), True))) == []


def test_text_blocks_of_one_message_are_its_parts() -> None:
    msg = Printed()
    turn = heard(
        msg(text("a")), msg(text("ab")), msg(text("ab"), text("c")), msg(text("ab"), text("cd"), last=True)
    )
    (item,) = turn.finish()
    assert item.parts == (Text("ab"), Text("cd"))


def test_text_that_grows_after_its_part_ended_is_not_lost() -> None:
    msg = Printed()
    turn = heard(
        msg(text("a"), text("x")), msg(text("ab"), text("xy")), msg(text("abc"), text("xy"), last=True)
    )
    (item,) = turn.finish()
    assert item.parts == (Text("a"), Text("xy"), Text("bc"))


def test_a_message_printed_again_says_nothing_new() -> None:
    msg = Printed()
    turn = heard(msg(text("done"), last=True), msg(text("done"), last=True), msg.msg(text("done")))
    assert texts(turn.finish()) == ["done"]


def test_a_message_that_grows_after_its_last_chunk_is_not_lost() -> None:
    msg = Printed()
    turn = heard(msg(text("a"), last=True), msg(text("ab"), last=True))
    assert texts(turn.finish()) == ["a", "b"]


def test_two_agents_at_once() -> None:
    one, two = Printed(name="one"), Printed(name="two")
    turn = heard(
        one(text("a")),
        two(text("x")),
        one(text("ab")),
        two(text("xy")),
        two(text("xy"), last=True),
        one("abc"),
    )
    items = turn.finish()
    assert {item.metadata["original_name"]: texts([item]) for item in items if item.metadata} == {
        "one": ["abc"],
        "two": ["xy"],
    }


def test_roles_names_and_metadata_go_along() -> None:
    msg = Msg("hint", "Think.", "user", metadata={"mood": "calm"})
    (item,) = heard((msg, True)).finish()
    assert (item.role, item.metadata) == (
        "user",
        {"mood": "calm", "original_id": msg.id, "original_name": "hint"},
    )


# -- thinking ------------------------------------------------------------------------------------------------------


def test_thinking_is_complete_before_the_answer_even_when_both_grow_at_once() -> None:
    msg = Printed()
    turn = heard(
        msg(thinking("h")),
        msg(thinking("hm"), text("A")),
        msg(thinking("hmm"), text("An")),
        msg(thinking("hmm."), text("Answer"), last=True),
    )
    reasoning, answer, late = turn.finish()
    assert (texts([reasoning], "reasoning"), texts([answer]), texts([late], "reasoning")) == (
        ["hm"],
        ["Answer"],
        ["m."],
    )
    starts = [event.item for event in turn.events if isinstance(event, ItemStarted)]
    assert starts == [reasoning.id, answer.id, late.id]


def test_thinking_that_turns_up_before_an_answer_that_is_being_said() -> None:
    msg = Printed()
    turn = heard(
        msg(text("A")), msg(thinking("hm"), text("An")), msg(thinking("hm"), text("Answer"), last=True)
    )
    assert [(item.kind, item.parts) for item in turn.finish()] == [
        ("message", (Text("Answer"),)),
        ("reasoning", (Text("hm"),)),
    ]


def test_thinking_between_answers() -> None:
    msg = Printed()
    blocks = [thinking("a"), text("b"), thinking("c"), text("d")]
    turn = heard(*(msg(*blocks[: end + 1], last=end == 3) for end in range(4)))
    assert [(item.kind, item.parts) for item in turn.finish()] == [
        ("reasoning", (Text("a"),)),
        ("message", (Text("b"),)),
        ("reasoning", (Text("c"),)),
        ("message", (Text("d"),)),
    ]


# -- tools ---------------------------------------------------------------------------------------------------------


def test_arguments_stream_as_the_model_writes_them() -> None:
    msg = Printed()
    turn = heard(
        msg(text("I look."), tool_use("")),
        msg(text("I look."), tool_use('{"q": ', q=None)),
        msg(text("I look."), tool_use('{"q": 1}', q=1), last=True),
    )
    message, call = turn.finish()
    assert [event.text for event in turn.events if isinstance(event, ArgumentsDelta)] == ['{"q": ', "1}"]
    assert (message.parts, call.parts) == ((Text("I look."),), (ToolCall("c1", "search", '{"q": 1}'),))


@pytest.mark.parametrize(
    ("block", "arguments"),
    [
        (tool_use(q=1), '{"q":1}'),
        (tool_use(""), "{}"),
        (tool_use("null"), "{}"),
        (tool_use('{"q": 1', q=1), '{"q":1}'),
        (tool_use('{ "q" : 1 }', q=1), '{ "q" : 1 }'),
    ],
)
def test_a_call_ends_with_the_arguments_the_tool_gets(block: dict[str, Any], arguments: str) -> None:
    turn = heard(Printed()(block, last=True))
    turn.translator.finish()
    (call,) = check_items(turn.events, rewrites=True)
    assert call.parts == (ToolCall("c1", "search", arguments),)


def test_parsed_input_alone_is_not_streamed_since_its_text_does_not_only_grow() -> None:
    msg = Printed()
    turn = heard(msg(tool_use(q="Par")), msg(tool_use(q="Paris")), msg(tool_use(q="Paris"), last=True))
    assert not [event for event in turn.events if isinstance(event, ArgumentsDelta)]
    (call,) = turn.finish()
    assert call.parts == (ToolCall("c1", "search", '{"q":"Paris"}'),)


def test_the_name_may_come_after_the_id() -> None:
    msg = Printed()
    turn = heard(msg(tool_use("", name="")), msg(tool_use("{}"), last=True))
    (call,) = turn.finish()
    assert call.parts == (ToolCall("c1", "search", "{}"),)


def test_a_result_completes_its_call() -> None:
    asks, answers = Printed(), Printed("system")
    turn = heard(asks(tool_use("{}")), answers(tool_result("ok"), last=True), asks(tool_use("{}"), last=True))
    assert [(item.kind, item.parts[0]) for item in turn.finish()] == [
        ("tool_call", ToolCall("c1", "search", "{}")),
        ("tool_output", ToolOutput("c1", "search", (Text("ok"),))),
    ]


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("Error: no luck", {"state": "error"}),
        ("Error occurred when calling MCP tool: no luck", {"state": "error"}),
        ("FunctionNotFoundError: Cannot find the function named search", {"state": "error"}),
        ("There was no Error: all is well", None),
    ],
)
def test_a_call_that_failed_is_known_by_its_output(said: str, state: object) -> None:
    answers = Printed("system")
    turn = heard(answers(tool_result([text("Error: ")])), answers(tool_result([text(said)]), last=True))
    (output,) = turn.finish()
    assert output.metadata == state


def test_a_tool_shows_its_progress() -> None:
    msg = Printed("system")
    turn = heard(
        msg(tool_result([])),
        msg(tool_result([text("a")])),
        msg(tool_result([text("a")])),
        msg(tool_result([text("ab"), {"type": "image", "source": PNG}]), last=True),
    )
    assert [event.output for event in turn.events if isinstance(event, ToolProgress)] == [(Text("a"),)]
    (output,) = turn.finish()
    assert output.parts == (ToolOutput("c1", "search", (Text("ab"), Image(PIXEL))),)


def test_parallel_calls_may_interleave() -> None:
    asks, one, two = Printed(), Printed("system"), Printed("system")
    turn = heard(
        asks(tool_use("{", "c1"), tool_use("{", "c2")),
        asks(tool_use("{}", "c1"), tool_use("{}", "c2"), last=True),
        two(tool_result([text("b")], "c2")),
        one(tool_result([text("a")], "c1")),
        two(tool_result([text("bb")], "c2"), last=True),
        one(tool_result([text("aa")], "c1"), last=True),
    )
    assert [item.parts[0] for item in turn.finish()] == [
        ToolCall("c1", "search", "{}"),
        ToolCall("c2", "search", "{}"),
        ToolOutput("c2", "search", (Text("bb"),)),
        ToolOutput("c1", "search", (Text("aa"),)),
    ]


def test_a_call_id_may_be_used_again_later_in_the_turn() -> None:
    items: list[object] = []
    for number in range(2):
        items += [
            Printed()(tool_use("{}"), last=True),
            Printed("system")(tool_result(str(number)), last=True),
        ]
    assert kinds(heard(*items)) == ["tool_call", "tool_output"] * 2


def test_text_after_a_call_is_not_lost() -> None:
    msg = Printed()
    turn = heard(msg(text("a"), tool_use("{}")), msg(text("ab"), tool_use("{}"), last=True))
    assert [(item.kind, item.parts[0]) for item in turn.finish()] == [
        ("message", Text("a")),
        ("tool_call", ToolCall("c1", "search", "{}")),
        ("message", Text("b")),
    ]


def test_the_end_completes_calls_and_outputs_that_were_left_open() -> None:
    turn = heard(
        Printed()(tool_use("{", q=1)), Printed("system")(tool_result("some")), Printed()(text("half"))
    )
    turn.translator.finish()
    items = check_items(turn.events, rewrites=True)
    assert [item.parts[0] for item in items] == [
        ToolCall("c1", "search", '{"q":1}'),
        ToolOutput("c1", "search", (Text("some"),)),
        Text("half"),
    ]


# -- pictures, sound, films ----------------------------------------------------------------------------------------


def media(kind: str, source: dict[str, str]) -> dict[str, Any]:
    return {"type": kind, "source": source}


@pytest.mark.parametrize(
    ("block", "content"),
    [
        (media("image", PNG), Image(PIXEL)),
        (media("image", {"type": "url", "url": "https://e.org/a.png"}), Image("https://e.org/a.png")),
        (media("audio", WAV), Audio("UklGRg==", "wav")),
        (media("audio", {"type": "url", "url": "https://e.org/a.wav"}), Audio("https://e.org/a.wav")),
        (media("video", {**PNG, "media_type": "video/mp4"}), Video("data:video/mp4;base64,iVBORw0KGgo=")),
        (media("video", {"type": "url", "url": "https://e.org/a.mp4"}), Video("https://e.org/a.mp4")),
    ],
)
def test_media(block: dict[str, Any], content: object) -> None:
    msg = Printed()
    (item,) = heard(msg(block), msg(block), msg(block, last=True)).finish()
    assert item.parts == (content,)


def test_media_between_text() -> None:
    msg = Printed()
    picture = media("image", PNG)
    turn = heard(msg(text("a")), msg(text("a"), picture), msg(text("a"), picture, text("b"), last=True))
    (item,) = turn.finish()
    assert item.parts == (Text("a"), Image(PIXEL), Text("b"))


def test_sound_goes_out_whole_at_its_end() -> None:
    msg = Printed()
    turn = heard(
        msg(media("audio", {**WAV, "data": "Ukl"}), text("H")),
        msg(media("audio", {**WAV, "data": "UklGRg=="}), text("Hi"), last=True),
    )
    (item,) = turn.finish()
    assert item.parts == (Text("Hi"), Audio("UklGRg==", "wav"))


@pytest.mark.parametrize("speech", [media("audio", WAV), [media("audio", WAV)]])
def test_speech_is_part_of_the_message(speech: object) -> None:
    msg = Printed()
    turn = heard((msg.msg(text("Hi")), False, None), (msg.msg(text("Hi")), True, speech))
    (item,) = turn.finish()
    assert item.parts == (Text("Hi"), Audio("UklGRg==", "wav"))


def test_speech_that_is_among_the_blocks_is_said_once() -> None:
    sound = media("audio", WAV)
    (item,) = heard((Printed().msg(sound), True, [sound])).finish()
    assert item.parts == (Audio("UklGRg==", "wav"),)


# -- what it cannot mean -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [{"type": "hologram"}, {"text": "no type"}, "no block"])
def test_unknown_blocks_are_named(block: Any) -> None:
    with pytest.raises(HandlerError, match=r"hologram|None|str"):
        heard((Msg("Friday", [block], "assistant"), True))


def test_unknown_blocks_of_an_output_are_named() -> None:
    with pytest.raises(HandlerError, match="hologram"):
        heard(Printed("system")(tool_result([{"type": "hologram"}]), last=True))


@pytest.mark.parametrize(
    "item", [(), (1, True), (Msg("a", "b", "user"),), [Msg("a", "b", "user")], None, b"bytes"]
)
def test_other_things_are_refused(item: object) -> None:
    with pytest.raises(HandlerError, match="stream_printing_messages"):
        heard(item)


# -- whatever order ------------------------------------------------------------------------------------------------

pieces = st.lists(st.text(max_size=5), min_size=1, max_size=5)
block_kinds = st.lists(st.sampled_from(["text", "thinking", "tool_use"]), min_size=1, max_size=5)


@given(st.data(), st.integers(1, 3))
def test_whatever_grows_in_whatever_order_nothing_is_lost(data: st.DataObject, agents: int) -> None:
    """Several agents print at once; every block of every message grows a little, or not, at each print."""
    turn = Heard(AgentScope1Adapter())
    printed = [Printed() for _ in range(agents)]
    shapes = [data.draw(block_kinds) for _ in range(agents)]
    wholes = [[""] * len(shape) for shape in shapes]
    for _ in range(data.draw(st.integers(1, 8))):
        who = data.draw(st.integers(0, agents - 1))
        shown = data.draw(st.integers(1, len(shapes[who])))
        for index in range(shown):
            wholes[who][index] += data.draw(st.sampled_from(["", "", "a", "é"]))
        turn.translator.feed(printed[who](*blocks_of(shapes[who][:shown], wholes[who])))
    for who in range(agents):
        turn.translator.feed(printed[who](*blocks_of(shapes[who], wholes[who], '"}'), last=True))
    items = turn.finish()
    for kind in ("text", "thinking"):
        said = "".join(texts(items, "message" if kind == "text" else "reasoning"))
        own = [zip(shape, whole, strict=True) for shape, whole in zip(shapes, wholes, strict=True)]
        assert sorted(said) == sorted("".join(whole for blocks in own for of, whole in blocks if of == kind))


def blocks_of(shape: Sequence[str], wholes: Sequence[str], end: str = "") -> list[dict[str, Any]]:
    made = {"text": text, "thinking": thinking}
    return [
        made[kind](whole) if kind in made else tool_use(f'{{"q":"{whole}{end}', f"c{index}", q=whole)
        for index, (kind, whole) in enumerate(zip(shape, wholes, strict=False))
    ]
