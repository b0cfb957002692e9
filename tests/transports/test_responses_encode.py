"""The Responses stream: exact bytes for the simplest turn, and what each thing an agent does looks like."""

from typing import Any

import msgspec
import pytest

from greenroom.actors.events import Event, TurnAccepted, TurnCompleted, TurnStarted
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
from greenroom.transports.responses_echo import ResponseEcho, ToolDisplay
from greenroom.transports.responses_encode import ResponsesEncoder, event_json
from greenroom.transports.responses_items import read_items
from greenroom.transports.responses_whole import response_object, with_tutorial_key
from greenroom.transports.sse import DONE
from kits.responses_rules import check_response, check_stream, validate_types
from kits.turns import BEGAN, ENDED, Telling, a_turn

JSON = AnswerFormat(kind="json_object")


def turn_with(
    *tools: str, display: ToolDisplay = "mcp_call", answer: AnswerFormat | None = None, **echo: Any
) -> Turn:
    return msgspec.structs.replace(
        a_turn("resp_1"),
        options=TurnOptions(tools=tuple(FunctionTool(name=name) for name in tools), answer=answer),
        echo=ResponseEcho(model="friday", label="friday", display=display, **echo),
    )


def frames_of(turn: Turn, events: list[Event]) -> list[bytes]:
    frames: list[bytes] = []
    ResponsesEncoder(turn).feed_all(events, frames)
    return frames


def stream_of(turn: Turn, told: Telling, *, cancelled: bool = False) -> list[dict[str, Any]]:
    """The events, which keep the rules."""
    frames = frames_of(turn, told.events)
    assert frames.pop() is DONE
    events = [msgspec.json.decode(event_json(frame) or b"") for frame in frames]
    check_stream(events, cancelled=cancelled)
    validate_types(events)
    return events


def brief(events: list[dict[str, Any]]) -> list[str]:
    """The events of items, by index and kind."""
    return [
        f"{event['output_index']} {event['type'].removeprefix('response.')}"
        for event in events
        if "output_index" in event
    ]


def output_of(turn: Turn, told: Telling) -> list[dict[str, Any]]:
    output: list[dict[str, Any]] = stream_of(turn, told)[-1]["response"]["output"]
    return output


def a_telling() -> Telling:
    told = Telling()
    told.start()
    return told


def call(told: Telling, call_id: str, name: str, output: list[Content] | None = None, **more: Any) -> None:
    told.composer.call(call_id, name, **more).done('{"a":1}')
    if output is not None:
        told.composer.output_of(call_id, name, **more).done(output)


# -- the simplest turn ---------------------------------------------------------------------------------------------


def response_json(status: str, output: str = "[]", completed_at: str = "null", usage: str = "null") -> str:
    return (
        f'{{"id":"resp_1","object":"response","created_at":1795328012,"completed_at":{completed_at},"status":"{status}",'
        '"error":null,"incomplete_details":null,"instructions":null,"max_output_tokens":null,"max_tool_calls":null,'
        f'"model":"friday","output":{output},"parallel_tool_calls":true,"previous_response_id":null,'
        '"conversation":null,"reasoning":{"effort":null,"summary":null},"safety_identifier":null,'
        '"prompt_cache_key":null,"service_tier":"default","store":true,"background":false,"temperature":1.0,'
        '"top_p":1.0,"presence_penalty":0.0,"frequency_penalty":0.0,"top_logprobs":0,'
        '"text":{"format":{"type":"text"},"verbosity":"medium"},"tool_choice":"auto","tools":[],'
        f'"truncation":"disabled","metadata":{{}},"usage":{usage}}}'
    )


def test_the_simplest_turn_to_the_byte() -> None:
    told = a_telling()
    for delta in ("The ", "capital é"):
        told.composer.say(delta)
    told.complete()
    place = '"item_id":"msg_1","output_index":0,"content_index":0'
    part = '{"type":"output_text","text":"The capital é","annotations":[],"logprobs":[]}'
    item = '{"id":"msg_1","type":"message","role":"assistant","status":"%s","content":[%s]}'
    done = item % ("completed", part)
    usage = (
        '{"input_tokens":0,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"output_tokens":0,'
        '"output_tokens_details":{"reasoning_tokens":0},"total_tokens":0}'
    )
    empty = '{"type":"output_text","text":"","annotations":[],"logprobs":[]}'
    events = [
        ("created", f'"response":{response_json("in_progress")}'),
        ("in_progress", f'"response":{response_json("in_progress")}'),
        ("output_item.added", f'"output_index":0,"item":{item % ("in_progress", "")}'),
        ("content_part.added", f'{place},"part":{empty}'),
        ("output_text.delta", f'{place},"delta":"The ","logprobs":[]'),
        ("output_text.delta", f'{place},"delta":"capital é","logprobs":[]'),
        ("output_text.done", f'{place},"text":"The capital é","logprobs":[]'),
        ("content_part.done", f'{place},"part":{part}'),
        ("output_item.done", f'"output_index":0,"item":{done}'),
        ("completed", f'"response":{response_json("completed", f"[{done}]", "1795328013", usage)}'),
    ]
    assert [frame.decode() for frame in frames_of(turn_with(), told.events)] == [
        *(
            f'event: response.{name}\ndata: {{"type":"response.{name}","sequence_number":{number},{rest}}}\n\n'
            for number, (name, rest) in enumerate(events)
        ),
        "data: [DONE]\n\n",
    ]


def test_what_the_request_said_is_repeated() -> None:
    echo = ResponseEcho(
        model="50% off",
        instructions="100%",
        metadata={"a": "b"},
        user="u",
        conversation="conv_1",
        temperature=0.5,
        text={"format": {"type": "json_object"}, "verbosity": "low"},
    )
    turn = msgspec.structs.replace(a_turn("resp_1", "conv_1"), echo=echo)
    response = msgspec.json.decode(response_object(turn, [TurnAccepted("resp_1", BEGAN)]))
    check_response(response)
    assert (response["model"], response["instructions"]) == ("50% off", "100%")
    assert (response["metadata"], response["user"]) == ({"a": "b"}, "u")
    assert (response["conversation"], response["temperature"]) == ({"id": "conv_1"}, 0.5)
    assert response["text"] == {"format": {"type": "json_object"}, "verbosity": "low"}


def test_a_turn_in_the_background_is_queued_first() -> None:
    told = a_telling()
    told.complete()
    turn = turn_with(background=True)
    events = stream_of(turn, told)
    assert [event["type"] for event in events[:3]] == [
        "response.created", "response.queued", "response.in_progress"
    ]  # fmt: skip
    assert [event["response"]["status"] for event in events[:3]] == ["queued", "queued", "in_progress"]
    assert msgspec.json.decode(response_object(turn, told.events[:1]))["status"] == "queued"
    assert msgspec.json.decode(response_object(turn, told.events[:2]))["status"] == "in_progress"


# -- text ----------------------------------------------------------------------------------------------------------


def test_reasoning_is_shown_as_a_summary() -> None:
    told = a_telling()
    thought = told.composer.reasoning()
    thought.text("hm")
    thought.done()
    told.composer.say("Yes")
    told.complete()
    reasoning, message = output_of(turn_with(), told)
    assert reasoning == {
        "id": "rs_1",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "status": "completed",
    }
    assert message["content"][0]["text"] == "Yes"


def test_a_refusal_has_events_of_its_own() -> None:
    told = a_telling()
    told.composer.show(Refusal("no"))
    told.complete()
    events = stream_of(turn_with(), told)
    assert brief(events) == [
        "0 output_item.added",
        "0 content_part.added",
        "0 refusal.delta",
        "0 refusal.done",
        "0 content_part.done",
        "0 output_item.done",
    ]
    assert events[-1]["response"]["output"][0]["content"] == [{"type": "refusal", "refusal": "no"}]


def test_a_message_always_has_a_part() -> None:
    told = a_telling()
    told.composer.message().done()
    told.complete()
    (message,) = output_of(turn_with(), told)
    assert message["content"] == [{"type": "output_text", "text": "", "annotations": [], "logprobs": []}]


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (Image("https://x/y.png"), "![image](https://x/y.png)"),
        (Audio("QUJD", "mp3"), "[audio](data:audio/mp3;base64,QUJD)"),
        (Audio("https://x/y.wav"), "[audio](https://x/y.wav)"),
        (Video("https://x/y.mp4"), "[video](https://x/y.mp4)"),
        (File("https://x/y.pdf", filename="y.pdf"), "[y.pdf](https://x/y.pdf)"),
        (File(file_data="QUJD"), "[file](data:application/octet-stream;base64,QUJD)"),
        (Data({"a": 1}), '{"a":1}'),
    ],
)
def test_what_is_no_text_is_shown_as_text(part: Content, text: str) -> None:
    told = a_telling()
    told.composer.say("see ")
    told.composer.show(part)
    told.complete()
    (message,) = output_of(turn_with(), told)
    assert [shown["text"] for shown in message["content"]] == ["see ", text]


# -- tools ---------------------------------------------------------------------------------------------------------


def test_a_tool_of_the_agents_own_is_an_mcp_call() -> None:
    told = a_telling()
    call(told, "c1", "add", [Text("3"), Image("data:image/png;base64,QUJD")])
    told.composer.say("Three")
    told.complete()
    events = stream_of(turn_with(), told)
    assert brief(events)[:8] == [
        "0 output_item.added",
        "0 mcp_call.in_progress",
        "0 mcp_call_arguments.delta",
        "0 mcp_call_arguments.done",
        "0 mcp_call.completed",
        "0 output_item.done",
        "1 output_item.added",
        "1 content_part.added",
    ]
    called, _ = events[-1]["response"]["output"]
    assert called == {
        "id": "mcp_1",
        "type": "mcp_call",
        "server_label": "friday",
        "name": "add",
        "arguments": '{"a":1}',
        "output": "3\n[image: image/png, 4 characters]",
        "error": None,
        "status": "completed",
        "approval_request_id": None,
    }


def test_an_mcp_call_stays_open_until_its_output() -> None:
    told = a_telling()
    told.composer.call("c1", "add").done("{}")
    encoder, frames = ResponsesEncoder(turn_with()), list[bytes]()
    encoder.feed_all(told.events, frames)
    assert b"response.mcp_call_arguments.done" in frames[-1]
    output = told.composer.output_of("c1", "add")
    output.progress([Text("…")])
    output.done([Text("3")])
    later: list[bytes] = []
    encoder.feed_all(told.events[len(told.events) - 4 :], later)
    assert b"response.mcp_call.completed" in later[0]


def test_an_mcp_servers_own_label() -> None:
    told = a_telling()
    call(told, "c1", "add", [], server_label="sums")
    told.complete()
    assert output_of(turn_with(), told)[0]["server_label"] == "sums"


def test_a_clients_tool_is_a_function_call_and_the_turn_completes() -> None:
    told = a_telling()
    call(told, "c1", "weather")
    told.complete()
    events = stream_of(turn_with("weather"), told)
    assert brief(events) == [
        "0 output_item.added",
        "0 function_call_arguments.delta",
        "0 function_call_arguments.done",
        "0 output_item.done",
    ]
    done = next(event for event in events if event["type"].endswith("arguments.done"))
    assert (done["name"], done["arguments"]) == ("weather", '{"a":1}')
    response = events[-1]["response"]
    assert response["status"] == "completed"
    called = {"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "weather"}
    assert response["output"] == [{**called, "arguments": '{"a":1}', "status": "completed"}]


def test_a_call_without_arguments_has_an_empty_object() -> None:
    told = a_telling()
    told.composer.call("c1", "now").done("")
    told.complete()
    assert output_of(turn_with("now"), told)[0]["arguments"] == "{}"


def test_tools_may_be_shown_as_function_calls_with_outputs() -> None:
    told = a_telling()
    call(told, "c1", "add", [Text("3")])
    told.complete()
    called, output = output_of(turn_with(display="function_call"), told)
    assert (called["type"], called["call_id"]) == ("function_call", "c1")
    assert output == {
        "id": "fco_2",
        "type": "function_call_output",
        "call_id": "c1",
        "output": "3",
        "status": "completed",
    }


def test_tools_may_be_hidden_but_not_the_clients() -> None:
    told = a_telling()
    call(told, "c1", "add", [Text("3")])
    call(told, "c2", "weather")
    told.complete()
    (called,) = output_of(turn_with("weather", display="hidden"), told)
    assert called["name"] == "weather"


def test_reasoning_can_be_sealed_and_is_read_again_without_its_summary() -> None:
    told = a_telling()
    thoughts = told.composer.reasoning()
    thoughts.text("Let me ")
    thoughts.text("see.")
    thoughts.done()
    told.composer.say("Yes.")
    told.complete()
    events = stream_of(turn_with(sealed_reasoning=True), told)
    added, done = (
        next(event["item"] for event in events if event["type"] == f"response.output_item.{word}")
        for word in ("added", "done")
    )
    assert "encrypted_content" not in added
    back = {**done, "summary": []}
    assert "Let me" not in done["encrypted_content"]
    (thought,) = read_items([back], "input", lambda: "1", "friday").messages
    assert (thought.type, thought.content) == ("reasoning", (Text("Let me see."),))
    assert "encrypted_content" not in output_of(turn_with(), told)[0]


def a_failed_call() -> Telling:
    told = a_telling()
    told.composer.call("c1", "add").done("{}")
    output = told.composer.output_of("c1", "add")
    output.metadata = {"state": "error"}
    output.done([Text("Error: no")])
    told.complete()
    return told


def test_a_tool_that_failed() -> None:
    events = stream_of(turn_with(), a_failed_call())
    assert "0 mcp_call.failed" in brief(events)
    (called,) = events[-1]["response"]["output"]
    assert (called["status"], called["output"], called["error"]) == ("failed", "Error: no", None)


def test_the_output_of_a_tool_that_failed_is_an_item_as_whole_as_any() -> None:
    shown = stream_of(turn_with(display="function_call"), a_failed_call())[-1]["response"]["output"]
    assert [(item["type"], item["status"]) for item in shown] == [
        ("function_call", "completed"),
        ("function_call_output", "completed"),
    ]
    assert shown[1]["output"] == "Error: no"


def test_an_output_nobody_asked_for() -> None:
    told = a_telling()
    told.composer.output_of("c1", "add").done([Text("3")])
    told.complete()
    (called,) = output_of(turn_with(), told)
    assert (called["type"], called["name"], called["output"]) == ("mcp_call", "add", "3")


# -- one after the other -------------------------------------------------------------------------------------------


def test_tools_that_run_at_once_are_shown_one_after_the_other() -> None:
    told = a_telling()
    for number in "12":
        told.composer.call(f"c{number}", f"t{number}").done("{}")
    outputs = [told.composer.output_of(f"c{number}", f"t{number}") for number in "12"]
    outputs[1].done([Text("two")])
    outputs[0].done([Text("one")])
    told.composer.say("Done")
    told.complete()
    events = stream_of(turn_with(), told)
    indices = [event["output_index"] for event in events if "output_index" in event]
    assert indices == sorted(indices)
    assert [item.get("output") for item in events[-1]["response"]["output"]] == ["one", "two", None]


def test_text_is_not_held_back_for_a_tool() -> None:
    told = a_telling()
    told.composer.call("c1", "slow").done("{}")
    told.composer.call("c2", "slow").done("{}")
    told.composer.say("Meanwhile")
    so_far = frames_of(turn_with(), told.events)
    assert b"Meanwhile" in so_far[-1]
    told.composer.output_of("c2", "slow").done([Text("2")])
    told.composer.output_of("c1", "slow").done([Text("1")])
    told.complete()
    assert [item.get("output") for item in output_of(turn_with(), told)] == ["1", "2", None]


# -- an answer that must be JSON -----------------------------------------------------------------------------------


def test_an_answer_that_must_be_json_is_one_message() -> None:
    told = a_telling()
    told.composer.say("Let me look.")
    call(told, "c1", "add", [Text("3")])
    told.composer.say('{"a"')
    told.composer.say(":3}")
    told.complete()
    events = stream_of(turn_with(answer=JSON), told)
    called, message = events[-1]["response"]["output"]
    assert called["type"] == "mcp_call"
    assert message["content"][0]["text"] == '{"a":3}'
    assert [event["delta"] for event in events if event["type"].endswith("text.delta")] == ['{"a"', ":3}"]


def test_json_is_streamed_as_soon_as_it_is_known_to_be_some() -> None:
    told = a_telling()
    told.composer.say("\n ")
    told.composer.say('{"a"')
    frames = frames_of(turn_with(answer=JSON), told.events)
    assert b'"delta":"\\n "' in frames[-2]
    assert b'"delta":"{\\"a\\""' in frames[-1]


def test_what_an_answer_said_instead_of_json_is_shown_when_nothing_better_came() -> None:
    told = a_telling()
    told.composer.say("I cannot.")
    told.fail(ErrorInfo("answer_mismatch", "the answer is no JSON"))
    (message,) = output_of(turn_with(answer=JSON), told)
    assert message["content"][0]["text"] == "I cannot."


def test_words_before_a_clients_tool_are_no_answer() -> None:
    told = a_telling()
    told.composer.say("Let me ask.")
    call(told, "c1", "weather")
    told.complete()
    assert [item["type"] for item in output_of(turn_with("weather", answer=JSON), told)] == ["function_call"]


# -- endings -------------------------------------------------------------------------------------------------------


def test_usage() -> None:
    told = a_telling()
    told.composer.report_usage(Usage(10, 5, 3, 2))
    told.complete()
    assert stream_of(turn_with(), told)[-1]["response"]["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    }


@pytest.mark.parametrize("reason", ["max_output_tokens", "content_filter"])
def test_a_turn_that_was_cut_short(reason: Any) -> None:
    events: list[Event] = [
        TurnAccepted("resp_1", BEGAN),
        TurnStarted(),
        TurnCompleted(ENDED, incomplete=reason),
    ]
    told = Telling()
    told.events = events
    last = stream_of(turn_with(), told)[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": reason}


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ErrorInfo("ValueError", "it broke; see err_1", "err_1"), "server_error", "it broke; see err_1"),
        (ErrorInfo("handler_error", "it broke", "err_1"), "server_error", "it broke (error err_1)"),
        (ErrorInfo("invalid_request", "no film here"), "invalid_prompt", "no film here"),
    ],
)
def test_a_turn_that_failed(error: ErrorInfo, code: str, message: str) -> None:
    told = a_telling()
    told.composer.say("half a sen")
    call(told, "c1", "add")
    told.fail(error)
    last = stream_of(turn_with(), told)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": code, "message": message, "type": error.code, "param": None}
    said, called = last["response"]["output"]
    assert (said["status"], said["content"][0]["text"]) == ("completed", "half a sen")
    assert (called["status"], called["output"]) == ("incomplete", "interrupted, outcome unknown")


def test_a_turn_that_failed_before_it_began() -> None:
    told = Telling()
    told.fail(ErrorInfo("timed_out", "it waited too long"))
    events = stream_of(turn_with(), told)
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] == "response.failed"


def test_a_turn_that_failed_without_a_word_has_an_item_all_the_same() -> None:
    """A client that gets none (the AI SDK) sends the request again."""
    told = a_telling()
    told.fail(ErrorInfo("ValueError", "it broke"))
    assert brief(stream_of(turn_with(), told)) == [
        "0 output_item.added", "0 content_part.added", "0 output_text.delta", "0 output_text.done",
        "0 content_part.done", "0 output_item.done",
    ]  # fmt: skip
    whole = msgspec.json.decode(response_object(turn_with(), told.events))
    [said] = whole["output"]
    assert (said["status"], said["content"][0]["text"]) == ("incomplete", "")


def test_a_turn_that_was_cancelled_has_no_event_that_says_so() -> None:
    told = a_telling()
    message = told.composer.message()
    message.text("half a sen")
    weather = told.composer.call("c1", "weather")
    weather.arguments('{"city":')
    told.cancel("asked")
    turn = turn_with("weather")
    events = stream_of(turn, told, cancelled=True)
    assert brief(events)[-1] == "1 output_item.done"
    response = msgspec.json.decode(response_object(turn, told.events))
    check_response(response)
    assert response["status"] == "cancelled"
    said, called = response["output"]
    assert (said["status"], said["content"][0]["text"]) == ("incomplete", "half a sen")
    assert (called["status"], called["arguments"]) == ("incomplete", '{"city":')


def test_a_turn_that_was_cancelled_while_it_waited() -> None:
    told = Telling()
    told.cancel("asked")
    assert [event["type"] for event in stream_of(turn_with(), told, cancelled=True)] == ["response.created"]


def test_the_tutorials_expression() -> None:
    told = a_telling()
    told.composer.reasoning().done()
    call(told, "c1", "add", [Text("3")])
    told.composer.say("Paris")
    told.complete()
    response = msgspec.json.decode(with_tutorial_key(turn_with(), told.events))
    assert response["response"]["output"][0]["content"][0]["text"] == "Paris"
    assert len(response["output"]) == 3
