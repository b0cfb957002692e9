"""Items of requests: what is taken, in which forms, what becomes of it, and what is refused."""

import base64
import zlib
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from greenroom.actors.drafts import OUTCOME_UNKNOWN
from greenroom.actors.errors import InvalidRequest
from greenroom.actors.events import Event
from greenroom.actors.messages import (
    AgentRequest,
    Audio,
    Content,
    Data,
    File,
    Image,
    Message,
    Refusal,
    Text,
    Turn,
    Video,
)
from greenroom.transports.responses_echo import ResponseEcho
from greenroom.transports.responses_items import Context, ReadItems, filled, read_items
from greenroom.transports.responses_listing import input_items
from greenroom.transports.responses_packed import UNPACKED_BYTES, seal
from greenroom.transports.responses_whole import output_items
from kits.turns import a_turn, told_turns

CALL = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a":1}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "3"}
MCP = {"type": "mcp_call", "id": "mcp_1", "server_label": "friday", "name": "add", "arguments": "{}"}


def read(*items: Any, label: str = "friday") -> ReadItems:
    numbers = count(1)
    return read_items(list(items), "input", lambda: f"u-{next(numbers)}", label)


def said(*items: Any) -> list[tuple[str, str, tuple[Content, ...]]]:
    return [(message.role, message.type, message.content) for message in read(*items).messages]


def refused(*items: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(*items)
    return caught.value


# -- messages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "ours"),
    [("user", "user"), ("assistant", "assistant"), ("system", "system"), ("developer", "system")],
)
def test_messages_of_every_role(role: str, ours: str) -> None:
    hello = (Text("hello"),)
    kind = "output_text" if role == "assistant" else "input_text"
    forms: list[dict[str, Any]] = [
        {"role": role, "content": "hello"},
        {"type": "message", "role": role, "content": "hello"},
        {"type": None, "role": role, "content": [{"type": "input_text", "text": "hello"}]},
        {
            "role": role,
            "content": [{"type": "output_text", "text": "hello", "annotations": []}],
            "status": "",
        },
        {"role": role, "content": [{"type": "text", "text": "hello"}], "id": None, "status": None},
    ]
    for form in forms:
        assert said(form) == [(ours, "message", hello)]
        (listed,) = read(form).listed
        assert (listed["id"], listed["status"], listed["role"]) == ("msg_u1", "completed", role)
        assert [(part["type"], part["text"]) for part in listed["content"]] == [(kind, "hello")]


def test_text_is_a_users_message() -> None:
    assert read_items("hello", "input", lambda: "u-1").messages == (Message((Text("hello"),), id="msg_u1"),)


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ({"type": "input_image", "image_url": "https://x/y.png"}, Image("https://x/y.png")),
        ({"type": "input_image", "image_url": {"url": "data:image/png;base64,QUJD"}, "detail": "low"},
         Image("data:image/png;base64,QUJD")),
        ({"type": "input_file", "file_url": "https://x/y.pdf"}, File("https://x/y.pdf")),
        ({"type": "input_file", "file_data": "QUJD", "filename": "a.txt"},
         File(file_data="QUJD", filename="a.txt")),
        ({"type": "input_file", "file_id": "file_1"}, File(file_id="file_1")),
        ({"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}}, Audio("QUJD", "mp3")),
        ({"type": "input_video", "video_url": "https://x/y.mp4"}, Video("https://x/y.mp4")),
        ({"type": "refusal", "refusal": "no"}, Refusal("no")),
    ],
)  # fmt: skip
def test_parts(part: dict[str, Any], content: Content) -> None:
    item = {"role": "user", "content": [{"type": "input_text", "text": "see"}, part]}
    assert said(item) == [("user", "message", (Text("see"), content))]
    listed = read(item).listed
    assert read(*listed).messages == read(item).messages or part["type"] == "refusal"


def test_ids_and_status_are_kept() -> None:
    item = {"type": "message", "id": "msg_7", "status": "incomplete", "role": "assistant", "content": []}
    (listed,) = read(item).listed
    assert (listed["id"], listed["status"]) == ("msg_7", "incomplete")
    assert read(item).messages[0].id == "msg_7"


# -- reasoning and tools -------------------------------------------------------------------------------------------


def test_reasoning() -> None:
    summary = {"type": "reasoning", "id": "", "summary": [{"type": "summary_text", "text": "well"}]}
    thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "well"}]}
    assert said(summary) == said(thought) == [("assistant", "reasoning", (Text("well"),))]
    sealed = {"type": "reasoning", "id": "rs_1", "summary": None, "encrypted_content": "x"}
    assert said(sealed) == []
    assert read(sealed).listed[0]["encrypted_content"] == "x"


def test_a_call_and_its_output() -> None:
    call = Data({"call_id": "c1", "name": "add", "arguments": '{"a":1}'})
    output = Data({"call_id": "c1", "name": "add", "output": "3"})
    assert said(CALL, OUTPUT) == [
        ("assistant", "function_call", (call,)),
        ("tool", "function_call_output", (output,)),
    ]
    assert [item["id"] for item in read(CALL, OUTPUT).listed] == ["fc_u1", "fco_u2"]


def test_an_output_of_parts() -> None:
    parts = [{"type": "input_text", "text": "3"}, {"type": "input_image", "image_url": "https://x/y.png"}]
    ours = [{"type": "text", "text": "3"}, {"type": "image", "image_url": "https://x/y.png"}]
    _, (_, _, (output,)) = said(CALL, {**OUTPUT, "output": parts})
    assert output == Data({"call_id": "c1", "name": "add", "output": ours})


def test_a_custom_tool() -> None:
    call = {"type": "custom_tool_call", "call_id": "c1", "name": "sh", "input": "ls"}
    output = {"type": "custom_tool_call_output", "call_id": "c1", "output": "a"}
    (_, _, (called,)), (_, _, (answered,)) = said(call, output)
    assert called == Data({"call_id": "c1", "name": "sh", "arguments": '{"input":"ls"}'})
    assert answered == Data({"call_id": "c1", "name": "sh", "output": "a"})


@pytest.mark.parametrize(
    ("more", "output"),
    [
        ({"output": "3", "error": None}, "3"),
        ({"output": None, "error": "it broke"}, "it broke"),
        ({"output": None, "error": {"type": "http_error"}}, '{"type":"http_error"}'),
        ({"status": "incomplete"}, OUTCOME_UNKNOWN),
    ],
)
def test_a_call_of_the_agents_own_tool(more: dict[str, Any], output: str) -> None:
    call = {"call_id": "mcp_1", "name": "add"}
    assert said({**MCP, **more}) == [
        ("assistant", "mcp_call", (Data({**call, "arguments": "{}"}),)),
        ("tool", "mcp_call_output", (Data({**call, "output": output}),)),
    ]


def test_a_call_of_another_servers_tool_names_the_server() -> None:
    _, _, (call,) = said({**MCP, "server_label": "sums", "output": "3"})[0]
    assert isinstance(call, Data)
    assert call.data["server_label"] == "sums"


def test_a_list_of_tools_tells_the_agent_nothing() -> None:
    item = {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "sums", "tools": []}
    assert said(item) == []
    assert read(item).listed[0]["id"] == "mcpl_1"


# -- what only the context can fill --------------------------------------------------------------------------------


def context(*items: dict[str, Any]) -> Context:
    known = Context()
    known.add(items)
    return known


def test_an_output_whose_call_is_in_the_context() -> None:
    before = read(OUTPUT)
    assert before.open
    after = filled(before, context({**CALL, "id": "fc_1"}))
    (output,) = after.messages[0].content
    assert output == Data({"call_id": "c1", "name": "add", "output": "3"})
    assert not after.open


def test_an_output_whose_call_is_nowhere() -> None:
    with pytest.raises(InvalidRequest) as caught:
        filled(read({"role": "user", "content": "hi"}, OUTPUT), context())
    assert caught.value.field == "input[1].call_id"


@pytest.mark.parametrize("reference", [{"type": "item_reference", "id": "msg_7"}, {"id": "msg_7"}])
def test_a_reference_is_the_item(reference: dict[str, Any]) -> None:
    item = {"type": "message", "id": "msg_7", "status": "completed", "role": "assistant", "content": "hello"}
    before = read({"role": "user", "content": "a"}, reference, {"role": "user", "content": "b"})
    after = filled(before, context(item))
    assert [message.content for message in after.messages] == [
        (Text("a"),), (Text("hello"),), (Text("b"),)
    ]  # fmt: skip
    assert [listed["id"] for listed in after.listed] == ["msg_u1", "msg_7", "msg_u2"]


def test_a_call_may_be_there_by_reference() -> None:
    known = context({**CALL, "id": "fc_1"})
    known.calls.clear()
    after = filled(read({"type": "item_reference", "id": "fc_1"}, OUTPUT), known)
    assert [message.type for message in after.messages] == ["function_call", "function_call_output"]
    (output,) = after.messages[1].content
    assert isinstance(output, Data)
    assert output.data["name"] == "add"


def test_a_reference_to_nothing() -> None:
    with pytest.raises(InvalidRequest) as caught:
        filled(read({"type": "item_reference", "id": "msg_7"}), context())
    assert caught.value.field == "input[0]"


def test_a_compaction_is_what_it_stands_for() -> None:
    items = [{"id": "msg_1", "type": "message", "role": "user", "content": "hi"}, {**CALL, "id": "fc_1"}, MCP]
    packed = {"type": "compaction", "id": "cmp_1", "encrypted_content": seal(items)}
    again = {**packed, "encrypted_content": seal([packed, {**OUTPUT, "id": "fco_1"}])}
    assert said(packed) == said(*items)
    assert said(again) == said(*items, OUTPUT)
    assert [item["id"] for item in read(again, OUTPUT).listed] == ["cmp_1", "fco_u1"]


def packed(body: bytes) -> dict[str, Any]:
    return {"type": "compaction", "encrypted_content": base64.b64encode(zlib.compress(body)).decode()}


def test_a_compaction_in_a_compaction_is_none_of_ours() -> None:
    inside = packed(b'{"items":[]}')
    nested = packed(msgspec.json.encode({"items": [inside]}))
    assert refused(nested).field == "input[0].encrypted_content"
    for other in (b"[]", b"{}", b'{"items":7}', b"hello", b'{"items":' + b"[" * 5000):
        assert refused(packed(other)).field == "input[0].encrypted_content"


def test_compactions_do_not_unpack_to_more_than_fits() -> None:
    half = packed(b'{"items":[]}' + b" " * (UNPACKED_BYTES // 2))
    assert len(half["encrypted_content"]) < 100_000
    assert said(half) == []
    assert refused(half, half).field == "input[1].encrypted_content"


# -- what is refused -----------------------------------------------------------------------------------------------

USER = {"role": "user", "content": "hi"}
WRONG: list[tuple[Any, str]] = [
    ("hi", "input[1]"),
    (None, "input[1]"),
    ({}, "input[1].id"),
    ({"type": "web_search_call", "id": "ws_1", "status": "completed"}, "input[1]"),
    ({"type": "computer_call_output", "call_id": "c", "output": {}}, "input[1]"),
    ({"type": 7}, "input[1]"),
    ({"type": "message", "content": "hi"}, "input[1].role"),
    ({"role": "tool", "content": "hi"}, "input[1].role"),
    ({"role": 7, "content": "hi"}, "input[1].role"),
    ({"role": "user"}, "input[1].content"),
    ({"role": "user", "content": 7}, "input[1].content"),
    ({"role": "user", "content": ["hi"]}, "input[1].content[0]"),
    ({"role": "user", "content": [{"text": "hi"}]}, "input[1].content[0]"),
    ({"role": "user", "content": [{"type": "input_hologram"}]}, "input[1].content[0]"),
    ({"role": "user", "content": [{"type": "input_text"}]}, "input[1].content[0].text"),
    ({"role": "user", "content": [{"type": "input_image"}]}, "input[1].content[0].image_url"),
    ({"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}, "input[1].content[0]"),
    ({"role": "user", "content": [{"type": "input_image", "image_url": "u", "detail": 1}]},
     "input[1].content[0].detail"),
    ({"role": "user", "content": [{"type": "input_file"}]}, "input[1].content[0]"),
    ({"role": "user", "content": [{"type": "input_audio"}]}, "input[1].content[0].input_audio"),
    ({"role": "user", "content": "hi", "id": 7}, "input[1].id"),
    ({"role": "user", "content": "hi", "status": "done"}, "input[1].status"),
    ({"type": "reasoning", "summary": "well"}, "input[1].summary"),
    ({"type": "reasoning", "summary": [{"type": "input_text", "text": "a"}]}, "input[1].summary[0]"),
    ({"type": "reasoning", "summary": [{"type": "summary_text"}]}, "input[1].summary[0].text"),
    ({"type": "reasoning", "summary": [], "encrypted_content": 7}, "input[1].encrypted_content"),
    ({"type": "function_call", "name": "add", "arguments": "{}"}, "input[1].call_id"),
    ({"type": "function_call", "call_id": "c1", "arguments": "{}"}, "input[1].name"),
    ({"type": "function_call", "call_id": "c1", "name": "add", "arguments": 7}, "input[1].arguments"),
    ({"type": "function_call_output", "output": "3"}, "input[1].call_id"),
    ({"type": "function_call_output", "call_id": "c1"}, "input[1].output"),
    ({"type": "function_call_output", "call_id": "c1", "output": [7]}, "input[1].output[0]"),
    ({"type": "custom_tool_call", "call_id": "c1", "name": "sh"}, "input[1].input"),
    ({"type": "mcp_call", "name": "add", "arguments": "{}"}, "input[1].server_label"),
    ({"type": "mcp_call", "server_label": "s", "arguments": "{}"}, "input[1].name"),
    ({"type": "mcp_list_tools", "server_label": "s"}, "input[1].tools"),
    ({"type": "item_reference"}, "input[1].id"),
    ({"type": "compaction", "id": "cmp_1"}, "input[1].encrypted_content"),
    ({"type": "compaction", "encrypted_content": "gAAAAA"}, "input[1].encrypted_content"),
]  # fmt: skip


@pytest.mark.parametrize(("item", "field"), WRONG, ids=[f"{n}-{field}" for n, (_, field) in enumerate(WRONG)])
def test_what_is_wrong_is_named(item: Any, field: str) -> None:
    assert refused(USER, item).field == field


# -- round trips ---------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(told_turns())
def test_every_item_that_was_ever_shown_is_taken_back(events: list[Event]) -> None:
    """With its id and status, without them, and as input_items lists it then."""
    for display in ("mcp_call", "function_call"):
        echo = ResponseEcho(model="friday", label="friday", display=display)
        shown = output_items(msgspec.structs.replace(a_turn("resp_1"), echo=echo), events)
        known = context(*shown)
        whole = filled(read(*shown), known)
        assert [item["id"] for item in whole.listed] == [item["id"] for item in shown]
        assert filled(read(*whole.listed), known).messages == whole.messages
        bare = [{name: item[name] for name in item if name not in {"id", "status"}} for item in shown]
        assert len(read(*bare).listed) == len(shown)


def a_turn_by_process(*messages: Message) -> Turn:
    return msgspec.structs.replace(a_turn(), request=AgentRequest(input=messages))


def test_the_input_of_another_protocol_as_items() -> None:
    call = Data({"call_id": "c1", "name": "add", "arguments": "{}"})
    turn = a_turn_by_process(
        Message((Text("hi"), Image("https://x/y.png"))),
        Message((Text("hm"),), "assistant", "reasoning"),
        Message((call,), "assistant", "plugin_call"),
        Message((Data({"call_id": "c1", "name": "add", "output": [1]}),), "tool", "plugin_call_output"),
        Message((), "assistant", "heartbeat"),
    )
    items = input_items(turn)
    assert [item["type"] for item in items] == [
        "message", "reasoning", "function_call", "function_call_output"
    ]  # fmt: skip
    assert items == input_items(turn)
    assert len({item["id"] for item in items}) == 4
    assert items[3]["output"] == "[1]"
    assert len(read(*items).messages) == 4


def test_items_that_came_as_messages_are_listed_as_they_were() -> None:
    """A session's record keeps messages, not items: each has its item's id."""
    items = [USER, CALL, OUTPUT, {**MCP, "output": "3"}, {"type": "reasoning", "summary": []}]
    whole = read(*items)
    listed = input_items(a_turn_by_process(*whole.messages))
    assert [item["id"] for item in listed] == [item["id"] for item in whole.listed[:-1]]
    assert listed[3]["output"] == "3"
