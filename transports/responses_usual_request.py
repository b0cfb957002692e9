"""What nearly all requests for a response are: read by msgspec alone, typed.

Rule 1: no I/O.
Rule 2: whatever is not usual, or wrong, gives none; what there is to say of it, `responses_decode` knows.
Rule 3: what is read here means the same when it is read there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import msgspec
from msgspec import Struct

from greenroom.actors.messages import Message, Text
from greenroom.transports.json_checks import NESTING
from greenroom.transports.responses_echo import ResponseEcho, ToolDisplay

USUAL_CHARS = 100
"""Names longer than this are looked at more closely."""


class UsualText(Struct, forbid_unknown_fields=True):
    """A part of a message."""

    text: str
    type: Literal["input_text", "output_text", "text"]


class UsualMessage(Struct, forbid_unknown_fields=True):
    """An item of the input."""

    role: Literal["user", "assistant", "system"]
    content: str | list[UsualText]
    type: Literal["message"] | None = None
    id: str | None = None
    status: Literal["completed"] | None = None


class Usual(Struct, forbid_unknown_fields=True):
    """The body."""

    input: str | list[UsualMessage]
    model: str | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None


_decode = msgspec.json.Decoder(Usual).decode


def read_usual(body: bytes) -> Usual | None:
    """The request, if it has nothing unusual about it."""
    if body.count(b"{") + body.count(b"[") > NESTING:
        return None
    try:
        asked = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return asked if _is_plain(asked) else None


def _is_plain(asked: Usual) -> bool:
    """Whether its fields go together, and its names need no closer look."""
    if (not asked.input and asked.input != "") or (asked.background and asked.store is False):
        return False
    names = [asked.model]
    if asked.previous_response_id or asked.session_id or asked.user_id:
        names += (asked.previous_response_id, asked.session_id, asked.user_id)
    if type(asked.input) is list:
        names += [message.id for message in asked.input]
    return all(map(_is_plain_name, filter(None, names)))


def _is_plain_name(name: str) -> bool:
    return len(name) < USUAL_CHARS and name.isascii() and name.isprintable()


def usual_messages(said: str | list[UsualMessage], new_id: Callable[[], str]) -> tuple[Message, ...]:
    """The input as a turn has it."""
    if isinstance(said, str):
        return (Message((Text(said),), "user", "message", _message_id(new_id)),)
    messages = []
    for item in said:
        content = item.content
        texts = (Text(content),) if isinstance(content, str) else tuple([Text(part.text) for part in content])
        messages.append(Message(texts, item.role, "message", item.id or _message_id(new_id)))
    return tuple(messages)


def _message_id(new_id: Callable[[], str]) -> str:
    return f"msg_{new_id().replace('-', '')}"


@lru_cache(maxsize=16)
def usual_echo(
    model: str, label: str, display: ToolDisplay, background: bool, store: bool, stream: bool
) -> ResponseEcho:
    """What such a request is answered with, if it says nothing more: one object for all that are alike."""
    return ResponseEcho(
        model=model, label=label, display=display, background=background, store=store, stream=stream
    )
