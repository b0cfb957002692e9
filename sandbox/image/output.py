"""What base tools answer with: the protocol's parts, and output that is kept within bounds."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

Answer = dict[str, Any]
"""`{"meta": None, "content": [part, ...], "isError": bool}`."""

OUTPUT_BYTES: Final = 60_000
"""How much of one output a model gets: half from its beginning, half from its end."""


def answered(content: Sequence[dict[str, Any]], *, is_error: bool) -> Answer:
    """The answer of a tool."""
    return {"meta": None, "content": list(content), "isError": is_error}


def told(text: str) -> Answer:
    """The answer of a tool that could not do what was asked, and says why."""
    return answered([text_part(text)], is_error=True)


def text_part(text: str, description: str | None = None) -> dict[str, Any]:
    """A text; `description`: `stdout`, `stderr`, `returncode`. Half characters, which JSON cannot carry, become `?`."""
    part = {"type": "text", "text": text.encode("utf-8", "replace").decode()}
    return part if description is None else {**part, "description": description}


def image_part(data: bytes, media_type: str) -> dict[str, Any]:
    """A picture."""
    return {"type": "image", "data": base64.b64encode(data).decode(), "mimeType": media_type}


class Kept:
    """Output as it comes: its beginning and its end are kept, and how much was between."""

    def __init__(self, most: int = OUTPUT_BYTES) -> None:
        self._half = most // 2
        self._head = bytearray()
        self._tail = bytearray()
        self.left_out = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        surplus = len(self._tail) - self._half
        if surplus > 0:
            del self._tail[:surplus]
            self.left_out += surplus

    def text(self) -> str:
        """What was kept, and a sentence where something is missing."""
        if not self.left_out:
            return bytes(self._head + self._tail).decode("utf-8", "replace")
        gap = f"\n[… {self.left_out} bytes left out; write long output to a file and read it in parts …]\n"
        return self._head.decode("utf-8", "replace") + gap + self._tail.decode("utf-8", "replace")
