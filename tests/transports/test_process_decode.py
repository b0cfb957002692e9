"""A request's bytes become a turn, or an error that names the field and says what would be right."""

import re
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.errors import Forbidden, GreenroomError, InvalidRequest
from greenroom.actors.ids import Sources
from greenroom.actors.messages import (
    AgentRequest,
    Audio,
    Data,
    Disconnect,
    File,
    Image,
    Message,
    Refusal,
    SessionKey,
    Text,
    Turn,
    Video,
)
from greenroom.transports import process_decode
from greenroom.transports.json_checks import ID_CHARS, NESTING
from greenroom.transports.process_decode import decode_request


def sources() -> Sources:
    ids = count(1)
    return Sources(now=lambda: 1795328012.5, uuid=lambda: f"uuid-{next(ids)}")


def decode(body: bytes | dict[str, Any], principal: str | None = None) -> Turn:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return decode_request(raw, sources=sources(), principal=principal)


def with_input(**fields: Any) -> dict[str, Any]:
    return {"input": [{"content": "hi"}], **fields}


def with_parts(*parts: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": list(parts)}]}


def refused(body: bytes | dict[str, Any], principal: str | None = None) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        decode(body, principal)
    assert caught.value.status == 400
    return caught.value


# -- what is taken ---------------------------------------------------------------------------------------------


def test_the_tutorials_request() -> None:
    turn = decode(
        b'{"input": [{"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]}],'
        b' "session_id": "s1", "user_id": "u1", "id": "r1", "stream": true}'
    )
    message = Message((Text("What is the capital of France?"),))
    assert turn == Turn(
        id="r1",
        key=SessionKey("u1", "s1"),
        request=AgentRequest(input=(message,), session_id="s1", user_id="u1", id="r1", extra={}),
        created_at=1795328012.5,
    )


def test_ids_have_defaults() -> None:
    turn = decode(with_input())
    assert turn.key == SessionKey("uuid-1", "uuid-1")
    assert turn.id == "response_uuid-2"
    assert (turn.request.session_id, turn.request.user_id, turn.request.id) == (*reversed(turn.key), turn.id)


def test_the_user_is_the_session_unless_named() -> None:
    assert decode(with_input(session_id="s")).key == SessionKey("s", "s")
    assert decode(with_input(session_id="s", user_id="u")).key == SessionKey("u", "s")


@pytest.mark.parametrize("nothing", ["", None])
def test_an_empty_id_is_no_id(nothing: str | None) -> None:
    turn = decode(with_input(session_id=nothing, user_id=nothing, id=nothing))
    assert turn.key == SessionKey("uuid-1", "uuid-1")
    assert turn.id == "response_uuid-2"


def test_null_is_absent_everywhere() -> None:
    names = [*AgentRequest.__struct_fields__, "overlap", "disconnect"]
    nulls = dict.fromkeys(name for name in names if name not in {"input", "extra"})
    message = {"content": None, "role": None, "type": None, "id": None, "metadata": None, "name": None}
    turn = decode({"input": [message], **nulls})
    assert turn.request.input == (Message(),)
    assert turn.request.stream is True
    assert (turn.overlap, turn.disconnect) == (None, Disconnect())


def test_model_settings_are_handed_on() -> None:
    settings: dict[str, Any] = {
        "stream": False,
        "model": "m",
        "temperature": 0.5,
        "top_p": 1,
        "frequency_penalty": -1.5,
        "presence_penalty": 2,
        "max_tokens": 100,
        "stop": ["a", "b"],
        "n": 1,
        "seed": -7,
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    request = decode(with_input(**settings)).request
    assert {name: getattr(request, name) for name in settings} == settings
    assert decode(with_input(stop="a")).request.stop == "a"


def test_unknown_fields_are_kept_and_readable() -> None:
    request = decode(with_input(colour="green", nested={"a": [1]}, overlap="queue", extra=1)).request
    assert request.extra == {"colour": "green", "nested": {"a": [1]}, "overlap": "queue", "extra": 1}
    assert request.colour == "green"


def test_content_may_be_a_string() -> None:
    assert decode(with_input()).request.input == (Message((Text("hi"),)),)


@pytest.mark.parametrize("message", [{}, {"content": None}, {"content": []}])
def test_content_may_be_missing(message: dict[str, Any]) -> None:
    assert decode({"input": [message]}).request.input == (Message(),)


def test_every_part() -> None:
    parts = [
        ({"type": "text", "text": "é\0😀"}, Text("é\0😀")),
        ({"type": "data", "data": {"a": None}}, Data({"a": None})),
        ({"type": "image", "image_url": "https://x/y.png"}, Image("https://x/y.png")),
        ({"type": "audio", "data": "QUJD", "format": "wav"}, Audio("QUJD", "wav")),
        ({"type": "audio", "data": "QUJD"}, Audio("QUJD")),
        ({"type": "video", "video_url": "data:video/mp4;base64,QQ=="}, Video("data:video/mp4;base64,QQ==")),
        ({"type": "file", "file_id": "f", "filename": "a.txt"}, File(None, "f", None, "a.txt")),
        ({"type": "file", "file_url": "u", "file_data": None}, File("u")),
        ({"type": "refusal", "refusal": "no"}, Refusal("no")),
    ]
    content = decode(with_parts(*(part for part, _ in parts))).request.input[0].content
    assert content == tuple(said for _, said in parts)


def test_what_a_response_carries_can_be_sent_back() -> None:
    part = {"sequence_number": 9, "object": "content", "status": "completed", "error": None, "type": "text"}
    part |= {"index": 0, "delta": None, "msg_id": "msg_1", "text": "Paris"}
    message = {
        "sequence_number": 10,
        "object": "message",
        "status": "completed",
        "error": None,
        "id": "msg_1",
    }
    message |= {"type": "message", "role": "assistant", "content": [part], "code": None, "message": None}
    turn = decode({"input": [message | {"usage": None, "metadata": {"a": 1}}]})
    assert turn.request.input == (Message((Text("Paris"),), "assistant", id="msg_1", metadata={"a": 1}),)


def test_of_a_key_given_twice_the_last_counts() -> None:
    assert decode(b'{"input":[{"content":"hi"}],"session_id":"a","session_id":"b"}').key.session_id == "b"


def test_a_byte_order_mark_is_no_fault() -> None:
    assert decode(b'\xef\xbb\xbf{"input":[{"content":"hi"}]}').request.input


@pytest.mark.parametrize("number", [1 << 64, -(1 << 63) - 1, 10**40])
def test_whole_numbers_that_nothing_could_write_again_are_refused(number: int) -> None:
    for fields, field in (
        ({"big": number}, "big"),
        ({"list": [[1], {"a": number}]}, "list"),
        ({"input": [{"content": "x", "metadata": {"a": number}}]}, "input"),
        ({"input": [{"content": [{"type": "data", "data": {"a": number}}]}]}, "input"),
        ({"Large": number}, None),
    ):
        with pytest.raises(InvalidRequest, match="64 bits") as refused:
            decode(with_input() | fields)
        assert refused.value.field == field


def test_whole_numbers_of_64_bits_are_kept_where_anything_is() -> None:
    numbers = [(1 << 64) - 1, -(1 << 63), 12345678901234567890]
    assert decode(with_input(big=numbers, text="1" * 40)).request.extra == {"big": numbers, "text": "1" * 40}


# -- whose it is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claimed", [{}, {"user_id": None}, {"user_id": ""}, {"user_id": "ann"}])
def test_the_principal_is_the_user(claimed: dict[str, Any]) -> None:
    turn = decode(with_input(session_id="s", **claimed), principal="ann")
    assert turn.key == SessionKey("ann", "s")
    assert (turn.principal, turn.request.user_id) == ("ann", "ann")


def test_nobody_speaks_for_another() -> None:
    with pytest.raises(Forbidden) as caught:
        decode(with_input(user_id="bob"), principal="ann")
    assert caught.value.field == "user_id"
    assert "bob" not in caught.value.message


# -- policies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", ["queue", "reject", "interrupt"])
def test_overlap(overlap: str) -> None:
    assert decode(with_input(overlap=overlap)).overlap == overlap


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("continue", Disconnect()),
        ("cancel", Disconnect("cancel")),
        ("grace", Disconnect("grace", 30.0)),
        ("grace=45s", Disconnect("grace", 45.0)),
        ("grace=0.5", Disconnect("grace", 0.5)),
        ("grace=3600s", Disconnect("grace", 3600.0)),
    ],
)
def test_disconnect(said: str, meant: Disconnect) -> None:
    assert decode(with_input(disconnect=said)).disconnect == meant


def test_the_transports_own_default_for_disconnect() -> None:
    default = Disconnect("cancel")
    for fields, meant in (({}, default), ({"disconnect": "continue"}, Disconnect("continue"))):
        body = msgspec.json.encode(with_input(**fields))
        assert decode_request(body, sources=sources(), disconnect=default).disconnect == meant


@pytest.mark.parametrize(
    "said",
    [
        "",
        "no",
        "grace=",
        "grace=0s",
        "grace=-1s",
        "grace=3601",
        "grace=1e3",
        "grace=٣",
        "grace=30 s",
        30,
        True,
    ],
)
def test_wrong_disconnect(said: object) -> None:
    assert refused(with_input(disconnect=said)).field == "disconnect"


@pytest.mark.parametrize("said", ["", "QUEUE", "drop", 1, ["queue"]])
def test_wrong_overlap(said: object) -> None:
    assert refused(with_input(overlap=said)).field == "overlap"


# -- what is refused, and where it says the fault is ----------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({}, "input", "is missing"),
        ({"input": None}, "input", "is missing"),
        ({"input": []}, "input", "is empty"),
        ({"input": "hi"}, "input", "a list of messages, not a string"),
        ({"input": {"role": "user"}}, "input", "not an object"),
        ({"input": ["hi"]}, "input[0]", "a message (an object), not a string"),
        ({"input": [{}, None]}, "input[1]", "not null"),
        ({"input": [{"role": "bot"}]}, "input[0].role", "one of user, assistant, system, tool"),
        ({"input": [{"role": 1}]}, "input[0].role", "a string, not a number"),
        ({"input": [{"type": "letter"}]}, "input[0].type", "'letter'"),
        ({"input": [{"type": []}]}, "input[0].type", "a string, not a list"),
        ({"input": [{"id": 7}]}, "input[0].id", "a string"),
        ({"input": [{"name": False}]}, "input[0].name", "not a boolean"),
        ({"input": [{"metadata": "x"}]}, "input[0].metadata", "an object, not a string"),
        ({"input": [{"content": 5}]}, "input[0].content", "a string or a list of parts, not a number"),
        ({"input": [{"content": {}}]}, "input[0].content", "not an object"),
        (with_parts("hi"), "input[0].content[0]", "a part (an object"),
        (with_parts({"text": "hi"}), "input[0].content[0].type", "is missing"),
        (with_parts({"type": 1}), "input[0].content[0].type", "a string, not a number"),
        (with_parts({"type": "smell"}), "input[0].content[0].type", "text, data, image"),
        (with_parts({"type": "text"}), "input[0].content[0].text", "a part of type text needs it"),
        (with_parts({"type": "text", "text": None}), "input[0].content[0].text", "is missing"),
        (with_parts({"type": "text", "text": ["a"]}), "input[0].content[0].text", "a string, not a list"),
        (with_parts({"type": "data", "data": "x"}), "input[0].content[0].data", "an object"),
        (with_parts({"type": "data"}), "input[0].content[0].data", "is missing"),
        (with_parts({"type": "image"}), "input[0].content[0].image_url", "is missing"),
        (with_parts({"type": "image", "image_url": {"url": "x"}}), "input[0].content[0].image_url", "not an object"),
        (with_parts({"type": "audio"}), "input[0].content[0].data", "is missing"),
        (with_parts({"type": "audio", "data": "x", "format": 1}), "input[0].content[0].format", "a string"),
        (with_parts({"type": "video"}), "input[0].content[0].video_url", "is missing"),
        (with_parts({"type": "file", "filename": "x"}), "input[0].content[0].file_url", "or file_id, or file_data"),
        (with_parts({"type": "refusal"}), "input[0].content[0].refusal", "is missing"),
        (with_input(session_id=1764056632961), "session_id", "a string, not a number"),
        (with_input(user_id=[]), "user_id", "a string, not a list"),
        (with_input(id={}), "id", "a string, not an object"),
        (with_input(session_id="x" * (ID_CHARS + 1)), "session_id", "1025 characters"),
        (with_input(session_id="a\0b"), "session_id", "control characters"),
        (with_input(id="é\n"), "id", "control characters"),
        (with_input(stream="yes"), "stream", "true or false, not a string"),
        (with_input(stream=1), "stream", "not a number"),
        (with_input(model=1), "model", "a string"),
        (with_input(temperature="hot"), "temperature", "a number, not a string"),
        (with_input(temperature=True), "temperature", "not a boolean"),
        (with_input(top_p=1e300), "top_p", "out of range"),
        (with_input(max_tokens=1.5), "max_tokens", "a whole number"),
        (with_input(max_tokens=10**30), "max_tokens", "64 bits"),
        (with_input(n=True), "n", "a whole number, not a boolean"),
        (with_input(seed="1"), "seed", "a whole number, not a string"),
        (with_input(stop=1), "stop", "a string or a list of strings"),
        (with_input(stop=["a", 1]), "stop[1]", "a string, not a number"),
        (with_input(tools={}), "tools", "a list of tools, not an object"),
        (with_input(tools=["x"]), "tools[0]", "an object, not a string"),
    ],
)  # fmt: skip
def test_the_fault_is_named(body: dict[str, Any], field: str, words: str) -> None:
    error = refused(body)
    assert error.field == field
    assert error.message.startswith(field)
    assert words in error.message


def deep(levels: int) -> bytes:
    return b'{"input":[{"content":"hi"}],"x":' + b"[" * levels + b"]" * levels + b"}"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b" \n", "the body is empty"),
        (b"[]", "must be a JSON object with the field `input`, not a list"),
        (b'"hi"', "not a string"),
        (b"null", "not null"),
        (b'{"input":', "ends too early, at line 1, column 10 (byte 9)"),
        (b'{"input": [}', "at line 1, column 12 (byte 11)"),
        (b'{\n "input": x}', "at line 2, column 11 (byte 12)"),
        (b'{"input": NaN}', "not valid JSON"),
        (b'{"x": 1e999}', "a number too large"),
        (b'{"x": ' + b"9" * 5000 + b"}", "a number too large"),
        (b'{"x": 1} x', "trailing characters"),
        (b'{"x": "\x00"}', "at line 1, column 8"),
        (b'{"x": "\xff"}', "not UTF-8 at byte 7"),
        (b'{"\xff": 1}', "not UTF-8 at byte 2"),
        ('{"input": []}'.encode("utf-16"), "not UTF-8 at byte 0"),
        (b'{"x": "\xed\xa0\x80"}', "not UTF-8 at byte 7"),
        (b'{"x": "\\ud800"}', "half of a surrogate pair (a \\u escape) at line 1, column 8"),
        (b'{"x": "\\ud800 and much more text behind it"}', "half of a surrogate pair"),
        (b'{"x": "\\udc00 and much more text behind it"}', "not valid JSON"),
        (b"[" * 1_000_000, "deep"),
        (deep(NESTING), "more than 100 deep"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_json_object(body: bytes, words: str) -> None:
    assert words in refused(body).message


def test_nesting_up_to_the_bound_is_fine() -> None:
    assert decode(deep(NESTING - 1)).request.extra["x"]
    wide = decode(with_input(x=[[{}]] * 1000)).request.extra["x"]
    assert len(wide) == 1000


def test_an_error_does_not_send_the_body_back() -> None:
    error = refused({"input": [{"role": "\x1b[31m" + "x" * 10_000}]})
    assert len(error.message) < 200
    assert "\x1b" not in error.message


# -- whatever comes --------------------------------------------------------------------------------------------

NAMES = [
    *AgentRequest.__struct_fields__,
    "role",
    "content",
    "type",
    "text",
    "data",
    "image_url",
    "name",
    "metadata",
]
VALUES = [
    "",
    "user",
    "message",
    "text",
    "data",
    "file",
    "grace=1s",
    0,
    -1,
    1.5,
    10**25,
    True,
    None,
    "\0",
    "x" * 1025,
]
leaves = st.sampled_from(VALUES) | st.text(max_size=4) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=20,
)
KINDS = ["text", "data", "image", "audio", "video", "file"]
part = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS)},
    optional=dict.fromkeys(
        ("text", "data", "image_url", "format", "video_url", "file_url", "filename"), values
    ),
)
message = st.fixed_dictionaries(
    {}, optional={"content": values | st.lists(part | values, max_size=3), "role": values}
)
bodies = st.fixed_dictionaries(
    {"input": st.lists(message | values, max_size=3) | values}, optional=dict.fromkeys(NAMES[1:], values)
)


def check_outcome(body: bytes, principal: str | None) -> None:
    try:
        turn = decode(body, principal)
    except GreenroomError as error:
        check_refusal(error)
    else:
        assert all([turn.id, *turn.key])
        assert turn.request.input
        msgspec.json.encode(turn)  # what was taken can be kept


def check_refusal(error: GreenroomError) -> None:
    assert 400 <= error.status < 500
    assert error.message.isprintable()
    assert error.field is None or re.fullmatch(r"[a-z_]+(\[\d+\]|\.[a-z_]+)*", error.field)


@given(bodies, st.sampled_from([None, "ann"]))
def test_any_object_gives_a_turn_or_a_client_error(body: dict[str, Any], principal: str | None) -> None:
    check_outcome(msgspec.json.encode(body), principal)


@given(bodies, st.data())
def test_any_damage_gives_a_turn_or_a_client_error(body: dict[str, Any], data: st.DataObject) -> None:
    whole = msgspec.json.encode(body)
    at = data.draw(st.integers(0, len(whole)))
    damage = data.draw(
        st.binary(max_size=3) | st.sampled_from([b"\\ud800", b"NaN", b"1e999", b"\xff", b'"', b"{" * 50])
    )
    check_outcome(whole[:at] + damage + whole[at + data.draw(st.integers(0, 3)) :], None)


@given(st.binary())
def test_any_bytes_give_a_turn_or_a_client_error(body: bytes) -> None:
    check_outcome(body, None)


# -- the quick way and the thorough one --------------------------------------------------------------------------

usual_text = st.text(max_size=4) | st.none()
usual_part = st.fixed_dictionaries(
    {"type": st.just("text"), "text": st.text(max_size=4)}
) | st.fixed_dictionaries({"type": st.just("image"), "image_url": st.text(max_size=4)})
usual_message = st.fixed_dictionaries(
    {"content": st.text(max_size=4) | st.lists(usual_part, max_size=2) | st.none()},
    optional={
        "role": st.sampled_from(["user", "assistant", "tool", None, "nobody"]),
        "type": st.sampled_from(["message", "reasoning", None]),
        "id": usual_text,
        "name": usual_text,
        "metadata": st.dictionaries(st.text(max_size=2), values, max_size=2) | st.none(),
        "more": values,
    },
)
usual_bodies = st.fixed_dictionaries(
    {"input": st.lists(usual_message, max_size=3)},
    optional={
        "session_id": usual_text,
        "user_id": usual_text,
        "id": usual_text,
        "stream": st.sampled_from([True, False, None, 1]),
        "temperature": values,
    },
)


@given(usual_bodies | bodies)
def test_what_msgspec_reads_alone_is_what_reading_by_hand_gives(body: dict[str, Any]) -> None:
    raw = msgspec.json.encode(body)
    quick = process_decode._usual(raw)
    if quick is not None:
        assert quick == process_decode._request(raw)


def test_the_quick_way_is_taken() -> None:
    body = {"input": [{"role": "user", "content": "Hello"}], "session_id": "s", "stream": True}
    assert process_decode._usual(msgspec.json.encode(body)) is not None
