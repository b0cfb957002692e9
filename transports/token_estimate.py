"""How many tokens an input has, about.

The agent's model, and so its tokenizer, is not known here: an agent may use several, and none is a dependency. So this
is an estimate, by rules of thumb that hold for current tokenizers of many languages: four characters of ASCII are a
token, and so is each character of other scripts; a message or call takes four more, for what is around it. A picture
counts as one at high resolution does for OpenAI's models, a file by its size. For English prose it is within some 15%;
code and tables of numbers have more tokens than this says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from greenroom.transports.responses_packed import PACKED, unseal

ASCII_CHARS = 4
AROUND_AN_ITEM = 4
PICTURE = 765
FILE_BYTES = 4
_BASE64_CHARS = 4 / 3

_UNSEEN = frozenset(
    {"id", "status", "type", "role", "call_id", "encrypted_content", "annotations", "logprobs"}
)


def estimated_tokens(items: Iterable[Mapping[str, Any]]) -> int:
    """The tokens of items, each as `input_items` lists them; a compaction counts as what it holds."""
    return sum(_of_item(item) for item in items)


def _of_item(item: Mapping[str, Any]) -> int:
    if item.get("type") == PACKED:
        return sum(AROUND_AN_ITEM + _tokens(held) for held in unseal(item["encrypted_content"], PACKED))
    return AROUND_AN_ITEM + _tokens(item)


def text_tokens(text: str) -> int:
    """The tokens of text."""
    ascii_chars = len(text.encode("ascii", "ignore"))
    return math.ceil(ascii_chars / ASCII_CHARS) + len(text) - ascii_chars


def _tokens(value: object) -> int:
    """What is in a value, however deep. Decoded JSON nests no deeper than its reader allows."""
    if isinstance(value, str):
        return text_tokens(value)
    if isinstance(value, list | tuple):
        return sum(map(_tokens, value))
    if not isinstance(value, Mapping):
        return 1 if value is not None else 0
    if value.get("type") == "input_image":
        return PICTURE
    if value.get("type") == "input_file" and isinstance(data := value.get("file_data"), str):
        return math.ceil(len(data) / _BASE64_CHARS / FILE_BYTES)
    return sum(_tokens(part) for name, part in value.items() if name not in _UNSEEN)
