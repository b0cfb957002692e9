"""Chat Completions as they are written: exact bytes for what clients know, and properties for whatever is said."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from greenroom.actors.events import Event, TextDelta, TurnCancelled, TurnCompleted, TurnFailed
from greenroom.actors.messages import (
    AnswerFormat,
    Audio,
    Content,
    Data,
    ErrorInfo,
    File,
    FunctionTool,
    Image,
    Refusal,
    Text,
    Turn,
    TurnOptions,
    Usage,
    Video,
)
from greenroom.transports.chat_encode import ChatEcho, ChatEncoder, completion_object, error_of, shown
from greenroom.transports.sse import DONE
from kits.chat_rules import Said, check_completion, check_stream, frames_data
from kits.turns import ENDED, Deed, Telling, a_turn, contents, names, told_turns, usages

TOOLS = (FunctionTool(name="get_weather"), FunctionTool(name="call_1"))
JSON = AnswerFormat(kind="json_object")


def chat_turn(answer: AnswerFormat | None = None, **echo: Any) -> Turn:
    options = TurnOptions(tools=TOOLS, answer=answer)
    return replace(a_turn("chatcmpl-1"), options=options, echo=ChatEcho(model="friday", **echo))


def frames_of(turn: Turn, events: list[Event]) -> list[bytes]:
    encoder = ChatEncoder(turn)
    frames: list[bytes] = []
    for event in events:
        encoder.feed(event, frames)
        assert encoder.number == len(frames)
    assert frames[-1] is DONE
    return frames


def said_in(turn: Turn, told: Telling) -> Said:
    echo: ChatEcho = turn.echo
    return check_stream(frames_data(frames_of(turn, told.events)), counted=echo.include_usage)


def message_of(turn: Turn, told: Telling) -> dict[str, Any]:
    assert isinstance(told.ending, TurnCompleted)
    message: dict[str, Any] = check_completion(completion_object(turn, told.ending))["choices"][0]["message"]
    return message


def a_telling() -> Telling:
    told = Telling()
    told.start()
    return told


# -- to the byte ---------------------------------------------------------------------------------------------------


def test_a_stream_to_the_byte() -> None:
    told = a_telling()
    for delta in ("The ", "capital é"):
        told.composer.say(delta)
    told.composer.report_usage(Usage(3, 2, 1, 1))
    told.complete()
    head = '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795328012,"model":"friday",'
    head += '"system_fingerprint":null,"choices":['
    start = head + '{"index":0,"delta":'
    more = ',"logprobs":null,"finish_reason":null}],"usage":null}'
    lines = [
        start + '{"role":"assistant","content":"","refusal":null}' + more,
        start + '{"content":"The "}' + more,
        start + '{"content":"capital é"}' + more,
        start + '{},"logprobs":null,"finish_reason":"stop"}],"usage":null}',
        head + '],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,'
        '"prompt_tokens_details":{"cached_tokens":1},"completion_tokens_details":{"reasoning_tokens":1}}}',
        "[DONE]",
    ]
    frames = frames_of(chat_turn(include_usage=True), told.events)
    assert frames == [f"data: {line}\n\n".encode() for line in lines]


def test_a_completion_to_the_byte() -> None:
    told = a_telling()
    told.composer.say("Yes")
    told.complete()
    assert isinstance(told.ending, TurnCompleted)
    assert completion_object(chat_turn(metadata={"a": "b"}), told.ending).decode() == (
        '{"id":"chatcmpl-1","object":"chat.completion","created":1795328012,"model":"friday","choices":[{"index":0,'
        '"message":{"role":"assistant","content":"Yes","refusal":null},"logprobs":null,"finish_reason":"stop"}],'
        '"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"prompt_tokens_details":{"cached_tokens":0},'
        '"completion_tokens_details":{"reasoning_tokens":0}},"system_fingerprint":null,"metadata":{"a":"b"}}'
    )


def test_without_include_usage_no_chunk_speaks_of_it() -> None:
    told = a_telling()
    told.composer.report_usage(Usage(3, 2))
    told.complete()
    assert b"usage" not in b"".join(frames_of(chat_turn(), told.events))


def test_a_model_called_anything_breaks_nothing() -> None:
    told = a_telling()
    told.composer.say("x")
    told.complete()
    turn = replace(chat_turn(), echo=ChatEcho(model='%b "%d\n'))
    assert said_in(turn, told).text() == "x"
    assert b'"model":"%b \\"%d\\n"' in frames_of(turn, told.events)[1]


# -- what is said --------------------------------------------------------------------------------------------------


def test_reasoning_goes_beside_the_answer() -> None:
    told = a_telling()
    thought = told.composer.reasoning()
    thought.text("well")
    thought.done()
    told.composer.say("Yes")
    told.complete()
    said = said_in(chat_turn(), told)
    assert said.texts == {"content": "Yes", "reasoning_content": "well"}
    assert message_of(chat_turn(), told)["reasoning_content"] == "well"


def test_several_messages_are_one_text_with_blank_lines_between() -> None:
    told = a_telling()
    told.composer.say("Let me look.")
    told.composer.call("c1", "search").done("{}")
    told.composer.output_of("c1", "search").done([Text("5")])
    told.composer.say("It is ")
    told.composer.say("5.")
    told.composer.show(Image("https://x/y.png"))
    told.complete()
    whole = "Let me look.\n\nIt is 5.\n\n![image](https://x/y.png)"
    assert said_in(chat_turn(), told).text() == whole
    assert message_of(chat_turn(), told)["content"] == whole


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (Text("a"), "a"),
        (Data({"a": 1}), '{"a":1}'),
        (Image("data:image/png;base64,QQ=="), "![image](data:image/png;base64,QQ==)"),
        (Audio("QQ==", "mp3"), "[audio](data:audio/mp3;base64,QQ==)"),
        (Audio("https://x/y.wav"), "[audio](https://x/y.wav)"),
        (Video("https://x/y.mp4"), "[video](https://x/y.mp4)"),
        (File("https://x/y.pdf", filename="y.pdf"), "[y.pdf](https://x/y.pdf)"),
        (File(file_data="QQ=="), "[file](data:application/octet-stream;base64,QQ==)"),
        (File(file_id="file-1"), "[file](file-1)"),
    ],
)
def test_what_is_no_text_becomes_some(part: Content, text: str) -> None:
    assert shown(part) == text
    told = a_telling()
    told.composer.show(part)
    told.complete()
    assert said_in(chat_turn(), told).text() == text


def test_a_refusal_has_a_field_of_its_own() -> None:
    told = a_telling()
    told.composer.show(Refusal("No."))
    told.complete()
    assert said_in(chat_turn(), told).texts == {"content": "", "refusal": "No."}
    message = message_of(chat_turn(), told)
    assert (message["content"], message["refusal"]) == (None, "No.")


def test_an_answer_that_must_be_json_is_the_last_message_alone() -> None:
    told = a_telling()
    told.composer.say("Let me look.")
    told.composer.call("c1", "search").done("{}")
    told.composer.output_of("c1", "search").done([])
    told.composer.say('{"a"')
    told.composer.say(":1}")
    told.complete()
    assert said_in(chat_turn(JSON), told).text() == '{"a":1}'
    assert message_of(chat_turn(JSON), told)["content"] == '{"a":1}'


# -- tools ---------------------------------------------------------------------------------------------------------


def test_calls_of_the_clients_tools_grow_by_deltas() -> None:
    told = a_telling()
    one, two = told.composer.call("c1", "get_weather"), told.composer.call("c2", "get_weather")
    one.arguments('{"city"')
    two.arguments("{}")
    one.arguments(': "Paris"}')
    two.done()
    one.done()
    told.complete()
    said = said_in(chat_turn(), told)
    calls = [
        {"id": "c1", "name": "get_weather", "arguments": '{"city": "Paris"}'},
        {"id": "c2", "name": "get_weather", "arguments": "{}"},
    ]
    assert (said.calls, said.finish_reason) == (calls, "tool_calls")
    message = message_of(chat_turn(), told)
    assert message["content"] is None
    by_id = sorted(message["tool_calls"], key=lambda call: call["id"])
    assert [{"id": call["id"], **call["function"]} for call in by_id] == calls


def test_arguments_that_come_whole_or_are_completed_at_the_end_are_said_once() -> None:
    told = a_telling()
    told.composer.call("c1", "get_weather").done("{}")
    call = told.composer.call("c2", "get_weather")
    call.arguments("[1")
    call.done("[1]")
    told.complete()
    assert [call["arguments"] for call in said_in(chat_turn(), told).calls] == ["{}", "[1]"]


def test_tools_the_agent_runs_are_no_calls_of_the_clients() -> None:
    told = a_telling()
    told.composer.call("c1", "search").done('{"q":\n"x"}')
    told.composer.output_of("c1", "search").done([Text("secret")])
    told.composer.say("Found.")
    told.complete()
    hidden, text = chat_turn(), chat_turn(tools="text")
    assert (said_in(hidden, told).text(), said_in(hidden, told).calls) == ("Found.", [])
    assert said_in(hidden, told).finish_reason == "stop"
    assert said_in(text, told).text() == '> search {"q": "x"}\n\nFound.'
    assert message_of(text, told)["content"] == '> search {"q": "x"}\n\nFound.'


# -- endings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "reason"), [("max_output_tokens", "length"), ("content_filter", "content_filter")]
)
def test_an_answer_cut_short_says_by_what(by: Any, reason: str) -> None:
    told = a_telling()
    told.composer.call("c1", "get_weather").done("{")
    told.events.append(TurnCompleted(ENDED, tuple(told.composer.output), None, by))
    assert said_in(chat_turn(), told).finish_reason == reason


def test_a_failure_is_a_frame_of_its_own() -> None:
    told = a_telling()
    told.composer.say("Hm")
    told.fail(ErrorInfo("ValueError", "the agent failed", "err_1"))
    said = said_in(chat_turn(include_usage=True), told)
    assert said.error == {
        "message": "the agent failed",
        "type": "server_error",
        "param": None,
        "code": "424",
    }
    assert (said.finish_reason, said.text()) == (None, "Hm")


def test_a_cancelled_stream_does_not_look_complete() -> None:
    told = Telling()
    told.cancel("asked")
    said = said_in(chat_turn(), told)
    assert said.error is not None
    assert said.error["code"] == "424"
    assert "cancelled: asked" in said.error["message"]


def test_what_the_client_did_wrong_is_said_to_be_so() -> None:
    failed = TurnFailed(ENDED, ErrorInfo("invalid_request", "no films here"))
    assert error_of(failed).type == "invalid_request_error"


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (TurnFailed(ENDED, ErrorInfo("ValueError", "the agent failed")), "ValueError"),
        (TurnCancelled(ENDED, "asked"), "cancelled"),
    ],
)
def test_a_whole_answer_says_the_class_of_what_went_wrong(ending: Any, code: str) -> None:
    assert (error_of(ending).type, error_of(ending).code) == ("server_error", code)


def test_refusals_without_words_are_not_said() -> None:
    told = a_telling()
    for words in ("", "", "No."):
        told.composer.show(Refusal(words))
    told.complete()
    assert said_in(chat_turn(), told).text("refusal") == message_of(chat_turn(), told)["refusal"] == "No."


# -- whatever is said ----------------------------------------------------------------------------------------------

turns = st.builds(
    lambda answer, counted, tools: chat_turn(answer, include_usage=counted, tools=tools),
    st.sampled_from([None, JSON]),
    st.booleans(),
    st.sampled_from(["hidden", "text"]),
)


@given(told_turns(), turns)
def test_any_turn_is_a_valid_stream(events: list[Event], turn: Turn) -> None:
    said = check_stream(frames_data(frames_of(turn, events)), counted=turn.echo.include_usage)
    ending = events[-1]
    assert (said.error is None) == isinstance(ending, TurnCompleted)
    if isinstance(ending, TurnCompleted):
        completion = check_completion(completion_object(turn, ending))
        [choice] = completion["choices"]
        assert choice["finish_reason"] == said.finish_reason
        assert len(choice["message"].get("tool_calls", ())) == len(said.calls)
        assert said.usage in (None, completion["usage"])


@given(told_turns(), turns, st.integers(0, 60))
def test_what_is_skipped_changes_nothing_after_it(events: list[Event], turn: Turn, skipped: int) -> None:
    encoder = ChatEncoder(turn)
    for event in events[:skipped]:
        encoder.skip(event)
    first = encoder.number
    frames: list[bytes] = []
    encoder.feed_all(events[skipped:], frames)
    assert frames == frames_of(turn, events)[first:]


def _called(call_id: str, name: str, arguments: str, pieces: int) -> Deed:
    def do(told: Telling) -> None:
        call = told.composer.call(call_id, name)
        call.arguments(arguments[:pieces])
        call.done(arguments)

    return do


def _thought(text: str) -> Deed:
    def do(told: Telling) -> None:
        thought = told.composer.reasoning()
        thought.text(text)
        thought.done()

    return do


plain_deeds: st.SearchStrategy[Deed] = st.one_of(
    st.builds(lambda text: lambda told: told.composer.say(text), st.text()),
    st.builds(lambda part: lambda told: told.composer.show(part), contents),
    st.builds(lambda usage: lambda told: told.composer.report_usage(usage), usages),
    st.builds(_thought, st.text()),
    st.builds(_called, names, st.sampled_from(["get_weather", "search"]), st.text(), st.integers(0, 9)),
)


@given(st.lists(plain_deeds, max_size=12), turns)
def test_a_stream_adds_up_to_the_completion(deeds: list[Deed], turn: Turn) -> None:
    told = a_telling()
    for deed in deeds:
        deed(told)
    told.complete()
    said, message = said_in(turn, told), message_of(turn, told)
    assert said.text() == (message["content"] or "")
    assert said.text("reasoning_content") == message.get("reasoning_content", "")
    assert said.text("refusal") == (message["refusal"] or "")
    assert said.calls == [{"id": call["id"], **call["function"]} for call in message.get("tool_calls", ())]


def test_half_a_surrogate_pair_does_not_break_the_stream() -> None:
    told = a_telling()
    told.composer.say("\ud83d")
    told.composer.say("ok")
    told.complete()
    assert said_in(chat_turn(), told).text() == "\ufffdok"


def test_deltas_are_alone_in_their_frames() -> None:
    told = a_telling()
    told.composer.say("a")
    encoder, frames = ChatEncoder(chat_turn()), list[bytes]()
    encoder.feed_all(told.events, frames)
    held = len(frames)
    for number in range(3):
        encoder.feed(TextDelta("x", "msg_1"), frames)
        assert (len(frames), encoder.number) == (held + number + 1, held + number + 1)
