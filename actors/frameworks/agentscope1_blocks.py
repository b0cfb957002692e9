"""AgentScope 1.x content blocks from and to ours, and a turn's input as `Msg` objects. No I/O."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
from agentscope.message import Msg

from greenroom.actors.errors import HandlerError, InvalidRequest
from greenroom.actors.messages import Audio, Content, Data, File, Image, Message, Refusal, Text, Video

Block: TypeAlias = dict[str, Any]

CALLS = frozenset({"plugin_call", "function_call", "mcp_call", "component_call"})
OUTPUTS = frozenset(
    {"plugin_call_output", "function_call_output", "component_call_output", "mcp_call_output"}
)
MEDIA = frozenset({"image", "audio", "video"})

_ERRORS = (
    "Error: ",
    "Error occurred when calling MCP tool:",
    "FunctionNotFoundError: ",
    "FunctionInactiveError: ",
)
"""How the output of a call that failed begins."""

# ------------------------------------------------------------------------------------------------- from AgentScope


def to_content(block: Block) -> Content:
    """A text, image, audio or video block as content. Raises `HandlerError` for other blocks."""
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "text":
        return Text(block.get("text") or "")
    if kind in MEDIA:
        source = block.get("source")
        if not isinstance(source, dict) or source.get("type") not in {"url", "base64"}:
            raise HandlerError(
                f"an AgentScope {kind} block needs a source with type url or base64, not {source!r:.80}"
            )
        if kind == "audio":
            return _audio(source)
        return Image(_uri(source)) if kind == "image" else Video(_uri(source))
    raise unknown_block(block)


def unknown_block(block: object) -> HandlerError:
    """The error for a block that AgentScope 1.x does not have."""
    kind = repr(block.get("type")) if isinstance(block, dict) else type(block).__name__
    return HandlerError(
        f"the AgentScope message has a block of type {kind}, which has no meaning here; known are text, thinking, "
        "tool_use, tool_result, image, audio and video"
    )


def to_contents(output: object) -> tuple[Content, ...]:
    """What a tool_result block holds in `output`: a string or a list of blocks."""
    if isinstance(output, str):
        return (Text(output),) if output else ()
    return tuple(to_content(block) for block in _list_of(output))


def is_error(output: Sequence[Content]) -> bool:
    """Whether a tool's output says that the call failed: AgentScope 1.x has nothing but words for it."""
    return len(output) == 1 and isinstance(output[0], Text) and output[0].text.startswith(_ERRORS)


def described(msg: Msg) -> dict[str, Any]:
    """What goes with an item of its `Msg`: its metadata, and who said it."""
    metadata = msgspec.to_builtins(msg.metadata, str_keys=True, enc_hook=str) if msg.metadata else {}
    return {**metadata, "original_id": msg.id, "original_name": msg.name}


def final_arguments(block: Block) -> str:
    """A complete tool_use block's arguments: the JSON text the model wrote, or, if it is no object, what AgentScope
    made of it and called the tool with."""
    raw = block.get("raw_input")
    if isinstance(raw, str) and isinstance(_decoded(raw), dict):
        return raw
    return to_json(block.get("input") or {})


def to_json(value: object) -> str:
    """JSON text; what JSON has no form for goes as its `str()`."""
    return msgspec.json.encode(value, enc_hook=str).decode()


def _audio(source: Block) -> Audio:
    if source["type"] == "url":
        return Audio(source.get("url") or "")
    return Audio(
        source.get("data") or "", str(source.get("media_type") or "audio/wav").removeprefix("audio/")
    )


def _uri(source: Block) -> str:
    if source["type"] == "url":
        return source.get("url") or ""
    return f"data:{source.get('media_type') or ''};base64,{source.get('data') or ''}"


def _list_of(output: object) -> Sequence[Any]:
    if output is None:
        return ()
    if not isinstance(output, list | tuple):
        raise HandlerError(
            f"a tool_result's output is a string or a list of blocks, not {type(output).__name__}"
        )
    return output


# --------------------------------------------------------------------------------------------------- to AgentScope


def to_block(content: Content) -> Block:
    """Content as a block. What AgentScope has no block for (data, files, refusals) becomes text."""
    if isinstance(content, Text):
        return {"type": "text", "text": content.text}
    if isinstance(content, Image):
        return {"type": "image", "source": _source(content.image_url)}
    if isinstance(content, Video):
        return {"type": "video", "source": _source(content.video_url)}
    if isinstance(content, Audio):
        return {"type": "audio", "source": _audio_source(content)}
    if isinstance(content, Data):
        return {"type": "text", "text": to_json(content.data)}
    if isinstance(content, Refusal):
        return {"type": "text", "text": content.refusal}
    return {"type": "text", "text": _file_text(content)}


def to_output(value: object) -> str | list[Block]:
    """The output of a `…_output` message, JSON text of a list of blocks, as a tool_result holds it. Other text is
    taken as it is."""
    items = _decoded(value) if isinstance(value, str) else value
    if isinstance(items, list):
        blocks = [_output_block(item) for item in items]
        if all(block is not None for block in blocks):
            return [block for block in blocks if block is not None]
    return value if isinstance(value, str) else to_json(value)


def arguments_object(value: object) -> dict[str, Any]:
    """The arguments of a call as the object they must be; what is none (`null`, `""`, a list) as the empty one.

    A call stored badly once must not make each later turn of its session fail.
    """
    for _ in range(2):  # JSON text, or JSON text in a JSON string
        if isinstance(value, str):
            value = _decoded(value)
    return value if isinstance(value, dict) else {}


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None


def _source(uri: str) -> Block:
    head, comma, data = uri.partition(",")
    if comma and head.startswith("data:") and head.endswith(";base64"):
        return {"type": "base64", "media_type": head[len("data:") : -len(";base64")], "data": data}
    return {"type": "url", "url": uri}


def _audio_source(audio: Audio) -> Block:
    if audio.data.startswith("data:") or "://" in audio.data[:16]:
        return _source(audio.data)
    form = audio.format or "wav"
    return {"type": "base64", "media_type": form if "/" in form else f"audio/{form}", "data": audio.data}


def _file_text(file: File) -> str:
    """A file as text: what it says if that is text, else what it is called and where it is."""
    told = {"type": "file", "filename": file.filename, "file_url": file.file_url, "file_id": file.file_id}
    if file.file_data is not None:
        data = file.file_data.partition(";base64,")[2] or file.file_data
        try:
            content = base64.b64decode(data, validate=True)
            return f"File {file.filename or 'without a name'}:\n{content.decode()}"
        except (binascii.Error, UnicodeDecodeError):
            told["note"] = "the file's content is not text and is not shown"
    return to_json({key: value for key, value in told.items() if value is not None})


def _output_block(item: object) -> Block | None:
    """One item of a tool's output: an AgentScope block, or content as our protocols write it."""
    if isinstance(item, dict):
        if item.get("type") in MEDIA and isinstance(item.get("source"), dict):
            return item
        try:
            return to_block(msgspec.convert(item, Content))
        except msgspec.ValidationError:
            return None
    return None


# -------------------------------------------------------------------------------------------------- a turn's input


def to_msgs(messages: Sequence[Message], *, ours: bool = False) -> list[Msg]:
    """Messages as `Msg` objects.

    The calls of one model answer, with the reasoning and text before them, become one `Msg`, as AgentScope has it and
    model services want it. `ours`: they come from our own history. A client's ids are not kept, or it could make a
    memory take its message for one that it holds already; and its media must not name files of this machine, which
    AgentScope would read. Raises `InvalidRequest` for those, and for calls that do not say what is called.
    """
    msgs: list[Msg] = []
    before: Message | None = None
    for number, message in enumerate(messages):
        if message.type == "heartbeat":
            continue
        blocks = _own_blocks(message) if ours else _checked_blocks(message, number)
        if before is not None and _continues(before, message):
            msgs[-1].content.extend(blocks)
        else:
            msgs.append(_new_msg(message, blocks, ours))
        before = message
    return msgs


def message_blocks(message: Message, number: int = 0) -> list[Block]:
    """The blocks of one message. `number`: where it stands in the input, for errors."""
    if message.type in CALLS:
        return [_call_block(data, number) for data in _tool_data(message, number)]
    if message.type in OUTPUTS:
        return [_output_of(data) for data in _tool_data(message, number)]
    if message.type == "reasoning":
        return [
            {"type": "thinking", "thinking": to_block(content).get("text") or ""}
            for content in message.content
        ]
    return [to_block(content) for content in message.content]


def _own_blocks(message: Message) -> list[Block]:
    """The blocks of a message of our history: one that is flawed must not make each later turn fail."""
    try:
        return message_blocks(message)
    except InvalidRequest:
        return [to_block(content) for content in message.content]


def _checked_blocks(message: Message, number: int) -> list[Block]:
    blocks = message_blocks(message, number)
    _check_sources(blocks, number)
    return blocks


def _check_sources(blocks: Sequence[Block], number: int) -> None:
    for block in blocks:
        output = block.get("output")
        if isinstance(output, list):
            _check_sources(output, number)
        source = block.get("source")
        if (
            isinstance(source, dict)
            and source.get("type") != "base64"
            and not _is_remote(str(source.get("url")))
        ):
            raise InvalidRequest(
                f"input[{number}] refers to the {block['type']} {source.get('url')!r:.80}; give an http(s) URL or a "
                "data URI, the server does not read files of its own for clients",
                field=f"input[{number}].content",
            )


def _is_remote(url: str) -> bool:
    scheme, separator, _ = url.partition(":")
    return scheme.lower() == "data" or (
        url.startswith("//", len(scheme) + len(separator)) and scheme.lower() != "file"
    )


def _call_block(data: dict[str, Any], number: int) -> Block:
    if not data.get("name"):
        raise InvalidRequest(
            f"input[{number}] calls a tool and does not say which; its data needs a `name`",
            field=f"input[{number}].content[0].data.name",
        )
    arguments = data.get("arguments")
    block = {"type": "tool_use", "id": str(data["call_id"]), "name": str(data["name"])}
    block["input"] = arguments_object(arguments)  # type: ignore[assignment]
    block["raw_input"] = arguments if isinstance(arguments, str) else to_json(block["input"])
    return block


def _output_of(data: dict[str, Any]) -> Block:
    block = {"type": "tool_result", "id": str(data["call_id"]), "name": str(data.get("name") or "")}
    block["output"] = to_output(data.get("output") or "")  # type: ignore[assignment]
    return block


def _tool_data(message: Message, number: int) -> list[dict[str, Any]]:
    found = [
        content.data
        for content in message.content
        if isinstance(content, Data) and content.data.get("call_id")
    ]
    if not found:
        raise InvalidRequest(
            f"input[{number}] is a {message.type} and has no data content with a call_id; send "
            '{"type": "data", "data": {"call_id": …, "name": …, …}}',
            field=f"input[{number}].content",
        )
    return found


def _continues(before: Message, message: Message) -> bool:
    """Whether two messages that follow each other are parts of one `Msg`."""
    origin = _metadata(message).get("original_id")
    if origin is not None or _metadata(before).get("original_id") is not None:
        return bool(origin == _metadata(before).get("original_id"))
    if before.name != message.name or before.type in OUTPUTS or message.type in OUTPUTS:
        return False
    if message.type in CALLS:
        return before.type in CALLS or before.type == "reasoning" or before.role == "assistant"
    return before.type == "reasoning" and message.type == "message" and message.role == "assistant"


def _new_msg(message: Message, blocks: list[Block], ours: bool) -> Msg:
    metadata = _metadata(message)
    role = message.role
    if message.type in CALLS or message.type == "reasoning":
        role = "assistant"
    elif message.type in OUTPUTS or role == "tool":  # AgentScope has no role for tools
        role = "system"
    name = message.name or metadata.get("original_name") or role
    inner = metadata.get("metadata") if "original_id" in metadata else metadata
    msg = Msg(str(name), blocks, role, metadata=inner or None)
    if ours:
        msg.id = str(metadata.get("original_id") or message.id or msg.id)
    return msg


def _metadata(message: Message) -> dict[str, Any]:
    return message.metadata or {}
