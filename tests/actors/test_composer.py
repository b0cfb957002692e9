"""The composer keeps the grammar of events whatever an adapter does to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.errors import HandlerError
from greenroom.actors.events import (
    ArgumentsDelta,
    Event,
    Item,
    ItemDone,
    ItemStarted,
    PartDone,
    TextDelta,
    TurnAccepted,
    TurnCancelled,
    TurnCompleted,
    TurnStarted,
)
from greenroom.actors.messages import Text, ToolCall, ToolOutput, Usage
from kits.composing import Deed, Writer, deeds, deltas, endings, openings, rewrites
from kits.grammar import check_events, check_items, texts


@given(deeds)
def test_whatever_is_written_keeps_the_grammar(script: list[Deed]) -> None:
    writer = Writer()
    for deed in script:
        deed(writer)
    writer.composer.close()
    assert check_items(writer.events) == writer.composer.output


@given(st.lists(st.one_of(openings, deltas, endings, rewrites), max_size=40))
def test_rewriting_keeps_the_grammar(script: list[Deed]) -> None:
    writer = Writer()
    for deed in script:
        deed(writer)
    writer.composer.close()
    assert check_items(writer.events, rewrites=True) == writer.composer.output


@given(deeds)
def test_a_turn_cut_short_keeps_what_was_said(script: list[Deed]) -> None:
    writer = Writer()
    for deed in script:
        deed(writer)
    writer.composer.abandon()
    ending = TurnCancelled(2.0, "stopped", tuple(writer.composer.output))
    check_events([TurnAccepted("t", 1.0), TurnStarted(), *writer.events, ending])


@given(deeds)
def test_in_a_turn_cut_short_every_call_has_one_output_and_it_comes_after_the_call(
    script: list[Deed],
) -> None:
    writer = Writer()
    for deed in script:
        deed(writer)
    writer.composer.abandon()
    told: dict[str, list[tuple[type, bool]]] = {}
    for item in writer.composer.output:
        for part in item.parts:
            if isinstance(part, ToolCall | ToolOutput):
                told.setdefault(part.call_id, []).append((type(part), item.complete))
    for of_a_call in told.values():
        kinds = [kind for kind, _ in of_a_call]
        assert ToolOutput in kinds, "a call without an output"
        if (ToolCall, False) in of_a_call:  # what an adapter completed in another order stays so
            assert kinds[0] is ToolCall


def test_a_call_that_was_being_written_comes_before_the_output_that_says_so() -> None:
    writer = Writer()
    writer.composer.say("I look ")
    call = writer.composer.call("c1", "search")
    call.arguments('{"q')
    note = writer.composer.message()
    note.text("meanwhile")
    writer.composer.abandon()
    assert [(item.kind, item.complete) for item in writer.composer.output] == [
        ("message", True),
        ("tool_call", False),
        ("message", False),
        ("tool_output", True),
    ]


def test_a_call_that_was_left_open_comes_before_the_output_it_has() -> None:
    writer = Writer()
    writer.composer.call("c1", "search").arguments("{}")
    writer.composer.output_of("c1", "search").done([Text("found")])
    writer.composer.say("I found ")
    writer.composer.abandon()
    assert [item.kind for item in writer.composer.output] == ["tool_call", "tool_output", "message"]


def test_what_is_open_when_a_turn_is_begun_once_more_is_closed_with_calls_before_their_outputs() -> None:
    writer = Writer()
    writer.composer.call("c1", "search").arguments("{}")
    writer.composer.close_broken()
    assert [item.kind for item in check_items(writer.events)] == ["tool_call", "tool_output"]


@given(deeds, openings)
def test_nothing_is_heard_after_the_end(script: list[Deed], late: Deed) -> None:
    writer = Writer()
    for deed in script:
        deed(writer)
    writer.composer.close()
    writer.composer.end()
    before = len(writer.events)
    with pytest.raises(HandlerError, match="the turn has ended"):
        late(writer)
    assert len(writer.events) == before


@given(st.lists(st.text(max_size=8), max_size=12))
def test_text_so_far_ends_as_the_last_text_said(wholes: list[str]) -> None:
    writer = Writer()
    draft = writer.composer.message()
    for whole in wholes:
        draft.text_so_far(whole)
    draft.done()
    (item,) = check_items(writer.events, rewrites=True)
    assert "".join(texts([item])) == (wholes[-1] if wholes else "")


@given(st.text(max_size=40), st.lists(st.integers(0, 40)))
def test_text_that_only_grows_goes_out_as_deltas(text: str, cuts: list[int]) -> None:
    writer = Writer()
    draft = writer.composer.message()
    for cut in [*sorted(cuts), len(text)]:
        draft.text_so_far(text[:cut])
    draft.done()
    check_items(writer.events)
    assert "".join(event.text for event in writer.events if isinstance(event, TextDelta)) == text


def test_plain_speech_is_one_message() -> None:
    writer = Writer()
    writer.composer.say("Hello ")
    writer.composer.say("world")
    writer.composer.close()
    done = Item("msg_1", "message", "assistant", (Text("Hello world"),))
    assert writer.events == [
        ItemStarted("msg_1"),
        TextDelta("Hello ", "msg_1"),
        TextDelta("world", "msg_1"),
        PartDone(Text("Hello world"), "msg_1", 0),
        ItemDone("msg_1", done),
    ]


def test_a_tool_item_ends_the_speech_before_it() -> None:
    writer = Writer()
    writer.composer.say("I look it up.")
    call = writer.composer.call("c1", "search")
    call.arguments('{"q": ')
    call.arguments('"x"}')
    call.done()
    output = writer.composer.output_of("c1", "search")
    output.done([Text("found")])
    writer.composer.say("Done.")
    writer.composer.close()
    items = check_items(writer.events)
    assert [item.kind for item in items] == ["message", "tool_call", "tool_output", "message"]
    assert items[1].parts == (ToolCall("c1", "search", '{"q": "x"}'),)
    assert items[2].parts == (ToolOutput("c1", "search", (Text("found"),)),)


def test_arguments_may_be_overruled_at_the_end() -> None:
    writer = Writer()
    call = writer.composer.call("c1", "search")
    call.arguments_so_far('{"q"')
    call.arguments_so_far('{"q": 1}')
    call.arguments_so_far("[]")
    call.done('{"q": 2}')
    said = "".join(event.text for event in writer.events if isinstance(event, ArgumentsDelta))
    assert said == '{"q": 1}'
    (item,) = check_items(writer.events, rewrites=True)
    assert item.parts == (ToolCall("c1", "search", '{"q": 2}'),)


def test_an_item_that_is_done_takes_no_more() -> None:
    writer = Writer()
    message = writer.composer.message()
    message.done()
    message.done()
    with pytest.raises(HandlerError, match="after it was done"):
        message.text("more")


def test_the_budget_holds_for_text_arguments_and_rewrites() -> None:
    writer = Writer(budget=10)
    writer.composer.message().text("1234")
    writer.composer.call("c", "n").arguments("5678")
    draft = writer.composer.message()
    with pytest.raises(HandlerError, match="turn_bytes"):
        draft.text_so_far("901")


def test_usage_is_the_sum() -> None:
    writer = Writer()
    assert writer.composer.usage is None
    writer.composer.report_usage(Usage(1, 2, 3, 4))
    writer.composer.report_usage(Usage(10, 20, 30, 40))
    assert writer.composer.usage == Usage(11, 22, 33, 44)


def test_an_item_carries_its_usage_and_metadata() -> None:
    writer = Writer()
    draft = writer.composer.message()
    draft.usage = Usage(1, 1)
    draft.metadata = {"mood": "calm"}
    draft.text("hi")
    draft.done()
    (item,) = writer.composer.output
    assert (item.usage, item.metadata) == (Usage(1, 1), {"mood": "calm"})


def test_the_checker_accepts_a_whole_turn() -> None:
    writer = Writer()
    writer.composer.say("hi")
    writer.composer.close()
    events = [
        TurnAccepted("t", 1.0),
        TurnStarted(),
        *writer.events,
        TurnCompleted(2.0, tuple(writer.composer.output)),
    ]
    assert texts(check_events(events)) == ["hi"]
    check_events([TurnAccepted("t", 1.0), TurnCancelled(2.0, "never began")])


STARTED = ItemStarted("a")
DONE = ItemDone("a", Item("a", "message", "assistant", (Text("x"),)))


@pytest.mark.parametrize(
    "broken",
    [
        [STARTED],
        [STARTED, STARTED],
        [TextDelta("x", "a")],
        [STARTED, TextDelta("", "a")],
        [STARTED, TextDelta("x", "a", 1)],
        [STARTED, TextDelta("x", "a"), DONE],
        [STARTED, TextDelta("y", "a"), PartDone(Text("x"), "a"), DONE],
        [STARTED, PartDone(Text("x"), "a"), DONE, DONE],
        [STARTED, PartDone(Text("x"), "a"), DONE, STARTED],
        [STARTED, PartDone(Text("x"), "a", 1), DONE],
        [STARTED, ArgumentsDelta("{", "a")],
        [STARTED, PartDone(ToolCall("c", "n"), "a")],
        [ItemStarted("a", "tool_call")],
        [STARTED, ItemDone("a")],
    ],
)
def test_the_checker_refuses(broken: list[Event]) -> None:
    with pytest.raises(AssertionError):
        check_items(broken)


@pytest.mark.parametrize(
    "broken",
    [
        [],
        [TurnAccepted("t", 1.0)],
        [TurnStarted(), TurnCompleted(2.0)],
        [TurnAccepted("t", 1.0), TurnCompleted(2.0)],
        [TurnAccepted("t", 1.0), TurnStarted(), STARTED, TurnCompleted(2.0)],
        [TurnAccepted("t", 1.0), TurnStarted(), STARTED, TurnCancelled(2.0, "x")],
        [TurnAccepted("t", 1.0), TurnStarted(), TurnCompleted(2.0), TurnCompleted(2.0)],
        [TurnAccepted("t", 1.0), STARTED, TurnCancelled(2.0, "x")],
    ],
)
def test_the_checker_refuses_turns(broken: list[Event]) -> None:
    with pytest.raises(AssertionError):
        check_events(broken)
