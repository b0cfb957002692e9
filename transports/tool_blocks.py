"""A tool's output as the block list AgentScope's clients know.

Text, images, sound and films are AgentScope's blocks, with their source by URL or as base64; what AgentScope has no
block for (files, objects, refusals) is written as the part it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from msgspec import to_builtins

from greenroom.actors.messages import Audio, Content, Data, Image, Text, Video

_DATA_URI = re.compile(r"data:([^;,]*)[^,]*;base64,", re.ASCII)


def blocks(output: Iterable[Content]) -> list[dict[str, Any]]:
    """The output's parts as blocks, in order."""
    return [_block(part) for part in output]


def _block(part: Content) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Image(url):
            return {"type": "image", "source": _source(url, "image/jpeg")}
        case Video(url):
            return {"type": "video", "source": _source(url, "video/mp4")}
        case Audio(data, sound):
            return {"type": "audio", "source": _sound(data, sound or "wav")}
        case Data(data):
            return {"type": "data", "data": data}
        case _:
            fields: dict[str, Any] = to_builtins(part)
            return {name: value for name, value in fields.items() if value is not None}


def _source(url: str, unsaid: str) -> dict[str, str]:
    if uri := _DATA_URI.match(url):
        return {"type": "base64", "media_type": uri[1] or unsaid, "data": url[uri.end() :]}
    return {"type": "url", "url": url}


def _sound(data: str, sound: str) -> dict[str, str]:
    media_type = sound if "/" in sound else f"audio/{sound}"
    if "://" in data or data.startswith("data:"):
        return _source(data, media_type)
    return {"type": "base64", "media_type": media_type, "data": data}
