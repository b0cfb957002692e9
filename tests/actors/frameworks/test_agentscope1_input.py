"""A turn's input as AgentScope 1.x messages, and what the model service then gets."""

import base64
import json
from typing import Any

import pytest

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.messages import (
    Audio,
    Content,
    Data,
    File,
    Image,
    Message,
    MessageType,
    Refusal,
    Role,
    Text,
    Video,
)
from kits.agentscope_line import require_line
from kits.framework_kit import PIXEL

require_line(1)

from agentscope.formatter import OpenAIChatFormatter

from greenroom.actors.frameworks.agentscope1 import AgentScope1Adapter

pytestmark = pytest.mark.agentscope1


def blocks(*messages: Message) -> list[list[Any]]:
    return [msg.content for msg in AgentScope1Adapter().messages(messages)]


def message(*content: Content, role: Role = "user", type: MessageType = "message", **kwargs: Any) -> Message:
    return Message(content, role, type, **kwargs)


def call(call_id: str = "c1", arguments: object = '{"q":1}', type: MessageType = "plugin_call") -> Message:
    return message(
        Data({"call_id": call_id, "name": "search", "arguments": arguments}), role="assistant", type=type
    )


def output(value: object, call_id: str = "c1", type: MessageType = "plugin_call_output") -> Message:
    return message(Data({"call_id": call_id, "name": "search", "output": value}), role="tool", type=type)


def url(kind: str, where: str) -> dict[str, Any]:
    return {"type": kind, "source": {"type": "url", "url": where}}


def inline(kind: str, media_type: str, data: str) -> dict[str, Any]:
    return {"type": kind, "source": {"type": "base64", "media_type": media_type, "data": data}}


@pytest.mark.parametrize(
    ("content", "block"),
    [
        (Text("hi"), {"type": "text", "text": "hi"}),
        (Refusal("no"), {"type": "text", "text": "no"}),
        (Data({"a": [1, "ü"]}), {"type": "text", "text": '{"a":[1,"ü"]}'}),
        (Image("https://e.org/a.png"), url("image", "https://e.org/a.png")),
        (Image(PIXEL), inline("image", "image/png", "iVBORw0KGgo=")),
        (Video("https://e.org/a.mp4"), url("video", "https://e.org/a.mp4")),
        (Video("data:video/mp4;base64,AAAA"), inline("video", "video/mp4", "AAAA")),
        (Audio("AAAA", "mp3"), inline("audio", "audio/mp3", "AAAA")),
        (Audio("AAAA"), inline("audio", "audio/wav", "AAAA")),
        (Audio("data:audio/ogg;base64,AAAA"), inline("audio", "audio/ogg", "AAAA")),
        (Audio("https://e.org/a.wav"), url("audio", "https://e.org/a.wav")),
        (File(file_data=base64.b64encode("hällo".encode()).decode(), filename="a.txt"), "File a.txt:\nhällo"),
        (File(file_url="https://e.org/a.pdf", filename="a.pdf"), "https://e.org/a.pdf"),
        (File(file_id="file-1"), "file-1"),
        (File(file_data="/w==", filename="a.bin"), "not text"),
    ],
)
def test_content(content: Content, block: Any) -> None:
    ((made,),) = blocks(message(content))
    if isinstance(block, str):
        assert made["type"] == "text"
        assert block in made["text"]
    else:
        assert made == block


@pytest.mark.parametrize(
    ("role", "expected"),
    [("user", "user"), ("assistant", "assistant"), ("system", "system"), ("tool", "system")],
)
def test_roles(role: Role, expected: str) -> None:
    (msg,) = AgentScope1Adapter().messages([message(Text("hi"), role=role)])
    assert (msg.role, msg.name) == (expected, expected)


def test_names_and_metadata() -> None:
    one = message(Text("hi"), name="Ada", metadata={"mood": "calm"})
    two = message(
        Text("ho"), role="assistant", metadata={"original_id": "x", "original_name": "Bob", "metadata": None}
    )
    first, second = AgentScope1Adapter().messages([one, two])
    assert (first.name, first.metadata) == ("Ada", {"mood": "calm"})
    assert (second.name, second.metadata) == ("Bob", {})


def test_a_clients_ids_are_not_taken_for_ours() -> None:
    first, second = AgentScope1Adapter().messages([message(Text("a"), id="1"), message(Text("b"), id="1")])
    assert len({first.id, second.id, "1"}) == 3


@pytest.mark.parametrize(
    "content", [Image("/etc/passwd"), Video("file:///a.mp4"), Audio("FILE:///a.wav"), Image("a.png")]
)
def test_a_client_does_not_make_the_server_read_its_files(content: Content) -> None:
    with pytest.raises(InvalidRequest, match="http") as error:
        blocks(message(Text("first")), message(content))
    assert error.value.field == "input[1].content"


def test_nor_by_a_tools_output() -> None:
    with pytest.raises(InvalidRequest, match="http"):
        blocks(output([url("image", "/etc/passwd")]))


@pytest.mark.parametrize("type", ["plugin_call", "function_call", "mcp_call", "component_call"])
def test_calls(type: MessageType) -> None:
    ((block,),) = blocks(call(type=type))
    assert block == {
        "type": "tool_use",
        "id": "c1",
        "name": "search",
        "input": {"q": 1},
        "raw_input": '{"q":1}',
    }


@pytest.mark.parametrize("arguments", [None, "", "null", [], "[1]", '"text"', "{broken", 7])
def test_a_calls_arguments_are_an_object_whatever_was_sent(arguments: object) -> None:
    ((block,),) = blocks(call(arguments=arguments))
    assert block["input"] == {}


@pytest.mark.parametrize("arguments", [{"q": 1}, '{"q": 1}', '"{\\"q\\": 1}"'])
def test_a_calls_arguments_may_be_an_object_or_its_text(arguments: object) -> None:
    ((block,),) = blocks(call(arguments=arguments))
    assert block["input"] == {"q": 1}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('[{"type":"text","text":"x"}]', [{"type": "text", "text": "x"}]),
        ([{"type": "text", "text": "x"}], [{"type": "text", "text": "x"}]),
        ('[{"type":"image","image_url":"https://e.org/a.png"}]', [url("image", "https://e.org/a.png")]),
        ("plain", "plain"),
        ("[1, 2]", "[1, 2]"),
        ('{"a": 1}', '{"a": 1}'),
        ({"a": 1}, '{"a":1}'),
        (None, ""),
    ],
)
def test_outputs(value: object, expected: object) -> None:
    ((block,),) = blocks(output(value))
    assert block == {"type": "tool_result", "id": "c1", "name": "search", "output": expected}


def test_reasoning_is_thinking() -> None:
    assert blocks(message(Text("hm"), type="reasoning")) == [[{"type": "thinking", "thinking": "hm"}]]


def test_heartbeats_say_nothing() -> None:
    assert not blocks(message(type="heartbeat"))


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (message(Text("no data"), type="plugin_call"), "input[0].content"),
        (message(Data({"name": "x"}), type="mcp_call_output"), "input[0].content"),
        (message(Data({"call_id": "c"}), type="function_call"), "input[0].content[0].data.name"),
    ],
)
def test_a_call_that_does_not_say_what_is_refused(bad: Message, field: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        blocks(bad)
    assert error.value.field == field


async def test_a_conversation_with_parallel_calls_is_what_a_model_service_accepts() -> None:
    """Each call's output must follow the one assistant message that holds all the calls."""
    msgs = AgentScope1Adapter().messages(
        [
            message(Text("weather?")),
            message(Text("hm"), role="assistant", type="reasoning"),
            message(Text("I look."), role="assistant"),
            call("c1"),
            call("c2"),
            output("sunny", "c1"),
            output("rainy", "c2"),
            message(Text("Both."), role="assistant"),
        ]
    )
    sent = await OpenAIChatFormatter().format(msgs)
    assert [entry["role"] for entry in sent] == ["user", "assistant", "tool", "tool", "assistant"]
    assert [made["id"] for made in sent[1]["tool_calls"]] == ["c1", "c2"]
    assert json.loads(sent[1]["tool_calls"][0]["function"]["arguments"]) == {"q": 1}
    assert [entry["content"] for entry in sent[2:4]] == ["sunny", "rainy"]


def test_messages_of_one_origin_become_one_msg_again() -> None:
    origin = {"original_id": "m1", "original_name": "Friday"}
    parts = [
        message(Text("hm"), role="assistant", type="reasoning", metadata=origin),
        message(Text("a"), role="assistant", metadata=origin),
        message(Text("b"), role="assistant", metadata={**origin, "original_id": "m2"}),
    ]
    assert [len(made) for made in blocks(*parts)] == [2, 1]
