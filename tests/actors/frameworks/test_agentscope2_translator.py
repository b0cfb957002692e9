"""AgentScope 2.x events become a turn's events."""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kits.agentscope_line import require_line

require_line(2)

from agentscope.event import (
    CustomEvent,
    DataBlockDeltaEvent,
    DataBlockEndEvent,
    DataBlockStartEvent,
    HintBlockEvent,
    ModelCallEndEvent,
    ModelCallStartEvent,
    ReplyEndEvent,
    ReplyStartEvent,
    RequireExternalExecutionEvent,
    RequireUserConfirmEvent,
    TextBlockDeltaEvent,
    TextBlockEndEvent,
    TextBlockStartEvent,
    ThinkingBlockDeltaEvent,
    ThinkingBlockEndEvent,
    ThinkingBlockStartEvent,
    ToolCallDeltaEvent,
    ToolCallEndEvent,
    ToolCallStartEvent,
    ToolResultDataDeltaEvent,
    ToolResultEndEvent,
    ToolResultStartEvent,
    ToolResultTextDeltaEvent,
)
from agentscope.message import (
    AssistantMsg,
    Base64Source,
    DataBlock,
    Msg,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolResultBlock,
    ToolResultState,
    URLSource,
)
from agentscope.message import Usage as MsgUsage
from agentscope.types import ErrorInfo, ErrorType, ReplyFinishedReason
from pydantic import AnyUrl

from greenroom.actors.errors import HandlerError
from greenroom.actors.events import Item, PartDone, ToolProgress
from greenroom.actors.frameworks.agentscope2 import AgentScope2Adapter
from greenroom.actors.frameworks.agentscope2_translator import AgentFailed
from greenroom.actors.messages import (
    Audio,
    Content,
    Data,
    File,
    Image,
    Text,
    ToolCall,
    ToolOutput,
    Usage,
    Video,
)
from kits.framework_kit import AgentFrameworkKit, Heard
from kits.grammar import check_items, texts

pytestmark = pytest.mark.agentscope2

R = "reply-1"


def text(*pieces: str, block: str = "b1", whole: str | None = None) -> list[object]:
    deltas = [TextBlockDeltaEvent(reply_id=R, block_id=block, delta=piece) for piece in pieces]
    return [
        TextBlockStartEvent(reply_id=R, block_id=block),
        *deltas,
        TextBlockEndEvent(reply_id=R, block_id=block, text=whole),
    ]


def thinking(*pieces: str, block: str = "t1") -> list[object]:
    deltas = [ThinkingBlockDeltaEvent(reply_id=R, block_id=block, delta=piece) for piece in pieces]
    start = ThinkingBlockStartEvent(reply_id=R, block_id=block)
    return [start, *deltas, ThinkingBlockEndEvent(reply_id=R, block_id=block)]


def tool_call(call_id: str, name: str, *pieces: str) -> list[object]:
    deltas = [ToolCallDeltaEvent(reply_id=R, tool_call_id=call_id, delta=piece) for piece in pieces]
    start = ToolCallStartEvent(reply_id=R, tool_call_id=call_id, tool_call_name=name)
    return [start, *deltas, ToolCallEndEvent(reply_id=R, tool_call_id=call_id)]


def result_start(call_id: str, name: str) -> object:
    return ToolResultStartEvent(reply_id=R, tool_call_id=call_id, tool_call_name=name)


def result_text(call_id: str, delta: str) -> object:
    return ToolResultTextDeltaEvent(reply_id=R, tool_call_id=call_id, delta=delta)


def result_end(call_id: str, state: ToolResultState = ToolResultState.SUCCESS) -> object:
    return ToolResultEndEvent(reply_id=R, tool_call_id=call_id, state=state)


def data(
    media_type: str, *pieces: str, url: str | None = None, block: str = "d1", name: str | None = None
) -> list[Any]:
    given: list[dict[str, Any]] = [{"data": piece} for piece in pieces] or [{"url": url}]
    deltas = [DataBlockDeltaEvent(reply_id=R, block_id=block, media_type=media_type, **one) for one in given]
    start = DataBlockStartEvent(reply_id=R, block_id=block, media_type=media_type, name=name)
    return [start, *deltas, DataBlockEndEvent(reply_id=R, block_id=block)]


def model_end(input_tokens: int = 7, output_tokens: int = 5, cached: int = 3) -> object:
    return ModelCallEndEvent(
        reply_id=R, input_tokens=input_tokens, output_tokens=output_tokens, cache_input_tokens=cached
    )


def reply_start() -> object:
    return ReplyStartEvent(session_id="s", reply_id=R, name="Friday")


def reply_end(reason: str = "completed", error: ErrorInfo | None = None) -> object:
    return ReplyEndEvent(session_id="s", reply_id=R, finished_reason=ReplyFinishedReason(reason), error=error)


def heard(*items: object) -> Heard:
    listener = Heard(AgentScope2Adapter())
    listener.feed(items)
    return listener


def finished(*items: object) -> list[Item]:
    return heard(*items).finish()


class TestKit(AgentFrameworkKit):
    def adapter(self) -> AgentScope2Adapter:
        return AgentScope2Adapter()

    def speech(self, pieces: Sequence[str]) -> Sequence[object]:
        return text(*pieces)

    def unknown(self) -> object:
        return 42

    def thought(self, thought: Sequence[str], answer: Sequence[str]) -> Sequence[object]:
        return [*thinking(*thought), *text(*answer)]

    def tool_round(self, call: ToolCall, output: ToolOutput) -> Sequence[object]:
        events = [
            *tool_call(call.call_id, call.name, call.arguments),
            result_start(output.call_id, output.name),
        ]
        for part in output.output:
            if isinstance(part, Text):
                events.append(result_text(output.call_id, part.text))
            else:
                assert isinstance(part, Image)
                events.append(
                    ToolResultDataDeltaEvent(
                        reply_id=R,
                        tool_call_id=output.call_id,
                        media_type="image/png",
                        data=part.image_url.partition(",")[2],
                    )
                )
        return [*events, result_end(output.call_id)]


# -- text and thinking -------------------------------------------------------------------------------------------------


def test_text_blocks_of_one_model_call_are_parts_of_one_message() -> None:
    (item,) = finished(*text("one"), *text("two", block="b2"), model_end())
    assert item.parts == (Text("one"), Text("two"))


def test_each_model_call_has_its_own_message() -> None:
    start = ModelCallStartEvent(reply_id=R, model_name="m")
    items = finished(start, *text("one"), model_end(), start, *text("two"), model_end(), reply_end())
    assert texts(items) == ["one", "two"]


def test_the_end_of_a_block_has_the_last_word() -> None:
    listener = heard(*text("You heard this, not", " that.", whole="You heard this"))
    listener.translator.finish()
    (item,) = check_items(listener.events, rewrites=True)
    assert item.parts == (Text("You heard this"),)


def test_a_block_whose_end_brings_all_its_text() -> None:
    assert texts(finished(*text(whole="all at once"))) == ["all at once"]


def test_blocks_without_text_say_nothing() -> None:
    assert not finished(*thinking(""), *text(""), *text(whole=""), model_end(), reply_end())


def test_thinking_that_is_ended_late_is_closed_before_the_answer() -> None:
    # A model that does not stream sends both in one chunk; AgentScope ends the text first, then the thinking.
    events = [*thinking("hmm")[:-1], *text("Paris."), thinking("hmm")[-1]]
    reasoning, message = finished(*events)
    assert (reasoning.kind, message.kind) == ("reasoning", "message")


def test_plain_text_among_events() -> None:
    assert texts(finished("Hello ", "you", *text("one"), "two")) == ["Hello you", "one", "two"]


def test_hints_and_custom_events_are_not_said() -> None:
    hint = HintBlockEvent(
        reply_id=R, block_id="h", source="system", hint="<system-reminder>12:00</system-reminder>"
    )
    custom = CustomEvent(name="team_updated", value={"secret": 1})
    listener = heard(reply_start(), hint, custom, *text("hi")[:2], hint, custom, *text(" there")[1:])
    assert texts(listener.finish()) == ["hi there"]
    assert not any("12:00" in repr(event) for event in listener.events)


def test_a_subclass_of_an_event_is_heard_as_that_event() -> None:
    class Loud(TextBlockDeltaEvent):  # type: ignore[misc]  # its types are not followed
        """Of somebody's middleware."""

    assert texts(finished(Loud(reply_id=R, block_id="b", delta="HI"))) == ["HI"]


def test_pairs_of_the_other_line_are_refused_with_a_hint() -> None:
    with pytest.raises(HandlerError, match=r"tuple.*1\.x"):
        heard((AssistantMsg("Friday", "hi"), True))


# -- data --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("media_type", "given", "part"),
    [
        ("image/png", {"url": "https://e.org/a.png"}, Image("https://e.org/a.png")),
        ("audio/mpeg", {"url": "https://e.org/a.mp3"}, Audio("https://e.org/a.mp3", "mp3")),
        ("video/mp4", {"url": "https://e.org/a.mp4"}, Video("https://e.org/a.mp4")),
        ("application/pdf", {"url": "https://e.org/a"}, File(file_url="https://e.org/a", filename="cat")),
    ],
)
def test_data_by_url(media_type: str, given: dict[str, str], part: Content) -> None:
    (item,) = finished(*data(media_type, url=given["url"], name="cat"))
    assert item.parts == (part,)


@pytest.mark.parametrize(
    ("media_type", "part"),
    [
        ("image/png", Image("data:image/png;base64,aGk=")),
        ("audio/wav", Audio("aGk=", "wav")),
        ("video/mp4", Video("data:video/mp4;base64,aGk=")),
        ("text/csv", File(file_data="data:text/csv;base64,aGk=", filename="cat")),
    ],
)
def test_data_inline(media_type: str, part: Content) -> None:
    (item,) = finished(*data(media_type, "aGk=", name="cat"))
    assert item.parts == (part,)


def test_fragments_that_are_padded_each_are_one_sound() -> None:
    pieces = [b"\x00\x01", b"\x02", b"\x03\x04\x05\x06"]
    (item,) = finished(*data("audio/pcm", *(b64encode(piece).decode() for piece in pieces)))
    (part,) = item.parts
    assert isinstance(part, Audio)
    assert b64decode(part.data) == b"".join(pieces)


def test_fragments_cut_from_one_text_are_one_sound() -> None:
    (item,) = finished(*data("audio/pcm", "aGVs", "bG8", "gd29ybGQ="))
    assert item.parts == (Audio("aGVsbG8gd29ybGQ=", "pcm"),)


def test_sound_that_comes_beside_the_text_follows_it_in_the_message() -> None:
    said, sound = text("Hel", "lo"), data("audio/wav", "aGk=")
    (item,) = finished(said[0], said[1], *sound, said[2], said[3], model_end())
    assert item.parts == (Text("Hello"), Audio("aGk=", "wav"))
    assert item.usage == Usage(7, 5, 3)


def test_data_that_is_never_ended_is_shown_at_the_end() -> None:
    (item,) = finished(*data("audio/wav", "aGk=")[:-1])
    assert item.parts == (Audio("aGk=", "wav"),)


def test_data_counts_against_the_bound_of_a_turn() -> None:
    listener = Heard(AgentScope2Adapter(), budget=8)
    with pytest.raises(HandlerError, match="turn_bytes"):
        listener.feed(data("audio/wav", "aGVs", "bG8gd29y"))


# -- tools -------------------------------------------------------------------------------------------------------------


def test_calls_that_interleave() -> None:
    one, two = tool_call("1", "a", '{"x":', "1}"), tool_call("2", "b", "{", "}")
    together = [event for pair in zip(one, two, strict=True) for event in pair]
    outputs = [
        result_start("1", "a"),
        result_start("2", "b"),
        result_text("2", "second"),
        result_text("1", "first"),
        result_end("2"),
        result_end("1"),
    ]
    items = finished(*together, model_end(), *outputs)
    assert [item.parts[0] for item in items] == [
        ToolCall("1", "a", '{"x":1}'),
        ToolCall("2", "b", "{}"),
        ToolOutput("2", "b", (Text("second"),)),
        ToolOutput("1", "a", (Text("first"),)),
    ]


def test_an_output_of_text_and_data() -> None:
    picture = ToolResultDataDeltaEvent(reply_id=R, tool_call_id="1", media_type="image/png", data="aGk=")
    link = ToolResultDataDeltaEvent(
        reply_id=R, tool_call_id="1", media_type="image/png", url="https://e.org/a.png"
    )
    listener = heard(
        result_start("1", "look"),
        result_text("1", "a "),
        result_text("1", "cat"),
        picture,
        link,
        result_end("1"),
    )
    (item,) = listener.finish()
    parts = (Text("a cat"), Image("data:image/png;base64,aGk="), Image("https://e.org/a.png"))
    assert item.parts == (ToolOutput("1", "look", parts),)


def test_progress_is_told_and_stays_in_proportion() -> None:
    pieces = ["x" * 10] * 1000
    listener = heard(
        result_start("1", "log"), *(result_text("1", piece) for piece in pieces), result_end("1")
    )
    told = [event for event in listener.events if isinstance(event, ToolProgress)]
    assert told[0].output == (Text("x" * 20),)
    size = sum(len(part.text) for event in told for part in event.output if isinstance(part, Text))
    assert size <= 9 * 10_000
    assert listener.finish()[0].parts == (ToolOutput("1", "log", (Text("x" * 10_000),)),)


def test_a_tool_that_answers_at_once_is_told_once() -> None:
    listener = heard(result_start("1", "now"), result_text("1", "12:00"), result_end("1"))
    assert not [event for event in listener.events if isinstance(event, ToolProgress)]
    assert len([event for event in listener.events if isinstance(event, PartDone)]) == 1


@pytest.mark.parametrize("state", ["error", "denied", "interrupted"])
def test_how_a_tool_failed_stands_with_its_output(state: str) -> None:
    items = finished(
        *tool_call("1", "t", "{}"),
        result_start("1", "t"),
        result_text("1", "no"),
        result_end("1", ToolResultState(state)),
    )
    assert items[1].metadata == {"state": state}


def test_mcp_tools_name_their_server() -> None:
    items = finished(
        *tool_call("1", "mcp__maps__find", "{}"), result_start("1", "mcp__maps__find"), result_end("1")
    )
    assert [item.parts[0] for item in items] == [
        ToolCall("1", "find", "{}", "maps"),
        ToolOutput("1", "find", (), "maps"),
    ]


def test_the_output_of_a_call_that_was_told_in_an_earlier_turn() -> None:
    # What AgentScope yields first when a reply is resumed with the result of an external execution.
    (item,) = finished(result_text("1", "done elsewhere"), result_end("1"))
    assert item.parts == (ToolOutput("1", "", (Text("done elsewhere"),)),)


def test_a_call_to_be_executed_elsewhere_is_a_call_without_output() -> None:
    pending = ToolCallBlock(id="1", name="deploy", input="{}")
    (item,) = finished(
        *tool_call("1", "deploy", "{}"),
        model_end(),
        result_start("1", "deploy"),
        RequireExternalExecutionEvent(reply_id=R, tool_calls=[pending]),
    )
    assert item.parts == (ToolCall("1", "deploy", "{}"),)


def test_a_call_that_waits_for_confirmation_is_told() -> None:
    pending = ToolCallBlock(id="1", name="erase", input='{"all": true}')
    asked = RequireUserConfirmEvent(reply_id=R, tool_calls=[pending])
    waiting = AssistantMsg("Friday", "I'm waiting for your permission", id=R)
    told, message = finished(
        reply_start(), *tool_call("1", "erase", '{"all": true}'), model_end(), asked, waiting
    )
    assert told.parts == (ToolCall("1", "erase", '{"all": true}'),)
    assert message.parts == (Text('erase({"all": true}) waits for your confirmation and has not run.'),)
    assert message.metadata == {
        "awaiting_confirmation": [{"call_id": "1", "name": "erase", "arguments": '{"all": true}'}]
    }


def test_calls_that_wait_and_were_not_told_are_told_first() -> None:
    pending = [ToolCallBlock(id=call_id, name="erase", input="{}") for call_id in ("1", "2")]
    items = finished(RequireUserConfirmEvent(reply_id=R, tool_calls=pending))
    assert [item.kind for item in items] == ["tool_call", "tool_call", "message"]
    assert len(items[2].parts) == 2


# -- usage and endings -------------------------------------------------------------------------------------------------


def test_usage_is_the_turns_and_the_messages() -> None:
    listener = heard(
        *tool_call("1", "t", "{}"), model_end(10, 1, 2), *text("hi"), model_end(20, 2, 4), reply_end()
    )
    items = listener.finish()
    assert items[1].usage == Usage(20, 2, 4)
    assert listener.composer.usage == Usage(30, 3, 6)


def test_a_model_that_reports_no_usage() -> None:
    listener = heard(*text("hi"), model_end(0, 0, 0), reply_end())
    (item,) = listener.finish()
    assert (item.usage, listener.composer.usage) == (None, None)


def test_an_error_ends_the_turn() -> None:
    error = ErrorInfo(type=ErrorType.RATE_LIMIT, message="slow down")
    with pytest.raises(AgentFailed, match=r"rate_limit.*slow down") as failed:
        heard(*text("so far"), reply_end("error", error))
    assert failed.value.kind == "rate_limit"
    with pytest.raises(AgentFailed, match="no details"):
        heard(reply_end("error"))


@pytest.mark.parametrize("reason", ["interrupted", "exceed_max_iters"])
def test_what_cut_a_reply_short_stands_with_its_last_message(reason: str) -> None:
    (item,) = finished(*text("so far"), model_end(), reply_end(reason))
    assert item.parts == (Text("so far"),)
    assert item.metadata == {"finished_reason": reason}


# -- whole messages ----------------------------------------------------------------------------------------------------


def reply_msg(*blocks: Any, **kwargs: Any) -> Msg:
    return AssistantMsg("Friday", list(blocks), id=R, **kwargs)


def test_a_final_message_is_not_said_twice() -> None:
    blocks = [
        ThinkingBlock(thinking="hmm"),
        TextBlock(text="hi"),
        DataBlock(source=Base64Source(data="aGk=", media_type="image/png")),
        ToolCallBlock(id="1", name="t", input="{}"),
    ]
    events = [
        *thinking("hmm"),
        *text("hi"),
        *data("image/png", "aGk="),
        *tool_call("1", "t", "{}"),
        model_end(),
    ]
    listener = heard(
        reply_start(),
        *events,
        reply_end(),
        reply_msg(*blocks, usage=MsgUsage(input_tokens=7, output_tokens=5)),
    )
    assert [item.kind for item in listener.finish()] == ["reasoning", "message", "tool_call"]
    assert listener.composer.usage == Usage(7, 5, 3)


def test_a_final_message_says_what_its_events_have_not() -> None:
    end = [
        reply_end("exceed_max_iters"),
        reply_msg(TextBlock(text="Too many rounds."), finished_reason="exceed_max_iters"),
    ]
    items = finished(reply_start(), *tool_call("1", "t", "{}"), model_end(), *end)
    assert texts(items) == ["Too many rounds."]
    assert items[-1].metadata == {"finished_reason": "exceed_max_iters"}


def test_structured_output_is_shown_as_data() -> None:
    msg = reply_msg(
        TextBlock(text="The required structured output is generated."), structured_output={"city": "Paris"}
    )
    (item,) = finished(reply_start(), reply_end(), msg, msg)
    assert item.parts == (Data({"city": "Paris"}),)


def test_a_handler_may_yield_messages_alone() -> None:
    result = ToolResultBlock(id="1", name="mcp__maps__find", output="there", state=ToolResultState.ERROR)
    msg = reply_msg(
        ThinkingBlock(thinking="hmm"),
        TextBlock(text="I look."),
        ToolCallBlock(id="1", name="mcp__maps__find", input="{}"),
        result,
        TextBlock(text=""),
        TextBlock(text="There."),
        DataBlock(source=URLSource(url=AnyUrl("https://e.org/a.png"), media_type="image/png")),
        usage=MsgUsage(input_tokens=7, output_tokens=5),
    )
    listener = heard(msg, msg, AssistantMsg("Friday", "There."))
    items = listener.finish()
    assert [item.parts for item in items] == [
        (Text("hmm"),),
        (Text("I look."),),
        (ToolCall("1", "find", "{}", "maps"),),
        (ToolOutput("1", "find", (Text("Error: there"),), "maps"),),
        (Text("There."), Image("https://e.org/a.png")),
        (Text("There."),),
    ]
    assert items[3].metadata == {"state": "error"}
    assert (items[4].usage, listener.composer.usage) == (Usage(7, 5), Usage(7, 5))


def test_a_message_keeps_its_role() -> None:
    (item,) = finished(Msg(name="note", role="system", content=[TextBlock(text="be brief")]))
    assert (item.role, item.parts) == ("system", (Text("be brief"),))


def test_a_message_of_a_failed_reply_ends_the_turn() -> None:
    error = ErrorInfo(type=ErrorType.UPSTREAM, message="502")
    msg = Msg(
        name="Friday", role="assistant", content=[], finished_reason=ReplyFinishedReason.ERROR, error=error
    )
    with pytest.raises(AgentFailed, match="upstream"):
        heard(msg)


# -- any order ---------------------------------------------------------------------------------------------------------

STREAMS = [
    *text("one", " two"),
    *text("three", block="b2", whole="3"),
    *thinking("hm", "m"),
    *data("audio/wav", "aGk=", "aGk="),
    *tool_call("1", "a", "{", "}"),
    *tool_call("2", "mcp__s__b", "{}"),
    *[result_start("1", "a"), result_text("1", "x"), result_text("1", "y"), result_end("1")],
    *[result_text("2", "z"), result_end("2", ToolResultState.ERROR)],
    *[reply_start(), ModelCallStartEvent(reply_id=R, model_name="m"), model_end(), reply_end(), "plain"],
    RequireUserConfirmEvent(reply_id=R, tool_calls=[ToolCallBlock(id="3", name="c", input="{}")]),
    reply_msg(
        ThinkingBlock(thinking="hm"), TextBlock(text="four"), ToolCallBlock(id="1", name="a", input="{}")
    ),
]


@given(st.lists(st.sampled_from(STREAMS), max_size=25))
def test_the_grammar_holds_whatever_order_events_come_in(events: list[object]) -> None:
    listener = heard(*events)
    listener.translator.finish()
    check_items(listener.events, rewrites=True)
