"""What a chat shows of a turn: objects of the `/process` wire go in, pieces of text with a style come out. No I/O."""

from __future__ import annotations

import re
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

Style: TypeAlias = Literal["answer", "reasoning", "tool", "note", "error"]
Ending: TypeAlias = Literal["completed", "failed", "canceled"]

ARGUMENT_CHARS: Final = 200
OUTPUT_CHARS: Final = 400
OUTPUT_LINES: Final = 6

_CALLS: Final = frozenset({"plugin_call", "function_call", "component_call", "mcp_call"})
_OUTPUTS: Final = frozenset({f"{call}_output" for call in _CALLS})
_ENDINGS: Final[dict[str, Ending]] = {
    "completed": "completed",
    "failed": "failed",
    "canceled": "canceled",
    "rejected": "failed",
    "incomplete": "failed",
}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Piece(NamedTuple):
    """Text to show next."""

    style: Style
    text: str


def clean(text: str) -> str:
    """Text that is safe on a terminal: what a model says cannot move the cursor or retitle the window."""
    return _CONTROL.sub("", text)


def shortened(text: str, chars: int, lines: int = 1) -> str:
    """The beginning of a text, and how much is left out."""
    text = clean(text).strip()
    kept = "\n".join(text.splitlines()[:lines])[:chars].rstrip()
    return text if kept == text else f"{kept} … ({len(text) - len(kept)} more characters)"


class ChatView:
    """Shows one turn. `ending` is set by the turn's last object; blocks of one style each end in a line end."""

    __slots__ = ("_block", "_kinds", "_said", "ending", "turn_id")

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self.turn_id: str | None = None
        self._kinds: dict[str, str] = {}
        self._said: dict[tuple[str, int], str] = {}
        self._block: tuple[Style, str] | None = None

    def __repr__(self) -> str:
        return f"<ChatView of {self.turn_id}, {self.ending or 'open'}>"

    def take(self, wire: dict[str, Any]) -> list[Piece]:
        """What to show for an object. Unknown ones show nothing."""
        kind = wire.get("object")
        if kind == "response":
            return self._response(wire)
        if kind == "message":
            return self._message(wire)
        if kind == "content":
            return self._content(wire)
        return self._error(wire) if wire.get("error") else []

    def close(self) -> list[Piece]:
        """End the line that is open."""
        block, self._block = self._block, None
        return [Piece(block[0], "\n")] if block else []

    # -- objects -------------------------------------------------------------------------------------------------

    def _response(self, response: dict[str, Any]) -> list[Piece]:
        self.turn_id = response.get("id") or self.turn_id
        self.ending = _ENDINGS.get(response.get("status", ""))
        if self.ending is None:
            return []
        pieces = self.close()
        if self.ending == "failed":
            pieces += self._error(response)
        elif self.ending == "canceled":
            pieces.append(Piece("note", "(stopped)\n"))
        return pieces

    def _message(self, message: dict[str, Any]) -> list[Piece]:
        message_id = message.get("id", "")
        if message.get("status") in _ENDINGS:
            self._kinds.pop(message_id, None)
            return self.close() if self._block and self._block[1] == message_id else []
        self._kinds[message_id] = message.get("type", "message")
        return []

    def _content(self, content: dict[str, Any]) -> list[Piece]:
        message_id = content.get("msg_id") or ""
        kind = self._kinds.get(message_id, "message")
        if content.get("type") == "text":
            return self._text("reasoning" if kind == "reasoning" else "answer", message_id, content)
        if content.get("status") != "completed":
            return []
        if content.get("type") == "data":
            return self._data(kind, content.get("data") or {})
        if content.get("type") == "refusal":
            return self._in_block("answer", message_id, clean(content.get("refusal") or ""))
        return [*self.close(), Piece("note", f"[{_attachment(content)}]\n")]

    def _text(self, style: Style, message_id: str, content: dict[str, Any]) -> list[Piece]:
        text = content.get("text") or ""
        key = (message_id, content.get("index") or 0)
        said = self._said.get(key, "")
        if content.get("delta"):
            self._said[key] = said + text
            return self._in_block(style, message_id, clean(text))
        if content.get("status") != "completed":
            return []
        self._said.pop(key, None)
        if text.startswith(said):
            return self._in_block(style, message_id, clean(text[len(said) :]))
        return [*self.close(), Piece("note", "(reworded)\n"), *self._in_block(style, message_id, clean(text))]

    def _data(self, kind: str, data: dict[str, Any]) -> list[Piece]:
        name = clean(str(data.get("name") or "a tool"))
        if kind in _CALLS:
            arguments = shortened(str(data.get("arguments") or ""), ARGUMENT_CHARS)
            return [*self.close(), Piece("tool", f"→ {name}({arguments})\n")]
        if kind in _OUTPUTS:
            output = shortened(_output_text(data.get("output")), OUTPUT_CHARS, OUTPUT_LINES)
            return [*self.close(), Piece("tool", f"← {name}: {output or '(nothing)'}\n")]
        whole = msgspec.json.encode(data).decode()
        return [*self.close(), Piece("note", f"[data: {shortened(whole, ARGUMENT_CHARS)}]\n")]

    def _error(self, wire: dict[str, Any]) -> list[Piece]:
        error = wire.get("error")
        if not isinstance(error, dict):
            error = {"message": str(error or "the server did not say why")}
        words = clean(str(error.get("message") or error.get("code")))
        code = clean(str(error.get("code") or ""))
        return [*self.close(), Piece("error", f"failed: {words}" + (f" [{code}]" if code else "") + "\n")]

    def _in_block(self, style: Style, message_id: str, text: str) -> list[Piece]:
        if not text:
            return []
        pieces = self.close() if self._block not in (None, (style, message_id)) else []
        self._block = (style, message_id)
        return [*pieces, Piece(style, text)]


def _output_text(output: Any) -> str:
    """A tool's output, which comes as the JSON of a list of blocks, as text."""
    try:
        blocks = msgspec.json.decode(output) if isinstance(output, str) else output
    except msgspec.DecodeError:
        blocks = output
    if not isinstance(blocks, list):
        return str(blocks if blocks is not None else "")
    return "\n".join(_block_text(block) for block in blocks)


def _block_text(block: Any) -> str:
    if isinstance(block, dict) and isinstance(block.get("text"), str):
        return str(block["text"])
    if isinstance(block, dict) and "type" in block:
        return f"[{block['type']}]"
    return str(block)


def _attachment(content: dict[str, Any]) -> str:
    kind = clean(str(content.get("type") or "something"))
    for name in ("image_url", "video_url", "file_url", "filename", "file_id", "format"):
        value = content.get(name)
        if value:
            value = str(value)
            return (
                f"{kind}: {value.partition(',')[0] if value.startswith('data:') else shortened(value, 200)}"
            )
    return kind
