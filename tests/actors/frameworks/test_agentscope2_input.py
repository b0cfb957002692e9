"""A turn's input becomes AgentScope 2.x messages."""

from typing import Any

import pytest

from kits.agentscope_line import require_line

require_line(2)

from agentscope.message import DataBlock, TextBlock, ThinkingBlock, ToolCallBlock, ToolResultBlock

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.frameworks.agentscope2 import AgentScope2Adapter
from greenroom.actors.frameworks.agentscope2_blocks import (
    join_base64,
    parse_data_uri,
    part_of_block,
    tool_name,
)
from greenroom.actors.messages import Audio, Content, Data, File, Image, Message, Refusal, Text, Video

pytestmark = pytest.mark.agentscope2


def msgs(*messages: Message) -> list[Any]:
    return list(AgentScope2Adapter().messages(messages))


def block(part: Content) -> Any:
    (msg,) = msgs(Message((part,)))
    (only,) = msg.content
    return only


def source(part: Content) -> tuple[str, str]:
    """A part's media type, and its data or URL."""
    found = block(part).source
    return found.media_type, found.data if found.type == "base64" else str(found.url)


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_roles_and_names(role: Any) -> None:
    named, nameless = msgs(Message((Text("hi"),), role, name="alice"), Message((Text("hi"),), role))
    assert (named.role, named.name, nameless.name) == (role, "alice", role)
    assert [one.text for one in named.content] == ["hi"]


def test_metadata_is_kept_and_ids_are_ours() -> None:
    one, two = msgs(*[Message((Text("hi"),), id="1", metadata={"lang": "en"})] * 2)
    assert one.metadata == {"lang": "en"}
    assert len({one.id, two.id, "1"}) == 3, "a caller's ids may repeat"


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Image("data:image/png;base64,aGk="), ("image/png", "aGk=")),
        (Image("DATA:image/svg+xml,%3Csvg/%3E"), ("image/svg+xml", "PHN2Zy8+")),
        (Image("https://e.org/cat.webp?size=1"), ("image/webp", "https://e.org/cat.webp?size=1")),
        (Image("https://e.org/cat"), ("image/jpeg", "https://e.org/cat")),
        (Video("https://e.org/cat.webm"), ("video/webm", "https://e.org/cat.webm")),
        (Audio("aGk=", "mp3"), ("audio/mpeg", "aGk=")),
        (Audio("aGk="), ("audio/wav", "aGk=")),
        (Audio("https://e.org/cat", "flac"), ("audio/flac", "https://e.org/cat")),
        (Audio("data:audio/ogg;base64,aGk=", "wav"), ("audio/ogg", "aGk=")),
        (File(file_data="aGk=", filename="a.csv"), ("text/csv", "aGk=")),
        (File(file_data="aGk="), ("application/octet-stream", "aGk=")),
        (File(file_data="data:application/pdf;base64,aGk="), ("application/pdf", "aGk=")),
        (File(file_url="https://e.org/x", filename="a.pdf"), ("application/pdf", "https://e.org/x")),
    ],
)
def test_data(part: Content, expected: tuple[str, str]) -> None:
    assert source(part) == expected


def test_what_has_no_block_of_its_own_becomes_text() -> None:
    assert block(Data({"city": "Paris"})).text == '{"city":"Paris"}'
    assert block(Refusal("no")).text == "no"


def test_a_file_keeps_its_name() -> None:
    assert block(File(file_data="aGk=", filename="a.csv")).name == "a.csv"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (Message((Text("x"), Image("cat.png"))), "input[0].content[1].image_url"),
        (Message((Image("file:///etc/passwd"),)), "input[0].content[0].image_url"),
        (Message((File(file_url="FILE:///etc/passwd"),)), "input[0].content[0].file_url"),
        (Message((Audio("file:///etc/passwd"),)), "input[0].content[0].data"),
        (Message((File(file_id="file-1"),)), "input[0].content[0].file_id"),
        (Message((File(),)), "input[0].content[0]"),
        (Message((Image("https://e.org/a.png"),), "system"), "input[0].content[0]"),
        (Message((Text("x"),), "assistant", "plugin_call"), "input[0].content[0]"),
        (Message((Data({"name": "n"}),), "assistant", "mcp_call"), "input[0].content[0].data.call_id"),
        (
            Message((Data({"call_id": "c", "name": 1}),), "tool", "plugin_call_output"),
            "input[0].content[0].data.name",
        ),
        (Message((Data({}),), "assistant", "reasoning"), "input[0].content[0]"),
        (
            Message(
                (Data({"call_id": "c", "name": "n", "output": [{"type": "file", "file_id": "f"}]}),),
                "tool",
                "function_call_output",
            ),
            "input[0].content[0].data.output.file_id",
        ),
    ],
)
def test_what_agentscope_has_no_place_for_is_refused_by_name(message: Message, field: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        msgs(message)
    assert error.value.field == field


def test_tools_and_reasoning_are_the_assistants() -> None:
    thought, asked, answered, mcp = msgs(
        Message((Text("hmm"),), "assistant", "reasoning"),
        Message((Data({"call_id": "c", "name": "n", "arguments": {"x": 1}}),), "assistant", "function_call"),
        Message((Data({"call_id": "c", "name": "n", "output": "sunny"}),), "tool", "function_call_output"),
        Message((Data({"call_id": "d", "name": "find", "server_label": "maps"}),), "assistant", "mcp_call"),
    )
    assert {msg.role for msg in (thought, asked, answered, mcp)} == {"assistant"}
    assert isinstance(thought.content[0], ThinkingBlock)
    call, result = asked.content[0], answered.content[0]
    assert isinstance(call, ToolCallBlock)
    assert isinstance(result, ToolResultBlock)
    assert (call.id, call.name, call.input, call.state) == ("c", "n", '{"x":1}', "finished")
    assert (result.id, result.name, result.output) == ("c", "n", "sunny")
    assert (mcp.content[0].name, mcp.content[0].input) == ("mcp__maps__find", "")


@pytest.mark.parametrize(
    "output",
    [
        '[{"type": "text", "text": "y"}, {"type": "image", "image_url": "https://e.org/a.png"}]',
        [{"type": "text", "text": "y"}],
    ],
)
def test_an_output_of_parts(output: object) -> None:
    (msg,) = msgs(
        Message((Data({"call_id": "c", "name": "n", "output": output}),), "tool", "plugin_call_output")
    )
    first, *rest = msg.content[0].output
    assert isinstance(first, TextBlock)
    assert (first.text, [type(one) for one in rest]) == (
        "y",
        [DataBlock] * (1 if isinstance(output, str) else 0),
    )


def test_an_output_that_is_no_list_of_parts_is_text() -> None:
    (msg,) = msgs(
        Message((Data({"call_id": "c", "name": "n", "output": {"x": 1}}),), "tool", "plugin_call_output")
    )
    assert msg.content[0].output == '{"x":1}'


def test_heartbeats_are_no_messages() -> None:
    assert msgs(Message(type="heartbeat"), Message((Text("hi"),)))[0].get_text_content() == "hi"


@pytest.mark.parametrize(
    "part",
    [
        Text("hi"),
        Image("data:image/png;base64,aGk="),
        Image("https://e.org/a.png"),
        Audio("aGk=", "mp3"),
        Audio("https://e.org/a.wav", "wav"),
        Video("https://e.org/a.mp4"),
        File(file_data="data:text/csv;base64,aGk=", filename="a.csv"),
        File(file_url="https://e.org/a.pdf", filename="a.pdf"),
    ],
)
def test_every_block_kind_comes_back_as_it_went(part: Content) -> None:
    assert part_of_block(block(part)) == part


def test_names_of_tools() -> None:
    assert tool_name("search") == ("search", None)
    assert tool_name("mcp__maps__find__all") == ("find__all", "maps")
    assert tool_name("mcp__maps") == ("mcp__maps", None)


def test_base64() -> None:
    assert join_base64([]) == ""
    assert join_base64(["aGVs", "bG8="]) == "aGVsbG8="
    assert join_base64(["aGk=", "aGk="]) == "aGloaQ=="
    assert parse_data_uri("https://e.org") is None
    assert parse_data_uri("data:,hi") == ("", "aGk=")
