"""A turn's input as AgentScope 2.x messages.

One `Msg` for each message. AgentScope allows text and data in a user's message, text in a system message, and anything
in an assistant's, which is where tool calls and their outputs go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec
from agentscope.message import (
    DataBlock,
    Msg,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolCallState,
    ToolResultBlock,
    ToolResultState,
)

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.frameworks.agentscope2_blocks import MCP_PREFIX, block_of
from greenroom.actors.messages import Content, Data, Message, Text

CALLS = frozenset({"plugin_call", "function_call", "component_call", "mcp_call"})
OUTPUTS = frozenset(
    {"plugin_call_output", "function_call_output", "component_call_output", "mcp_call_output"}
)
HISTORY_BLOCKS = frozenset({"tool_call", "tool_result", "thinking"})
"""Blocks that only an agent's own past can hold: `Agent.reply_stream` refuses them in its input."""

Role: TypeAlias = Literal["user", "assistant", "system"]


def msgs_of(messages: Sequence[Message]) -> list[Msg]:
    """The input as `Msg` objects, with new ids (a caller's own may repeat).

    Raises `InvalidRequest` for what AgentScope 2.x has no place for.
    """
    return [
        msg_of(message, f"input[{number}]")
        for number, message in enumerate(messages)
        if message.type != "heartbeat"
    ]


def msg_of(message: Message, where: str) -> Msg:
    """One message; `where` it stands goes into errors."""
    role: Role = "assistant" if message.role == "tool" else message.role
    content: list[Any]
    places = [(part, f"{where}.content[{number}]") for number, part in enumerate(message.content)]
    if message.type in CALLS:
        role, content = "assistant", [_call(part, place) for part, place in places]
    elif message.type in OUTPUTS:
        role, content = "assistant", [_output(part, place) for part, place in places]
    elif message.type == "reasoning":
        role, content = "assistant", [_thought(part, place) for part, place in places]
    else:
        content = [block_of(part, place) for part, place in places]
    if role == "system":
        _check_system(content, places)
    return Msg(name=message.name or role, role=role, content=content, metadata=message.metadata or {})


def is_history(msg: Msg) -> bool:
    """Whether a message can only be part of what went before: an agent refuses it as something new to answer."""
    return msg.role == "system" or any(block.type in HISTORY_BLOCKS for block in msg.content)


def _check_system(content: Sequence[object], places: Sequence[tuple[Content, str]]) -> None:
    for block, (part, place) in zip(content, places, strict=True):
        if not isinstance(block, TextBlock):
            raise InvalidRequest(
                f"a system message holds text alone; send the {type(part).__name__.lower()} in a user message",
                field=place,
            )


def _thought(part: Content, where: str) -> ThinkingBlock:
    if not isinstance(part, Text):
        raise InvalidRequest("reasoning is text", field=where)
    return ThinkingBlock(thinking=part.text)


def _call(part: Content, where: str) -> ToolCallBlock:
    call = _fields(part, where)
    arguments = call.get("arguments") or ""
    if not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()
    # It is over: what is left open here would make the agent wait for somebody to confirm it.
    return ToolCallBlock(
        id=_named(call, "call_id", where),
        name=_name(call, where),
        input=arguments,
        state=ToolCallState.FINISHED,
    )


def _output(part: Content, where: str) -> ToolResultBlock:
    output = _fields(part, where)
    return ToolResultBlock(
        id=_named(output, "call_id", where),
        # Some protocols name the call alone; whose it is stands with the call.
        name=_name(output, where) if output.get("name") else "",
        output=_blocks(output.get("output"), f"{where}.data.output"),
        state=ToolResultState.SUCCESS,
    )


def _blocks(output: Any, where: str) -> str | list[TextBlock | DataBlock]:
    """A tool's output: a list of parts (or its JSON text), or else plain text."""
    try:
        if isinstance(output, str):
            parts = msgspec.json.decode(output, type=list[Content])
        else:
            parts = msgspec.convert(output, list[Content])
    except (msgspec.ValidationError, msgspec.DecodeError):
        return output if isinstance(output, str) else msgspec.json.encode(output).decode()
    if not parts and isinstance(output, str):
        return output
    return [block_of(part, where) for part in parts]


def _fields(part: Content, where: str) -> dict[str, Any]:
    if not isinstance(part, Data):
        raise InvalidRequest(
            "a tool's call or output is a data part: {call_id, name, arguments} or {call_id, name, output}",
            field=where,
        )
    return part.data


def _named(fields: dict[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"a tool's call or output needs {name}, a text", field=f"{where}.data.{name}")
    return value


def _name(fields: dict[str, Any], where: str) -> str:
    name = _named(fields, "name", where)
    label = fields.get("server_label")
    return f"{MCP_PREFIX}{label}__{name}" if label else name
