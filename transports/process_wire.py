"""The objects of the `/process` wire, field by field in the order they are written.

What nests (a message's contents, a response's messages) is `Raw`: the writer reuses bytes it has encoded before, the
reader decodes what it looks at with `decode_object`.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

Status: TypeAlias = Literal["created", "in_progress", "completed", "failed", "canceled", "incomplete"]


class WireError(Struct, frozen=True):
    """Why a response failed. `id`: what the server's log has it under; `field`: what in the request is wrong."""

    code: str
    message: str
    id: str | None = None
    field: str | UnsetType = UNSET


class InputTokens(Struct, frozen=True, gc=False):
    """Of the input tokens, those the model had cached."""

    cached_tokens: int


class OutputTokens(Struct, frozen=True, gc=False):
    """Of the output tokens, those it spent on reasoning."""

    reasoning_tokens: int


class WireUsage(Struct, frozen=True):
    """Tokens of a message or a response."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputTokens
    output_tokens_details: OutputTokens


class Response(Struct, frozen=True, kw_only=True):
    """A turn as the client sees it. `output`: its messages."""

    sequence_number: int | None
    object: Literal["response"] = "response"
    status: Status
    error: WireError | None = None
    id: str
    created_at: int
    completed_at: int | None = None
    output: list[Raw] | None = None
    usage: WireUsage | None = None
    session_id: str


class Message(Struct, frozen=True, kw_only=True):
    """A message of the output, a call of a tool or a tool's output. `content`: its contents."""

    sequence_number: int
    object: Literal["message"] = "message"
    status: Status
    error: WireError | None = None
    id: str
    type: str
    role: str
    content: list[Raw] | None = None
    code: str | None = None
    message: str | None = None
    usage: WireUsage | None = None
    metadata: dict[str, Any] | None = None


class Content(Struct, frozen=True, kw_only=True):
    """What all contents have. `delta`: true: a piece; false: a snapshot that grows; null: the whole."""

    sequence_number: int
    object: Literal["content"] = "content"
    status: Status
    error: WireError | None = None
    type: str
    index: int
    delta: bool | None
    msg_id: str


class TextContent(Content, frozen=True, kw_only=True):
    """Text, or a piece of it."""

    text: str


class DataContent(Content, frozen=True, kw_only=True):
    """An object; for tools `{call_id, name, arguments}` or `{call_id, name, output}`."""

    data: dict[str, Any]


class ImageContent(Content, frozen=True, kw_only=True):
    """A picture."""

    image_url: str


class AudioContent(Content, frozen=True, kw_only=True):
    """Sound."""

    data: str
    format: str | None


class VideoContent(Content, frozen=True, kw_only=True):
    """A film."""

    video_url: str


class FileContent(Content, frozen=True, kw_only=True):
    """A file."""

    file_url: str | None
    file_id: str | None
    filename: str | None
    file_data: str | None


class RefusalContent(Content, frozen=True, kw_only=True):
    """The model's words for declining."""

    refusal: str


WireObject: TypeAlias = Response | Message | Content


class _Kind(Struct):
    object: str
    type: str = ""


CONTENTS: dict[str, type[Content]] = {
    "text": TextContent,
    "data": DataContent,
    "image": ImageContent,
    "audio": AudioContent,
    "video": VideoContent,
    "file": FileContent,
    "refusal": RefusalContent,
}
"""Contents by their `type`."""
_kind = msgspec.json.Decoder(_Kind)


def decode_object(line: bytes | str | Raw) -> WireObject:
    """The object a `data:` line, or a nested `Raw`, holds. Raises `msgspec.DecodeError` for anything else."""
    kind = _kind.decode(line)
    if kind.object == "response":
        return msgspec.json.decode(line, type=Response)
    if kind.object == "message":
        return msgspec.json.decode(line, type=Message)
    content = CONTENTS.get(kind.type)
    if kind.object != "content" or content is None:
        raise msgspec.ValidationError(f"an object {kind.object!r} of type {kind.type!r} is not known here")
    return msgspec.json.decode(line, type=content)
