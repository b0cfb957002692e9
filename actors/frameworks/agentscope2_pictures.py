"""Pictures that tools of AgentScope 2.x return, in prompts for models that take none.

AgentScope's formatters write such a picture to a temporary file, at each model call anew, and tell the model the file's
name. Nothing removes the files, and no model can look into them. Inside a turn the model is told that there was one.
Outside of turns AgentScope does as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from agentscope.formatter import FormatterBase
from agentscope.message import Base64Source

from greenroom.actors.scope import current_turn

METHOD = "_convert_unsupported_data_block_to_string"


def install() -> None:
    """Wrap the formatters' method, where there is one. Doing it twice is fine."""
    original = vars(FormatterBase).get(METHOD)
    if isinstance(original, staticmethod) and not hasattr(original.__func__, "__wrapped__"):
        setattr(FormatterBase, METHOD, staticmethod(_in_words(original.__func__)))


def _in_words(convert: Callable[[Any], str]) -> Callable[[Any], str]:
    @wraps(convert)
    def convert_in_turn(block: Any) -> str:
        if current_turn.get() is None or not isinstance(block.source, Base64Source):
            return convert(block)
        size = len(block.source.data) * 3 // 4000
        return f"[{block.source.media_type}, {size} kB; it was made, but cannot be shown to you]"

    return convert_in_turn
