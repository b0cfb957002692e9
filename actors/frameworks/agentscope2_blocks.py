"""Content parts of ours and content blocks of AgentScope 2.x, each as the other."""

from __future__ import annotations

import binascii
import mimetypes
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec
from agentscope.message import Base64Source, DataBlock, TextBlock, URLSource
from pydantic import AnyUrl, ValidationError

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.messages import Audio, Content, Data, File, Image, Refusal, Text, Video

# Model APIs speak of "mp3", media types of "audio/mpeg".
_FORMAT_OF_SUBTYPE = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav"}
_SUBTYPE_OF_FORMAT = {"mp3": "mpeg"}

# What is assumed of a URL whose path does not tell.
_DEFAULT_MEDIA_TYPE = {
    "image": "image/jpeg",
    "audio": "audio/wav",
    "video": "video/mp4",
    "file": "application/octet-stream",
}

MCP_PREFIX = "mcp__"


def part_of(
    media_type: str, *, data: str | None = None, url: str | None = None, name: str | None = None
) -> Content:
    """The part for one piece of data, which is `data` (base64) or lies at `url`."""
    kind, _, subtype = media_type.partition("/")
    if kind == "audio":
        return Audio(url or data or "", _FORMAT_OF_SUBTYPE.get(subtype, subtype) or None)
    uri = url if url is not None else f"data:{media_type};base64,{data or ''}"
    if kind == "image":
        return Image(uri)
    if kind == "video":
        return Video(uri)
    return File(file_url=uri, filename=name) if url is not None else File(file_data=uri, filename=name)


def part_of_block(block: TextBlock | DataBlock) -> Content:
    """The part for a text or data block."""
    if isinstance(block, TextBlock):
        return Text(block.text)
    source = block.source
    if isinstance(source, URLSource):
        return part_of(source.media_type, url=str(source.url), name=block.name)
    return part_of(source.media_type, data=source.data, name=block.name)


def parts_of_output(output: str | Sequence[TextBlock | DataBlock]) -> tuple[Content, ...]:
    """What a tool gave back."""
    return (Text(output),) if isinstance(output, str) else tuple(map(part_of_block, output))


def join_base64(fragments: Sequence[str]) -> str:
    """Fragments of base64 text as one.

    A stream encodes each of its chunks for itself, so padding may lie between them, where a plain join would end the
    data. What does not decode was cut from one text and is joined as it is.
    """
    if all(len(fragment) % 4 == 0 and fragment[-1:] != "=" for fragment in fragments[:-1]):
        return "".join(fragments)
    try:
        return b64encode(b"".join(b64decode(fragment, validate=True) for fragment in fragments)).decode()
    except binascii.Error:
        return "".join(fragments)


def tool_name(name: str) -> tuple[str, str | None]:
    """A tool's own name and the label of its MCP server, from the name AgentScope gives it."""
    if name.startswith(MCP_PREFIX):
        label, found, own = name.removeprefix(MCP_PREFIX).partition("__")
        if found and label and own:
            return own, label
    return name, None


def block_of(part: Content, where: str) -> TextBlock | DataBlock:
    """The block for a part of the input; `where` it stands goes into errors. Raises `InvalidRequest`."""
    return _BLOCK_OF[type(part)](part, where)


def parse_data_uri(uri: str) -> tuple[str, str] | None:
    """A data URI's media type and data (base64); none for what is no data URI."""
    if uri[:5].lower() != "data:":
        return None
    head, _, data = uri[5:].partition(",")
    media_type, *parameters = head.split(";")
    if "base64" not in parameters:
        data = b64encode(unquote_to_bytes(data)).decode()
    return media_type, data


def _image(part: Image, where: str) -> DataBlock:
    return _found(part.image_url, "image", f"{where}.image_url")


def _video(part: Video, where: str) -> DataBlock:
    return _found(part.video_url, "video", f"{where}.video_url")


def _audio(part: Audio, where: str) -> DataBlock:
    media_type = f"audio/{_SUBTYPE_OF_FORMAT.get(part.format, part.format)}" if part.format else None
    if part.data[:5].lower() == "data:" or "://" in part.data[:16]:
        return _found(part.data, "audio", f"{where}.data", media_type)
    return _inline(media_type or _DEFAULT_MEDIA_TYPE["audio"], part.data)


def _file(part: File, where: str) -> DataBlock:
    if part.file_url is not None:
        return _found(part.file_url, "file", f"{where}.file_url", name=part.filename)
    if part.file_data is None:
        raise InvalidRequest(
            "a file is taken by file_url or file_data; AgentScope agents cannot look up a file_id",
            field=f"{where}.file_id" if part.file_id is not None else where,
        )
    guessed = mimetypes.guess_type(part.filename or "")[0] or _DEFAULT_MEDIA_TYPE["file"]
    media_type, data = parse_data_uri(part.file_data) or (guessed, part.file_data)
    return _inline(media_type or guessed, data, part.filename)


def _inline(media_type: str, data: str, name: str | None = None) -> DataBlock:
    return DataBlock(source=Base64Source(media_type=media_type, data=data), name=name)


def _found(
    uri: str, kind: str, where: str, media_type: str | None = None, name: str | None = None
) -> DataBlock:
    """The block for what is given as a data URI or a URL."""
    inline = parse_data_uri(uri)
    if inline is not None:
        return _inline(inline[0] or media_type or _DEFAULT_MEDIA_TYPE[kind], inline[1], name)
    try:
        source = URLSource(url=AnyUrl(uri), media_type=media_type or _guess(uri, kind, name))
    except ValidationError as error:
        raise InvalidRequest(f"{uri[:80]!r} is neither a URL nor a data URI", field=where) from error
    if source.url.scheme == "file":
        # AgentScope would open it: a caller could read the server's files.
        raise InvalidRequest(
            "a file:// URL names a file of the server; send its content as a data URI", field=where
        )
    return DataBlock(source=source, name=name)


def _guess(url: str, kind: str, name: str | None) -> str:
    guessed = mimetypes.guess_type(urlsplit(url).path)[0] or mimetypes.guess_type(name or "")[0]
    if guessed is not None and (kind == "file" or guessed.startswith(f"{kind}/")):
        return guessed
    return _DEFAULT_MEDIA_TYPE[kind]


_BLOCK_OF: dict[type, Callable[[Any, str], TextBlock | DataBlock]] = {
    Text: lambda part, _: TextBlock(text=part.text),
    # AgentScope 2.x has no block for a JSON object; models read JSON.
    Data: lambda part, _: TextBlock(text=msgspec.json.encode(part.data).decode()),
    Image: _image,
    Audio: _audio,
    Video: _video,
    File: _file,
    Refusal: lambda part, _: TextBlock(text=part.refusal),
}
