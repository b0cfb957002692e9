"""Chat Completions as they are read: what a body may say, and what is said about one that may not."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from greenroom.actors.errors import Forbidden, GreenroomError, InvalidRequest
from greenroom.actors.messages import (
    AnswerFormat,
    Audio,
    Data,
    Disconnect,
    File,
    FunctionTool,
    Image,
    Message,
    Refusal,
    SessionKey,
    Text,
    Turn,
    TurnOptions,
    Video,
)
from greenroom.transports.chat_decode import ChatSettings, decode_chat
from greenroom.transports.chat_encode import ChatEcho, completion_object
from kits.system import EPOCH, counting_sources
from kits.turns import Telling

EVERYTHING = frozenset(TurnOptions.__struct_fields__)
ANY = ChatSettings(model="friday", honours=EVERYTHING)
PLAIN = ChatSettings(model="friday", honours=frozenset({"answer", "instructions"}))
USER = {"role": "user", "content": "Hi"}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ANSWERED = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}


def decoded(
    fields: dict[str, Any], settings: ChatSettings = ANY, principal: str | None = None, **more: Any
) -> Turn:
    body = json.dumps({"messages": [USER], **fields, **more}).encode()
    return decode_chat(body, sources=counting_sources(), settings=settings, principal=principal)


def refused(fields: dict[str, Any], settings: ChatSettings = ANY) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        decoded(fields, settings)
    return caught.value


def options(**fields: Any) -> TurnOptions:
    asked = decoded(fields).options
    assert asked is not None
    return asked


def said(*messages: dict[str, Any], **fields: Any) -> tuple[Message, ...]:
    return decoded({"messages": list(messages)}, **fields).request.input


# -- the turn ------------------------------------------------------------------------------------------------------


def test_the_least_a_request_says() -> None:
    turn = decoded({})
    assert turn.id == "chatcmpl-2"
    assert turn.key == SessionKey("1", "1")
    assert turn.request.input == (Message((Text("Hi"),)),)
    assert (turn.request.stream, turn.options, turn.created_at) == (False, None, EPOCH)
    assert turn.echo == ChatEcho(model="friday")


def test_without_a_session_nothing_is_left_behind() -> None:
    assert not decoded({}).kept
    assert not decoded({"user_id": "ann"}).kept
    assert decoded({"user_id": "ann"}).key == SessionKey("ann", "1")
    assert decoded({"session_id": "s1"}).kept
    assert decoded({"session_id": "s1"}).key == SessionKey("s1", "s1")
    assert decoded({"session_id": ""}).key.session_id == "1"


def test_whose_session_it_is() -> None:
    assert decoded({"session_id": "s", "user_id": "u"}).key == SessionKey("u", "s")
    assert decoded({"session_id": "s"}, principal="ann").key == SessionKey("ann", "s")
    with pytest.raises(Forbidden):
        decoded({"user_id": "bob"}, principal="ann")


def test_what_is_repeated_in_the_answer() -> None:
    asked = decoded(
        {"model": "gpt", "stream": True, "stream_options": {"include_usage": True}, "metadata": {"a": "b"}}
    )
    assert asked.echo == ChatEcho(model="gpt", include_usage=True, metadata={"a": "b"})
    assert asked.request.stream


def test_hints_are_handed_on_to_any_handler() -> None:
    asked = decoded(
        {
            "temperature": 0.5,
            "top_p": 1,
            "seed": 7,
            "frequency_penalty": -2,
            "presence_penalty": 2,
            "reasoning_effort": "low",
            "user": "ann",
            "my_field": 1,
            "n": 1,
        },
        PLAIN,
    )
    request = asked.request
    assert (request.temperature, request.top_p, request.seed) == (0.5, 1, 7)
    assert (request.frequency_penalty, request.presence_penalty, request.n) == (-2, 2, 1)
    assert (request.user, request.my_field) == ("ann", 1)
    assert asked.options == TurnOptions(
        temperature=0.5,
        top_p=1,
        reasoning_effort="low",
        seed=7,
        frequency_penalty=-2,
        presence_penalty=2,
    )


def test_policies_are_those_of_process() -> None:
    turn = decoded({"session_id": "s", "overlap": "interrupt", "disconnect": "grace=5s"})
    assert (turn.overlap, turn.disconnect) == ("interrupt", Disconnect("grace", 5))
    leaving = ChatSettings(model="m", disconnect=Disconnect("cancel"))
    assert decoded({}, leaving).disconnect == Disconnect("cancel")
    assert decoded({"disconnect": "continue"}, leaving).disconnect == Disconnect("continue")
    assert refused({"overlap": "later"}).field == "overlap"
    assert refused({"disconnect": "grace=0"}).field == "disconnect"


def test_null_is_absent() -> None:
    nothing = dict.fromkeys(
        [
            "model", "stream", "n", "temperature", "tools", "tool_choice", "response_format", "stop", "functions",
            "stream_options", "metadata", "session_id", "max_tokens", "logprobs", "audio", "disconnect", "overlap",
        ]
    )  # fmt: skip
    assert decoded(nothing) == decoded({})


# -- options -------------------------------------------------------------------------------------------------------


def test_tools_and_how_they_may_be_used() -> None:
    tool = FunctionTool(name="get_weather", parameters={"type": "object"})
    assert options(tools=[WEATHER]).tools == (tool,)
    assert options(tools=[WEATHER], tool_choice="required").tool_choice == "required"
    forced = options(tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "get_weather"}})
    assert (forced.tool_choice, forced.forced_tool) == ("auto", "get_weather")
    assert options(tools=[WEATHER], parallel_tool_calls=False).parallel_tool_calls is False
    assert decoded({"tools": [WEATHER]}).request.tools == [WEATHER]


def test_budgets_by_either_name() -> None:
    assert options(max_tokens=5).max_output_tokens == 5
    assert options(max_tokens=5, max_completion_tokens=6).max_output_tokens == 6


def test_formats_of_the_answer() -> None:
    schema = {"type": "object"}
    asked = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
    assert options(response_format=asked).answer == AnswerFormat(
        kind="json_schema", name="a", schema=schema, strict=True
    )
    assert options(response_format={"type": "json_object"}).answer == AnswerFormat(kind="json_object")
    assert decoded({"response_format": {"type": "text"}}).options is None


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"tools": [WEATHER]}, "tools"),
        ({"tool_choice": "none"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {
                "tools": [WEATHER],
                "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
            },
            "tool_choice",
        ),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"max_tokens": 9}, "max_tokens"),
        ({"max_completion_tokens": 9}, "max_completion_tokens"),
    ],
)
def test_what_the_agent_does_not_do_is_refused_by_name(fields: dict[str, Any], name: str) -> None:
    plain = PLAIN if name == "tools" else structs.replace(PLAIN, honours={"tools"})
    assert refused(fields, plain).field == name
    decoded(fields, ANY)


@pytest.mark.parametrize(
    "fields", [{"tools": []}, {"tool_choice": "auto"}, {"parallel_tool_calls": True}, {"stop": []}]
)
def test_what_asks_for_nothing_is_not_refused(fields: dict[str, Any]) -> None:
    decoded(fields, PLAIN)


# -- messages ------------------------------------------------------------------------------------------------------


def test_system_and_developer_messages_are_instructions() -> None:
    turn = decoded(
        {
            "messages": [
                {"role": "system", "content": "Be kind."},
                USER,
                {
                    "role": "developer",
                    "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}],
                },
            ]
        }
    )
    assert turn.options == TurnOptions(instructions="Be kind.\n\nBe\nbrief.")
    assert turn.request.input == (Message((Text("Hi"),)),)


def test_a_system_message_alone_is_the_question() -> None:
    turn = decoded({"messages": [{"role": "system", "content": "Greet."}]})
    assert (turn.options, turn.request.input) == (None, (Message((Text("Greet."),), "system"),))


def test_parts_of_a_users_message() -> None:
    parts = [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
        {"type": "image_url", "image_url": "https://x/z.png"},
        {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:a/b;base64,QQ==", "filename": "a"}},
        {"type": "video_url", "video_url": {"url": "https://x/y.mp4"}},
    ]
    [message] = said({"role": "user", "content": parts, "name": "ann"})
    assert message.content == (
        Text("Look"),
        Image("https://x/y.png"),
        Image("https://x/z.png"),
        Audio("QQ==", "wav"),
        File(None, None, "data:a/b;base64,QQ==", "a"),
        Video("https://x/y.mp4"),
    )
    assert message.name == "ann"


def test_calls_and_their_outputs_are_messages_as_on_process() -> None:
    spoken = {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]}
    call = Data({"call_id": "c1", "name": "get_weather", "arguments": '{"city": "Paris"}'})
    output = Data({"call_id": "c1", "name": "get_weather", "output": "sunny"})
    assert said(USER, spoken, ANSWERED) == (
        Message((Text("Hi"),)),
        Message((Text("Let me look."),), "assistant"),
        Message((call,), "assistant", "function_call"),
        Message((output,), "tool", "function_call_output"),
    )


def test_an_output_may_come_in_parts() -> None:
    parts = [{"type": "text", "text": "sunny"}]
    last = said(USER, ASKED, {**ANSWERED, "content": parts})[-1]
    assert last.content == (Data({"call_id": "c1", "name": "get_weather", "output": parts}),)


def test_an_assistants_refusal() -> None:
    declined = {"role": "assistant", "content": None, "refusal": "No."}
    part = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    for message in (declined, part):
        assert said(USER, message, USER)[1] == Message((Refusal("No."),), "assistant")


def test_in_a_session_only_what_is_new_is_input() -> None:
    system = {"role": "system", "content": "Be kind."}
    before = [system, USER, {"role": "assistant", "content": "Hello"}]
    new = [{"role": "user", "content": "And?"}, {"role": "user", "content": "So?"}]
    turn = decoded({"messages": [*before, *new], "session_id": "s"})
    assert [message.content for message in turn.request.input] == [(Text("And?"),), (Text("So?"),)]
    assert turn.options == TurnOptions(instructions="Be kind.")
    assert len(said(*before, *new)) == 4


def test_in_a_session_outputs_resume_it() -> None:
    output = {"call_id": "c1", "name": "get_weather", "output": "sunny"}
    assert said(USER, ASKED, ANSWERED, session_id="s")[0].content == (Data(output),)
    del output["name"]  # the session knows it
    assert said(ANSWERED, session_id="s")[0].content == (Data(output),)


def test_in_a_session_there_must_be_something_new() -> None:
    gone = [USER, {"role": "assistant", "content": "Hello"}]
    assert refused({"messages": gone, "session_id": "s"}).field == "messages"
    assert decoded({"messages": gone}).request.input[1].role == "assistant"


def test_a_completions_message_is_accepted_back() -> None:
    told = Telling()
    told.composer.say("Hello")
    thought = told.composer.reasoning()
    thought.text("hm")
    told.composer.call("c1", "get_weather").done("{}")
    told.complete()
    turn = decoded({"tools": [WEATHER]})
    completion = msgspec.json.decode(completion_object(turn, told.ending))  # type: ignore[arg-type]
    message = completion["choices"][0]["message"]
    assert [one.type for one in said(USER, message, ANSWERED)] == [
        "message",
        "message",
        "function_call",
        "function_call_output",
    ]
    echoed = {**message, "function_call": None, "audio": None, "annotations": []}
    assert said(USER, echoed, ANSWERED) == said(USER, message, ANSWERED)


# -- what cannot be ------------------------------------------------------------------------------------------------


def _user(part: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


def _function(**fields: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": fields}]}


PART = "messages[0].content[0]"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": ["Hi"]}, "messages[0]"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "system", "content": ""}]}, "messages"),
        ({"messages": [USER, {"role": "assistant", "function_call": {}}]}, "messages[1].function_call"),
        (_user("Hi"), PART),
        (_user({}), f"{PART}.type"),
        (_user({"type": "input_text", "text": "x"}), f"{PART}.type"),
        (_user({"type": "text"}), f"{PART}.text"),
        (_user({"type": "image_url"}), f"{PART}.image_url"),
        (_user({"type": "image_url", "image_url": {}}), f"{PART}.image_url.url"),
        (_user({"type": "input_audio"}), f"{PART}.input_audio"),
        (_user({"type": "input_audio", "input_audio": {}}), f"{PART}.input_audio.data"),
        (_user({"type": "file"}), f"{PART}.file"),
        (_user({"type": "file", "file": {"filename": "x"}}), f"{PART}.file.file_data"),
        ({"messages": [{"role": "system", "content": [{"type": "image_url"}]}]}, f"{PART}.type"),
        ({"messages": [USER, ANSWERED]}, "messages[1].tool_call_id"),
        ({"messages": [USER, ASKED]}, "messages[1].tool_calls[0]"),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0].id"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}]},
            "messages[0].tool_calls[0].function",
        ),
        ({"n": 2}, "n"),
        ({"n": "one"}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"seed": 1.5}, "seed"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": "9"}, "max_completion_tokens"),
        ({"model": 5}, "model"),
        ({"user": 5}, "user"),
        ({"store": "no"}, "store"),
        ({"session_id": 5}, "session_id"),
        ({"session_id": "a\nb"}, "session_id"),
        ({"session_id": "x" * 1025}, "session_id"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"metadata": {"a" * 65: "x"}}, "metadata"),
        ({"metadata": {str(i): "x" for i in range(17)}}, "metadata"),
        ({"tools": {}}, "tools"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        (_function(), "tools[0].function.name"),
        (_function(name="a b"), "tools[0].function.name"),
        (_function(name="a", parameters=[]), "tools[0].function.parameters"),
        (_function(name="a", strict="yes"), "tools[0].function.strict"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1]"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
        ),
        ({"reasoning_effort": "banana"}, "reasoning_effort"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"stop": ["END"]}, "stop"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"modalities": ["text", "audio"]}, "modalities[1]"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"web_search_options": {"x": 1}}, "web_search_options"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], name: str) -> None:
    error = refused(fields)
    assert (error.field, error.status) == (name, 400)
    assert len(error.message) > len(name)


def test_a_schema_that_nothing_can_be_checked_against_is_refused() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nonsense"}}}
    field = refused({"response_format": form}).field
    assert field is not None
    assert field.startswith("response_format.json_schema.schema")


def test_legacy_functions_are_told_what_took_their_place() -> None:
    assert "tools" in refused({"functions": [{"name": "f"}]}).message


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"messages": "\\ud800"}', b"\xff", b"[" * 9000, b"null"]
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode_chat(body, sources=counting_sources(), settings=ANY)


junk: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMES = [
    "model", "stream", "n", "temperature", "top_p", "seed", "max_tokens", "tools", "tool_choice", "response_format",
    "stream_options", "metadata", "session_id", "user_id", "user", "overlap", "disconnect", "modalities", "stop",
    "parallel_tool_calls", "functions", "logprobs", "store",
]  # fmt: skip
KEYS = [
    "role",
    "content",
    "type",
    "text",
    "tool_calls",
    "tool_call_id",
    "id",
    "function",
    "name",
    "image_url",
]
WORDS = ["user", "assistant", "tool", "system", "text", "function", "image_url", "file", "json_schema", "c1"]
shaped: st.SearchStrategy[Any] = st.recursive(
    junk | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(NAMES), shaped, max_size=5),
    shaped | st.lists(st.dictionaries(st.sampled_from(KEYS), shaped), max_size=3),
)
def test_any_body_gives_a_turn_or_an_error_of_ours(fields: dict[str, Any], messages: Any) -> None:
    body = msgspec.json.encode({**fields, "messages": messages})
    try:
        turn = decode_chat(body, sources=counting_sources(), settings=ANY)
    except GreenroomError as error:
        status = error.status
    else:
        status = 200
        assert turn.request.input
    assert status in {200, 400}
