"""`Msg` objects of AgentScope 1.x as messages of a session history, and back without loss. No I/O.

One `Msg` becomes a message for each run of blocks of one kind (reasoning, a call, an output, text with pictures), as
clients and other frameworks know them. What they have no field for is in the metadata: `original_id`, `original_name`
and `metadata` as AgentScope Runtime had them, and under `agentscope` the rest, by which they become one `Msg` again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from itertools import groupby
from typing import Any

import msgspec
from agentscope.message import Msg
from msgspec import Struct

from greenroom.actors.errors import HandlerError, InvalidRequest
from greenroom.actors.frameworks.agentscope1_blocks import (
    Block,
    final_arguments,
    message_blocks,
    to_content,
    to_json,
    to_msgs,
)
from greenroom.actors.messages import Content, Data, Message, MessageType, Role, Text

DETAIL = "agentscope"
_BLANK = Msg("", "", "user")
"""Copied for each `Msg` that is read: making one anew takes ten times as long, for an id that it does not keep."""


class Entry(Struct):
    """A `Msg` in a memory, the marks it carries, and whether the history has it."""

    msg: Msg
    marks: list[str]
    stored: bool = False


def to_messages(msg: Msg, marks: Sequence[str] = ()) -> list[Message]:
    """A `Msg` as messages. What JSON has no form for goes as its `str()`."""
    blocks: list[Any] = [Text(msg.content)] if isinstance(msg.content, str) else list(msg.content)
    runs = list(_runs(blocks)) or [("message", [])]
    detail = {
        "parts": len(runs),
        "role": msg.role,
        "timestamp": msg.timestamp,
        "invocation_id": msg.invocation_id,
        "marks": list(marks),
    }
    if isinstance(msg.content, str):
        detail["text"] = True
    return [_message(msg, detail, index, kind, run) for index, (kind, run) in enumerate(runs)]


def to_entries(messages: Sequence[Message]) -> list[Entry]:
    """Messages as the `Msg` objects they came from. Those that came from none become what a handler would get."""
    entries: list[Entry] = []
    position = 0
    while position < len(messages):
        together = _group(messages, position)
        if together:
            entries.append(Entry(_msg(together), list(_detail(together[0]).get("marks") or ()), True))
        else:
            together = _foreign(messages, position)
            entries.extend(Entry(msg, [], True) for msg in to_msgs(together, ours=True))
        position += len(together)
    return entries


# -------------------------------------------------------------------------------------------------------- to messages


def _runs(blocks: Sequence[Any]) -> Iterator[tuple[MessageType, list[Any]]]:
    """The blocks in runs that make one message each; every call and every output is one of its own."""
    for kind, run in groupby(blocks, _message_type):
        if kind in {"plugin_call", "plugin_call_output"}:
            for block in run:
                yield kind, [block]
        else:
            yield kind, list(run)


def _message_type(block: Any) -> MessageType:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "thinking":
        return "reasoning"
    if kind == "tool_use":
        return "plugin_call"
    return "plugin_call_output" if kind == "tool_result" else "message"


def _message(msg: Msg, detail: dict[str, Any], index: int, kind: MessageType, run: list[Any]) -> Message:
    told = {**detail, "part": index} if index == 0 else {"part": index}
    role: Role = (
        "assistant" if kind in {"reasoning", "plugin_call"} else "tool" if kind != "message" else msg.role
    )
    content = tuple(_content(block) for block in run)
    message = Message(content, role, kind, _id(msg, index), None, msg.name)
    if "text" not in detail:
        blocks = _builtins(run)
        if not _reads_as(message, blocks):
            told["blocks"] = blocks
    metadata = {
        "original_id": msg.id,
        "original_name": msg.name,
        "metadata": _builtins(msg.metadata),
        DETAIL: told,
    }
    return msgspec.structs.replace(message, metadata=metadata)


def _id(msg: Msg, index: int) -> str:
    return f"{msg.id}-{index}" if index else str(msg.id)


def _content(block: Any) -> Content:
    """A block as content that reads well; where that says less than the block, the block itself is kept beside it."""
    if isinstance(block, Text):
        return block
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "thinking":
        return Text(str(block.get("thinking") or ""))
    if kind == "tool_use":
        return Data(
            {
                "call_id": str(block.get("id")),
                "name": str(block.get("name")),
                "arguments": final_arguments(block),
            }
        )
    if kind == "tool_result":
        output = block.get("output")
        listed = [{"type": "text", "text": output}] if isinstance(output, str) else output or []
        return Data(
            {"call_id": str(block.get("id")), "name": str(block.get("name")), "output": to_json(listed)}
        )
    try:
        return to_content(block)
    except HandlerError:
        return Data(_builtins(block) if isinstance(block, dict) else {"block": _builtins(block)})


def _reads_as(message: Message, blocks: list[Any]) -> bool:
    """Whether reading the message gives these blocks again: as JSON, where 1 is not True."""
    try:
        read = message_blocks(message)
    except InvalidRequest:  # a call without an id or a name
        return False
    return msgspec.json.encode(read, order="deterministic") == msgspec.json.encode(
        blocks, order="deterministic"
    )


def _builtins(value: object) -> Any:
    """A copy made of plain data: services store no more than that."""
    return msgspec.to_builtins(value, str_keys=True, enc_hook=str)


# ------------------------------------------------------------------------------------------------------ from messages


def _detail(message: Message) -> dict[str, Any]:
    detail = (message.metadata or {}).get(DETAIL)
    return detail if isinstance(detail, dict) else {}


def _group(messages: Sequence[Message], position: int) -> Sequence[Message]:
    """The messages of one `Msg` that begin there; none when they did not come from one, or some are missing."""
    head = messages[position]
    parts = _detail(head).get("parts")
    if not isinstance(parts, int) or parts < 1:
        return ()
    group = messages[position : position + parts]
    origin = (head.metadata or {}).get("original_id")
    whole = len(group) == parts and all(
        (message.metadata or {}).get("original_id") == origin and _detail(message).get("part") == index
        for index, message in enumerate(group)
    )
    return group if whole else ()


def _msg(group: Sequence[Message]) -> Msg:
    metadata = group[0].metadata or {}
    detail = _detail(group[0])
    content: str | list[Block]
    if detail.get("text"):
        text = group[0].content[0]
        assert isinstance(text, Text)
        content = text.text
    else:
        content = [block for message in group for block in _blocks(message)]
    msg = copy(_BLANK)
    msg.id = metadata.get("original_id")
    msg.name = metadata.get("original_name")
    msg.role = detail.get("role")
    msg.content = content
    msg.metadata = metadata.get("metadata")
    msg.timestamp = detail.get("timestamp")
    msg.invocation_id = detail.get("invocation_id")
    return msg


def _blocks(message: Message) -> list[Block]:
    kept = _detail(message).get("blocks")
    return kept if kept is not None else message_blocks(message)


def _foreign(messages: Sequence[Message], position: int) -> Sequence[Message]:
    """The messages from there on that came from no `Msg` of ours."""
    end = position + 1
    while end < len(messages) and not _group(messages, end):
        end += 1
    return messages[position:end]
