"""Content as text: the Responses API has no place in an answer, or in a tool's output, for anything else.

What an answer shows (pictures, files) becomes Markdown, with data in it as a data URI. In a tool's output data that is
no text is only named: clients send outputs back as text, which a model would have to read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from greenroom.actors.messages import Audio, Content, Data, File, Image, Refusal, Text, Video
from greenroom.transports.json_text import encode

_DATA_URI = re.compile(r"data:([^;,]*)[^,]*,", re.ASCII | re.IGNORECASE)


def answer_text(part: Content) -> str:
    """A part of an answer."""
    match part:
        case Text(text):
            return text
        case Refusal(refusal):
            return refusal
        case Data(data):
            return encode(data).decode()
        case Image(url):
            return f"![image]({url})"
        case _:
            name, url = _named(part)
            return f"[{name}]({url})"


def output_text(output: Iterable[Content]) -> str:
    """A tool's output."""
    return "\n".join(map(_told, output))


def _told(part: Content) -> str:
    if isinstance(part, Text | Refusal | Data):
        return answer_text(part)
    name, url = ("image", part.image_url) if isinstance(part, Image) else _named(part)
    if inline := _DATA_URI.match(url):
        return f"[{name}: {inline[1] or 'data'}, {len(url) - inline.end()} characters]"
    return answer_text(part)


def _named(part: Content) -> tuple[str, str]:
    match part:
        case Audio(data, sound):
            return "audio", _uri(data, f"audio/{sound or 'wav'}" if "/" not in (sound or "") else str(sound))
        case Video(url):
            return "video", url
        case File(url, file_id, data, filename):
            where = url or (_uri(data, "application/octet-stream") if data else file_id or "")
            return filename or "file", where
        case _:
            raise TypeError(f"{type(part).__name__} is text already")


def _uri(data: str, media_type: str) -> str:
    if data[:5].lower() == "data:" or "://" in data[:16]:
        return data
    return f"data:{media_type};base64,{data}"
