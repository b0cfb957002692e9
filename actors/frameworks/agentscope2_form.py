"""How AgentScope 2.x messages stand in a session's history: readable by whoever reads histories, and without loss.

A `Msg` holds a whole reply, blocks of all kinds in their order. In the history it is a run of messages as `/process`
knows them: `message`, `reasoning`, `plugin_call`, `plugin_call_output`. What those have no field for (ids, times, tool
states, a provider's extras) is in their metadata under `agentscope2`, nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

import msgspec
from agentscope.message import (
    DataBlock,
    HintBlock,
    Msg,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from pydantic import BaseModel

from greenroom.actors.frameworks.agentscope2_blocks import part_of_block
from greenroom.actors.frameworks.agentscope2_input import msg_of
from greenroom.actors.messages import (
    Audio,
    Content,
    Data,
    File,
    Image,
    Message,
    MessageType,
    Role,
    Text,
    Video,
)

KEY = "agentscope2"

SELF = ("id", "name", "role")

KINDS: dict[type, tuple[MessageType, Role | None]] = {
    TextBlock: ("message", None),  # the role of its Msg
    DataBlock: ("message", None),
    HintBlock: ("message", "system"),
    ThinkingBlock: ("reasoning", "assistant"),
    ToolCallBlock: ("plugin_call", "assistant"),
    ToolResultBlock: ("plugin_call_output", "tool"),
}
"""What a message made of such a block is."""

ALONE = (HintBlock, ToolCallBlock, ToolResultBlock)
"""Blocks that make a message each; of the others, neighbours of one kind share one."""


def messages_of(msg: Msg, blocks: Sequence[Any] | None = None, start: int = 0) -> list[Message]:
    """The history's messages for a `Msg`, or for those of its `blocks` that come after the first `start`."""
    about = msg.model_dump(mode="json", exclude={"content"})
    messages: list[Message] = []
    for at, run in _runs(msg.content if blocks is None else blocks, start):
        kind, role = KINDS[type(run[0])] if run else ("message", None)
        parts, rests = _hint(run[0]) if run and isinstance(run[0], HintBlock) else _parts(run)
        # All about it stands with the first; the rest of the run can stand alone when a history drops its oldest.
        kept = {"msg": {name: about[name] for name in SELF} if messages else about, "blocks": rests}
        messages.append(Message(parts, role or msg.role, kind, f"{msg.id}:{at}", {KEY: kept}, msg.name))
    return messages


def msgs_of_history(messages: Iterable[Message]) -> list[Msg]:
    """The `Msg` objects that a history's messages were made of; those of other frameworks as AgentScope takes them."""
    msgs: list[Msg] = []
    for origin, group in groupby(messages, msg_id):
        if origin is None:
            msgs += [msg_of(message, "history") for message in group if message.type != "heartbeat"]
        else:
            msgs.append(_msg(list(group)))
    return msgs


def msg_id(message: Message) -> str | None:
    """The id of the `Msg` that a history's message was made of; none: it is of another origin."""
    kept = (message.metadata or {}).get(KEY)
    return kept["msg"]["id"] if kept is not None else None


def _msg(messages: Sequence[Message]) -> Msg:
    about: dict[str, Any] = {}
    content: list[Any] = []
    for message in messages:
        kept = (message.metadata or {})[KEY]
        about |= kept["msg"]  # the last full one counts: a reply that was resumed has its later end
        content += _blocks(message, kept["blocks"])
    return Msg.model_validate(about | {"content": content})


def _runs(blocks: Sequence[Any], start: int) -> list[tuple[int, list[Any]]]:
    """Blocks as runs that make a message each, with the place of the first."""
    runs: list[tuple[int, list[Any]]] = []
    for at, block in enumerate(blocks, start):
        previous = runs[-1][1][-1] if runs else None
        if previous is None or isinstance(block, ALONE) or KINDS[type(previous)] != KINDS[type(block)]:
            runs.append((at, [block]))
        else:
            runs[-1][1].append(block)
    return runs or [(start, [])]


# -- blocks: the part a reader sees, and the rest ----------------------------------------------------------------------


def _parts(blocks: Sequence[Any]) -> tuple[tuple[Content, ...], list[dict[str, Any]]]:
    pairs = [_PART[type(block)](block) for block in blocks]
    return tuple(part for part, _ in pairs), [rest for _, rest in pairs]


def _rest(block: BaseModel, *told: str) -> dict[str, Any]:
    rest: dict[str, Any] = block.model_dump(mode="json", exclude=set(told))
    return rest


def _text(block: TextBlock) -> tuple[Content, dict[str, Any]]:
    return Text(block.text), _rest(block, "text")


def _thinking(block: ThinkingBlock) -> tuple[Content, dict[str, Any]]:
    return Text(block.thinking), _rest(block, "thinking")


def _data(block: DataBlock) -> tuple[Content, dict[str, Any]]:
    rest = _rest(block)
    rest["source"].pop("data", None)
    rest["source"].pop("url", None)
    return part_of_block(block), rest


def _call(block: ToolCallBlock) -> tuple[Content, dict[str, Any]]:
    return Data({"call_id": block.id, "name": block.name, "arguments": block.input}), _rest(
        block, "id", "name", "input"
    )


def _result(block: ToolResultBlock) -> tuple[Content, dict[str, Any]]:
    rest = _rest(block, "id", "name", "output")
    parts: tuple[Content, ...]
    if isinstance(block.output, str):
        parts = (Text(block.output),)
    else:
        parts, rest["output"] = _parts(block.output)
    output = msgspec.json.encode(parts).decode()
    return Data({"call_id": block.id, "name": block.name, "output": output}), rest


def _hint(block: HintBlock) -> tuple[tuple[Content, ...], list[dict[str, Any]]]:
    """A hint's parts; its own rest stands first, those of the blocks in it after."""
    rest = _rest(block, "hint")
    if isinstance(block.hint, str):
        return (Text(block.hint),), [rest]
    parts, rests = _parts(block.hint)
    return parts, [rest, *rests]


_PART: dict[type, Callable[[Any], tuple[Content, dict[str, Any]]]] = {
    TextBlock: _text,
    ThinkingBlock: _thinking,
    DataBlock: _data,
    ToolCallBlock: _call,
    ToolResultBlock: _result,
}


# -- and back ----------------------------------------------------------------------------------------------------------


def _blocks(message: Message, rests: Sequence[dict[str, Any]]) -> list[Any]:
    if rests and rests[0]["type"] == "hint":
        parts, rest = message.content, rests[0]
        if len(rests) == 1 and len(parts) == 1:
            return [rest | {"hint": _told(parts[0])}]
        return [rest | {"hint": [_whole(part, inner) for part, inner in zip(parts, rests[1:], strict=True)]}]
    return [_whole(part, rest) for part, rest in zip(message.content, rests, strict=True)]


def _whole(part: Content, rest: dict[str, Any]) -> dict[str, Any]:
    """The block that a part and its rest were made of, as a dict that pydantic reads."""
    kind = rest["type"]
    if kind == "data":
        source = rest["source"]
        told = "url" if source["type"] == "url" else "data"
        payload = _told(part)
        if told == "data" and not isinstance(part, Audio):
            payload = payload.removeprefix(f"data:{source['media_type']};base64,")
        return rest | {"source": source | {told: payload}}
    if isinstance(part, Data):
        return _tool(part.data, rest)
    return rest | {kind: _told(part)}


def _tool(told: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
    named = rest | {"id": told["call_id"], "name": told["name"]}
    if rest["type"] == "tool_call":
        return named | {"input": told["arguments"]}
    parts = msgspec.json.decode(told["output"], type=list[Content])
    if "output" not in rest:
        return named | {"output": _told(parts[0])}
    return named | {
        "output": [_whole(part, inner) for part, inner in zip(parts, rest["output"], strict=True)]
    }


def _told(part: Content) -> str:
    """The one text of a part."""
    match part:
        case Text(text):
            return text
        case Image(uri) | Video(uri):
            return uri
        case Audio(data):
            return data
        case File():
            return part.file_url or part.file_data or ""
    raise TypeError(f"a {type(part).__name__} was not made of an AgentScope block")
