"""What tools of the browser say, before it becomes the protocol's answer."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class ToolError(Exception):
    """The tool could not do it; the text is for the model: what, why, what to do."""


@dataclass(frozen=True)
class Picture:
    """An image of a page."""

    media_type: str
    data: bytes


@dataclass(frozen=True)
class Said:
    """What a tool did, in words; what follows (the page's state) is added by who runs it."""

    text: str
    picture: Picture | None = None


def answer(texts: Sequence[str], *, picture: Picture | None = None, is_error: bool = False) -> dict[str, Any]:
    """The protocol's answer. A picture goes first: callers of the official image look for it there."""
    content: list[dict[str, str]] = []
    if picture is not None:
        data = base64.b64encode(picture.data).decode("ascii")
        content.append({"type": "image", "data": data, "mimeType": picture.media_type})
    content.append({"type": "text", "text": "\n".join(text for text in texts if text)})
    return {"meta": None, "content": content, "isError": is_error}


def one_line(text: str, most: int = 200) -> str:
    """Words of a page, made fit for a line of ours."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
