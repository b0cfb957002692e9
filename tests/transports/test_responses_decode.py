"""A request's bytes become a request for a response, or an error that names the field and says what would be right."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.errors import Forbidden, GreenroomError, InvalidRequest
from greenroom.actors.ids import Sources
from greenroom.actors.messages import (
    AnswerFormat,
    Disconnect,
    FunctionTool,
    SessionKey,
    Text,
    TurnOptions,
)
from greenroom.transports.responses_decode import CreateRequest, Settings, decode_create, turn_of
from greenroom.transports.responses_fields import CHECKS

EVERYTHING = frozenset(TurnOptions.__struct_fields__)
ABLE = Settings(model="friday", label="friday", honours=EVERYTHING)
PLAIN = Settings(model="friday", label="friday", honours=frozenset({"answer", "instructions"}))

TOOL = {"type": "function", "name": "add", "parameters": {"type": "object"}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def ids() -> Iterator[str]:
    return (f"uuid-{number}" for number in count(1))


def sources() -> Sources:
    new = ids()
    return Sources(now=lambda: 1795328012.5, uuid=lambda: next(new))


def decode(
    body: bytes | dict[str, Any], settings: Settings = ABLE, principal: str | None = None
) -> CreateRequest:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return decode_create(raw, sources=sources(), settings=settings, principal=principal)


def asked(**fields: Any) -> CreateRequest:
    return decode({"input": "hi", **fields})


def refused(
    body: bytes | dict[str, Any], settings: Settings = ABLE, principal: str | None = None
) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        decode(body, settings, principal)
    assert caught.value.status == 400
    return caught.value


# -- what is taken -------------------------------------------------------------------------------------------------


def test_the_smallest_request() -> None:
    create = decode(b'{"input": "What is the capital of France?"}')
    assert create.turn.id == "resp_uuid3"
    assert create.turn.key == SessionKey("uuid-2", "uuid-2")
    assert not create.addressed
    assert (create.stream, create.turn.background, create.turn.stored) == (False, False, True)
    assert create.turn.options is None
    turn = turn_of(create)
    (message,) = turn.request.input
    assert (message.role, message.content) == ("user", (Text("What is the capital of France?"),))
    assert (turn.id, turn.key, turn.created_at) == (create.turn.id, create.turn.key, 1795328012.5)
    assert (turn.kept, turn.stored, turn.background, turn.after) == (True, True, False, None)
    assert (turn.request.id, turn.request.session_id, turn.request.stream) == ("resp_uuid3", "uuid-2", False)
    assert turn.echo.model == "friday"


def test_null_is_absent_everywhere() -> None:
    nulls = dict.fromkeys([*CHECKS, "prompt", "overlap", "disconnect"])
    assert asked(**nulls) == asked(shoe_size=None)


def test_empty_ids_are_no_ids() -> None:
    create = asked(session_id="", user_id="", conversation="", previous_response_id="")
    assert (create.turn.key, create.addressed) == (SessionKey("uuid-2", "uuid-2"), False)
    assert (create.conversation, create.previous_response_id) == (None, None)


def test_fields_of_the_client_are_kept() -> None:
    request = asked(shoe_size=43, metadata={"a": "b"}, user="u").turn.request
    assert (request.shoe_size, request.metadata, request.user) == (43, {"a": "b"}, "u")


def test_options_of_the_turn() -> None:
    create = asked(
        instructions="Be brief.",
        tools=[TOOL],
        tool_choice="required",
        parallel_tool_calls=False,
        max_output_tokens=16,
        temperature=0,
        top_p=0.5,
        reasoning={"effort": "low", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}},
    )
    assert create.turn.options == TurnOptions(
        instructions="Be brief.",
        tools=(FunctionTool(name="add", parameters={"type": "object"}),),
        tool_choice="required",
        parallel_tool_calls=False,
        max_output_tokens=16,
        temperature=0.0,
        top_p=0.5,
        reasoning_effort="low",
        answer=AnswerFormat(kind="json_schema", name="city", schema=SCHEMA, strict=True),
    )
    request = create.turn.request
    assert (request.temperature, request.top_p, request.max_tokens) == (0.0, 0.5, 16)
    assert request.instructions == "Be brief."


def test_a_tool_that_must_be_called() -> None:
    options = asked(tools=[TOOL], tool_choice={"type": "function", "name": "add"}).turn.options
    assert options is not None
    assert (options.tool_choice, options.forced_tool) == ("auto", "add")


def test_what_is_repeated() -> None:
    echo = asked(
        model="m",
        tools=[TOOL],
        tool_choice="none",
        text={"format": {"type": "json_schema", "name": "city", "schema": SCHEMA}, "verbosity": "low"},
        reasoning={"effort": "high"},
        metadata={"a": "b"},
        truncation="auto",
        service_tier="flex",
        top_logprobs=3,
        presence_penalty=-2,
        max_tool_calls=1,
        user="u",
        safety_identifier="s",
        prompt_cache_key="k" * 64,
    ).turn.echo
    assert (echo.model, echo.tool_choice, echo.reasoning) == (
        "m",
        "none",
        {"effort": "high", "summary": None},
    )
    full = {"type": "function", "name": "add", "description": None, "parameters": {"type": "object"}}
    assert echo.tools == ({**full, "strict": None},)
    shown = {"type": "json_schema", "name": "city", "description": None, "schema": SCHEMA, "strict": False}
    assert echo.text == {"format": shown, "verbosity": "low"}
    assert (echo.metadata, echo.truncation, echo.service_tier) == ({"a": "b"}, "auto", "flex")
    assert (echo.top_logprobs, echo.presence_penalty, echo.max_tool_calls) == (3, -2.0, 1)
    assert (echo.user, echo.safety_identifier, echo.prompt_cache_key) == ("u", "s", "k" * 64)


def test_reasoning_is_sealed_when_that_is_asked_for() -> None:
    assert asked(include=["reasoning.encrypted_content"]).turn.echo.sealed_reasoning
    assert not asked(include=["message.output_text.logprobs"]).turn.echo.sealed_reasoning


# -- sessions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["c1", {"id": "c1"}, {"id": "c1", "object": "conversation"}])
def test_a_conversation_is_a_session(named: Any) -> None:
    create = asked(conversation=named)
    assert create.turn.key == SessionKey("c1", "c1")
    assert create.addressed
    assert (create.conversation, create.turn.echo.conversation) == ("c1", "c1")
    assert decode({"conversation": named}).turn.request.input == ()


def test_a_session_is_addressed_as_on_process() -> None:
    create = asked(session_id="s1", user_id="u1")
    assert (create.turn.key, create.addressed, create.conversation) == (SessionKey("u1", "s1"), True, None)


def test_the_principal_owns_what_he_asks_for() -> None:
    assert decode({"input": "hi", "session_id": "s1"}, principal="p").turn.key == SessionKey("p", "s1")
    with pytest.raises(Forbidden):
        decode({"input": "hi", "user_id": "u"}, principal="p")


def test_what_continues_a_response() -> None:
    create = decode({"previous_response_id": "resp_1"})
    assert create.previous_response_id == "resp_1"
    turn = turn_of(create, key=SessionKey("u", "s"), after="resp_1")
    assert (turn.key, turn.after) == (SessionKey("u", "s"), "resp_1")
    assert (turn.request.user_id, turn.request.session_id) == ("u", "s")
    assert turn.echo.previous_response_id == "resp_1"


def test_what_is_not_stored_leaves_a_session_that_was_not_addressed_as_it_was() -> None:
    alone, addressed = turn_of(asked(store=False)), turn_of(asked(store=False, conversation="c"))
    assert (alone.kept, alone.stored) == (False, False)
    assert (addressed.kept, addressed.stored) == (True, False)


def test_a_client_that_leaves() -> None:
    leaving = Settings(model="m", label="l", disconnect=Disconnect("cancel"))
    assert decode({"input": "hi"}, leaving).turn.disconnect == Disconnect("cancel")
    assert decode({"input": "hi", "disconnect": "grace=5s"}, leaving).turn.disconnect == Disconnect(
        "grace", 5
    )
    in_background = decode({"input": "hi", "background": True, "stream": True}, leaving)
    assert in_background.turn.disconnect == Disconnect("continue")
    assert (in_background.turn.background, in_background.stream) == (True, True)


# -- what is refused -----------------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "input"),
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"input": 7}, "input"),
    ({"input": {"role": "user"}}, "input"),
    ({"input": "hi", "model": 7}, "model"),
    ({"input": "hi", "instructions": ["a"]}, "instructions"),
    ({"input": "hi", "stream": "yes"}, "stream"),
    ({"input": "hi", "store": 1}, "store"),
    ({"input": "hi", "background": "true"}, "background"),
    ({"input": "hi", "background": True, "store": False}, "background"),
    ({"input": "hi", "previous_response_id": 7}, "previous_response_id"),
    ({"input": "hi", "previous_response_id": "r", "conversation": "c"}, "previous_response_id"),
    ({"input": "hi", "conversation": 7}, "conversation"),
    ({"input": "hi", "conversation": {}}, "conversation.id"),
    ({"input": "hi", "conversation": {"id": 7}}, "conversation.id"),
    ({"input": "hi", "conversation": "c", "session_id": "s"}, "session_id"),
    ({"input": "hi", "session_id": "a\nb"}, "session_id"),
    ({"input": "hi", "prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"input": "hi", "tools": {}}, "tools"),
    ({"input": "hi", "tools": [7]}, "tools[0]"),
    ({"input": "hi", "tools": [TOOL, {"type": "web_search"}]}, "tools[1]"),
    ({"input": "hi", "tools": [{"type": "file_search", "vector_store_ids": []}]}, "tools[0]"),
    ({"input": "hi", "tools": [{"type": "computer_use_preview"}]}, "tools[0]"),
    ({"input": "hi", "tools": [{"type": "code_interpreter"}]}, "tools[0]"),
    ({"input": "hi", "tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0]"),
    ({"input": "hi", "tools": [{"type": "custom", "name": "x"}]}, "tools[0]"),
    ({"input": "hi", "tools": [{"name": "x"}]}, "tools[0]"),
    ({"input": "hi", "tools": [{"type": "function"}]}, "tools[0].name"),
    ({"input": "hi", "tools": [{"type": "function", "function": {"name": "x"}}]}, "tools[0].name"),
    ({"input": "hi", "tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
    ({"input": "hi", "tools": [{"type": "function", "name": "a", "parameters": []}]}, "tools[0].parameters"),
    ({"input": "hi", "tools": [{"type": "function", "name": "a", "strict": "no"}]}, "tools[0].strict"),
    ({"input": "hi", "tools": [TOOL, TOOL]}, "tools[1]"),
    ({"input": "hi", "tool_choice": "some"}, "tool_choice"),
    ({"input": "hi", "tool_choice": {"type": "function"}}, "tool_choice.name"),
    ({"input": "hi", "tool_choice": {"type": "web_search_preview"}}, "tool_choice"),
    ({"input": "hi", "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice"),
    ({"input": "hi", "tool_choice": 7}, "tool_choice"),
    ({"input": "hi", "parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ({"input": "hi", "text": "json"}, "text"),
    ({"input": "hi", "text": {"verbosity": "loud"}}, "text.verbosity"),
    ({"input": "hi", "text": {"format": "json"}}, "text.format"),
    ({"input": "hi", "text": {"format": {}}}, "text.format.type"),
    ({"input": "hi", "text": {"format": {"type": "xml"}}}, "text.format.type"),
    ({"input": "hi", "text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
    ({"input": "hi", "text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
    (
        {"input": "hi", "text": {"format": {"type": "json_schema", "name": "a", "schema": 7}}},
        "text.format.schema",
    ),
    ({"input": "hi", "reasoning": "low"}, "reasoning"),
    ({"input": "hi", "reasoning": {"effort": "some"}}, "reasoning.effort"),
    ({"input": "hi", "reasoning": {"summary": "long"}}, "reasoning.summary"),
    ({"input": "hi", "include": "usage"}, "include"),
    ({"input": "hi", "include": [7]}, "include[0]"),
    ({"input": "hi", "max_output_tokens": 15}, "max_output_tokens"),
    ({"input": "hi", "max_output_tokens": 16.5}, "max_output_tokens"),
    ({"input": "hi", "max_tool_calls": 0}, "max_tool_calls"),
    ({"input": "hi", "temperature": 2.1}, "temperature"),
    ({"input": "hi", "temperature": "hot"}, "temperature"),
    ({"input": "hi", "top_p": -0.1}, "top_p"),
    ({"input": "hi", "top_p": 1.1}, "top_p"),
    ({"input": "hi", "top_logprobs": 21}, "top_logprobs"),
    ({"input": "hi", "top_logprobs": -1}, "top_logprobs"),
    ({"input": "hi", "presence_penalty": 2.5}, "presence_penalty"),
    ({"input": "hi", "frequency_penalty": True}, "frequency_penalty"),
    ({"input": "hi", "truncation": "most"}, "truncation"),
    ({"input": "hi", "metadata": []}, "metadata"),
    ({"input": "hi", "metadata": {str(n): "" for n in range(17)}}, "metadata"),
    ({"input": "hi", "metadata": {"k" * 65: ""}}, "metadata"),
    ({"input": "hi", "metadata": {"k": "v" * 513}}, "metadata.k"),
    ({"input": "hi", "metadata": {"k": 7}}, "metadata.k"),
    ({"input": "hi", "user": 7}, "user"),
    ({"input": "hi", "safety_identifier": 7}, "safety_identifier"),
    ({"input": "hi", "prompt_cache_key": "k" * 65}, "prompt_cache_key"),
    ({"input": "hi", "service_tier": "best"}, "service_tier"),
    ({"input": "hi", "stream_options": True}, "stream_options"),
    ({"input": "hi", "stream_options": {"include_obfuscation": 1}}, "stream_options.include_obfuscation"),
    ({"input": "hi", "context_management": {}}, "context_management"),
    ({"input": "hi", "context_management": [7]}, "context_management[0]"),
    ({"input": "hi", "overlap": "fight"}, "overlap"),
    ({"input": "hi", "disconnect": "weep"}, "disconnect"),
]


@pytest.mark.parametrize(("body", "field"), WRONG, ids=[f"{n}-{field}" for n, (_, field) in enumerate(WRONG)])
def test_what_is_wrong_is_named(body: dict[str, Any], field: str) -> None:
    error = refused(body)
    assert error.field == field
    assert len(error.message) > len(field) + 10


def test_a_schema_that_is_none_is_refused() -> None:
    format_ = {"type": "json_schema", "name": "a", "schema": {"type": "banana"}}
    error = refused({"input": "hi", "text": {"format": format_}})
    assert (error.field or "").startswith("text.format.schema")


@pytest.mark.parametrize(
    ("asked_for", "field"),
    [
        ({"tools": [TOOL]}, "tools"),
        ({"tool_choice": "none"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "add"}}, "tool_choice"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"max_output_tokens": 100}, "max_output_tokens"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
    ],
)
def test_what_an_application_does_not_do_is_refused(asked_for: dict[str, Any], field: str) -> None:
    assert decode({"input": "hi", **asked_for}, ABLE).turn.options is not None
    assert refused({"input": "hi", **asked_for}, PLAIN).field == field


@pytest.mark.parametrize(
    "asked_for",
    [
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
        {"instructions": "Be brief.", "text": {"format": {"type": "json_object"}}},
        {"temperature": 0.5, "top_p": 0.5, "reasoning": {"effort": "low"}, "presence_penalty": 1},
        {"include": ["reasoning.encrypted_content"], "truncation": "auto", "top_logprobs": 1},
    ],
)
def test_what_every_application_takes(asked_for: dict[str, Any]) -> None:
    assert decode({"input": "hi", **asked_for}, PLAIN).turn.request.input


# -- any bytes -----------------------------------------------------------------------------------------------------

words = st.sampled_from(
    [
        "",
        "a",
        "hi",
        "message",
        "user",
        "function_call_output",
        "item_reference",
        "mcp_call",
        "completed",
        "input_text",
    ]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words
names = st.sampled_from(
    [
        *CHECKS,
        *("input", "prompt", "type", "role", "content", "text", "id", "status", "call_id", "name", "output"),
        *(
            "arguments",
            "summary",
            "schema",
            "format",
            "image_url",
            "encrypted_content",
            "overlap",
            "disconnect",
        ),
    ]
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
    max_leaves=12,
)


def error_of(body: bytes) -> GreenroomError | None:
    try:
        turn_of(decode(body))
    except GreenroomError as error:
        return error
    return None


@given(st.dictionaries(names, values, max_size=6) | values)
def test_any_json_is_a_request_or_an_error_that_names_something(body: Any) -> None:
    error = error_of(msgspec.json.encode(body))
    assert error is None or error.status in {400, 403}
    assert error is None or error.field is not None or not isinstance(body, dict)


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_bytes_are_a_request_or_an_error(body: bytes) -> None:
    error = error_of(body)
    assert error is None or error.status == 400
