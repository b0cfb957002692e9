"""Pictures that tools of AgentScope 1.x return, in prompts for models that are not shown them.

For most services AgentScope's formatters write such a picture to a temporary file, at each model call anew, and tell
the model the file's name. Nothing removes the files, and no model can look into them. Inside a turn a formatter that
passes no pictures on (`promote_tool_result_images`) says instead that there was one. Outside of turns AgentScope does
as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentscope.formatter import FormatterBase

from greenroom.actors.frameworks.agentscope1_blocks import MEDIA
from greenroom.actors.scope import current_turn

METHOD = "convert_tool_result_to_string"


def install() -> None:
    """Wrap the formatters' method. Doing it twice is fine."""
    original = vars(FormatterBase).get(METHOD)
    if isinstance(original, staticmethod):
        setattr(FormatterBase, METHOD, _InWords(original.__func__))


class _InWords:
    """The static method, which knows here which formatter it is called on."""

    def __init__(self, convert: Callable[[Any], Any]) -> None:
        self._convert = convert

    def __get__(self, formatter: object, owner: type | None = None) -> Callable[[Any], Any]:
        if formatter is None or current_turn.get() is None:
            return self._convert
        if getattr(formatter, "promote_tool_result_images", False):
            return self._convert
        return self._without_files

    def _without_files(self, output: Any) -> Any:
        return self._convert([_in_words(block) for block in output] if isinstance(output, list) else output)


def _in_words(block: Any) -> Any:
    """The block; data of a picture, sound or film becomes a text that says so."""
    source = block.get("source") if isinstance(block, dict) and block.get("type") in MEDIA else None
    if not isinstance(source, dict) or source.get("type") != "base64":
        return block
    size = len(source.get("data") or "") * 3 // 4000
    kind = source.get("media_type") or block["type"]
    return {"type": "text", "text": f"[{kind}, {size} kB; it was made, but cannot be shown to you]"}
